"""Invoices and their lines as objects: how they look, and what they add up to.

https://docs.stripe.com/api/invoices/object, https://docs.stripe.com/api/invoice-line-item/object
"""

from collections.abc import Iterable, Sequence
from typing import Final

from metering.billing.sandbox.amounts import Piece
from metering.billing.sandbox.context import Context
from metering.billing.sandbox.db import Db, Obj
from metering.billing.sandbox.lists import as_list

_NOTHING: Final[Obj] = {
    "account_tax_ids": None,
    "amount_overpaid": 0,
    "amount_shipping": 0,
    "application": None,
    "attempt_count": 0,
    "attempted": False,
    "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None, "provider": None, "status": None},
    "custom_fields": None,
    "customer_account": None,
    "customer_address": None,
    "customer_phone": None,
    "customer_shipping": None,
    "customer_tax_exempt": "none",
    "default_payment_method": None,
    "default_source": None,
    "default_tax_rates": [],
    "description": None,
    "discounts": [],
    "due_date": None,
    "effective_at": None,
    "ending_balance": None,
    "footer": None,
    "from_invoice": None,
    "hosted_invoice_url": None,
    "invoice_pdf": None,
    "issuer": {"type": "self"},
    "last_finalization_error": None,
    "latest_revision": None,
    "livemode": False,
    "metadata": {},
    "next_payment_attempt": None,
    "number": None,
    "on_behalf_of": None,
    "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
    "post_payment_credit_notes_amount": 0,
    "pre_payment_credit_notes_amount": 0,
    "receipt_number": None,
    "rendering": None,
    "shipping_cost": None,
    "shipping_details": None,
    "starting_balance": 0,
    "statement_descriptor": None,
    "test_clock": None,
    "webhooks_delivered_at": None,
}
"""Fields that say nothing here."""


def new_invoice(ctx: Context, customer: Obj, currency: str, reason: str, *, subscription: Obj | None = None) -> Obj:
    """A draft without lines that does nothing by itself. `reason` is its billing_reason."""
    invoice_id = ctx.db.new_id("in")
    return {
        **_NOTHING,
        "id": invoice_id,
        "object": "invoice",
        "account_country": "US",
        "account_name": "SANDBOX: no money moves",
        "auto_advance": False,
        "automatically_finalizes_at": None,
        **({} if subscription is None else _tax(subscription)),
        "amount_paid": 0,
        "billing_reason": reason,
        "collection_method": "charge_automatically",
        "created": ctx.now_s,
        "currency": currency,
        "customer": customer["id"],
        "customer_email": customer.get("email"),
        "customer_name": customer.get("name"),
        "parent": None if subscription is None else _parent(subscription),
        "payments": as_list(f"/v1/invoice_payments?invoice={invoice_id}", []),
        "period_start": ctx.now_s,
        "period_end": ctx.now_s,
        "status": "draft",
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        **_sums(invoice_id, [], 0),
    }


def subscription_of(invoice: Obj) -> str | None:
    """The subscription that an invoice is of."""
    return ((invoice["parent"] or {}).get("subscription_details") or {}).get("subscription")


def put_lines(invoice: Obj, lines: Sequence[Obj]) -> None:
    """Make these the lines of an invoice, and add them up. What they come to below zero is carried by nobody: 0 due."""
    invoice |= _sums(invoice["id"], lines, invoice["amount_paid"])


def charge_lines(ctx: Context, invoice: str, item: Obj, pieces: Iterable[Piece], period: tuple[int, int]) -> list[Obj]:
    """The lines that bill a subscription item for a period."""
    details = {
        "invoice_item": None,
        "proration": False,
        "proration_details": None,
        "subscription": item["subscription"],
        "subscription_item": item["id"],
    }
    parent = {
        "invoice_item_details": None,
        "subscription_item_details": details,
        "type": "subscription_item_details",
    }
    lines = []
    for piece in pieces:
        words = f"{piece.quantity} x {title(ctx.db, item['price'])}"
        words += f" ({piece.words})" if piece.words else ""
        line = _line(ctx, invoice, item["price"]["currency"], piece.amount, words, period)
        line |= {"parent": parent, "pricing": pricing(item["price"], piece.unit_amount_decimal)}
        line |= {"quantity": piece.quantity, "quantity_decimal": str(piece.quantity)}
        line |= {"subscription": item["subscription"], "metadata": dict(item["metadata"])}
        lines.append(line)
    return lines


def title(db: Db, price: Obj) -> str:
    """What a price sells, as people call it."""
    product = db.get("product", price["product"])
    return str(price.get("nickname") or (product or price).get("name") or price["id"])


def item_line(ctx: Context, invoice: str, item: Obj) -> Obj:
    """The line that an invoice item becomes."""
    period = (item["period"]["start"], item["period"]["end"])
    line = _line(ctx, invoice, item["currency"], item["amount"], item["description"], period)
    subscription = ((item["parent"] or {}).get("subscription_details") or {}).get("subscription")
    details = {
        "invoice_item": item["id"],
        "proration": item["proration"],
        "proration_details": None,
        "subscription": subscription,
    }
    line["parent"] = {
        "invoice_item_details": details,
        "subscription_item_details": None,
        "type": "invoice_item_details",
    }
    line |= {"quantity": item["quantity"], "quantity_decimal": item["quantity_decimal"], "pricing": item["pricing"]}
    return line | {"metadata": dict(item["metadata"]), "subscription": subscription}


def pricing(price: Obj, unit_amount_decimal: str | None) -> Obj:
    """How a line says which price it is by."""
    return {
        "price_details": {"price": price["id"], "product": price["product"]},
        "type": "price_details",
        "unit_amount_decimal": unit_amount_decimal,
    }


def _line(ctx: Context, invoice: str, currency: str, amount: int, words: str | None, period: tuple[int, int]) -> Obj:
    return {
        "id": ctx.db.new_id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": currency,
        "description": words,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice,
        "livemode": False,
        "metadata": {},
        "parent": None,
        "period": {"start": period[0], "end": period[1]},
        "pretax_credit_amounts": [],
        "pricing": None,
        "quantity": None,
        "quantity_decimal": None,
        "subscription": None,
        "subtotal": amount,
        "taxes": [],
    }


def _tax(subscription: Obj) -> Obj:
    """What an invoice says where its subscription's tax is worked out: it comes to none, as no place here has any."""
    if not subscription["automatic_tax"]["enabled"]:
        return {}
    liability = {"type": "self"}
    told = {
        "disabled_reason": None,
        "enabled": True,
        "liability": liability,
        "provider": "stripe",
        "status": "complete",
    }
    return {"automatic_tax": told}


def _parent(subscription: Obj) -> Obj:
    details = {
        "metadata": dict(subscription["metadata"]),
        "subscription": subscription["id"],
    }
    return {"quote_details": None, "subscription_details": details, "type": "subscription_details"}


def _sums(invoice_id: str, lines: Sequence[Obj], paid: int) -> Obj:
    total = sum(line["amount"] for line in lines)
    due = max(0, total)
    return {
        "lines": as_list(f"/v1/invoices/{invoice_id}/lines", lines),
        "subtotal": total,
        "subtotal_excluding_tax": total,
        "total": total,
        "total_excluding_tax": total,
        "total_discount_amounts": [],
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "amount_due": due,
        "amount_remaining": due - paid,
    }
