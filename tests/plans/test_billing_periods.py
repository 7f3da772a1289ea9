"""A subscription's period moves ours: by literal cases, and by laws that hold whenever we hear of it."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.billing_periods import Alignment, aligned, ended, following, last_counted_ms, monthly
from plans.periods import Period

HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def ms(text: str) -> int:
    """ms since the epoch of an ISO time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def span(start: str, end: str) -> Period:
    return Period(ms(start), ms(end))


JANUARY = span("2031-01-01", "2031-02-01")


@pytest.mark.parametrize(
    ("running", "item", "now", "last", "close", "then"),
    [
        (JANUARY, span("2031-01-17T10:20", "2031-02-17T10:20"), "2031-01-17T10:21", "2031-01-16",
         "2031-01-17T10:20", span("2031-01-17T10:20", "2031-02-17T10:20")),
        (JANUARY, span("2031-01-31T09:00", "2031-02-28T09:00"), "2031-01-31T09:01", None,
         "2031-01-31T09:00", span("2031-01-31T09:00", "2031-02-28T09:00")),
        (span("2032-02-01", "2032-03-01"), span("2032-02-29", "2032-03-29"), "2032-02-29T00:01", None,
         "2032-02-29", span("2032-02-29", "2032-03-29")),
        (JANUARY, span("2031-01-17", "2031-02-17"), "2031-01-17T00:05", "2031-01-17T00:04",
         "2031-01-17T00:04:00.001", span("2031-01-17T00:04:00.001", "2031-02-17")),
        (JANUARY, span("2031-01-17", "2031-02-17"), "2031-01-17T00:05", "2031-01-17T00:05",
         None, span("2031-01-01", "2031-01-17T00:05:00.001")),
        (JANUARY, span("2031-01-17", "2031-02-17"), "2031-01-16T23:59", "2031-01-16",
         None, span("2031-01-01", "2031-01-17")),
        (JANUARY, span("2031-02-17", "2031-03-17"), "2031-01-16", None, None, JANUARY),
        (span("2031-02-01", "2031-03-01"), span("2031-01-17", "2031-02-17"), "2031-02-03", "2031-02-02",
         None, span("2031-02-01", "2031-02-17")),
        (span("2031-01-17", "2031-02-17"), span("2031-01-17", "2031-02-17"), "2031-01-20", "2031-01-19",
         None, span("2031-01-17", "2031-02-17")),
        (span("2031-01-17", "2031-02-17"), span("2031-01-17", "2031-02-20"), "2031-01-20", "2031-01-19",
         None, span("2031-01-17", "2031-02-20")),
        (JANUARY, span("2030-11-17", "2030-12-17"), "2031-01-03", None, None, JANUARY),
        (JANUARY, span("2030-12-03", "2031-01-03"), "2031-01-03", None, None, JANUARY),
        (span("2031-02-17", "2031-03-17"), span("2031-02-17", "2031-03-17"), "2031-02-17T00:01", None,
         None, span("2031-02-17", "2031-03-17")),
        (span("2031-01-17", "2031-02-17"), span("2031-02-17", "2031-03-17"), "2031-02-16T23:59:59", "2031-02-16",
         None, span("2031-01-17", "2031-02-17")),
        (span("2031-01-17", "2031-02-17"), span("2031-01-25", "2031-02-25"), "2031-01-25T01:00", "2031-01-24",
         "2031-01-25", span("2031-01-25", "2031-02-25")),
        (JANUARY, span("2031-01-17", "2032-01-17"), "2031-01-17T00:05", None,
         "2031-01-17", span("2031-01-17", "2032-01-17")),
        (span("2031-01-17", "2031-02-17"), span("2031-01-17", "2031-01-20"), "2031-01-19T23:59", "2031-01-20",
         None, span("2031-01-17", "2031-01-20T00:00:00.001")),
    ],
    ids=[
        "the first subscription, on the 17th", "on the 31st", "on a leap day", "something was counted after its start",
        "something was counted this very millisecond", "it begins in a minute by our clock", "it begins next month",
        "heard of after our own roll", "told twice", "its end moved", "its end is long past", "its end is now",
        "a renewal after our own roll", "a renewal before our own roll", "a second one after a cancel",
        "an item of a year", "its end lies before what is counted",
    ],
)  # fmt: skip
def test_an_item_moves_the_running_period(
    running: Period, item: Period, now: str, last: str | None, close: str | None, then: Period
) -> None:
    found = aligned(running, item, ms(now), None if last is None else ms(last))
    assert found == Alignment(None if close is None else ms(close), then)


instants = st.integers(0, 90 * DAY_MS)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Period, Period, int, int | None]:
    """A running period that holds now, an item, and what was counted: never after now but for a little."""
    start, length, item_start, item_length = draw(st.tuples(instants, instants, instants, instants))
    running = Period(start, start + length + 1)
    now = draw(st.integers(running.start_ms, running.end_ms - 1))
    last = draw(st.none() | st.integers(running.start_ms, now))
    return running, Period(item_start, item_start + item_length + 1), now, last


@given(cases())
def test_periods_stay_contiguous_and_half_open_and_nothing_counted_changes_sides(
    case: tuple[Period, Period, int, int | None],
) -> None:
    running, item, now, last = case
    found = aligned(running, item, now, last)
    closed_ms = running.start_ms if found.close_ms is None else found.close_ms
    assert found.period.start_ms == closed_ms >= running.start_ms
    assert found.period.start_ms < found.period.end_ms
    if found.close_ms is not None:
        assert running.start_ms < found.close_ms <= now
    assert found.period.contains(now) or found.period.end_ms == running.end_ms
    if last is not None:
        assert last < found.period.end_ms
        assert found.close_ms is None or last < found.close_ms


@given(cases(), st.integers(0, DAY_MS))
def test_an_item_told_again_changes_nothing(case: tuple[Period, Period, int, int | None], later: int) -> None:
    running, item, now, last = case
    once = aligned(running, item, now, last)
    after = now if not once.period.contains(now + later) else now + later
    rest = None if once.close_ms is not None else last
    assert aligned(once.period, item, after, rest).period == once.period


@pytest.mark.parametrize(
    ("end", "now", "last", "close", "then"),
    [
        ("2031-01-20", "2031-01-20T00:01", "2031-01-19", "2031-01-20", span("2031-01-20", "2031-02-17")),
        ("2031-01-20", "2031-01-20T00:01", "2031-01-20T00:00:30",
         "2031-01-20T00:00:30.001", span("2031-01-20T00:00:30.001", "2031-02-17")),
        ("2031-01-20", "2031-01-20T00:01", "2031-01-20T00:01", None, span("2031-01-17", "2031-01-20T00:01:00.001")),
        ("2031-01-20", "2031-01-19T23:59", "2031-01-19", None, span("2031-01-17", "2031-01-20")),
        ("2031-01-17", "2031-01-20", "2031-01-19", None, span("2031-01-17", "2031-02-17")),
        ("2031-01-03", "2031-01-20", "2031-01-19", None, span("2031-01-17", "2031-02-17")),
        ("2031-02-17", "2031-01-20", "2031-01-19", None, span("2031-01-17", "2031-02-17")),
        ("2031-03-17", "2031-01-20", "2031-01-19", None, span("2031-01-17", "2031-02-17")),
    ],
    ids=[
        "it ended", "something was counted since", "something was counted this very millisecond",
        "it ends in a minute by our clock", "with the period before", "long ago", "with the period", "after it",
    ],
)  # fmt: skip
def test_the_end_of_a_subscription_closes_the_running_period_and_leaves_the_next_reset_where_it_was(
    end: str, now: str, last: str, close: str | None, then: Period
) -> None:
    found = ended(span("2031-01-17", "2031-02-17"), ms(end), ms(now), ms(last))
    assert found == Alignment(None if close is None else ms(close), then)


@given(cases(), st.integers(0, DAY_MS))
def test_an_end_told_again_changes_nothing(case: tuple[Period, Period, int, int | None], later: int) -> None:
    running, item, now, last = case
    once = ended(running, item.start_ms, now, last)
    after = now if not once.period.contains(now + later) else now + later
    assert once.period.end_ms <= running.end_ms or once.period.end_ms == (last or 0) + 1
    rest = None if once.close_ms is not None else last
    assert ended(once.period, item.start_ms, after, rest).period == once.period


@pytest.mark.parametrize(
    ("anchor", "borders"),
    [
        ("2031-01-17T10:20", ["2031-02-17T10:20", "2031-03-17T10:20", "2031-04-17T10:20"]),
        ("2031-01-31", ["2031-02-28", "2031-03-31", "2031-04-30", "2031-05-31"]),
        ("2032-02-29", ["2032-03-29", "2032-04-29"]),
        ("2030-12-31", ["2031-12-31", "2032-01-31", "2032-02-29", "2032-03-31"]),
    ],
)
def test_our_own_clock_goes_on_by_the_month_of_the_anchor(anchor: str, borders: list[str]) -> None:
    running = Period(ms(anchor), ms(borders[0]))
    for start, end in pairwise(borders):
        running = following(running, ms(start), ms(anchor))
        assert running == span(start, end)


def test_after_a_long_silence_the_period_is_the_one_that_holds_now() -> None:
    running = span("2031-01-17", "2031-02-17")
    assert following(running, ms("2031-06-20"), ms("2031-01-17")) == span("2031-06-17", "2031-07-17")


@pytest.mark.parametrize(
    ("item", "now", "expected"),
    [
        (span("2031-01-17", "2031-02-17"), "2031-01-20", span("2031-01-17", "2031-02-17")),
        (span("2031-01-17", "2032-01-17"), "2031-05-20", span("2031-05-17", "2031-06-17")),
        (span("2031-01-31", "2032-01-31"), "2031-02-28", span("2031-02-28", "2031-03-31")),
        (span("2031-01-17", "2031-03-01"), "2031-02-20", span("2031-02-17", "2031-03-01")),
        (span("2031-01-17", "2032-01-17"), "2032-05-20", span("2031-01-17", "2032-01-17")),
    ],
    ids=["a month", "a year", "a year from the 31st", "six weeks", "a year that is over"],
)
def test_what_a_longer_item_includes_it_includes_every_month(item: Period, now: str, expected: Period) -> None:
    assert monthly(item, ms(now)) == expected


def test_history_may_have_begun_the_next_hour_five_minutes_early() -> None:
    assert last_counted_ms(HOUR_MS - 300_001) == HOUR_MS - 300_001
    assert last_counted_ms(HOUR_MS - 300_000) == HOUR_MS
    assert last_counted_ms(HOUR_MS) == HOUR_MS
