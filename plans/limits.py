"""What one event does to one counter: the reference model of `track.lua`.

Units are integers throughout. The same rules stand twice on purpose, here and in the script; the model test
drives both through generated sequences and compares every answer.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from plans.thresholds import crossed

QUANTITY_MAX: Final = 10**12
"""Largest quantity of one event. Meter in a smaller unit rather than beyond it."""

TOTAL_MAX: Final = 2**53 - 1
"""Largest total of one counter: Lua numbers are doubles, exact up to here."""

LIMIT_MAX: Final = 9 * 10**13
"""Largest limit: `limit * 100` must stay an exact double, because marks are compared so."""


class OnLimit(StrEnum):
    """What happens to the units above a limit."""

    OVERAGE = "overage"  # counted, and billed as overage
    BLOCK = "block"  # the event is refused as a whole
    CAP = "cap"  # what fits is counted, the rest is not


@dataclass(frozen=True, slots=True)
class Rule:
    """What one plan (with an organisation's overrides) says of one feature. `limit` None is unlimited."""

    limit: int | None
    on_limit: OnLimit = OnLimit.OVERAGE
    enabled: bool = True


class Verdict(StrEnum):
    """The named outcomes of `decide`. Only COUNTED and CAPPED change the counter."""

    COUNTED = "counted"
    CAPPED = "capped"
    REFUSED = "refused"
    DISABLED = "disabled"
    BAD_QUANTITY = "bad_quantity"
    TOTAL_TOO_LARGE = "total_too_large"


@dataclass(frozen=True, slots=True)
class Decision:
    """The effect of one event: units recorded, the counter after it, overage it accrued, marks crossed."""

    verdict: Verdict
    used: int
    recorded: int = 0
    overage: int = 0
    marks: tuple[int, ...] = ()


def remaining(limit: int | None, used: int) -> int | None:
    """Units left before the limit, never negative; None where there is no limit."""
    return None if limit is None else max(0, limit - used)


def decide(rule: Rule, used: int, quantity: int) -> Decision:
    """Decide one event of `quantity` units against a counter that stands at `used`.

    Overage is the part above the limit in force now, `max(0, after - max(limit, used))`: units that were
    already above an old, lower limit are never charged again.
    """
    if not 1 <= quantity <= QUANTITY_MAX:
        return Decision(Verdict.BAD_QUANTITY, used)
    if not rule.enabled:
        return Decision(Verdict.DISABLED, used)
    recorded = _recorded(rule, used, quantity)
    if recorded == 0:
        return Decision(Verdict.REFUSED, used)
    after = used + recorded
    if after > TOTAL_MAX:
        return Decision(Verdict.TOTAL_TOO_LARGE, used)
    verdict = Verdict.COUNTED if recorded == quantity else Verdict.CAPPED
    overage = 0 if rule.limit is None else max(0, after - max(rule.limit, used))
    return Decision(verdict, after, recorded, overage, crossed(used, after, rule.limit))


def _recorded(rule: Rule, used: int, quantity: int) -> int:
    """How many units of the event the rule lets through: all, none, or under `cap` what fits."""
    if rule.limit is None or rule.on_limit is OnLimit.OVERAGE:
        return quantity
    room = max(0, rule.limit - used)
    if rule.on_limit is OnLimit.CAP:
        return min(quantity, room)
    return quantity if quantity <= room else 0
