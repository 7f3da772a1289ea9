"""What a quantity costs: each model by table, and against the exact sum unit by unit."""

from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.limits import TOTAL_MAX
from plans.tiers import Charge, PriceModel, Pricing, Tier, charge

FLAT, PACKAGE, GRADUATED, VOLUME = PriceModel.FLAT, PriceModel.PACKAGE, PriceModel.GRADUATED, PriceModel.VOLUME

STEPS = (Tier(100, 10), Tier(1000, 5, flat_minor=200), Tier(None, 1, per=10))


def costs(model: PriceModel, units: int, *tiers: Tier) -> tuple[int, list[str]]:
    found = charge(Pricing(model, tiers), units, "usd")
    return found.amount_minor, [str(line) for line in found.lines]


@pytest.mark.parametrize(
    ("model", "tiers", "units", "amount_minor", "lines"),
    [
        (FLAT, (Tier(None, 25),), 3, 75, ["3 x 25 = 75"]),
        (FLAT, (Tier(None, 20, 100),), 250, 50, ["250 x 20 / 100 = 50"]),
        (FLAT, (Tier(None, 5, 100),), 30, 2, ["30 x 5 / 100 = 2"]),
        (PACKAGE, (Tier(None, 20, 100),), 1, 20, ["1 / 100 -> 1 x 20 = 20"]),
        (PACKAGE, (Tier(None, 20, 100),), 100, 20, ["100 / 100 -> 1 x 20 = 20"]),
        (PACKAGE, (Tier(None, 20, 100),), 101, 40, ["101 / 100 -> 2 x 20 = 40"]),
        (GRADUATED, STEPS, 99, 990, ["99 x 10 = 990"]),
        (GRADUATED, STEPS, 100, 1000, ["100 x 10 = 1000"]),
        (GRADUATED, STEPS, 101, 1205, ["100 x 10 = 1000", "1 x 5 + 200 = 205"]),
        (GRADUATED, STEPS, 1000, 5700, ["100 x 10 = 1000", "900 x 5 + 200 = 4700"]),
        (GRADUATED, STEPS, 1025, 5703, ["100 x 10 = 1000", "900 x 5 + 200 = 4700", "25 x 1 / 10 = 3"]),
        (VOLUME, STEPS, 100, 1000, ["100 x 10 = 1000"]),
        (VOLUME, STEPS, 101, 705, ["101 x 5 + 200 = 705"]),
        (VOLUME, STEPS, 1001, 100, ["1001 x 1 / 10 = 100"]),
    ],
)
def test_a_quantity_costs_what_its_model_says(
    model: PriceModel, tiers: tuple[Tier, ...], units: int, amount_minor: int, lines: list[str]
) -> None:
    assert costs(model, units, *tiers) == (amount_minor, lines)


@pytest.mark.parametrize("model", PriceModel)
def test_nothing_costs_nothing(model: PriceModel) -> None:
    assert charge(Pricing(model, (Tier(None, 5, flat_minor=100),)), 0, "usd") == Charge(0, ())


def test_there_is_no_price_of_less_than_nothing() -> None:
    with pytest.raises(ValueError, match="give 0 or more"):
        charge(Pricing(FLAT, (Tier(None, 5),)), -1, "usd")


@st.composite
def tiered(draw: st.DrawFn) -> tuple[Tier, ...]:
    """Tiers that ascend, the last without end."""
    ends = [*accumulate(draw(st.lists(st.integers(1, 40), max_size=4))), None]
    prices = st.integers(0, 50)
    return tuple(Tier(end, draw(prices), draw(st.sampled_from([1, 1, 3, 10])), draw(prices)) for end in ends)


def tier_of(unit: int, tiers: tuple[Tier, ...]) -> Tier:
    return next(tier for tier in tiers if tier.up_to is None or unit <= tier.up_to)


@given(tiered(), st.integers(1, 200))
def test_graduated_is_the_sum_unit_by_unit_but_for_one_rounding_a_line(tiers: tuple[Tier, ...], units: int) -> None:
    found = charge(Pricing(GRADUATED, tiers), units, "usd")
    reached = [tier_of(unit, tiers) for unit in range(1, units + 1)]
    exact = sum((Fraction(tier.price_minor, tier.per) for tier in reached), Fraction(0))
    exact += sum(tier.flat_minor for tier in tiers if any(tier is other for other in reached))
    assert sum(line.units for line in found.lines) == units
    assert abs(found.amount_minor - exact) <= Fraction(len(found.lines), 2)


@given(tiered(), st.integers(1, 200))
def test_volume_prices_all_units_by_the_tier_the_last_one_reaches(tiers: tuple[Tier, ...], units: int) -> None:
    tier = tier_of(units, tiers)
    (line,) = charge(Pricing(VOLUME, tiers), units, "usd").lines
    assert (line.units, line.price_minor, line.per, line.flat_minor) == (
        units, tier.price_minor, tier.per, tier.flat_minor,
    )  # fmt: skip


@given(st.integers(0, TOTAL_MAX), st.integers(1, TOTAL_MAX), st.integers(1, TOTAL_MAX))
def test_packages_hold_all_units_and_none_is_paid_for_nothing(price_minor: int, per: int, units: int) -> None:
    (line,) = charge(Pricing(PACKAGE, (Tier(None, price_minor, per),)), units, "usd").lines
    packages = line.packages
    assert packages is not None
    assert (packages - 1) * per < units <= packages * per
    assert line.amount_minor == packages * price_minor


@given(st.sampled_from([FLAT, PACKAGE, GRADUATED]), tiered(), st.integers(0, 199))
def test_one_unit_more_never_costs_less_but_by_volume(model: PriceModel, tiers: tuple[Tier, ...], units: int) -> None:
    pricing = Pricing(model, tiers if model is GRADUATED else tiers[-1:])
    assert charge(pricing, units, "usd").amount_minor <= charge(pricing, units + 1, "usd").amount_minor
