"""Which billing period holds an instant, and which timestamps an event may carry.

Every border is computed from the anchor, never from the border before it, so that an anchor on the 31st comes
back to the 31st after February. Instants are ms since the epoch (UTC); zones are IANA names.
"""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

AHEAD_MAX_MS: Final = 5 * 60_000
"""How far ahead of now a timestamp may be: the same five minutes a Stripe meter event may be."""

BEHIND_MAX_MS: Final = 35 * 86_400_000
"""How far behind now a timestamp may be: the same 35 days a Stripe meter event may be."""

INSTANT_MIN_MS: Final = -2_208_988_800_000
INSTANT_MAX_MS: Final = 250_000_000_000_000
"""Instants outside [1900, year 9892] are refused, so that no border leaves the range of `datetime`."""

_MS: Final = timedelta(milliseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YYYYMM: Final = re.compile(r"[1-9][0-9]{3}(0[1-9]|1[0-2])")
_ZONE_NAME: Final = re.compile(r"(?!posix/|right/)[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
_MACHINE_ZONES: Final = frozenset({"Factory", "localtime", "posixrules"})


class TimezoneError(ValueError):
    """The name is not an IANA time zone that means the same on every machine."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown time zone {name[:80]!r}; give an IANA name such as 'Europe/Paris'")


class InstantError(ValueError):
    """The instant is outside [INSTANT_MIN_MS, INSTANT_MAX_MS]: most often not milliseconds at all."""

    def __init__(self, instant_ms: int) -> None:
        super().__init__(f"instant {instant_ms} is out of range; give milliseconds since 1970-01-01 UTC")


class Reset(StrEnum):
    """When a counter starts again at zero."""

    CALENDAR = "calendar"  # at local midnight of the 1st
    ANNIVERSARY = "anniversary"  # at the anchor's day and time of day


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open span [start_ms, end_ms) in ms since the epoch, UTC."""

    start_ms: int
    end_ms: int

    def contains(self, instant_ms: int) -> bool:
        """Whether the instant belongs here: the start does, the end does not."""
        return self.start_ms <= instant_ms < self.end_ms


def zone_known(name: str) -> bool:
    """Whether `period_at` takes the name as a time zone. Case counts."""
    try:
        zone_of(name)
    except TimezoneError:
        return False
    return True


def period_at(now_ms: int, *, reset: Reset, anchor_ms: int, timezone: str = "UTC") -> Period:
    """The period that holds `now_ms`; the periods of one anchor are contiguous and never empty.

    CALENDAR: from local midnight of the 1st; the anchor is not looked at. ANNIVERSARY: month k starts at the
    anchor's local wall time with the month moved by k and the day clamped to that month's length.

    A local time that the clocks skip is taken with the offset before the change: it moves later by what was
    skipped, so a skipped midnight is the first instant of its day. A local time that comes twice means the
    first of the two, but in the anchor's own month, which starts at the anchor itself.

    Raises TimezoneError and InstantError.
    """
    zone = zone_of(timezone)
    now = local_time(now_ms, zone)
    anchor = datetime(1970, 1, 1, tzinfo=zone) if reset is Reset.CALENDAR else local_time(anchor_ms, zone)
    return _period(now_ms, _month_number(now), anchor)


def month_utc(instant_ms: int) -> str:
    """The UTC calendar month of an instant, as "yyyymm". Raises InstantError."""
    return f"{local_time(instant_ms, UTC):%Y%m}"


def month_span_utc(instant_ms: int) -> Period:
    """The UTC calendar month that holds an instant. Raises InstantError."""
    return period_at(instant_ms, reset=Reset.CALENDAR, anchor_ms=0)


def month_end_utc(month: str) -> int:
    """The instant (ms) at which a UTC calendar month, as "yyyymm", is over. Raises ValueError for anything else."""
    if not _YYYYMM.fullmatch(month):
        raise ValueError(f"{month[:80]!r} is not a month; give yyyymm, such as '202402'")
    return month_span_utc((datetime(int(month[:4]), int(month[4:]), 1, tzinfo=UTC) - _EPOCH) // _MS).end_ms


def previous_month(month: str) -> str:
    """The month before, both as "yyyymm". Raises ValueError for anything else."""
    if not _YYYYMM.fullmatch(month):
        raise ValueError(f"{month[:80]!r} is not a month; give yyyymm, such as '202402'")
    year, month0 = divmod(int(month[:4]) * 12 + int(month[4:]) - 2, 12)
    return f"{year}{month0 + 1:02}"


def oldest_accepted_ms(now_ms: int) -> int:
    """The oldest timestamp an event received at `now_ms` may carry (the newest: now + AHEAD_MAX_MS).

    The later of now - 35 days and the start of the previous UTC month + 5 minutes: dedupe ids are kept for
    the current and the previous UTC month, so what can still be accepted can still be known as a repeat.
    """
    previous = month_span_utc(month_span_utc(now_ms).start_ms - 1)
    return max(now_ms - BEHIND_MAX_MS, previous.start_ms + AHEAD_MAX_MS)


def _period(now_ms: int, month: int, anchor: datetime) -> Period:
    """The period of `anchor` that holds now, from now's own local month: at most two steps away.

    One step back where the month's border is still to come, another where a skipped day moved the border before
    it (Kanton had no 31 December 1994); one step on where clocks were set back across a border that had passed
    (St. John's at 00:01 on 1 November 2009).
    """
    while now_ms < _border_ms(anchor, month):
        month -= 1
    while now_ms >= _border_ms(anchor, month + 1):
        month += 1
    return Period(_border_ms(anchor, month), _border_ms(anchor, month + 1))


def _border_ms(anchor: datetime, month_number: int) -> int:
    """The instant at which the period of this month starts, by the rule `period_at` states."""
    year, month0 = divmod(month_number, 12)
    day = min(anchor.day, monthrange(year, month0 + 1)[1])
    fold = anchor.fold if month_number == _month_number(anchor) else 0
    return instant_of(anchor.replace(year=year, month=month0 + 1, day=day, fold=fold))


def instant_of(local: datetime) -> int:
    """The instant of a wall time with its zone; one that the clocks skip is taken with the offset before the change."""
    return (local - _EPOCH) // _MS


def _month_number(local: datetime) -> int:
    """Months since year 0, so that neighbours differ by one across a year's end too."""
    return local.year * 12 + local.month - 1


def local_time(instant_ms: int, zone: tzinfo) -> datetime:
    """The wall time of an instant, exact to the ms (a float of seconds would not be). Raises InstantError."""
    if not INSTANT_MIN_MS <= instant_ms <= INSTANT_MAX_MS:
        raise InstantError(instant_ms)
    return (_EPOCH + instant_ms * _MS).astimezone(zone)


@lru_cache(maxsize=1024)  # more than there are zones, so bad names (never cached) cannot push good ones out
def zone_of(name: str) -> ZoneInfo:
    """The zone of that name. Raises TimezoneError.

    The pattern keeps paths, leap-second zones and machine-local names out.
    """
    if name in _MACHINE_ZONES or not _ZONE_NAME.fullmatch(name):
        raise TimezoneError(name)
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # not there; no zone file; a folder, or too long
        raise TimezoneError(name) from error
