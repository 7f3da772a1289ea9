"""Periods of generated dates, held against dateutil: another reader of zone files, other month arithmetic.

The generators aim at month ends, at times the clocks skip or repeat, and one millisecond around every border.
"""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple
from zoneinfo import TZPATH, ZoneInfo, available_timezones

from dateutil.relativedelta import relativedelta
from dateutil.tz import resolve_imaginary, tzfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plans.periods import (
    BEHIND_MAX_MS,
    Period,
    Reset,
    month_utc,
    oldest_accepted_ms,
    period_at,
    previous_month,
)
from tests.support.soak import often

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MS, LAST_MS = 0, 4_102_444_799_999  # 1970 to 2099
AIMED_LAST_MS = 2_208_988_800_000
DAY_MS = 86_400_000
ZONES = sorted(available_timezones() - {"localtime", "Factory"})
AIMED = [
    "UTC", "Asia/Kolkata", "Pacific/Chatham", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns",
    "Pacific/Apia", "Pacific/Kanton", "America/Asuncion", "America/Sao_Paulo", "Asia/Beirut", "Asia/Amman",
    "Africa/Monrovia", "Africa/Casablanca", "Europe/Dublin", "Europe/Paris", "America/New_York",
    "Antarctica/Troll", "Asia/Pyongyang", "America/Caracas", "Africa/Cairo", "Atlantic/Azores",
]  # fmt: skip


@cache
def oracle_zone(name: str) -> tzfile:
    """The file `zoneinfo` reads, read by dateutil."""
    for folder in TZPATH:
        if (file := Path(folder, name)).is_file():
            return tzfile(str(file))
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as stream:
        return tzfile(stream)


@cache
def changes_ms(name: str) -> Sequence[int]:
    """When the zone's offset changed from 1970 to 2040, found by halving weeks. This only aims the cases."""
    zone, found = ZoneInfo(name), list[int]()

    def offset(at_ms: int) -> timedelta | None:
        return (EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone).utcoffset()

    for start in range(FIRST_MS, AIMED_LAST_MS, 7 * DAY_MS):
        low, high = start, start + 7 * DAY_MS
        if offset(low) == offset(high):
            continue
        while high - low > 1000:
            middle = (low + high) // 2000 * 1000
            low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
        found.append(high)
    return found


def wall(instant_ms: int, zone: tzfile) -> datetime:
    return (EPOCH + timedelta(milliseconds=instant_ms)).astimezone(zone)


def instant(local: datetime) -> int:
    """The instant of a wall time: skipped times move on by the gap, of repeated ones the first counts."""
    return (resolve_imaginary(local.replace(fold=0)) - EPOCH) // timedelta(milliseconds=1)


def oracle(now_ms: int, reset: Reset, anchor_ms: int, timezone: str) -> Period:
    """The period by listing the borders around now and looking between which two it falls."""
    zone = oracle_zone(timezone)
    first = wall(now_ms, zone) + relativedelta(day=1, hour=0, minute=0, second=0, microsecond=0)
    anchor = first if reset is Reset.CALENDAR else wall(anchor_ms, zone)
    near = round((now_ms - instant(anchor)) / (30.436875 * DAY_MS))
    borders = [instant(anchor + relativedelta(months=k)) for k in range(near - 3, near + 4)]
    if reset is Reset.ANNIVERSARY and abs(near) <= 3:
        borders[3 - near] = anchor_ms
    assert borders == sorted(set(borders))
    at = bisect_right(borders, now_ms)
    return Period(borders[at - 1], borders[at])


class Case(NamedTuple):
    timezone: str
    anchor_ms: int
    now_ms: int


def zones() -> st.SearchStrategy[str]:
    return st.sampled_from(AIMED) | st.sampled_from(ZONES)


def instants() -> st.SearchStrategy[int]:
    return st.integers(FIRST_MS, LAST_MS)


def nearby() -> st.SearchStrategy[int]:
    """Milliseconds around something: right at it, within the hours of a clock change, within days."""
    return st.integers(-2, 2) | st.integers(-5, 5).map(lambda n: n * 1_800_000) | st.integers(-DAY_MS, DAY_MS)


@st.composite
def month_ends(draw: st.DrawFn) -> Case:
    """An anchor on a day many months lack, and now anywhere or close to a day that stands for it."""
    timezone = draw(zones())
    clock = draw(st.sampled_from([(0, 0, 0, 0), (0, 1, 0, 0), (2, 30, 0, 0), (23, 59, 59, 999_000)]))
    year, month = draw(st.integers(1970, 2099)), draw(st.sampled_from([1, 3, 5, 7, 8, 10, 12]))
    anchor = instant(datetime(year, month, draw(st.integers(28, 31)), *clock, tzinfo=oracle_zone(timezone)))
    later = draw(st.integers(1970, 2099)) * 12 + draw(st.integers(0, 11))
    months = relativedelta(months=later - year * 12 - month + 1)
    close = instant(wall(anchor, oracle_zone(timezone)) + months) + draw(nearby())
    return Case(timezone, anchor, draw(instants() | st.just(close)))


@st.composite
def clock_changes(draw: st.DrawFn) -> Case:
    """A change of the clocks, an anchor whose wall time comes back in the middle of it, and now around it."""
    timezone = draw(zones().filter(changes_ms))
    change = draw(st.sampled_from(changes_ms(timezone)))
    before = wall(change - 1, oracle_zone(timezone)).replace(microsecond=0) + timedelta(seconds=1)
    local = before + timedelta(milliseconds=draw(nearby()))
    anchor = instant(local - relativedelta(months=draw(st.integers(-30, 30)))) + draw(st.sampled_from([0, 3_600_000]))
    return Case(timezone, anchor, change + draw(nearby()))


@st.composite
def anything(draw: st.DrawFn) -> Case:
    return Case(draw(zones()), draw(instants()), draw(instants()))


CASES = month_ends() | clock_changes() | anything()


@settings(max_examples=often(1000, 8), deadline=None)
@given(CASES, st.sampled_from(Reset))
@example(Case("Pacific/Apia", 1322690400000, 1325282400000), Reset.ANNIVERSARY)
@example(Case("Pacific/Kanton", 791467200000, 788871600000), Reset.ANNIVERSARY)
@example(Case("America/St_Johns", 0, 1257044400000), Reset.CALENDAR)
def test_a_period_is_the_one_an_independent_calendar_finds(case: Case, reset: Reset) -> None:
    found = period_at(case.now_ms, reset=reset, anchor_ms=case.anchor_ms, timezone=case.timezone)
    assert found == oracle(case.now_ms, reset, case.anchor_ms, case.timezone)


@settings(max_examples=often(600, 8), deadline=None)
@given(CASES, st.sampled_from(Reset))
def test_periods_hold_now_and_touch_without_gap_or_overlap(case: Case, reset: Reset) -> None:
    def at(now_ms: int) -> Period:
        return period_at(now_ms, reset=reset, anchor_ms=case.anchor_ms, timezone=case.timezone)

    period = at(case.now_ms)
    assert period.contains(case.now_ms)
    assert period == at(period.start_ms) == at(period.end_ms - 1)
    assert at(period.end_ms).start_ms == period.end_ms
    assert at(period.start_ms - 1).end_ms == period.start_ms


@settings(max_examples=often(300, 4), deadline=None)
@given(CASES)
def test_an_anchor_always_starts_its_own_period(case: Case) -> None:
    period = period_at(case.anchor_ms, reset=Reset.ANNIVERSARY, anchor_ms=case.anchor_ms, timezone=case.timezone)
    assert period.start_ms == case.anchor_ms


@settings(max_examples=often(300, 4), deadline=None)
@given(CASES, instants())
def test_a_calendar_month_does_not_depend_on_the_anchor(case: Case, other_ms: int) -> None:
    first = period_at(case.now_ms, reset=Reset.CALENDAR, anchor_ms=case.anchor_ms, timezone=case.timezone)
    second = period_at(case.now_ms, reset=Reset.CALENDAR, anchor_ms=other_ms, timezone=case.timezone)
    assert first == second


@given(instants())
def test_an_accepted_timestamp_lies_in_the_current_or_the_previous_utc_month(now_ms: int) -> None:
    """So its dedupe id is still there when the event comes again."""
    oldest_ms = oldest_accepted_ms(now_ms)
    assert now_ms - BEHIND_MAX_MS <= oldest_ms < now_ms
    assert month_utc(oldest_ms) in {month_utc(now_ms), previous_month(month_utc(now_ms))}


@given(instants())
def test_the_month_before_is_the_month_of_the_instant_before_this_one(now_ms: int) -> None:
    first = (EPOCH + timedelta(milliseconds=now_ms)).replace(day=1) - timedelta(days=1)
    assert previous_month(month_utc(now_ms)) == f"{first:%Y%m}"
