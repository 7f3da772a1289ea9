"""Grace: patience has an end, a payment ends it at any time, and the order of the news does not matter."""

from functools import reduce
from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.dunning import DAY_MS, SETTLED_MAX, Debt, Standing, Word, grace_end_ms, standing, told

FAILED, UNCOLLECTIBLE, VOIDED, PAID = Word.FAILED, Word.UNCOLLECTIBLE, Word.VOIDED, Word.PAID
GOOD, GRACE, OVERDUE = Standing.GOOD, Standing.GRACE, Standing.OVERDUE

News = tuple[str, Word, int]


def after(*news: News) -> dict[str, Debt]:
    """The debts after all of the news, in this order."""
    return reduce(lambda debts, one: told(debts, *one), news, dict[str, Debt]())


@pytest.mark.parametrize(
    ("news", "day", "expected"),
    [
        ([], 0, GOOD),
        ([("in_1", FAILED, 0)], 0, GRACE),
        ([("in_1", FAILED, 0)], 7, OVERDUE),
        ([("in_1", FAILED, 0), ("in_1", FAILED, 3 * DAY_MS)], 7, OVERDUE),
        ([("in_1", FAILED, 0), ("in_1", PAID, DAY_MS)], 9, GOOD),
        ([("in_1", PAID, DAY_MS), ("in_1", FAILED, 0)], 9, GOOD),
        ([("in_1", FAILED, 0), ("in_1", VOIDED, DAY_MS)], 9, GOOD),
        ([("in_1", FAILED, 0), ("in_1", UNCOLLECTIBLE, 8 * DAY_MS)], 8, OVERDUE),
        ([("in_1", UNCOLLECTIBLE, 5 * DAY_MS)], 8, GRACE),
        ([("in_1", UNCOLLECTIBLE, 0), ("in_1", PAID, 9 * DAY_MS)], 9, GOOD),
        ([("in_1", FAILED, 0), ("in_2", PAID, DAY_MS)], 3, GRACE),
        ([("in_1", FAILED, 0), ("in_2", FAILED, 5 * DAY_MS), ("in_1", PAID, 6 * DAY_MS)], 8, GRACE),
        ([("in_1", FAILED, 0), ("in_2", FAILED, 5 * DAY_MS), ("in_1", PAID, 6 * DAY_MS)], 12, OVERDUE),
    ],
    ids=[
        "nothing ever failed", "a failure begins the grace", "the grace ends", "a second failure lengthens nothing",
        "paid", "paid before we hear of the failure", "voided", "written off is owed", "written off without a failure",
        "paid after all", "another invoice was paid", "the older one was paid", "the younger one's grace ends",
    ],
)  # fmt: skip
def test_standing(news: list[News], day: int, expected: Standing) -> None:
    assert standing(after(*news), day * DAY_MS, grace_days=7) is expected


def test_grace_ends_at_its_instant_and_not_a_millisecond_before() -> None:
    debts = after(("in_1", FAILED, 5))
    assert grace_end_ms(debts, 7) == 7 * DAY_MS + 5
    assert standing(debts, 7 * DAY_MS + 4, 7) is GRACE
    assert standing(debts, 7 * DAY_MS + 5, 7) is OVERDUE


def test_without_grace_a_failure_is_overdue_at_once() -> None:
    assert standing(after(("in_1", FAILED, 5)), 5, grace_days=0) is OVERDUE


def test_every_order_of_the_news_of_two_invoices_ends_in_one_state() -> None:
    news: list[News] = [
        ("in_1", FAILED, 10), ("in_1", FAILED, 30), ("in_1", PAID, 40),
        ("in_2", FAILED, 20), ("in_2", UNCOLLECTIBLE, 50),
    ]  # fmt: skip
    expected = {"in_1": Debt(PAID, 0), "in_2": Debt(UNCOLLECTIBLE, 20)}
    assert all(after(*order) == expected for order in permutations(news))


some_news = st.lists(
    st.tuples(st.sampled_from(["in_1", "in_2", "in_3"]), st.sampled_from(Word), st.integers(0, 9)), max_size=8
)


@given(some_news, st.randoms(use_true_random=False))
def test_no_order_and_no_repeat_of_any_news_makes_a_difference(news: list[News], random: Random) -> None:
    again = [*news, *news[: len(news) // 2]]
    random.shuffle(again)
    assert after(*again) == after(*news)


def test_settled_invoices_are_forgotten_and_owed_ones_are_not() -> None:
    paid: list[News] = [(f"in_{number}", PAID, 0) for number in range(SETTLED_MAX + 3)]
    debts = after(("in_owed", FAILED, 1), *paid)
    assert len(debts) == SETTLED_MAX + 1
    assert debts["in_owed"] == Debt(FAILED, 1)
    assert "in_0" not in debts
