"""/v1/payment_intents: https://docs.stripe.com/api/payment_intents."""

import secrets
from typing import Any, Final

from metering.billing.sandbox.amounts import rounded
from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.fields import CREATED, FLAG, LIST, METADATA, TEXT, Fields, Need, OneOf, Text, Whole
from metering.billing.sandbox.lists import listing
from metering.billing.sandbox.metadata import merged
from metering.billing.sandbox.methods import named
from metering.billing.sandbox.payments import KIND, attempt, keep_failure, put, unexpected
from metering.billing.sandbox.timers import wind
from metering.billing.sandbox.unbuilt import Only, unbuilt

AMOUNT_MAX: Final = 99_999_999
"""https://docs.stripe.com/api/payment_intents/create#create_payment_intent-amount: eight digits."""

_NOTHING: Final[Obj] = {
    "amount_capturable": 0,
    "amount_details": {"tip": {}},
    "amount_received": 0,
    "application": None,
    "application_fee_amount": None,
    "canceled_at": None,
    "cancellation_reason": None,
    "capture_method": "automatic_async",
    "confirmation_method": "automatic",
    "customer_account": None,
    "last_payment_error": None,
    "latest_charge": None,
    "livemode": False,
    "next_action": None,
    "object": KIND,
    "on_behalf_of": None,
    "payment_method": None,
    "payment_method_configuration_details": None,
    "payment_method_options": {},
    "payment_method_types": ["card", "us_bank_account"],
    "processing": None,
    "review": None,
    "shipping": None,
    "source": None,
    "statement_descriptor": None,
    "statement_descriptor_suffix": None,
    "status": "requires_payment_method",
    "transfer_data": None,
    "transfer_group": None,
}


def create(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/payment_intents; with `confirm` it is tried at once, and `off_session` says that nobody is there."""
    intent = new(ctx, params)
    method = named(ctx, params["payment_method"]) if params.get("payment_method") else None
    off_session = bool(params.get("off_session"))
    if off_session and not params.get("confirm"):
        raise ApiError("You can only set `off_session` when `confirm` is true.", param="off_session")
    if method is not None:
        _check_owner(intent, method)
        intent |= {"payment_method": method["id"], "status": "requires_confirmation"}
    if not params.get("confirm"):
        put(ctx, intent, "payment_intent.created")
        return intent
    if method is None:
        told = "You cannot confirm this PaymentIntent because it's missing a payment method."
        raise ApiError(told, code="payment_intent_unexpected_state")
    put(ctx, dict(intent), "payment_intent.created")
    attempt(ctx, intent, method, off_session=off_session, is_new=True)
    return intent


def new(ctx: Context, params: dict[str, Any]) -> Obj:
    """An intent that waits for a method. It is kept nowhere yet."""
    customer = params.get("customer")
    if customer and ctx.need("customer", customer, param="customer").get("deleted"):
        raise ApiError(f"No such customer: '{customer}'", code="resource_missing", param="customer")
    currency = params["currency"].lower()
    if rounded(params["amount"], currency) != params["amount"]:
        raise ApiError("Invalid amount for this currency.", code="amount_invalid", param="amount")
    intent_id = ctx.db.new_id("pi")
    return {
        **_NOTHING,
        "id": intent_id,
        "amount": params["amount"],
        "automatic_payment_methods": {"allow_redirects": "always", "enabled": True},
        "client_secret": f"{intent_id}_secret_{secrets.token_hex(12)}",
        "created": ctx.now_s,
        "currency": currency,
        "customer": customer,
        "description": params.get("description"),
        "metadata": merged({}, params.get("metadata") or {}),
        "receipt_email": params.get("receipt_email"),
        "setup_future_usage": params.get("setup_future_usage"),
    }


def retrieve(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/payment_intents/{id}."""
    del params
    return ctx.need(KIND)


def list_all(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/payment_intents: the newest first."""
    return listing(ctx, KIND, params, "customer")


def confirm(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/payment_intents/{id}/confirm."""
    intent = ctx.need(KIND)
    wanted = params.get("payment_method") or intent["payment_method"]
    if wanted is None:
        told = "You cannot confirm this PaymentIntent because it's missing a payment method."
        raise ApiError(told, code="payment_intent_unexpected_state")
    method = named(ctx, wanted)
    _check_owner(intent, method)
    attempt(ctx, intent, method, off_session=bool(params.get("off_session")))
    return intent


def cancel(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/payment_intents/{id}/cancel: nobody can pay it any more."""
    intent = ctx.need(KIND)
    if intent["status"] in {"succeeded", "canceled", "processing"}:
        raise unexpected(intent, "cancel")
    intent |= {"status": "canceled", "canceled_at": ctx.now_s, "next_action": None}
    intent["cancellation_reason"] = params.get("cancellation_reason")
    wind(ctx.db, "arrive", intent["id"], None)
    put(ctx, intent, "payment_intent.canceled")
    return intent


def _check_owner(intent: Obj, method: Obj) -> None:
    """A method of a customer pays for that customer alone."""
    if method["customer"] not in {None, intent["customer"]}:
        told = f"The payment method {method['id']} belongs to another customer."
        raise ApiError(told, code="resource_missing", param="payment_method")


_UNBUILT: Final = (
    "amount_details allowed_payment_method_types capture_method confirmation_token error_on_requires_action"
    " excluded_payment_method_types hooks mandate mandate_data payment_details payment_method_data"
    " payment_method_options radar_options return_url shipping use_stripe_sdk"
)

ROUTES: Final = (
    Route(
        "POST",
        "/v1/payment_intents",
        create,
        Fields(
            amount=Need(Whole(1, AMOUNT_MAX)),
            automatic_payment_methods=Fields(enabled=Need(FLAG), allow_redirects=Only(("always",))),
            confirm=FLAG,
            currency=Need(Text(3)),
            customer=TEXT,
            description=Text(1000),
            metadata=METADATA,
            off_session=FLAG,
            payment_method=TEXT,
            receipt_email=Text(800),
            setup_future_usage=OneOf("off_session", "on_session"),
            **unbuilt(_UNBUILT),
            **unbuilt(
                "application_fee_amount confirmation_method customer_account on_behalf_of statement_descriptor"
                " payment_method_configuration payment_method_types statement_descriptor_suffix transfer_data"
                " transfer_group"
            ),
        ),
        refused=keep_failure,
    ),
    Route("GET", "/v1/payment_intents/{id}", retrieve),
    Route(
        "GET",
        "/v1/payment_intents",
        list_all,
        Fields(LIST, created=CREATED, customer=TEXT, **unbuilt("customer_account")),
    ),
    Route(
        "POST",
        "/v1/payment_intents/{id}/confirm",
        confirm,
        Fields(
            off_session=FLAG,
            payment_method=TEXT,
            **unbuilt(_UNBUILT),
            **unbuilt("amount_to_confirm receipt_email setup_future_usage"),
        ),
        refused=keep_failure,
    ),
    Route(
        "POST",
        "/v1/payment_intents/{id}/cancel",
        cancel,
        Fields(cancellation_reason=OneOf("duplicate", "fraudulent", "requested_by_customer", "abandoned")),
    ),
)
