"""Prices against a slow and obvious reference: unit by unit, in fractions, rounded once a line.

What an organisation pays for what it used is found from the limit on: each unit above it is looked at by itself.
"""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate, groupby
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.forecast import Seen, forecast, outlook
from plans.limits import Rule
from plans.money import minor_digits, shown
from plans.periods import Period
from plans.tiers import PriceModel, Pricing, Tier, charge

DIGITS: Final = {"usd": 2, "jpy": 0, "kwd": 3}
"""The currencies that are tried, with the digits that their amounts are written with."""


def rounded(exact: Fraction, currency: str) -> int:
    """To whole minor units, halves away from zero; of currencies with three digits the last is 0."""
    step = 10 if DIGITS[currency] == 3 else 1
    whole, rest = divmod(exact / step, 1)
    return (int(whole) + (rest >= Fraction(1, 2))) * step


def reached(tiers: Sequence[Tier], unit: int) -> int:
    """The number of the tier that a unit lies in."""
    return next(number for number, tier in enumerate(tiers) if tier.up_to is None or unit <= tier.up_to)


def reference(pricing: Pricing, units: int, currency: str) -> list[int]:
    """What each line comes to."""
    tiers, every = pricing.tiers, range(1, units + 1)
    if not units:
        return []
    if pricing.model is PriceModel.PACKAGE:
        begun = len([unit for unit in every if unit % tiers[0].per == 1 or tiers[0].per == 1])
        return [rounded(Fraction(begun * tiers[0].price_minor), currency)]
    at = [reached(tiers, unit) for unit in every]
    if pricing.model is not PriceModel.GRADUATED:
        at = [at[-1]] * units
    lines = []
    for number, group in groupby(at):
        exact = Fraction(tiers[number].flat_minor)
        for _ in group:
            exact += Fraction(tiers[number].price_minor, tiers[number].per)
        lines.append(rounded(exact, currency))
    return lines


PRICES: Final = st.integers(0, 60) | st.integers(0, 2_000_000)
PERS: Final = st.sampled_from([1, 1, 2, 3, 7, 10, 20])


@st.composite
def prices(draw: st.DrawFn) -> Pricing:
    """A price of any model; flat and package have one tier alone."""
    model = draw(st.sampled_from(PriceModel))
    if model in {PriceModel.FLAT, PriceModel.PACKAGE}:
        return Pricing(model, (Tier(None, draw(PRICES), draw(PERS)),))
    ends = [*accumulate(draw(st.lists(st.integers(1, 40), max_size=4))), None]
    return Pricing(model, tuple(Tier(end, draw(PRICES), draw(PERS), draw(PRICES)) for end in ends))


@given(prices(), st.integers(0, 90), st.none() | st.integers(0, 40), st.sampled_from(sorted(DIGITS)))
def test_what_was_used_above_what_is_included_costs_what_unit_by_unit_comes_to(
    pricing: Pricing, used: int, included: int | None, currency: str
) -> None:
    overage = len([unit for unit in range(1, used + 1) if included is not None and unit > included])
    found = outlook(Rule(included), 0, 0, used)
    assert found.overage == overage
    bill = charge(pricing, found.overage, currency)
    assert [line.amount_minor for line in bill.lines] == reference(pricing, overage, currency)
    assert bill.amount_minor == sum(line.amount_minor for line in bill.lines)
    assert minor_digits(currency) == DIGITS[currency]
    assert Decimal(shown(bill.amount_minor, currency).split()[0]) * 10 ** DIGITS[currency] == bill.amount_minor


@pytest.mark.parametrize(
    ("currency", "units", "amount"), [("usd", 1, 1), ("usd", 3, 2), ("jpy", 5, 3), ("kwd", 9, 0), ("kwd", 10, 10)]
)
def test_a_half_goes_up_in_every_currency(currency: str, units: int, amount: int) -> None:
    """Half a minor unit each; of dinars five thousandths are half a step."""
    half = Pricing(PriceModel.FLAT, (Tier(None, 1, per=2),))
    assert charge(half, units, currency).amount_minor == amount
    assert reference(half, units, currency) == [amount]


@given(st.integers(0, 10**6), st.integers(0, 3000), st.integers(1, 3000), st.integers(0, 10**6), st.integers(0, 3000))
def test_a_forecast_is_the_same_amount_of_time_at_the_same_rate(
    used: int, elapsed_h: int, left_h: int, recent: int, recent_h: int
) -> None:
    """In fractions: what is used, and for each hour that is left what an hour brought so far; parts count as whole."""
    hour = 3_600_000
    period = Period(0, (elapsed_h + left_h) * hour)
    found = forecast(Seen(used, period, elapsed_h * hour, recent, recent_h * hour))

    def end(units: int, hours: int) -> int | None:
        if hours < 1:
            return None
        exact = used + Fraction(units, hours) * left_h
        return exact.numerator // exact.denominator + (exact.denominator > 1)

    ways = [end(used, elapsed_h), end(recent, recent_h)]
    assert [found.by_period, found.by_recent] == ways
    known = [way for way in ways if way is not None] or [used]
    mean = Fraction(sum(known), len(known))
    assert (found.low, found.high) == (min(known), max(known))
    assert found.expected == mean.numerator // mean.denominator + (mean.denominator > 1)
