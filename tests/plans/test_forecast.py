"""Estimates of a period's end, and what they mean under a rule: by table, and against single events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.forecast import BASIS_MIN_MS, RECENT_MS, Blocked, Forecast, Outlook, Seen, forecast, outlook, reached_ms
from plans.limits import TOTAL_MAX, OnLimit, Rule, Verdict, decide
from plans.periods import Period

DAY = 86_400_000
MONTH = Period(0, 30 * DAY)
OVERAGE, BLOCK, CAP = OnLimit.OVERAGE, OnLimit.BLOCK, OnLimit.CAP


@pytest.mark.parametrize(
    ("used", "now_ms", "recent", "recent_ms", "expected"),
    [
        # ten days in, steady: both say the same
        (100, 10 * DAY, 70, 7 * DAY, Forecast(300, 300, 300, 300, 300)),
        # it has slowed down
        (100, 10 * DAY, 7, 7 * DAY, Forecast(300, 120, 120, 210, 300)),
        # it has picked up; the mean is rounded up
        (100, 10 * DAY, 141, 7 * DAY, Forecast(300, 503, 300, 402, 503)),
        # a new period of an old organisation: only the last days say anything
        (1, BASIS_MIN_MS - 1, 7, 7 * DAY, Forecast(None, 31, 31, 31, 31)),
        # a new organisation: nothing does
        (5, 1000, 5, 1000, Forecast(None, None, 5, 5, 5)),
        # the period is over, or past its end by a clock's error
        (100, 30 * DAY, 70, 7 * DAY, Forecast(100, 100, 100, 100, 100)),
        (100, 31 * DAY, 70, 7 * DAY, Forecast(100, 100, 100, 100, 100)),
        # nothing was used
        (0, 10 * DAY, 0, 7 * DAY, Forecast(0, 0, 0, 0, 0)),
        # more was corrected lately than used
        (50, 10 * DAY, -30, 7 * DAY, Forecast(150, 50, 50, 100, 150)),
    ],
)
def test_the_end_is_estimated_by_the_period_and_by_the_last_days(
    used: int, now_ms: int, recent: int, recent_ms: int, expected: Forecast
) -> None:
    assert forecast(Seen(used, MONTH, now_ms, recent, recent_ms)) == expected


@given(
    st.integers(0, TOTAL_MAX), st.integers(0, 30 * DAY), st.integers(-1000, TOTAL_MAX), st.integers(0, RECENT_MS)
)  # fmt: skip
def test_an_estimate_is_never_below_what_is_used_nor_beyond_what_can_be(
    used: int, now_ms: int, recent: int, recent_ms: int
) -> None:
    found = forecast(Seen(used, MONTH, now_ms, recent, recent_ms))
    assert used <= found.low <= found.expected <= found.high <= TOTAL_MAX
    assert {found.by_period, found.by_recent} - {None} <= {found.low, found.high}


@pytest.mark.parametrize(
    ("rule", "used", "overage", "demand", "held", "expected"),
    [
        (Rule(10), 4, 0, 9, 0, Outlook(9, 0, Blocked.NO)),
        (Rule(10), 4, 0, 25, 0, Outlook(25, 15, Blocked.NO)),
        (Rule(10), 15, 5, 25, 0, Outlook(25, 15, Blocked.NO)),
        # a lower limit charges nothing again, a higher one gives nothing back
        (Rule(2), 15, 5, 25, 0, Outlook(25, 15, Blocked.NO)),
        (Rule(100), 15, 5, 25, 0, Outlook(25, 5, Blocked.NO)),
        (Rule(None), 15, 5, 25, 0, Outlook(25, 5, Blocked.NO)),
        (Rule(None), 15, 0, 3, 0, Outlook(15, 0, Blocked.NO)),
        (Rule(10, BLOCK), 4, 0, 10, 0, Outlook(10, 0, Blocked.NO)),
        (Rule(10, BLOCK), 4, 0, 11, 0, Outlook(10, 0, Blocked.LATER)),
        (Rule(10, CAP), 10, 0, 10, 0, Outlook(10, 0, Blocked.NOW)),
        (Rule(10, BLOCK), 4, 0, 10, 6, Outlook(10, 0, Blocked.NOW)),
        (Rule(10, BLOCK), 15, 5, 25, 0, Outlook(15, 5, Blocked.NOW)),
        (Rule(10, enabled=False), 4, 1, 25, 0, Outlook(4, 1, Blocked.NOW)),
    ],
)
def test_a_rule_says_where_a_counter_ends(
    rule: Rule, used: int, overage: int, demand: int, held: int, expected: Outlook
) -> None:
    assert outlook(rule, used, overage, demand, held) == expected


@given(
    st.builds(Rule, st.none() | st.integers(0, 12), st.sampled_from(OnLimit), st.booleans()),
    st.integers(0, 15),
    st.integers(0, 15),
)
def test_an_outlook_is_what_single_events_come_to(rule: Rule, used: int, more: int) -> None:
    end, overage, refused = used, 0, 0
    for _ in range(more):
        found = decide(rule, end, 1)
        refused += found.verdict not in {Verdict.COUNTED, Verdict.CAPPED}
        end, overage = found.used, overage + found.overage
    seen = outlook(rule, used, 0, used + more)
    assert (seen.used, seen.overage) == (end, overage)
    if refused:
        assert seen.blocked is (Blocked.NOW if end == used else Blocked.LATER)
    elif rule.enabled:
        assert seen.blocked is not Blocked.LATER


@pytest.mark.parametrize(
    ("limit", "used", "demand", "expected"),
    [
        (None, 5, 50, None),
        (10, 0, 9, None),
        (10, 0, 10, 30 * DAY),
        (10, 5, 15, 20 * DAY),
        (10, 10, 50, None),
        (10, 15, 50, None),
        (0, 0, 5, None),
    ],
)
def test_a_limit_is_reached_where_an_even_rise_meets_it(
    limit: int | None, used: int, demand: int, expected: int | None
) -> None:
    assert reached_ms(limit, used, demand, 10 * DAY, 30 * DAY) == expected


def test_no_limit_is_reached_after_the_end() -> None:
    assert reached_ms(10, 5, 15, 30 * DAY, 30 * DAY) is None
