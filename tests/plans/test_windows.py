"""Windows of history: hours, days and months of a zone, held against an independent reader of zone files."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plans.periods import Period, TimezoneError
from plans.windows import HOUR_MS, MINUTE_MS, Window, Windows, clipped
from tests.plans.test_periods_oracle import AIMED, changes_ms, instant, instants, nearby, oracle_zone, wall, zones
from tests.support.soak import often

DAY_MS = 24 * HOUR_MS

Case = tuple[str, int]


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@st.composite
def changes(draw: st.DrawFn) -> Case:
    """An instant around a change of the clocks."""
    timezone = draw(zones().filter(changes_ms))
    return timezone, draw(st.sampled_from(changes_ms(timezone))) + draw(nearby())


CASES = changes() | st.tuples(zones(), instants())


def label(instant_ms: int, timezone: str, window: Window) -> tuple[int, ...]:
    """What the wall clock shows, down to the window."""
    local = wall(instant_ms, oracle_zone(timezone))
    return (local.year, local.month, local.day, local.hour, local.minute)[: _PARTS[window]]


_PARTS = {Window.MONTH: 2, Window.DAY: 3, Window.HOUR: 4, Window.MINUTE: 5}


@settings(max_examples=often(600, 8), deadline=None)
@given(CASES, st.sampled_from(Window))
@example(("America/St_Johns", 1257044400000), Window.DAY)
@example(("Pacific/Apia", 1325239200000), Window.DAY)
@example(("Australia/Lord_Howe", 1712415600000), Window.HOUR)
def test_windows_hold_their_instant_and_touch_without_gap_or_overlap(case: Case, window: Window) -> None:
    timezone, now_ms = case
    windows = Windows(window, timezone)
    found = windows.at(now_ms)
    assert found.contains(now_ms)
    assert found == windows.at(found.start_ms) == windows.at(found.end_ms - 1) == Windows(window, timezone).at(now_ms)
    assert windows.at(found.end_ms).start_ms == found.end_ms
    assert windows.at(found.start_ms - 1).end_ms == found.start_ms


@settings(max_examples=often(600, 8), deadline=None)
@given(CASES, st.sampled_from([Window.DAY, Window.MONTH]))
def test_a_day_or_month_begins_at_the_midnight_another_calendar_finds(case: Case, window: Window) -> None:
    timezone, now_ms = case
    found = Windows(window, timezone).at(now_ms)
    for border_ms in (found.start_ms, found.end_ms):
        local = wall(border_ms, oracle_zone(timezone)).replace(tzinfo=None)
        midnight = datetime(local.year, local.month, 1 if window is Window.MONTH else local.day, tzinfo=UTC)
        assert border_ms == instant(midnight.replace(tzinfo=oracle_zone(timezone)))


@settings(max_examples=often(600, 8), deadline=None)
@given(CASES)
def test_an_hour_is_what_the_wall_clock_shows_as_one(case: Case) -> None:
    timezone, now_ms = case
    found = Windows(Window.HOUR, timezone).at(now_ms)
    assert 0 < found.end_ms - found.start_ms <= HOUR_MS
    inside = [at_ms for at_ms in changes_ms(timezone) if found.start_ms < at_ms < found.end_ms]
    if not inside:
        hour = label(now_ms, timezone, Window.HOUR)
        assert label(found.start_ms, timezone, Window.HOUR) == label(found.end_ms - 1, timezone, Window.HOUR) == hour
    cut = [at_ms for at_ms in changes_ms(timezone) if at_ms in {found.start_ms, found.end_ms}]
    assert cut or found.end_ms - found.start_ms == HOUR_MS


@settings(max_examples=often(300, 4), deadline=None)
@given(CASES)
def test_minutes_are_those_of_utc_in_our_time(case: Case) -> None:
    """Offsets with seconds ended in 1972."""
    timezone, now_ms = case
    now_ms = max(now_ms, ms("1973-01-01T00:00:00Z"))
    assert Windows(Window.MINUTE, timezone).at(now_ms).start_ms == now_ms // MINUTE_MS * MINUTE_MS


@settings(max_examples=often(300, 4), deadline=None)
@given(CASES, st.integers(1, 40 * DAY_MS), st.sampled_from([Window.HOUR, Window.DAY, Window.MONTH]))
def test_the_windows_of_a_span_are_exactly_the_span(case: Case, length_ms: int, window: Window) -> None:
    timezone, start_ms = case
    span = Period(start_ms, start_ms + length_ms)
    found = list(Windows(window, timezone).between(span))
    assert (found[0].start_ms, found[-1].end_ms) == (span.start_ms, span.end_ms)
    assert all(one.end_ms == other.start_ms for one, other in pairwise(found))


@pytest.mark.parametrize(
    ("timezone", "at", "window", "start", "hours"),
    [
        ("Europe/Paris", "2024-03-31T12:00:00Z", Window.DAY, "2024-03-30T23:00:00Z", 23),
        ("Europe/Paris", "2024-10-27T12:00:00Z", Window.DAY, "2024-10-26T22:00:00Z", 25),
        ("America/New_York", "2024-03-10T12:00:00Z", Window.DAY, "2024-03-10T05:00:00Z", 23),
        ("Asia/Kolkata", "2024-03-10T12:00:00Z", Window.DAY, "2024-03-09T18:30:00Z", 24),
        ("Asia/Kathmandu", "2024-03-10T12:00:00Z", Window.HOUR, "2024-03-10T11:15:00Z", 1),
        ("Australia/Lord_Howe", "2024-04-06T15:10:00Z", Window.HOUR, "2024-04-06T15:00:00Z", 0.5),
        ("Australia/Lord_Howe", "2024-04-06T14:00:00Z", Window.DAY, "2024-04-06T13:00:00Z", 24.5),
        ("America/Toronto", "1919-03-31T04:35:00Z", Window.DAY, "1919-03-30T05:00:00Z", 24),  # 23:30 became 00:30
        ("Africa/Cairo", "2024-04-26T12:00:00Z", Window.DAY, "2024-04-25T22:00:00Z", 23),
        ("Pacific/Apia", "2011-12-30T09:00:00Z", Window.DAY, "2011-12-29T10:00:00Z", 24),
        ("Pacific/Apia", "2011-12-30T10:00:00Z", Window.DAY, "2011-12-30T10:00:00Z", 24),
        ("Asia/Tokyo", "2024-02-29T14:59:59Z", Window.MONTH, "2024-01-31T15:00:00Z", 29 * 24),
        ("UTC", "2024-02-29T14:59:59Z", Window.HOUR, "2024-02-29T14:00:00Z", 1),
    ],
)
def test_a_window_is_as_long_as_the_zone_says(timezone: str, at: str, window: Window, start: str, hours: float) -> None:
    found = Windows(window, timezone).at(ms(at))
    assert found == Period(ms(start), ms(start) + int(hours * HOUR_MS))


@pytest.mark.parametrize(
    ("timezone", "window", "split"),
    [
        ("Europe/Paris", Window.HOUR, False),
        ("Asia/Kolkata", Window.HOUR, True),
        ("Asia/Kolkata", Window.MONTH, False),
        ("UTC", Window.MINUTE, True),
    ],
)
def test_a_utc_hour_lies_in_one_window_or_in_two(timezone: str, window: Window, split: bool) -> None:
    hour_ms = ms("2024-05-05T10:00:00Z")
    assert Windows(window, timezone).split(Period(hour_ms, hour_ms + HOUR_MS)) is split


def test_a_window_is_cut_to_what_was_asked_for() -> None:
    assert clipped(Period(0, 10), Period(4, 20)) == Period(4, 10)


def test_zones_are_iana_names() -> None:
    with pytest.raises(TimezoneError):
        Windows(Window.DAY, "Mars/Olympus")


def test_every_aimed_zone_has_a_first_and_a_last_window_of_the_year() -> None:
    year = Period(ms("2024-01-01T00:00:00Z"), ms("2025-01-01T00:00:00Z"))
    for timezone in AIMED:
        assert timedelta(days=366) == sum(
            (timedelta(milliseconds=w.end_ms - w.start_ms) for w in Windows(Window.DAY, timezone).between(year)),
            timedelta(),
        )
