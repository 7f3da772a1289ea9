"""What quantities cost by prices of Stripe's, and when the periods of an item begin: the sandbox's own arithmetic."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.billing.sandbox.amounts import part, pieces, rounded, written
from metering.billing.sandbox.cycles import Anchor, Cycle, border, next_anchor, period_at
from plans.periods import Reset
from plans.periods import period_at as plan_period_at
from plans.tiers import PriceModel, Pricing, Tier, charge
from tests.support.sandbox_world import utc

TIERS: list[dict[str, Any]] = [
    {"up_to": 10, "unit_amount_decimal": "5", "flat_amount_decimal": "100"},
    {"up_to": 100, "unit_amount_decimal": "2.5", "flat_amount_decimal": None},
    {"up_to": None, "unit_amount_decimal": "0.000000000001", "flat_amount_decimal": None},
]


def price(**fields: Any) -> dict[str, Any]:
    """A price per unit in dollars, unless `fields` say otherwise."""
    return {"billing_scheme": "per_unit", "currency": "usd", "transform_quantity": None, **fields}


def tiered(mode: str, tiers: list[dict[str, Any]]) -> dict[str, Any]:
    return price(billing_scheme="tiered", tiers_mode=mode, tiers=tiers)


@pytest.mark.parametrize(
    ("unit", "quantity", "amount"),
    [
        ("0.05", 30, 2),
        ("0.05", 29, 1),
        ("0.5", 1, 1),
        ("0.5", 3, 2),
        ("1.000000000001", 999_999_999_999_999, 1_000_000_000_000_999),
        ("0.000000000001", 499_999_999_999, 0),
        ("0.000000000001", 500_000_000_000, 1),
        ("29", 3, 87),
    ],
)
def test_a_line_is_exact_and_rounded_once(unit: str, quantity: int, amount: int) -> None:
    (piece,) = pieces(price(unit_amount_decimal=unit), quantity)
    assert (piece.quantity, piece.amount, piece.unit_amount_decimal) == (quantity, amount, unit)


@pytest.mark.parametrize(
    ("way", "quantity", "amount"), [("up", 1, 7), ("up", 100, 7), ("up", 101, 14), ("down", 99, 0), ("down", 199, 7)]
)
def test_packages_are_whole(way: str, quantity: int, amount: int) -> None:
    packed = price(unit_amount_decimal="7", transform_quantity={"divide_by": 100, "round": way})
    assert pieces(packed, quantity)[0].amount == amount


@pytest.mark.parametrize(
    ("mode", "quantity", "amounts"),
    [
        ("graduated", 10, [150]),
        ("graduated", 11, [150, 3]),
        ("graduated", 101, [150, 225, 0]),
        ("volume", 10, [150]),
        ("volume", 11, [28]),
        ("volume", 101, [0]),
    ],
)
def test_tiers_are_lines_or_one_for_all(mode: str, quantity: int, amounts: list[int]) -> None:
    assert [piece.amount for piece in pieces(tiered(mode, TIERS), quantity)] == amounts


def test_nothing_is_no_line() -> None:
    assert pieces(price(unit_amount_decimal="5"), 0) == []
    assert pieces(tiered("graduated", TIERS), 0) == []


@pytest.mark.parametrize(
    ("currency", "exact", "amount"),
    [
        ("usd", Fraction(5, 2), 3),
        ("usd", Fraction(-5, 2), -3),
        ("jpy", Fraction(5, 2), 3),
        ("kwd", Fraction(1234), 1230),
        ("kwd", Fraction(1235), 1240),
        ("isk", Fraction(150), 200),
        ("ugx", Fraction(149), 100),
    ],
)
def test_amounts_are_what_the_currency_allows(currency: str, exact: Fraction, amount: int) -> None:
    assert rounded(exact, currency) == amount


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(2900, "usd", "29.00 USD"), (-5, "usd", "-0.05 USD"), (2900, "jpy", "2900 JPY"), (29_000, "kwd", "29.000 KWD")],
)
def test_amounts_are_written_as_people_read_them(amount: int, currency: str, text: str) -> None:
    assert written(amount, currency) == text


def test_a_part_of_a_period_costs_its_share() -> None:
    assert [part(2900, seconds, 31, "usd") for seconds in (0, 1, 31)] == [0, 94, 2900]


@given(
    units=st.integers(1, 10**12),
    ends=st.lists(st.integers(1, 10**9), min_size=1, max_size=4, unique=True).map(sorted),
    prices=st.lists(st.integers(0, 10**6), min_size=5, max_size=5),
    flats=st.lists(st.integers(0, 10**6), min_size=5, max_size=5),
    mode=st.sampled_from([PriceModel.GRADUATED, PriceModel.VOLUME]),
)
def test_the_sandbox_and_the_law_agree_on_tiers(
    units: int, ends: list[int], prices: list[int], flats: list[int], mode: PriceModel
) -> None:
    tiers: list[dict[str, Any]] = [
        {"up_to": end, "unit_amount": amount, "flat_amount": flat}
        for end, amount, flat in zip([*ends, None], prices, flats, strict=False)
    ]
    ours = Pricing(mode, tuple(Tier(row["up_to"], row["unit_amount"], 1, row["flat_amount"]) for row in tiers))
    theirs = pieces(tiered(mode.value, tiers), units)
    assert [piece.amount for piece in theirs] == [line.amount_minor for line in charge(ours, units, "usd").lines]


@given(
    anchor=st.integers(utc(2020, 1, 1), utc(2030, 1, 1)),
    later=st.integers(-(10**9), 10**9),
)
def test_months_are_those_of_the_law(anchor: int, later: int) -> None:
    day = Anchor.of({"billing_cycle_anchor": anchor})
    law = plan_period_at((anchor + later) * 1000, reset=Reset.ANNIVERSARY, anchor_ms=anchor * 1000)
    assert period_at(day, Cycle("month"), anchor + later) == (law.start_ms // 1000, law.end_ms // 1000)


@pytest.mark.parametrize(
    ("cycle", "end"),
    [
        (Cycle("day"), utc(2024, 3, 1, 12)),
        (Cycle("week", 2), utc(2024, 3, 14, 12)),
        (Cycle("month", 3), utc(2024, 5, 29, 12)),
        (Cycle("year"), utc(2025, 2, 28, 12)),
    ],
)
def test_other_rhythms_are_counted_from_the_anchor(cycle: Cycle, end: int) -> None:
    anchor = Anchor.of({"billing_cycle_anchor": utc(2024, 2, 29, 12)})
    assert period_at(anchor, cycle, anchor.at_s) == (anchor.at_s, end)
    assert border(anchor, Cycle("year"), 4) == utc(2028, 2, 29, 12)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"day_of_month": 17}, utc(2026, 4, 17, 10, 30, 15)),
        ({"day_of_month": 18, "second": 0, "minute": 0, "hour": 0}, utc(2026, 3, 18)),
        ({"day_of_month": 31, "hour": 0, "minute": 0, "second": 0}, utc(2026, 3, 31)),
        ({"day_of_month": 31, "month": 2, "hour": 0, "minute": 0, "second": 0}, utc(2027, 2, 28)),
    ],
)
def test_an_anchor_comes_after_now(config: dict[str, int], found: int) -> None:
    assert next_anchor(config, utc(2026, 3, 17, 10, 30, 15)) == found


def test_the_wanted_day_outlives_a_short_first_month() -> None:
    anchor = Anchor.of({"billing_cycle_anchor": utc(2026, 2, 28), "billing_cycle_anchor_config": {"day_of_month": 31}})
    assert [border(anchor, Cycle("month"), number) for number in (1, 2)] == [utc(2026, 3, 31), utc(2026, 4, 30)]
