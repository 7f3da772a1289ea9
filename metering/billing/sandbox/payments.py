"""The life of a payment intent: https://docs.stripe.com/payments/paymentintents/lifecycle.

It waits for a method, is tried with one, and has succeeded, failed (and waits again), or is on its way for some days
where the method is slow. What fails while a caller waits for it is kept all the same: see `PaymentFailed`.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from metering.billing.sandbox import charges
from metering.billing.sandbox.context import Context
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.faults import PAYMENTS
from metering.billing.sandbox.methods import Does, attach_to, does
from metering.billing.sandbox.timers import on, wind

KIND: Final = "payment_intent"

SLOW_S: Final = 4 * 86_400
"""A debit of a bank account arrives some business days later (https://docs.stripe.com/payments/ach-direct-debit)."""

DISPUTE_S: Final = 1
"""After a payment whose holder disputes it: with the test card it comes at once, as an event of its own."""

_ENDED: Final = frozenset({"succeeded", "canceled", "processing"})

_WORDS: Final = {
    "card_declined": "Your card was declined.",
    "authentication_required": "Your card was declined. This transaction requires authentication.",
    "payment_intent_authentication_failure": "The provided payment method has failed authentication.",
    "debit_not_authorized": "The bank account has been closed.",
}

Told = Callable[[Context, Obj], None]
"""Who waits to hear that an intent succeeded or failed after some days."""

SLOW_ENDS: Final[list[Told]] = []


class PaymentFailed(ApiError):
    """402. `again` writes down what the failed attempt left, as an answer that says no undoes what came before it."""

    def __init__(self, intent: Obj, code: str, again: Callable[[Context], None]) -> None:
        super().__init__(
            _WORDS[code], status=HTTPStatus.PAYMENT_REQUIRED, kind="card_error", code=code,
            fields={**_decline(code), "payment_intent": intent},
        )  # fmt: skip
        self.again = again


def keep_failure(ctx: Context, params: Obj, error: ApiError) -> None:
    """What a route does with a refusal: a failed payment is kept."""
    del params
    if isinstance(error, PaymentFailed):
        error.again(ctx)


def attempt(ctx: Context, intent: Obj, method: Obj, *, off_session: bool, is_new: bool = False) -> None:
    """Try to take the money with a method. Raises PaymentFailed, and ApiError for an intent that is not to be tried."""
    if intent["status"] in _ENDED:
        raise unexpected(intent, "confirm")
    fault, does_what = ctx.faults.take(*PAYMENTS), does(ctx, method)
    code = _refusal(fault.kind if fault else "", does_what, off_session=off_session)
    intent |= {"payment_method": method["id"], "payment_method_types": [method["type"]], "next_action": None}
    if code:
        raise PaymentFailed(
            _unpaid(dict(intent), code, method), code, lambda later: _fails(later, intent, method, code, is_new)
        )
    if does_what is Does.ASKS and intent["status"] != "requires_action":
        intent |= {"status": "requires_action", "next_action": {"type": "use_stripe_sdk", "use_stripe_sdk": {}}}
        put(ctx, intent, "payment_intent.requires_action")
    elif does_what in {Does.LATER, Does.FAILS_LATER}:
        _goes_slowly(ctx, intent, method)
    else:
        _paid(ctx, intent, charges.begun(ctx, intent, method, "succeeded"), method)


def _decline(code: str) -> Obj:
    """What the bank of the card said: https://docs.stripe.com/declines/codes."""
    return {"decline_code": "generic_decline"} if code == "card_declined" else {}


def put(ctx: Context, intent: Obj, kind: str) -> None:
    """Keep an intent, and tell of it."""
    ctx.db.put(KIND, intent)
    ctx.emit(kind, intent)


def refuse(ctx: Context, intent: Obj, method: Obj) -> None:
    """The holder of the card says no."""
    _fails(ctx, intent, method, "payment_intent_authentication_failure", is_new=False)


def unexpected(intent: Obj, verb: str) -> ApiError:
    """What to raise where an intent's status does not let this be done."""
    told = f"You cannot {verb} this PaymentIntent because it has a status of {intent['status']}."
    return ApiError(told, code="payment_intent_unexpected_state")


def _refusal(fault: str, does_what: Does, *, off_session: bool) -> str:
    """The code of what refuses the payment at once; empty where nothing does. Off session nobody is asked."""
    if fault == "card_decline" or does_what is Does.DECLINES:
        return "card_declined"
    asks = fault == "authentication_required" or does_what is Does.ASKS
    return "authentication_required" if asks and (off_session or fault) else ""


def _goes_slowly(ctx: Context, intent: Obj, method: Obj) -> None:
    charge = charges.begun(ctx, intent, method, "pending")
    intent |= {"status": "processing", "latest_charge": charge["id"]}
    ctx.emit("charge.pending", charge)
    put(ctx, intent, "payment_intent.processing")
    wind(ctx.db, "arrive", intent["id"], ctx.now_s + SLOW_S)


@on("arrive")
def _arrives(ctx: Context, intent_id: str) -> None:
    """What was on its way came, or did not."""
    intent = ctx.need(KIND, intent_id)
    charge, method = ctx.need("charge", intent["latest_charge"]), ctx.need("payment_method", intent["payment_method"])
    if does(ctx, method) is Does.FAILS_LATER:
        code = "debit_not_authorized"
        charges.failed(ctx, charge, code, _WORDS[code])
        put(ctx, _unpaid(intent, code, method), "payment_intent.payment_failed")
    else:
        _paid(ctx, intent, charge, method)
    for told in SLOW_ENDS:
        told(ctx, intent)


def _paid(ctx: Context, intent: Obj, charge: Obj, method: Obj) -> None:
    if intent["setup_future_usage"] and intent["customer"]:
        attach_to(ctx, method, intent["customer"])
    charges.succeeded(ctx, charge)
    intent |= {"status": "succeeded", "amount_received": intent["amount"], "latest_charge": charge["id"]}
    intent |= {"last_payment_error": None, "next_action": None}
    put(ctx, intent, "payment_intent.succeeded")
    if does(ctx, method) is Does.DISPUTES:
        wind(ctx.db, "dispute", charge["id"], ctx.now_s + DISPUTE_S)


def _fails(ctx: Context, intent: Obj, method: Obj, code: str, is_new: bool) -> None:
    ctx.db.put("payment_method", method)
    if is_new:
        ctx.emit("payment_intent.created", intent)
    charge = charges.begun(ctx, intent, method, "failed")
    charges.failed(ctx, charge, code, _WORDS[code])
    intent["latest_charge"] = charge["id"]
    put(ctx, _unpaid(intent, code, method), "payment_intent.payment_failed")


def _unpaid(intent: Obj, code: str, method: Obj) -> Obj:
    """The intent with what went wrong; it waits for another method."""
    error = {"type": "card_error", "code": code, "message": _WORDS[code], "payment_method": dict(method)}
    error |= _decline(code)
    intent |= {"status": "requires_payment_method", "payment_method": None, "next_action": None}
    intent["last_payment_error"] = error
    return intent
