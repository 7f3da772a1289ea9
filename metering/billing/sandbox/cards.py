"""How customers pay: each has one card or none, and what the card does is told beforehand. No money moves."""

from enum import StrEnum
from typing import Final

from metering.billing.sandbox.context import Context
from metering.billing.sandbox.db import Db, Obj
from metering.billing.sandbox.faults import PAYMENTS

_KIND: Final = "sandbox.card"
_EXPIRES: Final = 2099


class Card(StrEnum):
    """What a card does with a payment."""

    GOOD = "succeed"
    BAD = "decline"
    ASKS = "authentication_required"  # of its holder, who is not there


class Payment(StrEnum):
    """How a payment ended. The values are codes of Stripe's where it has one."""

    PAID = "paid"
    DECLINED = "card_declined"
    ASKS = "authentication_required"
    NO_CARD = "no_card"


LAST4: Final = {Card.GOOD: "4242", Card.BAD: "0341", Card.ASKS: "3184"}
"""Of their numbers the last four digits: those of Stripe's own test cards."""

CARD_OF: Final = {last4: card for card, last4 in LAST4.items()}

_ENDS: Final = {Card.GOOD: Payment.PAID, Card.BAD: Payment.DECLINED, Card.ASKS: Payment.ASKS}


def card_of(db: Db, customer: str) -> Card | None:
    """What the card of a customer does; None where there is no card."""
    found = db.get(_KIND, customer)
    return None if found is None else Card(found["card"])


def give_card(ctx: Context, customer: str, card: Card) -> None:
    """Make this the customer's card, in place of the one before."""
    ctx.db.put(_KIND, {"id": customer, "card": card})
    known = ctx.db.get("customer", customer)
    if known is None or known.get("deleted"):
        return
    method = method_of(ctx, customer, LAST4[card])
    ctx.db.put("payment_method", method)
    ctx.emit("payment_method.attached", method)
    settings = known.get("invoice_settings") or {}
    before = {"invoice_settings": {"default_payment_method": settings.get("default_payment_method")}}
    known["invoice_settings"] = {**settings, "default_payment_method": method["id"]}
    ctx.db.put("customer", known)
    ctx.emit("customer.updated", known, before)


def pays(ctx: Context, customer: str) -> Payment:
    """One attempt to take money. A fault that is set for the next payment comes before what the card does."""
    fault = ctx.faults.take(*PAYMENTS)
    if fault is not None:
        return Payment.DECLINED if fault.kind == "card_decline" else Payment.ASKS
    card = card_of(ctx.db, customer)
    return Payment.NO_CARD if card is None else _ENDS[card]


def method_of(ctx: Context, customer: str | None, last4: str) -> Obj:
    """A card as Stripe shows it."""
    return {
        "id": ctx.db.new_id("pm"),
        "object": "payment_method",
        "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
        "card": {
            "brand": "visa",
            "checks": None,
            "country": "US",
            "display_brand": "visa",
            "exp_month": 12,
            "exp_year": _EXPIRES,
            "fingerprint": None,
            "funding": "credit",
            "generated_from": None,
            "last4": last4,
            "networks": None,
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        },
        "created": ctx.now_s,
        "customer": customer,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
    }
