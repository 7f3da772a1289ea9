"""A checkout of one payment: https://docs.stripe.com/payments/checkout, mode=payment.

With a slow method the session is complete and yet unpaid; how it ended is told by an event of its own some days later
(https://docs.stripe.com/payments/checkout/fulfill-orders#delayed-notification).
"""

from typing import Any, Final

from metering.billing.sandbox.context import Context
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.fields import COUNT, METADATA, TEXT, Fields, Need, OneOf, Text
from metering.billing.sandbox.methods import TestMethod, made
from metering.billing.sandbox.payment_calls import new
from metering.billing.sandbox.payments import SLOW_ENDS, PaymentFailed, attempt, put
from metering.billing.sandbox.prices import create_price, create_product
from metering.billing.sandbox.unbuilt import unbuilt

_KIND: Final = "checkout.session"

PRICE_DATA: Final = Fields(
    currency=Need(Text(3)),
    product_data=Fields(name=Need(TEXT), **unbuilt("description images metadata tax_code unit_label")),
    unit_amount=COUNT,
    **unbuilt("product recurring tax_behavior unit_amount_decimal"),
)

PAYMENT_DATA: Final = Fields(
    description=TEXT,
    metadata=METADATA,
    receipt_email=TEXT,
    setup_future_usage=OneOf("off_session", "on_session"),
    **unbuilt("application_fee_amount capture_method on_behalf_of shipping statement_descriptor"),
    **unbuilt("statement_descriptor_suffix transfer_data transfer_group"),
)


def once_sold(ctx: Context, line: dict[str, Any], where: str) -> tuple[Obj, int | None]:
    """A line's price and quantity: one that is there, or one that is made for this checkout."""
    if line.get("quantity") is None:
        told = f"Quantity is required. Add `quantity` to `{where}`"
        raise ApiError(told, code="parameter_missing", param=f"{where}[quantity]")
    if line.get("price") and line.get("price_data"):
        raise ApiError(f"You may only specify one of these parameters: {where}[price], {where}[price_data].")
    if line.get("price"):
        return _price(ctx, line["price"], where), line["quantity"]
    told_of = line.get("price_data")
    if not told_of or told_of.get("unit_amount") is None:
        raise ApiError(f"Missing required param: {where}[price].", code="parameter_missing", param=f"{where}[price]")
    product = create_product(ctx, {"name": (told_of.get("product_data") or {}).get("name", "")})
    terms = {"product": product["id"], "currency": told_of["currency"], "unit_amount": told_of["unit_amount"]}
    return create_price(ctx, {**terms, "active": False}), line["quantity"]


def _price(ctx: Context, price_id: str, where: str) -> Obj:
    price = ctx.need("price", price_id, param=f"{where}[price]")
    if not price["active"] or price["type"] != "one_time":
        raise ApiError("The price is inactive, or recurring in `payment` mode.", param=f"{where}[price]")
    return price


def paid_once(ctx: Context, session: Obj, customer: Obj, data: Obj, test: TestMethod) -> None:
    """Pay for a session with a test method: it is complete, and paid unless the method is slow. Raises ApiError 402."""
    terms = {"amount": session["amount_total"], "currency": session["currency"], "customer": customer["id"]}
    intent = new(ctx, {**data, **terms})
    put(ctx, dict(intent), "payment_intent.created")
    attempt(ctx, intent, made(ctx, test), off_session=False)
    if intent["status"] == "requires_action":  # its holder says no: the page has no other button for such a card
        raise PaymentFailed(intent, "authentication_required", lambda _: None)
    session |= {
        "customer": customer["id"],
        "payment_intent": intent["id"],
        "payment_status": "paid" if intent["status"] == "succeeded" else "unpaid",
        "status": "complete",
        "url": None,
    }


def _told(ctx: Context, intent: Obj) -> None:
    """The session of a payment that arrived late, or never."""
    for session in ctx.db.all(_KIND):
        if session["payment_intent"] == intent["id"]:
            good = intent["status"] == "succeeded"
            session["payment_status"] = "paid" if good else "unpaid"
            ctx.db.put(_KIND, session)
            ctx.emit(f"checkout.session.async_payment_{'succeeded' if good else 'failed'}", session)


SLOW_ENDS.append(_told)
