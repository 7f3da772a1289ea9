"""/v1/refunds: https://docs.stripe.com/refunds. Which of them wait or fail depends on the card that paid."""

from typing import Any, Final

from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.fields import CREATED, LIST, METADATA, TEXT, Fields, OneOf, Whole
from metering.billing.sandbox.lists import listing
from metering.billing.sandbox.metadata import merged
from metering.billing.sandbox.methods import Does, does
from metering.billing.sandbox.timers import on, wind
from metering.billing.sandbox.unbuilt import unbuilt

KIND: Final = "refund"

SLOW_S: Final = 86_400
"""How long a refund takes that does not end at once."""


def create(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/refunds: of an intent or a charge, all that is left of it or `amount`."""
    charge = _charge(ctx, params)
    left = charge["amount"] - charge["amount_refunded"]
    amount = params.get("amount") or left
    _check(ctx, charge, amount, left)
    pays = does(ctx, ctx.need("payment_method", charge["payment_method"]))
    refund: Obj = {
        "id": ctx.db.new_id("re"),
        "object": KIND,
        "amount": amount,
        "balance_transaction": None,
        "charge": charge["id"],
        "created": ctx.now_s,
        "currency": charge["currency"],
        "destination_details": {"card": {"reference_status": "pending", "type": "refund"}, "type": "card"},
        "metadata": merged({}, params.get("metadata") or {}),
        "payment_intent": charge["payment_intent"],
        "reason": params.get("reason"),
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "pending" if pays is Does.REFUND_PENDS else "succeeded",
        "transfer_reversal": None,
    }
    ctx.db.put(KIND, refund)
    _moved(ctx, charge, amount)
    ctx.emit("refund.created", refund)
    ctx.emit("charge.refunded", charge)
    if pays in {Does.REFUND_PENDS, Does.REFUND_FAILS}:
        wind(ctx.db, "refund", refund["id"], ctx.now_s + SLOW_S)
    return refund


@on("refund")
def _ends(ctx: Context, refund_id: str) -> None:
    """A refund that waited arrives; one that its bank sends back has failed, even if it had succeeded before."""
    refund = ctx.need(KIND, refund_id)
    before = {"status": refund["status"]}
    if refund["status"] == "pending":
        refund["status"] = "succeeded"
        ctx.db.put(KIND, refund)
        ctx.emit("refund.updated", refund, before)
        return
    refund |= {"status": "failed", "failure_reason": "expired_or_canceled_card"}
    ctx.db.put(KIND, refund)
    charge = ctx.need("charge", refund["charge"])
    _moved(ctx, charge, -refund["amount"])
    ctx.emit("refund.updated", refund, before)
    ctx.emit("refund.failed", refund)
    ctx.emit("charge.updated", charge, {"amount_refunded": charge["amount_refunded"] + refund["amount"]})


def retrieve(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/refunds/{id}."""
    del params
    return ctx.need(KIND)


def list_all(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/refunds: the newest first."""
    return listing(ctx, KIND, params, "charge", "payment_intent")


def _charge(ctx: Context, params: dict[str, Any]) -> Obj:
    """What is to be refunded. Raises ApiError 400 where nothing was paid."""
    charge_id = params.get("charge")
    if not charge_id and not params.get("payment_intent"):
        raise ApiError("One of the following params should be provided for this request: payment_intent or charge.")
    if params.get("payment_intent"):
        intent = ctx.need("payment_intent", params["payment_intent"], param="payment_intent")
        if intent["status"] != "succeeded":
            told = f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund."
            raise ApiError(told, param="payment_intent")
        charge_id = intent["latest_charge"]
    return ctx.need("charge", charge_id, param="charge")


def _check(ctx: Context, charge: Obj, amount: int, left: int) -> None:
    disputes = [row for row in ctx.db.all("dispute") if row["charge"] == charge["id"]]
    if not all(row["is_charge_refundable"] for row in disputes):
        raise ApiError(f"Charge {charge['id']} has been charged back; cannot issue a refund.", code="charge_disputed")
    if charge["refunded"]:
        raise ApiError(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    if amount > left:
        raise ApiError(f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})", param="amount")


def _moved(ctx: Context, charge: Obj, amount: int) -> None:
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    ctx.db.put("charge", charge)


ROUTES: Final = (
    Route(
        "POST",
        "/v1/refunds",
        create,
        Fields(
            amount=Whole(1),
            charge=TEXT,
            metadata=METADATA,
            payment_intent=TEXT,
            reason=OneOf("duplicate", "fraudulent", "requested_by_customer"),
            **unbuilt("currency customer instructions_email origin refund_application_fee reverse_transfer"),
        ),
    ),
    Route("GET", "/v1/refunds/{id}", retrieve),
    Route("GET", "/v1/refunds", list_all, Fields(LIST, charge=TEXT, created=CREATED, payment_intent=TEXT)),
)
