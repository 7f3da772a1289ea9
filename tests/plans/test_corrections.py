"""What corrections do to a counter: a table of cases, and what holds of every one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.corrections import DELTA_MAX, Counter, Refusal, cleared, corrected
from plans.limits import TOTAL_MAX, Rule, decide

CASES = [
    # limit, used, accrued, given back, delta -> used, accrued, given back
    ("taken out below the limit", 10, 5, 0, 0, -2, (3, 0, 0)),
    ("all of it taken out", 10, 5, 0, 0, -5, (0, 0, 0)),
    ("taken out across the limit", 10, 13, 3, 0, -5, (8, 3, 3)),
    ("taken out above the limit", 10, 13, 3, 0, -2, (11, 3, 2)),
    ("taken out down to the limit", 10, 13, 3, 0, -3, (10, 3, 3)),
    ("taken out twice", 10, 11, 3, 2, -2, (9, 3, 3)),
    ("overage of an older, lower limit stays", 40, 13, 3, 0, -5, (8, 3, 0)),
    ("until what stays could not hold it", 40, 13, 3, 0, -12, (1, 3, 2)),
    ("and goes with the last unit", 40, 13, 3, 0, -13, (0, 3, 3)),
    ("a newer, lower limit gives back no more than there is", 5, 13, 3, 0, -4, (9, 3, 3)),
    ("unlimited now, overage before", None, 13, 3, 0, -4, (9, 3, 0)),
    ("unlimited now, all taken out", None, 13, 3, 0, -13, (0, 3, 3)),
    ("put in below the limit", 10, 5, 0, 0, 5, (10, 0, 0)),
    ("put in across the limit", 10, 8, 0, 0, 5, (13, 3, 0)),
    ("put in above the limit", 10, 13, 3, 0, 5, (18, 8, 0)),
    ("put in above a newer, lower limit", 5, 8, 0, 0, 1, (9, 1, 0)),
    ("put in again after giving back", 10, 8, 3, 3, 5, (13, 6, 3)),
    ("put in without a limit", None, 8, 0, 0, 5, (13, 0, 0)),
    ("put in where nothing is included", 0, 0, 0, 0, 5, (5, 5, 0)),
]


@pytest.mark.parametrize(
    ("limit", "used", "accrued", "back", "delta", "after"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_a_correction(
    limit: int | None, used: int, accrued: int, back: int, delta: int, after: tuple[int, int, int]
) -> None:
    assert corrected(limit, Counter(used, accrued, back), delta) == Counter(*after)


def test_more_than_there_is_is_not_taken_out() -> None:
    assert corrected(10, Counter(5), -6) is Refusal.BELOW_ZERO


def test_a_total_stays_exact() -> None:
    assert corrected(None, Counter(TOTAL_MAX - 1), 1) == Counter(TOTAL_MAX)
    assert corrected(None, Counter(TOTAL_MAX), 1) is Refusal.TOTAL_TOO_LARGE


def test_a_reset_keeps_the_units_that_are_billed_unless_they_are_forgiven() -> None:
    counter = Counter(13, accrued=4, given_back=1)
    assert cleared(counter, forgive=False) == Counter(3, 4, 1)
    assert cleared(counter, forgive=True) == Counter(0, 4, 4)


@pytest.mark.parametrize(
    ("limit", "counter", "delta", "cover", "after"),
    [
        (10, Counter(16, 3, 1, 4), -1, 0, Counter(15, 3, 2, 4)),  # overage first
        (10, Counter(16, 3, 1, 4), -4, 0, Counter(12, 3, 3, 2)),  # then what credits paid for
        (10, Counter(16, 3, 1, 4), -8, 0, Counter(8, 3, 3, 0)),  # then what is included
        (40, Counter(16, 3, 1, 4), -8, 0, Counter(8, 3, 1, 4)),  # above an older, lower limit
        (40, Counter(16, 3, 1, 4), -11, 0, Counter(5, 3, 2, 4)),  # until what stays could not hold them
        (None, Counter(16, 3, 1, 4), -13, 0, Counter(3, 3, 3, 3)),
        (10, Counter(9, 0, 0, 0), 5, 3, Counter(14, 1, 0, 3)),
        (10, Counter(9, 0, 0, 0), 5, 9, Counter(14, 0, 0, 4)),
        (None, Counter(9, 0, 0, 0), 5, 9, Counter(14, 0, 0, 0)),
    ],
)
def test_a_correction_of_what_credits_paid_for(
    limit: int | None, counter: Counter, delta: int, cover: int, after: Counter
) -> None:
    assert corrected(limit, counter, delta, cover) == after


def test_a_reset_keeps_what_credits_paid_for_unless_it_is_forgiven() -> None:
    counter = Counter(13, accrued=4, given_back=1, credit=2)
    assert cleared(counter, forgive=False) == Counter(5, 4, 1, 2)
    assert cleared(counter, forgive=True) == Counter(0, 4, 4, 0)


limits = st.none() | st.integers(0, 30)
counters = st.tuples(*[st.integers(0, 60)] * 4).map(
    lambda n: Counter(n[0], min(n[1], n[0]) + n[2], n[2], min(n[3], n[0] - min(n[1], n[0])))
)


@given(limit=limits, counter=counters, delta=st.integers(-60, 60) | st.integers(-DELTA_MAX, DELTA_MAX))
def test_every_correction_keeps_the_laws(limit: int | None, counter: Counter, delta: int) -> None:
    after = corrected(limit, counter, delta)
    if isinstance(after, Refusal):
        assert counter.used + delta < 0
        return
    assert after.used == counter.used + delta
    assert counter.accrued <= after.accrued
    assert counter.given_back <= after.given_back <= after.accrued
    assert after.overage >= 0
    assert after.credit >= 0
    assert after.overage + after.credit <= after.used


@given(limit=limits, used=st.integers(0, 40), quantity=st.integers(1, 40))
def test_a_correction_up_is_what_an_event_would_be_and_one_down_undoes_it(
    limit: int | None, used: int, quantity: int
) -> None:
    made = decide(Rule(limit), used, quantity)
    up = corrected(limit, Counter(used), quantity)
    assert up == Counter(made.used, made.overage)
    assert isinstance(up, Counter)
    assert corrected(limit, up, -quantity) == Counter(used, made.overage, made.overage)
