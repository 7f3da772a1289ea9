"""Whose a price is: by what it says itself, by what the catalogue says, by its lookup key."""

from typing import Any

import pytest

from metering.billing.prices import FEATURE_TAG, PLAN_TAG, Prices, overage_key, plan_key
from plans.catalogue import parse
from tests.lua.ledger import CATALOGUE

NAMED = CATALOGUE.replace('title = "Pro"', 'title = "Pro"\nstripe_price_env = "STRIPE_PRICE_PRO"').replace(
    'title = "Free"', 'title = "Free"\nstripe_price_id = "price_free"'
)
YEARLY = "yearly = { price_minor = 99000, stripe_price_env = 'STRIPE_PRICE_PRO_YEARLY' }"
NAMED = NAMED.replace('title = "Pro"', f'title = "Pro"\n{YEARLY}')
LONGER = NAMED + NAMED[NAMED.index("[plans.pro]") :].replace("plans.pro", "plans.pro_base").replace(
    'stripe_price_env = "STRIPE_PRICE_PRO"', ""
).replace(f"{YEARLY}\n\n", "")
VARIABLES = {"STRIPE_PRICE_PRO": "price_pro", "STRIPE_PRICE_PRO_YEARLY": "price_pro_yearly"}
PRICES = Prices(parse(LONGER, "test.toml"), VARIABLES)


def price(price_id: str = "price_x", lookup_key: str | None = None, **metadata: str) -> dict[str, Any]:
    """A price as Stripe shows it."""
    return {"id": price_id, "object": "price", "lookup_key": lookup_key, "metadata": metadata}


@pytest.mark.parametrize(
    ("given", "plan"),
    [
        (price(**{PLAN_TAG: "pro"}), "pro"),
        (price(**{PLAN_TAG: "gone"}), None),
        (price("price_free"), "free"),
        (price("price_pro"), "pro"),
        (price("price_pro_yearly"), "pro"),
        (price("price_pro", **{PLAN_TAG: "free"}), "free"),
        (price(lookup_key="metering_pro_base"), "pro"),
        (price(lookup_key="metering_pro_base_yearly"), "pro"),
        (price(lookup_key="metering_pro_base_base"), "pro_base"),
        (price(lookup_key="metering_pro_baseline"), None),
        (price(lookup_key="metering_gold_base"), None),
        (price(), None),
    ],
)
def test_the_plan_of_a_price(given: dict[str, Any], plan: str | None) -> None:
    assert PRICES.plan_of(given) == plan


@pytest.mark.parametrize(
    ("price_id", "plan"), [("price_free", "free"), ("price_pro", "pro"), ("price_pro_yearly", "pro"), ("price_x", None)]
)
def test_the_plan_that_a_named_price_buys(price_id: str, plan: str | None) -> None:
    found = PRICES.plan_named(price_id)
    assert (found and found.name) == plan


@pytest.mark.parametrize(
    ("given", "feature"),
    [
        (price(**{FEATURE_TAG: "scans"}), "scans"),
        (price(**{FEATURE_TAG: "gone"}), None),
        (price(lookup_key="metering_scans_overage"), "scans"),
        (price(lookup_key="metering_scans_overage_eur"), "scans"),
        (price(lookup_key="metering_pro_base"), None),
        (price("price_free"), None),
    ],
)
def test_the_feature_of_a_price(given: dict[str, Any], feature: str | None) -> None:
    assert PRICES.feature_of(given) == feature


def test_a_price_without_metadata_is_read() -> None:
    assert PRICES.plan_of({"id": "price_free", "metadata": None, "lookup_key": None}) == "free"


def test_lookup_keys_are_literal() -> None:
    assert (plan_key("pro"), overage_key("scans")) == ("metering_pro_base", "metering_scans_overage")
