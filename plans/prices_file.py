"""What a catalogue file may say of the price of overage: its model, its tiers, and the faults between them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from plans.limits import TOTAL_MAX
from plans.tiers import PriceModel, Pricing, Tier

TIERS_MAX: Final = 50
"""Tiers of one price: more than any price list that people can read."""

TIERS_ABOUT: Final = "up to 50 tables { up_to = 100, price_minor = 5 }, the last without up_to"

_MODEL_CURE: Final = 'Give "graduated" (each unit at its own tier) or "volume" (all at the tier that is reached).'

Fault: TypeAlias = tuple[tuple[str, ...], str, str]
"""A fault between tables: where, what, and how to put it right."""


class TierTable(BaseModel):
    """One tier of a price: its units cost `price_minor` per `per` of them, and `flat_minor` once if there are any."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    up_to: int | None = Field(
        default=None, ge=1, le=TOTAL_MAX, description="the last unit of the tier; the last tier has none"
    )
    price_minor: int = Field(ge=0, le=TOTAL_MAX, description="a whole number of minor units (cents)")
    per: int = Field(default=1, ge=1, le=TOTAL_MAX, description="the number of units price_minor is for, at least 1")
    flat_minor: int = Field(default=0, ge=0, le=TOTAL_MAX, description="a whole number of minor units (cents)")


def pricing_of(
    model: PriceModel | None, tiers: Sequence[TierTable], price_minor: int | None, per: int
) -> Pricing | None:
    """The price that checked tables say; None where there is none.

    A price that names no model is for whole packages, as it was before there were others.
    """
    if tiers:
        steps = tuple(Tier(tier.up_to, tier.price_minor, tier.per, tier.flat_minor) for tier in tiers)
        return Pricing(model or PriceModel.GRADUATED, steps)
    if price_minor is None:
        return None
    return Pricing(model or PriceModel.PACKAGE, (Tier(None, price_minor, per),))


def price_faults(path: tuple[str, ...], feature: Mapping[str, Any]) -> Iterator[Fault]:
    """A price model whose figures are missing, or figures of another model beside it."""
    model, tiers = feature.get("overage_model"), feature.get("overage_tiers")
    tiered = model in (PriceModel.GRADUATED, PriceModel.VOLUME)
    if isinstance(tiers, list) and tiers:
        if model in (None, PriceModel.FLAT, PriceModel.PACKAGE):
            yield (*path, "overage_model"), "does not say how overage_tiers add up", _MODEL_CURE
        for key in ("overage_price_minor", "overage_per"):
            if key in feature:
                yield (*path, key), "stands beside overage_tiers", "Keep one of the two."
        ends = [tier.get("up_to") if isinstance(tier, dict) else None for tier in tiers]
        yield from _tier_faults((*path, "overage_tiers"), ends)
    elif tiered:
        yield (*path, "overage_tiers"), f'is missing for "{model}"', f"Give {TIERS_ABOUT}."
    elif model in (PriceModel.FLAT, PriceModel.PACKAGE) and "overage_price_minor" not in feature:
        cure = "Give a whole number of minor units (cents), or remove overage_model."
        yield (*path, "overage_price_minor"), "is missing", cure


def _tier_faults(path: tuple[str, ...], ends: list[Any]) -> Iterator[Fault]:
    """Tiers that do not ascend, or whose last one has an end: units above it would have no price."""
    for number, end in enumerate(ends):
        place = (*path, str(number), "up_to")
        if end is None and number < len(ends) - 1:
            yield place, "is missing", "Give the last unit of the tier; only the last tier has none."
        elif type(end) is int and number == len(ends) - 1:
            yield place, "ends the last tier", "Leave it out: what lies above would have no price."
        elif type(end) is int and number and type(ends[number - 1]) is int and end <= ends[number - 1]:
            yield place, "is not above the tier before", "Let the tiers ascend."
