"""Prices as the wire shows them: every line, and sums that are never more than a number can hold."""

from collections.abc import Iterable
from typing import Any

from plans.catalogue import Catalogue, Plan
from plans.limits import TOTAL_MAX
from plans.money import Line, shown
from plans.tiers import Charge, charge


def price_view(catalogue: Catalogue, feature: str, overage: int) -> dict[str, Any] | None:
    """What `overage` units of a feature cost, line by line; None where they are not sold."""
    found = price_of(catalogue, feature, overage)
    pricing = catalogue.features[feature].pricing if found is not None else None
    if found is None or pricing is None:
        return None
    return {
        "units": found.units,
        "amount_minor": number(found.amount_minor),
        "amount": shown(found.amount_minor, catalogue.currency),
        "model": pricing.model.value,
        "lines": [_line(line) for line in found.lines],
    }


def price_of(catalogue: Catalogue, feature: str, overage: int) -> Charge | None:
    """What `overage` units of a feature cost; None where they are not sold."""
    known = catalogue.features.get(feature)
    return None if known is None or known.pricing is None else charge(known.pricing, overage)


def bill_view(catalogue: Catalogue, plan: Plan | None, overages: Iterable[tuple[str, int]]) -> dict[str, int | None]:
    """The price of a plan (None: the catalogue has dropped it) and of what is above its limits, by feature."""
    charges = [price_of(catalogue, feature, units) for feature, units in overages]
    overage = sum(found.amount_minor for found in charges if found is not None)
    base = None if plan is None else plan.price_minor
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
