"""Subscriptions and their items as objects, in flexible billing mode, each item with a period of its own.

https://docs.stripe.com/api/subscriptions/object, https://docs.stripe.com/billing/subscriptions/billing-mode
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from metering.billing.sandbox.context import Context
from metering.billing.sandbox.cycles import Anchor, Cycle, period_at
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.lists import as_list
from metering.billing.sandbox.metered import is_metered

ITEMS_MAX: Final = 20

TAXED: Final[Obj] = {"automatic_tax": {"disabled_reason": None, "enabled": True, "liability": {"type": "self"}}}
"""What a subscription says whose tax is worked out; its invoices come to none, as no place here has any."""

LIVE: Final = frozenset({"active", "past_due", "unpaid", "trialing"})
"""Statuses in which periods go on."""

_NOTHING: Final[Obj] = {
    "application": None,
    "application_fee_percent": None,
    "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
    "billing_schedules": [],
    "billing_thresholds": None,
    "cancel_at": None,
    "canceled_at": None,
    "cancellation_details": {"comment": None, "feedback": None, "reason": None},
    "collection_method": "charge_automatically",
    "customer_account": None,
    "days_until_due": None,
    "default_payment_method": None,
    "default_source": None,
    "default_tax_rates": [],
    "discounts": [],
    "ended_at": None,
    "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
    "latest_invoice": None,
    "livemode": False,
    "next_pending_invoice_item_invoice": None,
    "on_behalf_of": None,
    "pause_collection": None,
    "pending_invoice_item_interval": None,
    "pending_setup_intent": None,
    "pending_update": None,
    "schedule": None,
    "test_clock": None,
    "transfer_data": None,
    "trial_end": None,
    "trial_start": None,
}


@dataclass(slots=True)
class Wish:
    """What somebody wants to subscribe to: prices with their units, None for metered ones."""

    customer: Obj
    prices: list[tuple[Obj, int | None]]
    metadata: dict[str, str] = field(default_factory=dict)
    description: str | None = None
    anchor_s: int | None = None
    """When whole periods begin; None for now."""

    anchor_config: Mapping[str, int] | None = None
    prorate: bool = True
    """Whether a first period that is cut short costs its share, or nothing."""

    cancel_at_period_end: bool = False
    taxed: bool = False


def wished_price(ctx: Context, price_id: str, quantity: int | None, where: str) -> tuple[Obj, int | None]:
    """A price and its units, as a subscription can have it. Raises ApiError 400."""
    price = ctx.need("price", price_id, param=f"{where}[price]")
    if not price["active"]:
        raise ApiError(f"The price specified is inactive: {price_id}", param=f"{where}[price]")
    if price["type"] != "recurring":
        told = "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`."
        raise ApiError(told, param=f"{where}[price]")
    if is_metered(price) and quantity is not None:
        told = "You cannot set the quantity of a price that bills usage: leave `quantity` out."
        raise ApiError(told, param=f"{where}[quantity]")
    return price, None if is_metered(price) else 1 if quantity is None else quantity


def check_prices(prices: Iterable[Obj]) -> None:
    """Whether these prices can be in one subscription. Raises ApiError 400."""
    known = list(prices)
    if not 1 <= len(known) <= ITEMS_MAX:
        raise ApiError(f"A subscription has 1 to {ITEMS_MAX} items.", param="items")
    if len({price["id"] for price in known}) < len(known):
        raise ApiError("Two items cannot have the same price.", param="items")
    if len({price["currency"] for price in known}) > 1:
        raise ApiError("All prices of a subscription must have the same currency.", param="items")


def new_subscription(ctx: Context, wish: Wish) -> Obj:
    """A subscription as wished, `incomplete` until its first invoice is paid; nothing is kept or told yet."""
    check_prices(price for price, _ in wish.prices)
    subscription_id = ctx.db.new_id("sub")
    anchor = ctx.now_s if wish.anchor_s is None else wish.anchor_s
    config = None if wish.anchor_config is None else _whole_config(wish.anchor_config)
    subscription = {
        **_NOTHING,
        "id": subscription_id,
        "object": "subscription",
        **(TAXED if wish.taxed else {}),
        "billing_cycle_anchor": anchor,
        "billing_cycle_anchor_config": config,
        "billing_mode": {"flexible": {"proration_discounts": "included"}, "type": "flexible", "updated_at": ctx.now_s},
        "cancel_at_period_end": wish.cancel_at_period_end,
        "created": ctx.now_s,
        "currency": wish.prices[0][0]["currency"],
        "customer": wish.customer["id"],
        "description": wish.description,
        "metadata": dict(wish.metadata),
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "start_date": ctx.now_s,
        "status": "incomplete",
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
    }
    items = [new_item(ctx, subscription, price, quantity) for price, quantity in wish.prices]
    subscription["items"] = as_list(f"/v1/subscription_items?subscription={subscription_id}", items)
    if wish.cancel_at_period_end:
        subscription |= {"cancel_at": last_end(subscription), "canceled_at": ctx.now_s}
    return subscription


def new_item(ctx: Context, subscription: Obj, price: Obj, quantity: int | None) -> Obj:
    """An item that begins now; its first period ends where the anchor says."""
    item = {
        "id": ctx.db.new_id("si"),
        "object": "subscription_item",
        "billing_thresholds": None,
        "created": ctx.now_s,
        "current_period_start": ctx.now_s,
        "current_period_end": period_at(Anchor.of(subscription), Cycle.of(price), ctx.now_s)[1],
        "discounts": [],
        "metadata": {},
        "subscription": subscription["id"],
        "tax_rates": [],
        **priced(price),
    }
    return item if quantity is None else {**item, "quantity": quantity}


def priced(price: Obj) -> Obj:
    """How an item shows its price: without tiers, and once more as the plan of older days."""
    shown = {name: value for name, value in price.items() if name not in {"tiers", "currency_options"}}
    recurring = price["recurring"]
    plan = {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price.get("unit_amount"),
        "amount_decimal": price.get("unit_amount_decimal"),
        "billing_scheme": price["billing_scheme"],
        "created": price["created"],
        "currency": price["currency"],
        "interval": recurring["interval"],
        "interval_count": recurring["interval_count"],
        "livemode": False,
        "metadata": {},
        "meter": recurring.get("meter"),
        "nickname": price.get("nickname"),
        "product": price["product"],
        "tiers_mode": price.get("tiers_mode"),
        "transform_usage": price.get("transform_quantity"),
        "trial_period_days": None,
        "usage_type": recurring["usage_type"],
    }
    return {"price": shown, "plan": plan}


def items_of(subscription: Obj) -> list[Obj]:
    """The items, metered ones too."""
    rows: list[Obj] = subscription["items"]["data"]
    return rows


def ends_at(subscription: Obj) -> int:
    """When the next period of an item ends."""
    return min(int(item["current_period_end"]) for item in items_of(subscription))


def last_end(subscription: Obj) -> int:
    """When the last of its items' periods ends: where it stops that is to stop at the end of its period."""
    return max(int(item["current_period_end"]) for item in items_of(subscription))


def _whole_config(config: Mapping[str, Any]) -> Obj:
    return {name: config.get(name) for name in ("day_of_month", "hour", "minute", "month", "second")}
