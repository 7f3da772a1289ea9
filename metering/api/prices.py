"""Prices as the wire shows them: every line, and sums that are never more than a number can hold."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from metering.store.org import Profile
from plans.catalogue import Catalogue, Override, Plan, pricing_for
from plans.limits import TOTAL_MAX
from plans.money import Line, shown
from plans.tiers import Pricing, charge


@dataclass(frozen=True, slots=True)
class PriceList:
    """What one organisation pays: the catalogue's prices, but for those that were agreed with it."""

    catalogue: Catalogue
    overrides: Mapping[str, Override] = field(default_factory=dict)
    plan_minor: int | None = None

    @classmethod
    def of(cls, catalogue: Catalogue, profile: Profile) -> "PriceList":
        """The one of an organisation on the plan it is on."""
        return cls(catalogue, profile.overrides, profile.price_minor)

    def pricing(self, feature: str) -> Pricing | None:
        """What overage of a feature costs; None where it is not sold."""
        return pricing_for(self.catalogue, self.overrides, feature)

    def price_of(self, plan: Plan | None) -> int | None:
        """What a plan costs a period; None by agreement, or where the catalogue has dropped it."""
        return self.plan_minor if self.plan_minor is not None or plan is None else plan.price_minor


def price_view(prices: PriceList, feature: str, overage: int) -> dict[str, Any] | None:
    """What `overage` units of a feature cost, line by line; None where they are not sold."""
    pricing = prices.pricing(feature)
    if pricing is None:
        return None
    found = charge(pricing, overage, prices.catalogue.currency)
    return {
        "units": found.units,
        "amount_minor": number(found.amount_minor),
        "amount": shown(found.amount_minor, prices.catalogue.currency),
        "model": pricing.model.value,
        "lines": [_line(line) for line in found.lines],
    }


def bill_view(prices: PriceList, plan: Plan | None, overages: Iterable[tuple[str, int]]) -> dict[str, int | None]:
    """The price of a plan (None: the catalogue has dropped it) and of what is above its limits, by feature."""
    currency = prices.catalogue.currency
    sold = [(pricing, units) for feature, units in overages if (pricing := prices.pricing(feature)) is not None]
    overage = sum(charge(pricing, units, currency).amount_minor for pricing, units in sold)
    base = prices.price_of(plan)
    total = None if base is None else base + overage
    return {
        "plan_minor": base,
        "overage_minor": number(overage),
        "total_minor": None if total is None else number(total),
    }


def number(amount_minor: int) -> int | None:
    """An amount as JSON holds it exactly, or None."""
    return amount_minor if amount_minor <= TOTAL_MAX else None


def _line(line: Line) -> dict[str, Any]:
    return {
        "units": line.units,
        "price_minor": line.price_minor,
        "per": line.per,
        "packages": line.packages,
        "flat_minor": line.flat_minor,
        "amount_minor": number(line.amount_minor),
        "text": str(line),
    }
