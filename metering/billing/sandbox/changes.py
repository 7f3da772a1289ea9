"""What may be changed of a subscription that runs: https://docs.stripe.com/api/subscriptions/update.

A licensed item may get another price of the same rhythm. In flexible mode the unused part of the old price is given
back and that of the new one asked for, to the second, as invoice items
(https://docs.stripe.com/billing/subscriptions/prorations). What else Stripe can do is not built.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from metering.billing.sandbox import bills
from metering.billing.sandbox.amounts import part, pieces
from metering.billing.sandbox.cards import Payment
from metering.billing.sandbox.context import Context
from metering.billing.sandbox.contracts import check_prices, items_of, last_end, new_item, priced, wished_price
from metering.billing.sandbox.cycles import Cycle
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError, missing, not_built
from metering.billing.sandbox.invoices import declined
from metering.billing.sandbox.metadata import merged
from metering.billing.sandbox.metered import is_metered
from metering.billing.sandbox.renewals import charge_now, preview, preview_now, stored, wind_up

_PLAIN: Final = ("description", "cancel_at_period_end", "cancel_at", "canceled_at", "metadata")


def change(ctx: Context, subscription: Obj, params: Mapping[str, Any]) -> Obj:
    """Change it, and tell of it with the values before. Raises ApiError."""
    if subscription["status"] in {"canceled", "incomplete_expired"}:
        told = f"A {subscription['status']} subscription can only update its cancellation_details and metadata."
        raise ApiError(told)
    _check_anchor(params.get("billing_cycle_anchor"))
    old = {name: subscription[name] for name in _PLAIN} | {"items": _copy(subscription["items"])}
    prorate = change_items(ctx, subscription, params)
    _change_plain(ctx, subscription, params)
    ctx.db.put("subscription", subscription)
    wind_up(ctx.db, subscription)
    before = {name: value for name, value in old.items() if subscription[name] != value}
    if before:
        ctx.emit("customer.subscription.updated", subscription, before)
    if params.get("items") and prorate == "always_invoice":
        _check_paid(charge_now(ctx, subscription), params.get("payment_behavior"))
    return ctx.need("subscription", subscription["id"])


def change_items(ctx: Context, subscription: Obj, params: Mapping[str, Any]) -> str:
    """Change the items of a subscription, which is not kept; how the difference is billed. Raises ApiError."""
    prorate = str(params.get("proration_behavior") or "create_prorations")
    for number, wish in enumerate(params.get("items") or []):
        _change_item(ctx, subscription, wish, f"items[{number}]", prorate=prorate != "none")
    if params.get("items"):
        check_prices(item["price"] for item in items_of(subscription))
    return prorate


def preview_change(ctx: Context, subscription: Obj, params: Mapping[str, Any]) -> Obj:
    """The next invoice, or the one of now where the difference is billed at once, as a change of items would make it.

    Nothing of the change is kept.
    """
    with ctx.db.undone():
        at_once = change_items(ctx, subscription, params) == "always_invoice"
        return preview_now(ctx, subscription) if at_once else preview(ctx, subscription)


def _check_paid(outcome: Payment, behavior: str | None) -> None:
    """What an invoice that was not paid makes of a change: an error undoes all of it."""
    if outcome is Payment.PAID or behavior in {None, "allow_incomplete"}:
        return
    if behavior == "pending_if_incomplete":
        raise not_built("a change that waits until it is paid")
    raise declined(outcome)


def end_with_period(ctx: Context, subscription: Obj, *, wanted: bool) -> None:
    """Let it stop with its period, or take that back."""
    if wanted != subscription["cancel_at_period_end"]:
        moments = (last_end(subscription), ctx.now_s) if wanted else (None, None)
        subscription |= {"cancel_at_period_end": wanted, "cancel_at": moments[0], "canceled_at": moments[1]}


def _change_plain(ctx: Context, subscription: Obj, params: Mapping[str, Any]) -> None:
    if "metadata" in params:
        subscription["metadata"] = merged(subscription["metadata"], params["metadata"])
    if "description" in params:
        subscription["description"] = params["description"]
    if params.get("cancel_at_period_end") is not None:
        end_with_period(ctx, subscription, wanted=params["cancel_at_period_end"])
    if params.get("cancellation_details"):
        subscription["cancellation_details"] |= params["cancellation_details"]


def _change_item(ctx: Context, subscription: Obj, wish: Mapping[str, Any], where: str, *, prorate: bool) -> None:
    if not wish.get("id"):
        _add(ctx, subscription, wish, where, prorate=prorate)
        return
    item = next((row for row in items_of(subscription) if row["id"] == wish["id"]), None)
    if item is None:
        raise missing("subscription item", wish["id"], f"{where}[id]")
    if wish.get("deleted"):
        _remove(subscription, item, wish, prorate=prorate)
        return
    if "metadata" in wish:
        item["metadata"] = merged(item["metadata"], wish["metadata"])
    if wish.get("price") or wish.get("quantity") is not None:
        _swap(ctx, subscription, item, wish, where, prorate=prorate)


def _swap(ctx: Context, subscription: Obj, item: Obj, wish: Mapping[str, Any], where: str, *, prorate: bool) -> None:
    """Another price, or more or less of it, for a licensed item."""
    quantity = wish.get("quantity", item.get("quantity"))
    price, units = wished_price(ctx, wish.get("price") or item["price"]["id"], quantity, where)
    if price["id"] == item["price"]["id"] and units == item.get("quantity"):
        return
    if is_metered(price) or is_metered(item["price"]):
        raise not_built("another price for a metered item")
    if Cycle.of(price) != Cycle.of(item["price"]):
        raise not_built("another billing interval for an item")
    before = _unused(ctx, item)
    item |= {**priced(price), "quantity": units}
    if prorate:
        _prorate(ctx, subscription, item, "Unused time on the old price", -before)
        _prorate(ctx, subscription, item, "Remaining time on the new price", _unused(ctx, item))


def _add(ctx: Context, subscription: Obj, wish: Mapping[str, Any], where: str, *, prorate: bool) -> None:
    if not wish.get("price"):
        raise ApiError(f"Missing required param: {where}[price].", code="parameter_missing", param=f"{where}[price]")
    price, quantity = wished_price(ctx, wish["price"], wish.get("quantity"), where)
    item = new_item(ctx, subscription, price, quantity)
    item["metadata"] = merged({}, wish.get("metadata") or {})
    items_of(subscription).append(item)
    if prorate and not is_metered(price):
        raise not_built("an added licensed item with proration")


def _remove(subscription: Obj, item: Obj, wish: Mapping[str, Any], *, prorate: bool) -> None:
    if is_metered(item["price"]) and not wish.get("clear_usage"):
        raise not_built("a removed metered item whose usage is billed (without clear_usage)")
    if prorate and not is_metered(item["price"]):
        raise not_built("a removed licensed item with proration")
    items_of(subscription).remove(item)


def _unused(ctx: Context, item: Obj) -> int:
    """What the rest of its period is worth, at the item's price."""
    whole = item["current_period_end"] - item["current_period_start"]
    rest = item["current_period_end"] - ctx.now_s
    amount = sum(piece.amount for piece in pieces(stored(ctx.db, item), item["quantity"]))
    return part(amount, rest, whole, item["price"]["currency"])


def _prorate(ctx: Context, subscription: Obj, item: Obj, words: str, amount: int) -> None:
    if amount:
        row = new_invoice_item(ctx, subscription["customer"], subscription["currency"], amount, words)
        row["proration"] = True
        row["parent"] = subscription_parent(subscription["id"], item["id"])
        row["period"]["end"] = item["current_period_end"]
        row["pricing"] = bills.pricing(item["price"], None)
        ctx.db.put("invoiceitem", row)
        ctx.emit("invoiceitem.created", row)


def new_invoice_item(ctx: Context, customer: str, currency: str, amount: int, words: str | None) -> Obj:
    """An amount that waits for an invoice: https://docs.stripe.com/api/invoiceitems/object."""
    return {
        "id": ctx.db.new_id("ii"),
        "object": "invoiceitem",
        "amount": amount,
        "currency": currency,
        "customer": customer,
        "customer_account": None,
        "date": ctx.now_s,
        "description": words,
        "discountable": False,
        "discounts": [],
        "frozen_fields": [],
        "invoice": None,
        "livemode": False,
        "metadata": {},
        "net_amount": amount,
        "parent": None,
        "period": {"start": ctx.now_s, "end": ctx.now_s},
        "pricing": None,
        "proration": False,
        "quantity": 1,
        "quantity_decimal": "1",
        "tax_rates": [],
        "test_clock": None,
    }


def subscription_parent(subscription: str, item: str | None = None) -> Obj:
    """How an invoice item says which subscription it is of."""
    return {
        "subscription_details": {"subscription": subscription, "subscription_item": item},
        "type": "subscription_details",
    }


def _check_anchor(anchor: Mapping[str, Any] | None) -> None:
    if anchor is not None and anchor["type"] != "unchanged":
        raise not_built("an update of billing_cycle_anchor")


def _copy(items: Obj) -> Obj:
    rows: Sequence[Obj] = items["data"]
    return {**items, "data": [dict(row) for row in rows]}
