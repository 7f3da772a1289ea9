"""From a payment that failed to an organisation that is overdue, and back.

What is known of an invoice only ever grows: failed, written off, voided, paid, in this order, and the earliest failure.
So events of any order, and repeated ones, end in one state. A failure blocks nobody at once: a time of grace begins
with the first one (https://docs.stripe.com/billing/revenue-recovery/smart-retries tries again for some weeks).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

DAY_MS: Final = 86_400_000

SETTLED_MAX: Final = 24
"""Invoices remembered after they were settled, two years of months: an old word of one of them changes nothing."""


class Word(IntEnum):
    """What was said of an invoice; the higher one holds."""

    FAILED = 0
    UNCOLLECTIBLE = 1  # nobody expects it to be paid; it is owed all the same
    VOIDED = 2
    PAID = 3


class Standing(StrEnum):
    """How an organisation stands with its payments."""

    GOOD = "good"
    GRACE = "grace"
    OVERDUE = "overdue"


@dataclass(frozen=True, slots=True)
class Debt:
    """One invoice. `since_ms` is its first failure, 0 once it is voided or paid."""

    word: Word
    since_ms: int

    @property
    def owed(self) -> bool:
        """Whether it still waits for a payment."""
        return self.word < Word.VOIDED


def told(debts: Mapping[str, Debt], invoice: str, word: Word, at_ms: int) -> dict[str, Debt]:
    """The debts after `word` was said of an invoice at `at_ms`; the settled ones heard of longest ago are forgotten."""
    known = debts.get(invoice)
    word = word if known is None else max(word, known.word)
    since_ms = at_ms if known is None or not known.owed else min(at_ms, known.since_ms)
    debt = Debt(word, since_ms if word < Word.VOIDED else 0)
    after = {**debts, invoice: debt}
    settled = [name for name, one in after.items() if not one.owed]
    forgotten = set(settled[: max(0, len(settled) - SETTLED_MAX)])
    return {name: one for name, one in after.items() if name not in forgotten}


def grace_end_ms(debts: Mapping[str, Debt], grace_days: int) -> int | None:
    """When patience with the oldest unpaid invoice ends; None where nothing is owed."""
    owed = [debt.since_ms for debt in debts.values() if debt.owed]
    return min(owed) + grace_days * DAY_MS if owed else None


def standing(debts: Mapping[str, Debt], now_ms: int, grace_days: int) -> Standing:
    """How things stand at `now_ms`."""
    end_ms = grace_end_ms(debts, grace_days)
    if end_ms is None:
        return Standing.GOOD
    return Standing.GRACE if now_ms < end_ms else Standing.OVERDUE
