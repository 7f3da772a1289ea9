"""One price, three places: what a projection says, what `metering stripe setup` makes, and what an invoice comes to."""

from typing import Any, Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from metering.billing.currencies import at_stripe
from metering.billing.price_terms import NotExactError, terms_of
from metering.billing.sandbox.amounts import pieces
from metering.billing.wanted import Wanted, wanted_of
from plans.catalogue import parse
from plans.tiers import PriceModel, Pricing, Tier, charge
from tests.lua.exporting import SOLD
from tests.plans.test_prices_reference import prices

CURRENCIES: Final = ["usd", "jpy", "kwd", "isk", "ugx"]


def as_kept(terms: dict[str, Any], currency: str) -> dict[str, Any]:
    """A price as Stripe keeps it, from the parameters that make it."""
    tiers = [{**tier, "up_to": None if tier["up_to"] == "inf" else tier["up_to"]} for tier in terms.get("tiers", ())]
    return {"currency": currency, "transform_quantity": None, **terms, "tiers": tiers}


@given(prices(), st.integers(0, 10**6), st.sampled_from(CURRENCIES))
def test_an_invoice_comes_to_what_a_projection_said(pricing: Pricing, units: int, currency: str) -> None:
    try:
        terms = terms_of(pricing, currency)
    except NotExactError:
        assume(False)
    told = [at_stripe(line.amount_minor, currency) for line in charge(pricing, units, currency).lines]
    assert [piece.amount for piece in pieces(as_kept(terms, currency), units)] == told


@pytest.mark.parametrize(("currency", "amount"), [("usd", 4900), ("isk", 490_000), ("jpy", 4900)])
def test_a_plan_costs_at_stripe_what_the_catalogue_says(currency: str, amount: int) -> None:
    catalogue = parse(SOLD.replace('"usd"', f'"{currency}"'), "test.toml")
    made = [one for one in wanted_of(catalogue, {}) if isinstance(one, Wanted) and one.kind == "price"]
    assert amount in [one.params.get("unit_amount") for one in made]


def test_a_share_without_end_is_never_rounded_into_a_price() -> None:
    thirds = Pricing(PriceModel.FLAT, (Tier(None, 1, per=3),))
    with pytest.raises(NotExactError):
        terms_of(thirds, "usd")
    assert [charge(thirds, units, "usd").amount_minor for units in (1, 2, 3)] == [0, 1, 1]
