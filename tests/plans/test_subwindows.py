"""Sub-windows and rate limits: where windows begin, and how many events conform."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.subwindows import ROLLING_PARTS, Per, RateLimit, SubWindow, conforming


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("per", "now", "start"),
    [
        (Per.MINUTE, "2026-02-28T23:59:59", "2026-02-28T23:59:00"),
        (Per.HOUR, "2026-02-28T23:59:59", "2026-02-28T23:00:00"),
        (Per.DAY, "2026-02-28T23:59:59", "2026-02-28T00:00:00"),
        (Per.DAY, "2026-03-01T00:00:00", "2026-03-01T00:00:00"),
        (Per.WEEK, "2026-11-22T23:59:59", "2026-11-16T00:00:00"),  # a Sunday
        (Per.WEEK, "2026-11-23T00:00:00", "2026-11-23T00:00:00"),  # a Monday
        (Per.WEEK, "1970-01-01T00:00:00", "1969-12-29T00:00:00"),
    ],
)
def test_a_fixed_window_begins_at_a_round_instant(per: Per, now: str, start: str) -> None:
    assert SubWindow(1, per).start_ms(instant(now)) == instant(start)


@given(st.sampled_from(Per), st.integers(0, 4 * 10**12))
def test_a_rolling_window_reaches_back_its_length_and_at_most_one_part_more(per: Per, now_ms: int) -> None:
    back = now_ms - SubWindow(1, per, rolling=True).start_ms(now_ms)
    assert per.ms <= back < per.ms + per.ms // ROLLING_PARTS


def test_windows_have_names() -> None:
    assert [SubWindow(1, Per.DAY).name, SubWindow(1, Per.DAY, rolling=True).name] == ["day", "rolling_day"]


def test_a_burst_conforms_and_the_next_event_waits_its_interval() -> None:
    rate = RateLimit(60, Per.MINUTE, burst=3)
    tat, now = 0, 10**9
    for _ in range(3):
        found = conforming(rate, tat, now)
        assert found is not None
        tat = found
    assert conforming(rate, tat, now) is None
    assert conforming(rate, tat, now + rate.interval_us - 1) is None
    assert conforming(rate, tat, now + rate.interval_us) is not None


def test_what_a_slower_rate_left_behind_is_not_waited_for() -> None:
    rate, now = RateLimit(60, Per.MINUTE, burst=3), 10**9
    assert conforming(rate, now + 10**12, now) is None
    assert conforming(rate, now + 10**12, now + rate.interval_us) is None
    full = now + 3 * rate.interval_us
    assert conforming(rate, full, now + rate.interval_us) == full + rate.interval_us


@given(st.lists(st.integers(0, 3_000_000), max_size=60), st.integers(1, 5), st.integers(1, 100))
def test_never_more_than_the_burst_and_the_rate_conform(gaps: list[int], burst: int, events: int) -> None:
    rate = RateLimit(events, Per.MINUTE, burst)
    tat, now, start, taken = 0, 10**9, 10**9, 0
    for gap in gaps:
        now += gap
        found = conforming(rate, tat, now)
        if found is not None:
            tat, taken = found, taken + 1
    assert taken <= burst + (now - start) / rate.interval_us
