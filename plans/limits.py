"""What one event does to one counter: the reference model of `track.lua`.

Units are integers throughout. The same rules stand twice on purpose, here and in the script; the model test
drives both through generated sequences and compares every answer.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from plans.subwindows import SubWindow
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
    """What one plan (with an organisation's overrides) says of one feature. `limit` None is unlimited.

    `credits` is what a unit above the limit costs of them (None: the pool does not pay for it).
    """

    limit: int | None
    on_limit: OnLimit = OnLimit.OVERAGE
    enabled: bool = True
    windows: tuple[SubWindow, ...] = ()
    credits: int | None = None


class Verdict(StrEnum):
    """The named outcomes of `decide`. Only COUNTED and CAPPED change the counter."""

    COUNTED = "counted"
    CAPPED = "capped"
    REFUSED = "refused"
    DISABLED = "disabled"
    BAD_QUANTITY = "bad_quantity"
    TOTAL_TOO_LARGE = "total_too_large"


PLAN_LIMIT: Final = 0
"""What decided: the plan's own limit; n says the n-th of its sub-windows, counted from 1."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The effect of one event: units recorded, the counter after it, overage it accrued, marks crossed, units that
    credits pay for.

    `decided_by` is PLAN_LIMIT or the number of the sub-window that left the least room.
    """

    verdict: Verdict
    used: int
    recorded: int = 0
    overage: int = 0
    marks: tuple[int, ...] = ()
    decided_by: int = PLAN_LIMIT
    credit: int = 0


def remaining(limit: int | None, used: int, held: int = 0) -> int | None:
    """Units left before the limit, less what open holds keep; never negative. None where there is no limit."""
    return None if limit is None else max(0, limit - used - held)


def tightened(policy: OnLimit, asked: OnLimit | None) -> OnLimit:
    """The stricter of a plan's policy and what a caller asks for: overage lets all pass, cap what fits, block all
    or nothing.
    """
    return policy if asked is None else max(policy, asked, key=_STRICTNESS.index)


_STRICTNESS: Final = (OnLimit.OVERAGE, OnLimit.CAP, OnLimit.BLOCK)


def decide(  # noqa: PLR0913 - the law in one place, by name
    rule: Rule,
    used: int,
    quantity: int,
    *,
    held: int = 0,
    mode: OnLimit | None = None,
    windows_used: tuple[int, ...] = (),
    own: int = 0,
    partly: bool = False,
    cover: int = 0,
) -> Decision:
    """Decide one event of `quantity` units against a counter that stands at `used`.

    `held` is what open holds keep, `windows_used` what each of the rule's sub-windows has used, `mode` what the
    caller asks for, `own` the units of a hold that this event settles (no longer in `held`): those always fit, also
    where the feature was taken out of the plan since. `partly` takes what fits where the plan would refuse: leases.
    `cover` is the units that credits can pay for.

    Overage is the part above the limit in force now, `max(0, after - max(limit, used))`, that credits do not pay for:
    units that were already above an old, lower limit are never charged again.
    """
    if not 1 <= quantity <= QUANTITY_MAX:
        return Decision(Verdict.BAD_QUANTITY, used)
    if not rule.enabled and quantity > own:
        return Decision(Verdict.DISABLED, used)
    policy = tightened(rule.on_limit, mode)
    room, decided_by = _room(rule, used, held, policy, windows_used, cover)
    recorded = quantity if room is None or quantity <= max(room, own) else 0
    if recorded == 0 and (partly or policy is OnLimit.CAP):
        recorded = max(room or 0, own)
    if recorded == 0:
        return Decision(Verdict.REFUSED, used, decided_by=decided_by)
    after = used + recorded
    if after > TOTAL_MAX:
        return Decision(Verdict.TOTAL_TOO_LARGE, used)
    verdict = Verdict.COUNTED if recorded == quantity else Verdict.CAPPED
    above = 0 if rule.limit is None else max(0, after - max(rule.limit, used))
    credit = min(above, cover)
    return Decision(verdict, after, recorded, above - credit, crossed(used, after, rule.limit), decided_by, credit)


def _room(
    rule: Rule, used: int, held: int, policy: OnLimit, windows_used: tuple[int, ...], cover: int
) -> tuple[int | None, int]:
    """How many units fit (None: any number), and which limit leaves the least; of equals the first."""
    rooms: list[tuple[int, int]] = []
    if rule.limit is not None and policy is not OnLimit.OVERAGE:
        rooms.append((max(0, max(0, rule.limit - used) + cover - held), PLAN_LIMIT))
    for number, (window, window_used) in enumerate(zip(rule.windows, windows_used, strict=False), 1):
        rooms.append((max(0, window.limit - window_used - held), number))
    return min(rooms) if rooms else (None, PLAN_LIMIT)
