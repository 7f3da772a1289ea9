"""Where a counter will stand at its period's end, and what that means under a plan. Whole units; estimates round up.

Two estimates are made and both are shown, because neither is right for everybody: steady usage goes on as it did all
through the period, usage that changed lately goes on as it did in the last seven days.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from plans.limits import TOTAL_MAX, OnLimit, Rule
from plans.periods import Period

RECENT_MS: Final = 7 * 86_400_000
"""What counts as lately: a whole week, so that working days and weekends have their share."""

BASIS_MIN_MS: Final = 3_600_000
"""An estimate needs an hour to stand on: a minute of a month, drawn out, says nothing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known at `now_ms`: units of the running period, and those of the `recent_ms` before now."""

    used: int
    period: Period
    now_ms: int
    recent: int
    recent_ms: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """Units at the period's end, never less than there are. The two estimates are None where they stand on nothing.

    `low` and `high` are the lower and the higher of the two, `expected` their mean; all are what is used now where
    there is neither.
    """

    by_period: int | None
    by_recent: int | None
    low: int
    expected: int
    high: int


def forecast(seen: Seen) -> Forecast:
    """The period's end as the usage so far lets expect it."""
    elapsed_ms = seen.now_ms - seen.period.start_ms
    left_ms = max(0, seen.period.end_ms - seen.now_ms)
    by_period = by_recent = None
    if elapsed_ms >= BASIS_MIN_MS:
        by_period = _bounded(seen.used + _up(seen.used * left_ms, elapsed_ms), seen.used)
    if seen.recent_ms >= BASIS_MIN_MS:
        by_recent = _bounded(seen.used + _up(seen.recent * left_ms, seen.recent_ms), seen.used)
    known = [one for one in (by_period, by_recent) if one is not None] or [seen.used]
    return Forecast(by_period, by_recent, min(known), _up(sum(known), len(known)), max(known))


def _up(whole: int, parts: int) -> int:
    return -(-whole // parts)


def _bounded(units: int, used: int) -> int:
    return min(max(units, used), max(used, TOTAL_MAX))


class Blocked(StrEnum):
    """Whether events are refused or capped before the period ends."""

    NO = "no"
    NOW = "now"  # nothing more fits
    LATER = "later"  # what is expected does not fit


@dataclass(frozen=True, slots=True)
class Outlook:
    """A counter at its period's end: units counted, overage accrued, and whether something is turned away."""

    used: int
    overage: int
    blocked: Blocked


def outlook(rule: Rule, used: int, overage: int, demand: int, held: int = 0) -> Outlook:
    """Where a counter ends when it is to rise from `used` to `demand` under `rule`.

    Overage that has accrued stays; more accrues for what comes above the limit. Sub-windows and rate limits are left
    out: what they turn away depends on when it comes.
    """
    demand = max(demand, used)
    if not rule.enabled:
        return Outlook(used, overage, Blocked.NOW)
    if rule.limit is None:
        return Outlook(demand, overage, Blocked.NO)
    if rule.on_limit is OnLimit.OVERAGE:
        return Outlook(demand, overage + max(0, demand - max(rule.limit, used)), Blocked.NO)
    fits = max(used, min(demand, rule.limit))
    if used + held >= rule.limit:
        return Outlook(fits, overage, Blocked.NOW)
    return Outlook(fits, overage, Blocked.LATER if demand > rule.limit else Blocked.NO)


def reached_ms(limit: int | None, used: int, demand: int, now_ms: int, end_ms: int) -> int | None:
    """When a counter that rises evenly from `used` now to `demand` at `end_ms` reaches its limit.

    None where it never does, or has already.
    """
    if limit is None or not used < limit <= demand or now_ms >= end_ms:
        return None
    return now_ms + _up((limit - used) * (end_ms - now_ms), demand - used)
