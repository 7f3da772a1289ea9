"""How a subscription begins, goes on from period to period, and ends; and what each of these bills.

Licensed items are billed for the period to come, metered ones for the period that is over.
https://docs.stripe.com/billing/subscriptions/billing-cycle, https://docs.stripe.com/billing/subscriptions/cancel
"""

from collections.abc import Sequence
from typing import Final

from metering.billing.sandbox import bills, invoices
from metering.billing.sandbox.amounts import Piece, part, pieces
from metering.billing.sandbox.cards import Payment
from metering.billing.sandbox.context import Context
from metering.billing.sandbox.contracts import LIVE, Wish, ends_at, items_of, new_subscription
from metering.billing.sandbox.cycles import Anchor, Cycle, period_at
from metering.billing.sandbox.db import Db, Obj
from metering.billing.sandbox.metered import is_metered
from metering.billing.sandbox.timers import on, wind

LAPSE_S: Final = 23 * 3600
"""How long a first invoice may stay unpaid: https://docs.stripe.com/billing/subscriptions/overview."""

_UNPAID: Final = "unpaid"


def begin(ctx: Context, wish: Wish, *, pay: bool = True) -> tuple[Obj, Payment]:
    """Subscribe, and have the first invoice paid unless `pay` is False. Not paid, it is `incomplete` and lapses."""
    subscription = new_subscription(ctx, wish)
    invoice = bills.new_invoice(
        ctx, wish.customer, subscription["currency"], "subscription_create", subscription=subscription
    )
    lines = [
        line for item in items_of(subscription) for line in _first_lines(ctx, invoice["id"], subscription, item, wish)
    ]
    bills.put_lines(invoice, [*lines, *_swept(ctx, invoice, subscription)])
    subscription["latest_invoice"] = invoice["id"]
    _keep(ctx, subscription)
    ctx.emit("customer.subscription.created", subscription)
    invoices.issue(ctx, invoice, advance=False)
    invoices.finalize(ctx, invoice)
    outcome = Payment.PAID
    if invoice["status"] == "open":
        outcome = invoices.collect(ctx, invoice) if pay else Payment.NO_CARD
    subscription = ctx.need("subscription", subscription["id"])
    if subscription["status"] == "incomplete":
        wind(ctx.db, "renew", subscription["id"], None)
        wind(ctx.db, "lapse", subscription["id"], ctx.now_s + LAPSE_S)
    return subscription, outcome


@on("renew")
def _renew_due(ctx: Context, subscription_id: str) -> None:
    subscription = ctx.db.get("subscription", subscription_id)
    if subscription is None or subscription["status"] not in LIVE:
        return
    if subscription["cancel_at"] is not None and subscription["cancel_at"] <= ctx.now_s:
        stop(ctx, subscription, "cancellation_requested")
    else:
        _renew(ctx, subscription)


@on("lapse")
def _lapse_due(ctx: Context, subscription_id: str) -> None:
    subscription = ctx.db.get("subscription", subscription_id)
    if subscription is None or subscription["status"] != "incomplete":
        return
    invoice = ctx.db.get("invoice", subscription["latest_invoice"])
    if invoice is not None and invoice["status"] == "open":
        invoices.void(ctx, invoice)
    subscription |= {"status": "incomplete_expired", "ended_at": ctx.now_s}
    ctx.db.put("subscription", subscription)
    ctx.emit("customer.subscription.updated", subscription, {"status": "incomplete"})


def stop(ctx: Context, subscription: Obj, reason: str) -> None:
    """Its time is over: what was used is billed on a last draft, which is finalized in an hour like any other."""
    _last_bill(ctx, subscription, "subscription_cycle", advance=True)
    invoices.end(ctx, subscription, reason)


def cancel(ctx: Context, subscription: Obj, reason: str, *, invoice_now: bool) -> Obj:
    """End it at once. With `invoice_now` what was used and not yet billed is billed now; without, it is dropped."""
    if invoice_now:
        invoice = _last_bill(ctx, subscription, "subscription_update", advance=False)
        invoices.finalize(ctx, invoice)
        if invoice["status"] == "open":
            invoices.collect(ctx, invoice)
        subscription = ctx.need("subscription", subscription["id"])
    if subscription["status"] != "canceled":
        invoices.end(ctx, subscription, reason)
    return subscription


def _last_bill(ctx: Context, subscription: Obj, reason: str, *, advance: bool) -> Obj:
    """A draft of the usage of all metered items until now, and whatever waits."""
    invoice = bills.new_invoice(
        ctx, _customer(ctx, subscription), subscription["currency"], reason, subscription=subscription
    )
    metered = [item for item in items_of(subscription) if is_metered(item["price"])]
    rows = [_usage(item, min(ctx.now_s, item["current_period_end"])) for item in metered]
    subscription["latest_invoice"] = invoice["id"]
    invoice["period_start"] = min((row["start"] for row in rows), default=ctx.now_s)
    ctx.db.put("subscription", subscription)
    _bill(ctx, subscription, invoice, [], [row for row in rows if row["start"] < row["end"]], advance=advance)
    return invoice


def preview(ctx: Context, subscription: Obj) -> Obj:
    """The next invoice as it would be by now; it is not kept."""
    at_s = ends_at(subscription)
    invoice = bills.new_invoice(
        ctx, _customer(ctx, subscription), subscription["currency"], "upcoming", subscription=subscription
    )
    invoice["id"] = f"upcoming_{invoice['id']}"
    ending = [item for item in items_of(subscription) if item["current_period_end"] == at_s]
    lines = [
        line
        for item in ending
        for line in (
            invoices.usage_lines(ctx, invoice["id"], invoice["customer"], _usage(item, at_s))
            if is_metered(item["price"])
            else _licensed(ctx, invoice["id"], item, _period(subscription, item, at_s))
        )
    ]
    waiting = [bills.item_line(ctx, invoice["id"], item) for item in pending(ctx.db, subscription)]
    bills.put_lines(invoice, [*lines, *waiting])
    invoice |= {"period_start": min(item["current_period_start"] for item in ending), "period_end": at_s}
    invoices.balanced(ctx, invoice)
    return invoice


def pending(db: Db, subscription: Obj) -> list[Obj]:
    """Invoice items that wait for the next invoice of this subscription; one that names no other goes on any."""
    return [
        item
        for item in db.all("invoiceitem")
        if item["invoice"] is None
        and item["customer"] == subscription["customer"]
        and item["currency"] == subscription["currency"]
        and ((item["parent"] or {}).get("subscription_details") or {}).get("subscription") in {None, subscription["id"]}
    ]


def preview_now(ctx: Context, subscription: Obj) -> Obj:
    """The invoice that would bill at once what waits for the next one; it is not kept."""
    invoice = bills.new_invoice(
        ctx, _customer(ctx, subscription), subscription["currency"], "subscription_update", subscription=subscription
    )
    invoice["id"] = f"upcoming_{invoice['id']}"
    bills.put_lines(invoice, [bills.item_line(ctx, invoice["id"], item) for item in pending(ctx.db, subscription)])
    invoices.balanced(ctx, invoice)
    return invoice


def charge_now(ctx: Context, subscription: Obj) -> Payment:
    """Bill what waits for the next invoice at once, such as the difference that a change of plan makes."""
    invoice = bills.new_invoice(
        ctx, _customer(ctx, subscription), subscription["currency"], "subscription_update", subscription=subscription
    )
    subscription["latest_invoice"] = invoice["id"]
    ctx.db.put("subscription", subscription)
    _bill(ctx, subscription, invoice, [], [], advance=False)
    invoices.finalize(ctx, invoice)
    if invoice["status"] != "open":
        return Payment.PAID
    invoice["auto_advance"] = True
    return invoices.collect(ctx, invoice)


def _renew(ctx: Context, subscription: Obj) -> None:
    """The items whose period is over go on into the next one, and one draft bills all of them."""
    ending = [item for item in items_of(subscription) if item["current_period_end"] <= ctx.now_s]
    before = {"items": {**subscription["items"], "data": [dict(item) for item in items_of(subscription)]}}
    before["latest_invoice"] = subscription["latest_invoice"]
    invoice = bills.new_invoice(
        ctx, _customer(ctx, subscription), subscription["currency"], "subscription_cycle", subscription=subscription
    )
    invoice["period_start"] = min(item["current_period_start"] for item in ending)
    usage = [_usage(item, item["current_period_end"]) for item in ending if is_metered(item["price"])]
    lines = []
    for item in ending:
        start, end = _period(subscription, item, ctx.now_s)
        item |= {"current_period_start": start, "current_period_end": end}
        lines += [] if is_metered(item["price"]) else _licensed(ctx, invoice["id"], item, (start, end))
    subscription["latest_invoice"] = invoice["id"]
    _keep(ctx, subscription)
    ctx.emit("customer.subscription.updated", subscription, before)
    _bill(ctx, subscription, invoice, lines, usage, advance=subscription["status"] != _UNPAID)


def _bill(
    ctx: Context, subscription: Obj, invoice: Obj, lines: Sequence[Obj], usage: Sequence[Obj], *, advance: bool = True
) -> None:
    """Issue a draft of these lines, this usage, and whatever waits."""
    bills.put_lines(invoice, [*lines, *_swept(ctx, invoice, subscription)])
    invoices.bill_usage(ctx.db, invoice, usage)
    invoices.issue(ctx, invoice, advance=advance)


def _swept(ctx: Context, invoice: Obj, subscription: Obj) -> list[Obj]:
    """The invoice items that waited are on this invoice from now on."""
    lines = []
    for item in pending(ctx.db, subscription):
        item["invoice"] = invoice["id"]
        ctx.db.put("invoiceitem", item)
        lines.append(bills.item_line(ctx, invoice["id"], item))
    return lines


def _first_lines(ctx: Context, invoice: str, subscription: Obj, item: Obj, wish: Wish) -> list[Obj]:
    """Licensed items are paid from the start; a first period that is cut short costs its share, or nothing."""
    if is_metered(item["price"]):
        return []
    start, end = item["current_period_start"], item["current_period_end"]
    whole = _period(subscription, item, start)
    if whole == (start, end):
        return _licensed(ctx, invoice, item, whole)
    if not wish.prorate:
        return []
    seconds = (end - start, whole[1] - whole[0])
    parts = [_part(piece, seconds, item["price"]["currency"]) for piece in _pieces(ctx, item)]
    return bills.charge_lines(ctx, invoice, item, parts, (start, end))


def _part(piece: Piece, seconds: tuple[int, int], currency: str) -> Piece:
    return Piece(piece.quantity, part(piece.amount, *seconds, currency), piece.unit_amount_decimal, piece.words)


def _licensed(ctx: Context, invoice: str, item: Obj, period: tuple[int, int]) -> list[Obj]:
    return bills.charge_lines(ctx, invoice, item, _pieces(ctx, item), period)


def _pieces(ctx: Context, item: Obj) -> list[Piece]:
    return pieces(stored(ctx.db, item), item["quantity"])


def _usage(item: Obj, end_s: int) -> Obj:
    """What a draft keeps of the usage that it bills: the item as it was, and its period."""
    return {"item": dict(item), "start": item["current_period_start"], "end": end_s}


def _period(subscription: Obj, item: Obj, at_s: int) -> tuple[int, int]:
    return period_at(Anchor.of(subscription), Cycle.of(item["price"]), at_s)


def stored(db: Db, item: Obj) -> Obj:
    """The price of an item with its tiers."""
    return db.get("price", item["price"]["id"]) or dict(item["price"])


def _customer(ctx: Context, subscription: Obj) -> Obj:
    return ctx.db.get("customer", subscription["customer"]) or {"id": subscription["customer"]}


def _keep(ctx: Context, subscription: Obj) -> None:
    """Keep it, and ring when something of it ends."""
    ctx.db.put("subscription", subscription)
    wind_up(ctx.db, subscription)


def wind_up(db: Db, subscription: Obj) -> None:
    """Ring when the next period of an item ends, or it stops."""
    stops = subscription["cancel_at"]
    moment = ends_at(subscription) if stops is None else min(ends_at(subscription), stops)
    wind(db, "renew", subscription["id"], moment)
