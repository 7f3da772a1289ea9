"""The life of an invoice: draft, finalized an hour later, paid or not, tried again, given up.

https://docs.stripe.com/billing/invoices/subscription, https://docs.stripe.com/billing/revenue-recovery/smart-retries.
What a failed last attempt does to the subscription is a setting of the account; here it is cancelled.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from metering.billing.sandbox import bills
from metering.billing.sandbox.amounts import pieces
from metering.billing.sandbox.cards import Payment, pays
from metering.billing.sandbox.context import Context
from metering.billing.sandbox.db import Db, Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.metered import used
from metering.billing.sandbox.timers import on, wind

DRAFT_S: Final = 3600
"""How long an invoice that came by itself is a draft."""

RETRIES_S: Final = (2 * 86_400, 3 * 86_400, 5 * 86_400)
"""After a failed payment the next attempt comes so much later: three more, over ten days."""

PAGE: Final = "/i/"
"""Where the page of a final invoice is, and under it the same as a PDF."""

_USAGE: Final = "sandbox.usage"
"""Which usage a draft bills: by invoice id the items, prices and periods."""

OF: Final = "sandbox.bill"
"""The ids of all invoices by subscription."""

_TOLD: Final = {
    Payment.DECLINED: "Your card was declined.",
    Payment.ASKS: "Your card requires authentication, which its holder has to give.",
    Payment.NO_CARD: "There is no card: no default_payment_method of the customer or the subscription.",
}


def bill_usage(db: Db, invoice: Obj, rows: Sequence[Obj]) -> None:
    """Let a draft bill usage: rows of `item` (a subscription item), `start` and `end`, counted until it is final."""
    if rows:
        db.put(_USAGE, {"id": invoice["id"], "rows": list(rows)})


def counted(ctx: Context, invoice: Obj) -> Obj:
    """The invoice; a draft has its usage counted again. Lines keep their ids as long as there is as much of them."""
    usage = ctx.db.get(_USAGE, invoice["id"]) if invoice["status"] == "draft" else None
    if usage is None:
        return invoice
    items = {row["item"]["id"] for row in usage["rows"]}
    old: list[Obj] = []
    kept: list[Obj] = []
    for line in invoice["lines"]["data"]:
        details = (line["parent"] or {}).get("subscription_item_details") or {}
        (old if details.get("subscription_item") in items else kept).append(line)
    fresh = [line for row in usage["rows"] for line in usage_lines(ctx, invoice["id"], invoice["customer"], row)]
    for was, now in zip(old, fresh, strict=False):
        now["id"] = was["id"]
    bills.put_lines(invoice, [*kept, *fresh])
    ctx.db.put("invoice", invoice)
    return invoice


def usage_lines(ctx: Context, invoice: str, customer: str, row: Obj) -> list[Obj]:
    """The lines for the usage of one item in one period, as much as there is by now."""
    item = row["item"]
    price = ctx.db.get("price", item["price"]["id"]) or item["price"]  # the stored one has its tiers
    units = used(ctx.db, price, customer, row["start"], row["end"])
    return bills.charge_lines(ctx, invoice, item, pieces(price, units), (row["start"], row["end"]))


def issue(ctx: Context, invoice: Obj, *, advance: bool = True) -> None:
    """Keep a new draft and tell of it; with `advance` it is finalized and paid by itself in an hour."""
    if advance:
        invoice["auto_advance"] = True
        invoice["automatically_finalizes_at"] = ctx.now_s + DRAFT_S
        wind(ctx.db, "finalize", invoice["id"], ctx.now_s + DRAFT_S)
    subscription = bills.subscription_of(invoice)
    if subscription is not None:
        ctx.db.put(OF, {"id": invoice["id"]}, parent=subscription)
    ctx.db.put("invoice", invoice)
    ctx.emit("invoice.created", counted(ctx, invoice))


def finalize(ctx: Context, invoice: Obj) -> None:
    """Make a draft final: numbered, open, and its usage never counted again. One of nothing is paid at once."""
    counted(ctx, invoice)
    ctx.db.delete(_USAGE, invoice["id"])
    wind(ctx.db, "finalize", invoice["id"], None)
    invoice |= {"status": "open", "number": _number(ctx.db, invoice), "automatically_finalizes_at": None}
    invoice["effective_at"] = ctx.now_s
    _carry_over(ctx, invoice)
    invoice["status_transitions"]["finalized_at"] = ctx.now_s
    ctx.db.put("invoice", invoice)
    ctx.emit("invoice.finalized", invoice)
    if invoice["amount_due"] == 0:
        settle(ctx, invoice)


def balanced(ctx: Context, invoice: Obj) -> int:
    """Let the customer's balance (below zero: credit) change what an invoice asks for; what is left of it.

    A total below zero becomes credit for the invoices after it (https://docs.stripe.com/billing/customer/balance).
    """
    customer = ctx.db.get("customer", invoice["customer"]) or {}
    before = customer.get("balance") or 0
    owed = int(invoice["total"] + before)
    invoice |= {"starting_balance": before, "amount_due": max(0, owed), "amount_remaining": max(0, owed)}
    return min(0, owed)


def _carry_over(ctx: Context, invoice: Obj) -> None:
    left = balanced(ctx, invoice)
    invoice["ending_balance"] = left
    customer = ctx.db.get("customer", invoice["customer"])
    if customer is not None and not customer.get("deleted") and customer["balance"] != left:
        before = {"balance": customer["balance"]}
        customer["balance"] = left
        ctx.db.put("customer", customer)
        ctx.emit("customer.updated", customer, before)


@on("finalize")
def _finalize_due(ctx: Context, invoice_id: str) -> None:
    invoice = ctx.db.get("invoice", invoice_id)
    if invoice is not None and invoice["status"] == "draft":
        finalize(ctx, invoice)
        if invoice["status"] == "open":
            collect(ctx, invoice)


def collect(ctx: Context, invoice: Obj) -> Payment:
    """One attempt to have an open invoice paid; a failed one has consequences for its subscription."""
    outcome = pays(ctx, invoice["customer"])
    invoice["attempted"], invoice["attempt_count"] = True, invoice["attempt_count"] + 1
    if outcome is Payment.PAID:
        settle(ctx, invoice)
        return outcome
    tries = invoice["attempt_count"]
    later = tries <= len(RETRIES_S) and invoice["auto_advance"]
    invoice["next_payment_attempt"] = ctx.now_s + RETRIES_S[tries - 1] if later else None
    wind(ctx.db, "retry", invoice["id"], invoice["next_payment_attempt"])
    ctx.db.put("invoice", invoice)
    ctx.emit("invoice.payment_failed", invoice)
    if outcome is Payment.ASKS:
        ctx.emit("invoice.payment_action_required", invoice)
    _fails(ctx, invoice)
    return outcome


@on("retry")
def _retry_due(ctx: Context, invoice_id: str) -> None:
    invoice = ctx.db.get("invoice", invoice_id)
    if invoice is not None and invoice["status"] == "open" and invoice["auto_advance"]:
        collect(ctx, invoice)


def settle(ctx: Context, invoice: Obj, *, outside: bool = False) -> None:
    """An open (or given up) invoice is paid, `outside` of Stripe where so said; its subscription is good again."""
    due = invoice["amount_due"]
    if due and not outside:
        invoice["payments"]["data"].insert(0, _payment(ctx, invoice, due))
    invoice |= {"status": "paid", "attempted": True, "amount_paid": due, "amount_remaining": 0}
    invoice |= {"next_payment_attempt": None, "auto_advance": False}
    invoice["status_transitions"]["paid_at"] = ctx.now_s
    wind(ctx.db, "retry", invoice["id"], None)
    ctx.db.put("invoice", invoice)
    ctx.emit("invoice.paid", invoice)
    if not outside:
        ctx.emit("invoice.payment_succeeded", invoice)
    subscription = _subscription(ctx, invoice)
    if subscription is not None and subscription["status"] in {"past_due", "unpaid", "incomplete"}:
        _change(ctx, subscription, "active")


def declined(outcome: Payment) -> ApiError:
    """What to raise where a caller waits for a payment that failed: 402."""
    code = "card_declined" if outcome is Payment.NO_CARD else outcome.value
    fields = {"decline_code": "generic_decline"} if outcome is Payment.DECLINED else None
    if outcome is Payment.NO_CARD:
        return ApiError(_TOLD[outcome], code="resource_missing")
    return ApiError(_TOLD[outcome], status=HTTPStatus.PAYMENT_REQUIRED, kind="card_error", code=code, fields=fields)


def void(ctx: Context, invoice: Obj) -> None:
    """An open (or given up) invoice is taken back: it counts for nothing, and nobody owes it."""
    _close(ctx, invoice, "void", "voided_at", "invoice.voided")


def give_up(ctx: Context, invoice: Obj, reason: str = "user_forgiven") -> None:
    """An open invoice is owed, and nobody believes that it will be paid."""
    invoice["status_details"] = {"uncollectible": {"reason": reason}}
    _close(ctx, invoice, "uncollectible", "marked_uncollectible_at", "invoice.marked_uncollectible")


def _close(ctx: Context, invoice: Obj, status: str, moment: str, kind: str) -> None:
    invoice |= {"status": status, "next_payment_attempt": None, "auto_advance": False}
    invoice["status_transitions"][moment] = ctx.now_s
    wind(ctx.db, "retry", invoice["id"], None)
    ctx.db.put("invoice", invoice)
    ctx.emit(kind, invoice)


def _fails(ctx: Context, invoice: Obj) -> None:
    """A subscription whose invoice was not paid is past due; after the last attempt it ends."""
    subscription = _subscription(ctx, invoice)
    if subscription is None:
        return
    if subscription["status"] == "active":
        _change(ctx, subscription, "past_due")
    elif subscription["status"] == "past_due" and invoice["next_payment_attempt"] is None and invoice["auto_advance"]:
        _give_in(ctx, subscription)


def _give_in(ctx: Context, subscription: Obj) -> None:
    """After the last attempt: as the account is set, `canceled` or `unpaid` (kept under `sandbox.setting`)."""
    setting = ctx.db.get("sandbox.setting", "after_retries") or {"value": "canceled"}
    if setting["value"] == "canceled":
        end(ctx, subscription, "payment_failed")
    else:
        _change(ctx, subscription, setting["value"])


def end(ctx: Context, subscription: Obj, reason: str) -> None:
    """A subscription is over: no timers, no more attempts at its open invoices, and no usage billed by itself."""
    details = {**(subscription["cancellation_details"] or {"comment": None, "feedback": None}), "reason": reason}
    subscription |= {"status": "canceled", "ended_at": ctx.now_s, "cancellation_details": details}
    subscription["canceled_at"] = subscription["canceled_at"] or ctx.now_s
    wind(ctx.db, "renew", subscription["id"], None)
    wind(ctx.db, "lapse", subscription["id"], None)
    for invoice in ctx.db.of(OF, subscription["id"]):
        found = ctx.db.get("invoice", invoice["id"])
        if found is not None and found["status"] == "open":
            found |= {"auto_advance": False, "next_payment_attempt": None}
            wind(ctx.db, "retry", found["id"], None)
            ctx.db.put("invoice", found)
    ctx.db.put("subscription", subscription)
    ctx.emit("customer.subscription.deleted", subscription)


def _change(ctx: Context, subscription: Obj, status: str) -> None:
    before = {"status": subscription["status"]}
    subscription["status"] = status
    wind(ctx.db, "lapse", subscription["id"], None)
    ctx.db.put("subscription", subscription)
    ctx.emit("customer.subscription.updated", subscription, before)


def _subscription(ctx: Context, invoice: Obj) -> Obj | None:
    subscription = bills.subscription_of(invoice)
    return None if subscription is None else ctx.db.get("subscription", subscription)


def _number(db: Db, invoice: Obj) -> str:
    sequence = db.get("sandbox.sequence", invoice["customer"]) or {"id": invoice["customer"], "last": 0}
    sequence["last"] += 1
    db.put("sandbox.sequence", sequence)
    return f"{invoice['customer'][-8:].upper()}-{sequence['last']:04d}"


def _payment(ctx: Context, invoice: Obj, amount: int) -> Obj:
    return {
        "id": ctx.db.new_id("inpay"),
        "object": "invoice_payment",
        "amount_paid": amount,
        "amount_requested": amount,
        "created": ctx.now_s,
        "currency": invoice["currency"],
        "invoice": invoice["id"],
        "is_default": True,
        "livemode": False,
        "payment": {"payment_intent": ctx.db.new_id("pi"), "type": "payment_intent"},
        "status": "paid",
        "status_transitions": {"canceled_at": None, "paid_at": ctx.now_s},
    }
