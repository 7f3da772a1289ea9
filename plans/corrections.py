"""What a correction does to one counter: the reference that `adjust.lua` repeats.

Overage accrues and is never edited: a second total, which only grows too, holds what corrections gave back of it. What
is billed is the difference.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from plans.limits import TOTAL_MAX

DELTA_MAX: Final = 10**12
"""Largest correction, in units: as much as one event may hold."""


@dataclass(frozen=True, slots=True)
class Counter:
    """One feature's counter in one period: units used, overage accrued and what was given back of it."""

    used: int
    accrued: int = 0
    given_back: int = 0

    @property
    def overage(self) -> int:
        """What is billed: the overage accrued less what was given back."""
        return self.accrued - self.given_back


class Refusal(StrEnum):
    """Why a correction is not made. Nothing changes then."""

    BELOW_ZERO = "below_zero"
    TOTAL_TOO_LARGE = "total_too_large"


def corrected(limit: int | None, counter: Counter, delta: int) -> Counter | Refusal:
    """The counter after `delta` units (negative: taken out). `limit` None is unlimited.

    Units taken out give back the overage they had caused: the part of them above the limit, or above what stays
    where that is more; never more than there is, and so much that what stays holds the overage that stays. Units put
    in count above any limit, and are overage as an event's would be.
    """
    after = counter.used + delta
    if after < 0:
        return Refusal.BELOW_ZERO
    if after > TOTAL_MAX:
        return Refusal.TOTAL_TOO_LARGE
    if delta > 0:
        more = 0 if limit is None else max(0, after - max(limit, counter.used))
        return Counter(after, counter.accrued + more, counter.given_back)
    caused = 0 if limit is None else counter.used - max(limit, after)
    back = max(0, min(counter.overage, caused), counter.overage - after)
    return Counter(after, counter.accrued, counter.given_back + back)


def cleared(counter: Counter, *, forgive: bool) -> Counter:
    """The counter after a reset: at zero with `forgive`, which gives all overage back.

    Without it the units that are overage stay counted, because they stay billed: what was included becomes zero.
    """
    if forgive:
        return Counter(0, counter.accrued, counter.accrued)
    return Counter(counter.overage, counter.accrued, counter.given_back)
