"""The marks: each is crossed once, by the step that reaches it."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.limits import LIMIT_MAX, TOTAL_MAX
from plans.thresholds import MARKS, crossed


@pytest.mark.parametrize(
    ("used_before", "used_after", "limit", "marks"),
    [
        (0, 7, 10, ()),
        (7, 8, 10, (75, 80)),
        (8, 8, 10, ()),
        (8, 9, 10, (90,)),
        (9, 10, 10, (100,)),
        (10, 11, 10, ()),
        (0, 10, 10, (75, 80, 90, 100)),
        (0, 10**6, 10, (75, 80, 90, 100)),
        (749, 750, 1000, (75,)),
        (748, 749, 1000, ()),
        (0, 1, 1, (75, 80, 90, 100)),
        (0, 5, 0, ()),
        (0, 5, None, ()),
        (LIMIT_MAX - 1, LIMIT_MAX, LIMIT_MAX, (100,)),
    ],
)
def test_a_mark_is_crossed_by_the_step_that_reaches_it(
    used_before: int, used_after: int, limit: int | None, marks: tuple[int, ...]
) -> None:
    assert crossed(used_before, used_after, limit) == marks


@given(st.lists(st.integers(0, 200), min_size=1, max_size=30), st.integers(1, 1000))
def test_over_any_number_of_steps_each_reached_mark_is_crossed_exactly_once(quantities: list[int], limit: int) -> None:
    used, seen = 0, list[int]()
    for quantity in quantities:
        seen += crossed(used, used + quantity, limit)
        used += quantity
    assert seen == [mark for mark in MARKS if Fraction(used, limit) >= Fraction(mark, 100)]


@given(st.integers(0, TOTAL_MAX), st.integers(1, LIMIT_MAX), st.sampled_from(MARKS))
def test_doubles_would_compare_the_marks_alike(used: int, limit: int, mark: int) -> None:
    """The script does this sum in doubles: LIMIT_MAX is what keeps it exact."""
    assert (float(used) * 100.0 >= float(mark) * float(limit)) == (used * 100 >= mark * limit)
