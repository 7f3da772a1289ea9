"""One event against one counter, held against an oracle that counts unit by unit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.limits import (
    LIMIT_MAX,
    QUANTITY_MAX,
    TOTAL_MAX,
    Decision,
    OnLimit,
    Rule,
    Verdict,
    decide,
    remaining,
)
from plans.thresholds import crossed

OVERAGE, BLOCK, CAP = OnLimit.OVERAGE, OnLimit.BLOCK, OnLimit.CAP
ALL_MARKS = (75, 80, 90, 100)


def one_by_one(rule: Rule, used: int, quantity: int) -> tuple[int, int]:
    """(recorded, overage) of an event whose units arrive one at a time."""
    recorded = overage = 0
    for _ in range(quantity):
        over = rule.limit is not None and used + recorded >= rule.limit
        if over and rule.on_limit is BLOCK:
            return 0, 0
        if over and rule.on_limit is CAP:
            break
        recorded += 1
        overage += over
    return recorded, overage


@pytest.mark.parametrize(
    ("limit", "on_limit", "used", "quantity", "decision"),
    [
        (10, OVERAGE, 0, 5, Decision(Verdict.COUNTED, 5, 5)),
        (10, OVERAGE, 5, 5, Decision(Verdict.COUNTED, 10, 5, 0, ALL_MARKS)),
        (10, OVERAGE, 10, 1, Decision(Verdict.COUNTED, 11, 1, 1)),
        (10, OVERAGE, 8, 5, Decision(Verdict.COUNTED, 13, 5, 3, (90, 100))),
        (0, OVERAGE, 0, 3, Decision(Verdict.COUNTED, 3, 3, 3)),
        (10, OVERAGE, 20, 2, Decision(Verdict.COUNTED, 22, 2, 2)),
        (10, BLOCK, 5, 5, Decision(Verdict.COUNTED, 10, 5, 0, ALL_MARKS)),
        (10, BLOCK, 5, 6, Decision(Verdict.REFUSED, 5)),
        (10, BLOCK, 10, 1, Decision(Verdict.REFUSED, 10)),
        (10, BLOCK, 20, 1, Decision(Verdict.REFUSED, 20)),
        (10, CAP, 5, 6, Decision(Verdict.CAPPED, 10, 5, 0, ALL_MARKS)),
        (10, CAP, 10, 1, Decision(Verdict.REFUSED, 10)),
        (10, CAP, 20, 1, Decision(Verdict.REFUSED, 20)),
        (None, BLOCK, 10**9, 7, Decision(Verdict.COUNTED, 10**9 + 7, 7)),
        (None, CAP, 0, QUANTITY_MAX, Decision(Verdict.COUNTED, QUANTITY_MAX, QUANTITY_MAX)),
        (None, OVERAGE, TOTAL_MAX - 1, 1, Decision(Verdict.COUNTED, TOTAL_MAX, 1)),
        (None, OVERAGE, TOTAL_MAX, 1, Decision(Verdict.TOTAL_TOO_LARGE, TOTAL_MAX)),
        (10, OVERAGE, TOTAL_MAX, 1, Decision(Verdict.TOTAL_TOO_LARGE, TOTAL_MAX)),
        (10, BLOCK, TOTAL_MAX, 1, Decision(Verdict.REFUSED, TOTAL_MAX)),
        (LIMIT_MAX, CAP, LIMIT_MAX - 1, 2, Decision(Verdict.CAPPED, LIMIT_MAX, 1, 0, (100,))),
    ],
)
def test_an_event_does_this_to_the_counter(
    limit: int | None, on_limit: OnLimit, used: int, quantity: int, decision: Decision
) -> None:
    assert decide(Rule(limit, on_limit), used, quantity) == decision


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("quantity", [0, -1, QUANTITY_MAX + 1])
def test_a_quantity_outside_its_range_changes_nothing(quantity: int, enabled: bool) -> None:
    assert decide(Rule(None, enabled=enabled), 3, quantity) == Decision(Verdict.BAD_QUANTITY, 3)


@pytest.mark.parametrize("limit", [None, 0, 10])
@pytest.mark.parametrize("on_limit", OnLimit)
def test_a_feature_that_is_off_counts_nothing(limit: int | None, on_limit: OnLimit) -> None:
    assert decide(Rule(limit, on_limit, enabled=False), 3, 1) == Decision(Verdict.DISABLED, 3)


@pytest.mark.parametrize(("quantity", "verdict"), [(3, Verdict.COUNTED), (4, Verdict.COUNTED), (5, Verdict.DISABLED)])
def test_units_of_a_hold_count_though_the_feature_is_off_by_now(quantity: int, verdict: Verdict) -> None:
    assert decide(Rule(10, BLOCK, enabled=False), 3, quantity, own=4).verdict is verdict


@pytest.mark.parametrize("on_limit", OnLimit)
@pytest.mark.parametrize(("used", "recorded"), [(0, 5), (5, 5), (7, 3), (9, 1), (10, 0), (12, 0)])
def test_what_may_be_taken_partly_takes_what_fits(on_limit: OnLimit, used: int, recorded: int) -> None:
    decision = decide(Rule(10, on_limit), used, 5, partly=True)
    assert decision.recorded == (5 if on_limit is OVERAGE else recorded)


def test_the_mode_without_a_word_is_overage() -> None:
    assert Rule(10).on_limit is OVERAGE


@given(st.data(), st.none() | st.integers(0, 40), st.sampled_from(OnLimit))
def test_an_event_counts_as_its_units_would_one_by_one(
    data: st.DataObject, limit: int | None, on_limit: OnLimit
) -> None:
    border = st.integers(max(0, (limit or 0) - 1), (limit or 0) + 1)
    used = data.draw(border | st.integers(0, 60), "used")
    quantity = data.draw(st.integers(1, 3) | st.integers(1, 60), "quantity")
    decision = decide(Rule(limit, on_limit), used, quantity)
    assert (decision.recorded, decision.overage) == one_by_one(Rule(limit, on_limit), used, quantity)
    assert decision.used == used + decision.recorded
    assert decision.marks == crossed(used, decision.used, limit)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 15)), max_size=20), st.sampled_from(OnLimit))
def test_overage_is_never_charged_twice_when_the_limit_moves(steps: list[tuple[int, int]], on_limit: OnLimit) -> None:
    used = overage = 0
    for limit, quantity in steps:
        decision = decide(Rule(limit, on_limit), used, quantity)
        assert 0 <= decision.overage <= decision.recorded <= quantity
        used, overage = decision.used, overage + decision.overage
    assert overage <= used


@pytest.mark.parametrize(
    ("limit", "used", "left"),
    [(10, 0, 10), (10, 9, 1), (10, 10, 0), (10, 11, 0), (0, 0, 0), (None, 5, None)],
)
def test_what_remains_is_never_negative(limit: int | None, used: int, left: int | None) -> None:
    assert remaining(limit, used) == left
