"""/v1/disputes: a holder says that a payment was not theirs to make. https://docs.stripe.com/disputes

Evidence decides as with Stripe's test cards: `winning_evidence` or `losing_evidence` in its text
(https://docs.stripe.com/testing#disputes).
"""

from typing import Any, Final

from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.fields import CREATED, FLAG, LIST, METADATA, TEXT, Fields
from metering.billing.sandbox.lists import listing
from metering.billing.sandbox.metadata import merged
from metering.billing.sandbox.timers import on
from metering.billing.sandbox.unbuilt import unbuilt

KIND: Final = "dispute"

ANSWER_S: Final = 9 * 86_400
"""How long evidence is waited for."""

_ENDS: Final = {"winning_evidence": "won", "losing_evidence": "lost"}


def begin(ctx: Context, charge: Obj) -> Obj:
    """A charge is disputed, and its money is held back. Raises ApiError where it is already, or took nothing."""
    if charge["disputed"] or not charge["paid"]:
        raise ApiError(f"Charge {charge['id']} cannot be disputed.")
    charge["disputed"] = True
    ctx.db.put("charge", charge)
    dispute: Obj = {
        "id": ctx.db.new_id("du"),
        "object": KIND,
        "amount": charge["amount"],
        "balance_transactions": [],
        "charge": charge["id"],
        "created": ctx.now_s,
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {"enhanced_evidence": {}, "uncategorized_text": None},
        "evidence_details": {
            "due_by": ctx.now_s + ANSWER_S,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "reason": "fraudulent",
        "status": "needs_response",
    }
    ctx.db.put(KIND, dispute)
    ctx.emit("charge.dispute.created", dispute)
    ctx.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


@on("dispute")
def _begins(ctx: Context, charge_id: str) -> None:
    charge = ctx.need("charge", charge_id)
    if not charge["disputed"] and not charge["refunded"]:
        begin(ctx, charge)


def end(ctx: Context, dispute: Obj, status: str) -> None:
    """`won`: the money comes back; `lost`: it is gone. Raises ApiError where it is over already."""
    if dispute["status"] in _ENDS.values():
        raise ApiError(f"This dispute is already {dispute['status']}.")
    before = {"status": dispute["status"]}
    dispute |= {"status": status, "is_charge_refundable": status == "won"}
    ctx.db.put(KIND, dispute)
    if status == "won":
        ctx.emit("charge.dispute.funds_reinstated", dispute)
    ctx.emit("charge.dispute.updated", dispute, before)
    ctx.emit("charge.dispute.closed", dispute)


def retrieve(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/disputes/{id}."""
    del params
    return ctx.need(KIND)


def list_all(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/disputes: the newest first."""
    return listing(ctx, KIND, params, "charge", "payment_intent")


def update(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/disputes/{id}: evidence; what is submitted with one of the two words ends it."""
    dispute = ctx.need(KIND)
    if "metadata" in params:
        dispute["metadata"] = merged(dispute["metadata"], params["metadata"])
    text = (params.get("evidence") or {}).get("uncategorized_text")
    if text:
        dispute["evidence"]["uncategorized_text"] = text
        dispute["evidence_details"]["has_evidence"] = True
    ctx.db.put(KIND, dispute)
    status = _ENDS.get(dispute["evidence"]["uncategorized_text"] or "")
    if status and params.get("submit") is not False:
        dispute["evidence_details"] |= {"submission_count": 1, "submission_method": "manual"}
        end(ctx, dispute, status)
    return dispute


def close(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/disputes/{id}/close: nobody contests it, it is lost."""
    del params
    dispute = ctx.need(KIND)
    end(ctx, dispute, "lost")
    return dispute


ROUTES: Final = (
    Route("GET", "/v1/disputes/{id}", retrieve),
    Route("GET", "/v1/disputes", list_all, Fields(LIST, charge=TEXT, created=CREATED, payment_intent=TEXT)),
    Route(
        "POST",
        "/v1/disputes/{id}",
        update,
        Fields(
            evidence=Fields(uncategorized_text=TEXT),
            metadata=METADATA,
            submit=FLAG,
            **unbuilt("intended_submission_method"),
        ),
    ),
    Route("POST", "/v1/disputes/{id}/close", close),
)
