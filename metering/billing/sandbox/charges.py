"""/v1/charges: one attempt of a payment intent to take money. https://docs.stripe.com/api/charges"""

from typing import Any, Final

from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.fields import CREATED, LIST, TEXT, Fields
from metering.billing.sandbox.lists import listing
from metering.billing.sandbox.unbuilt import unbuilt

KIND: Final = "charge"

_NOTHING: Final[Obj] = {
    "application": None,
    "application_fee": None,
    "application_fee_amount": None,
    "balance_transaction": None,
    "calculated_statement_descriptor": None,
    "failure_balance_transaction": None,
    "failure_code": None,
    "failure_message": None,
    "fraud_details": {},
    "livemode": False,
    "object": KIND,
    "on_behalf_of": None,
    "receipt_email": None,
    "receipt_number": None,
    "receipt_url": None,
    "review": None,
    "shipping": None,
    "source": None,
    "source_transfer": None,
    "statement_descriptor": None,
    "statement_descriptor_suffix": None,
    "transfer_data": None,
    "transfer_group": None,
}


def begun(ctx: Context, intent: Obj, method: Obj, status: str) -> Obj:
    """A charge of an intent: `succeeded`, `pending` or `failed`. It is not told of here."""
    good = status == "succeeded"
    charge = {
        **_NOTHING,
        "id": ctx.db.new_id("ch"),
        "amount": intent["amount"],
        "amount_captured": 0 if status == "failed" else intent["amount"],
        "amount_refunded": 0,
        "billing_details": dict(method["billing_details"]),
        "captured": status != "failed",
        "created": ctx.now_s,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "metadata": dict(intent["metadata"]),
        "outcome": _outcome("authorized" if good else None),
        "paid": good,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": _details(method),
        "refunded": False,
        "status": status,
    }
    ctx.db.put(KIND, charge)
    return charge


def failed(ctx: Context, charge: Obj, code: str, message: str) -> None:
    """A charge did not take the money."""
    charge |= {"status": "failed", "paid": False, "captured": False, "amount_captured": 0}
    charge |= {"failure_code": code, "failure_message": message, "outcome": _outcome("issuer_declined")}
    ctx.db.put(KIND, charge)
    ctx.emit("charge.failed", charge)


def succeeded(ctx: Context, charge: Obj) -> None:
    """A charge took the money."""
    charge |= {"status": "succeeded", "paid": True, "outcome": _outcome("authorized")}
    ctx.db.put(KIND, charge)
    ctx.emit("charge.succeeded", charge)


def retrieve(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/charges/{id}."""
    del params
    return ctx.need(KIND)


def list_all(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/charges: the newest first."""
    return listing(ctx, KIND, params, "customer", "payment_intent")


def _outcome(kind: str | None) -> Obj:
    return {
        "advice_code": None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "declined_by_network" if kind == "issuer_declined" else "approved_by_network",
        "reason": "generic_decline" if kind == "issuer_declined" else None,
        "risk_level": "normal",
        "seller_message": None,
        "type": kind or "authorized",
    }


def _details(method: Obj) -> Obj:
    if method["type"] == "card":
        card = method["card"]
        shown = {name: card[name] for name in ("brand", "country", "exp_month", "exp_year", "funding", "last4")}
        return {"type": "card", "card": {**shown, "network": "visa"}}
    bank = method["us_bank_account"]
    return {
        "type": "us_bank_account",
        "us_bank_account": {name: bank[name] for name in ("account_type", "bank_name", "last4", "routing_number")},
    }


ROUTES: Final = (
    Route("GET", "/v1/charges/{id}", retrieve),
    Route(
        "GET",
        "/v1/charges",
        list_all,
        Fields(LIST, created=CREATED, customer=TEXT, payment_intent=TEXT, **unbuilt("transfer_group")),
    ),
)
