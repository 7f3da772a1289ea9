"""Which of Stripe's prices are ours: what a plan costs a period, and what a unit of overage of a feature costs.

A price says it in its metadata, which `metering stripe setup` writes and which stays on a price that is replaced. A
plan of the catalogue may name its price by id or by an environment variable. For prices that were made by hand the
lookup key tells (https://docs.stripe.com/api/prices/object).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from metering.billing.gateway import StripeObject
from plans.catalogue import Catalogue, Plan

PLAN_TAG: Final = "metering_plan"
"""Metadata of a plan's price: the plan's name."""

FEATURE_TAG: Final = "metering_feature"
"""Metadata of a price of overage: the feature's name."""


class Interval(StrEnum):
    """How often the price of a plan is paid, in Stripe's words. Overage is billed by the month either way."""

    MONTH = "month"
    YEAR = "year"


def plan_key(plan: str, interval: Interval = Interval.MONTH) -> str:
    """The lookup key of a plan's price; one made by hand may go on after an underscore: `metering_pro_base_2024`."""
    return f"metering_{plan}_base" + "_yearly" * (interval is Interval.YEAR)


def overage_key(feature: str) -> str:
    """The lookup key of the price of a feature's overage, which all plans share."""
    return f"metering_{feature}_overage"


def price_id_of(
    plan: str, catalogue: Catalogue, variables: Mapping[str, str], interval: Interval = Interval.MONTH
) -> str | None:
    """The price that the catalogue names for a plan, by itself or by one of the variables; None where it names none."""
    law = catalogue.plans[plan] if interval is Interval.MONTH else catalogue.plans[plan].yearly
    if law is None:
        return None
    named = None if law.stripe_price_env is None else variables.get(law.stripe_price_env)
    return law.stripe_price_id or named or None


class Prices:
    """Reads prices. `variables` are settings and environment by name, for plans whose price is named by one."""

    def __init__(self, catalogue: Catalogue, variables: Mapping[str, str]) -> None:
        self._plans, self._features = catalogue.plans, catalogue.features
        self._plan_by_id = {
            price_id: plan
            for plan in catalogue.plans
            for interval in Interval
            if (price_id := price_id_of(plan, catalogue, variables, interval)) is not None
        }

    def plan_of(self, price: StripeObject) -> str | None:
        """The plan that a price buys; None where it is none of ours, or of a plan that the catalogue no longer has."""
        tagged = (price.get("metadata") or {}).get(PLAN_TAG)
        if tagged in self._plans:
            return str(tagged)
        return self._plan_by_id.get(price["id"]) or _named(price, {plan: plan_key(plan) for plan in self._plans})

    def plan_named(self, price_id: str) -> Plan | None:
        """The plan whose monthly or yearly price the catalogue or a variable names so; None where there is none."""
        found = self._plan_by_id.get(price_id)
        return None if found is None else self._plans[found]

    def feature_of(self, price: StripeObject) -> str | None:
        """The feature whose overage a price bills; None where it is none of ours."""
        tagged = (price.get("metadata") or {}).get(FEATURE_TAG)
        if tagged in self._features:
            return str(tagged)
        return _named(price, {feature: overage_key(feature) for feature in self._features})


def _named(price: StripeObject, keys: Mapping[str, str]) -> str | None:
    """Whose lookup key the price has; the longest name wins, as one name may begin with another."""
    given = price.get("lookup_key") or ""
    found = [name for name, key in keys.items() if given == key or given.startswith(f"{key}_")]
    return max(found, key=len, default=None)
