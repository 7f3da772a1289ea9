"""The catalogue on the wire: its plans with their prices, and its features."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from metering.api.billing import plan_named, rate_view, rule_view
from metering.api.models.orgs import PlansQuery
from metering.api.route import Call, Reply, json_reply
from plans.catalogue import Catalogue, Plan
from plans.money import shown
from plans.tiers import PriceModel, Pricing


async def list_plans(call: Call) -> Reply:
    """The catalogue; where a Stripe price is named, with the plan alone that it buys."""
    catalogue, price = call.services.catalogue, call.asked(PlansQuery).stripe_price
    if price is None:
        return json_reply(catalogue_view(catalogue, catalogue.plans.values()))
    bought = call.services.prices.plan_named(price)
    return json_reply(catalogue_view(catalogue, [] if bought is None else [bought]))


async def get_plan(call: Call) -> Reply:
    """One plan. Raises PlanUnknown."""
    catalogue = call.services.catalogue
    view = plan_view(plan_named(call.params["plan"], catalogue), catalogue.currency)
    return json_reply({"currency": catalogue.currency, **view})


def catalogue_view(catalogue: Catalogue, plans: Iterable[Plan]) -> dict[str, Any]:
    """The catalogue as the wire shows it, with these of its plans."""
    return {
        "version": catalogue.version,
        "currency": catalogue.currency,
        "default_plan": catalogue.default_plan,
        "default_feature": catalogue.default_feature,
        "dimensions": dict(catalogue.dimensions),
        "features": [
            {
                "name": feature.name,
                "title": feature.title,
                "unit": feature.unit,
                "overage_price_minor": feature.overage_price_minor,
                "overage_per": feature.overage_per,
                "overage_model": None if feature.pricing is None else feature.pricing.model.value,
                "overage_tiers": _tiers(feature.pricing),
                "lease_expiry": feature.lease_expiry.value,
                "credits": feature.credits,
            }
            for feature in catalogue.features.values()
        ],
        "data": [plan_view(plan, catalogue.currency) for plan in plans],
    }


def _tiers(pricing: Pricing | None) -> list[dict[str, int | None]]:
    """The steps of a price that has them."""
    if pricing is None or pricing.model not in {PriceModel.GRADUATED, PriceModel.VOLUME}:
        return []
    return [asdict(tier) for tier in pricing.tiers]


def plan_view(plan: Plan, currency: str) -> dict[str, Any]:
    """A plan as the wire shows it."""
    yearly_minor = None if plan.yearly is None else plan.yearly.price_minor
    rules = {name: rule_view(rule) for name, rule in plan.rules.items()}
    return {
        "name": plan.name,
        "title": plan.title,
        "reset": plan.reset.value,
        "price_minor": plan.price_minor,
        "price": None if plan.price_minor is None else shown(plan.price_minor, currency),
        "yearly_price_minor": yearly_minor,
        "yearly_price": None if yearly_minor is None else shown(yearly_minor, currency),
        "includes": list(plan.includes),
        "rate_limit": rate_view(plan.rate_limit),
        "features": rules,
    }
