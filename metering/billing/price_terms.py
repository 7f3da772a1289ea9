"""The terms of a price as Stripe writes them, from a price of ours, and whether a price of Stripe's says the same.

https://docs.stripe.com/api/prices/create. Amounts are minor units; a part of one has up to twelve decimals.
"""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal, Inexact, localcontext
from typing import Any, Final

from metering.billing.currencies import at_stripe
from plans.tiers import PriceModel, Pricing, Tier

DECIMALS_MAX: Final = 12
"""Decimals that Stripe takes in `unit_amount_decimal`."""

_PRECISION: Final = 60
"""Enough to see that an amount has no end; figures of a catalogue have at most 13 digits."""

Terms = dict[str, Any]


class NotExactError(ValueError):
    """A price for so many units has no finite share for one of them."""


def terms_of(pricing: Pricing, currency: str) -> Terms:
    """What a price of ours is at Stripe: the parameters that say what a quantity costs. Raises NotExactError."""
    steps = [_at_stripe(tier, currency) for tier in pricing.tiers]
    tier = steps[0]
    if pricing.model is PriceModel.FLAT:
        return {"billing_scheme": "per_unit", "unit_amount_decimal": share(tier)}
    if pricing.model is PriceModel.PACKAGE:
        packed = {} if tier.per == 1 else {"transform_quantity": {"divide_by": tier.per, "round": "up"}}
        return {"billing_scheme": "per_unit", "unit_amount_decimal": str(tier.price_minor), **packed}
    tiers = [
        {
            "up_to": "inf" if tier.up_to is None else tier.up_to,
            "unit_amount_decimal": share(tier),
            **({"flat_amount_decimal": str(tier.flat_minor)} if tier.flat_minor else {}),
        }
        for tier in steps
    ]
    return {"billing_scheme": "tiered", "tiers_mode": pricing.model.value, "tiers": tiers}


def _at_stripe(tier: Tier, currency: str) -> Tier:
    """The tier with its amounts as Stripe counts them."""
    price_minor, flat_minor = (at_stripe(amount, currency) for amount in (tier.price_minor, tier.flat_minor))
    return replace(tier, price_minor=price_minor, flat_minor=flat_minor)


def share(tier: Tier) -> str:
    """The part of the tier's price that one unit costs, as a decimal. Raises NotExactError where it has no end."""
    try:
        with localcontext(prec=_PRECISION) as exact:
            exact.traps[Inexact] = True
            one = Decimal(tier.price_minor) / tier.per
    except Inexact:
        raise _endless(tier) from None
    text = format(one.normalize(), "f")
    if len(text.partition(".")[2]) > DECIMALS_MAX:
        raise _endless(tier)
    return text


def _endless(tier: Tier) -> NotExactError:
    return NotExactError(f"{tier.price_minor} for {tier.per} units has no price of {DECIMALS_MAX} decimals for one")


def same_terms(wanted: Mapping[str, Any], price: Mapping[str, Any]) -> bool:
    """Whether a price, as Stripe shows it, is the one that these parameters would make."""
    return _said(wanted) == _said(price)


def _said(price: Mapping[str, Any]) -> tuple[object, ...]:
    """All that makes a price, whichever of its two spellings an amount has."""
    recurring, packed = price.get("recurring") or {}, price.get("transform_quantity") or {}
    return (
        price["currency"],
        price.get("billing_scheme") or "per_unit",
        price.get("tiers_mode"),
        _amount(price, "unit_amount"),
        tuple(_tier(tier) for tier in price.get("tiers") or ()),
        (packed.get("divide_by"), packed.get("round")) if packed else None,
        (recurring.get("interval"), recurring.get("interval_count") or 1),
        (recurring.get("usage_type") or "licensed", recurring.get("meter")),
    )


def _tier(tier: Mapping[str, Any]) -> tuple[object, ...]:
    end = tier.get("up_to")
    return (None if end == "inf" else end, _amount(tier, "unit_amount") or 0, _amount(tier, "flat_amount") or 0)


def _amount(said: Mapping[str, Any], name: str) -> Decimal | None:
    found = said.get(f"{name}_decimal")
    if found is None:
        found = said.get(name)
    return None if found is None else Decimal(str(found))
