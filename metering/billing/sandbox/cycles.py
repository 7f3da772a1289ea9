"""When the periods of a subscription item begin and end. Instants are seconds since the epoch, UTC.

Every border is counted from the anchor, so that an anchor on the 31st comes back to the 31st after a short month
(https://docs.stripe.com/billing/subscriptions/billing-cycle).
"""

from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

DAY_S: Final = 86_400
_DAYS: Final = {"day": 1, "week": 7}
_MONTHS: Final = {"month": 1, "year": 12}


@dataclass(frozen=True, slots=True)
class Cycle:
    """How often an item is billed: every `count` of `interval` (`day`, `week`, `month` or `year`)."""

    interval: str
    count: int = 1

    @classmethod
    def of(cls, price: Mapping[str, Any]) -> "Cycle":
        """That of a recurring price."""
        return cls(price["recurring"]["interval"], price["recurring"]["interval_count"])


@dataclass(frozen=True, slots=True)
class Anchor:
    """The instant that the borders are counted from. `day` is the wanted day of the month, where its month has none."""

    at_s: int
    day: int

    @classmethod
    def of(cls, subscription: Mapping[str, Any]) -> "Anchor":
        """That of a subscription."""
        at_s = subscription["billing_cycle_anchor"]
        config = subscription.get("billing_cycle_anchor_config") or {}
        return cls(at_s, config.get("day_of_month") or _date(at_s).day)


def border(anchor: Anchor, cycle: Cycle, number: int) -> int:
    """The start of period `number`; number 0 starts at the anchor."""
    if cycle.interval in _DAYS:
        return anchor.at_s + number * cycle.count * _DAYS[cycle.interval] * DAY_S
    return _months_on(anchor, number * cycle.count * _MONTHS[cycle.interval])


def period_at(anchor: Anchor, cycle: Cycle, at_s: int) -> tuple[int, int]:
    """The period [start, end) that holds an instant, before the anchor too."""
    number = (at_s - anchor.at_s) // (cycle.count * _shortest(cycle))
    while border(anchor, cycle, number) > at_s:
        number -= 1
    while border(anchor, cycle, number + 1) <= at_s:
        number += 1
    return border(anchor, cycle, number), border(anchor, cycle, number + 1)


def next_anchor(config: Mapping[str, int], now_s: int) -> int:
    """The first instant after now that has this day of the month and, where given, month, hour, minute and second.

    What is not given is as it is now (https://docs.stripe.com/api/subscriptions/create, billing_cycle_anchor_config).
    """
    now = _date(now_s)
    clock = {unit: int(config.get(unit, getattr(now, unit))) for unit in ("hour", "minute", "second")}
    year, month = now.year, now.month
    while True:
        day = min(int(config["day_of_month"]), monthrange(year, month)[1])
        found = int(datetime(year, month, day, tzinfo=UTC, **clock).timestamp())
        if found > now_s and int(config.get("month", month)) == month:
            return found
        year, month = (year, month + 1) if month < _MONTHS["year"] else (year + 1, 1)


def _months_on(anchor: Anchor, months: int) -> int:
    """The anchor's time of day that many months on, on the last day of a month that is too short."""
    start = _date(anchor.at_s)
    year, month0 = divmod(start.year * 12 + start.month - 1 + months, 12)
    day = min(anchor.day, monthrange(year, month0 + 1)[1])
    return int(start.replace(year=year, month=month0 + 1, day=day).timestamp())


def _shortest(cycle: Cycle) -> int:
    """Seconds that one interval has at least; a guess from there is never too small a number."""
    return DAY_S * (_DAYS.get(cycle.interval) or 28 * _MONTHS[cycle.interval])


def _date(at_s: int) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)
