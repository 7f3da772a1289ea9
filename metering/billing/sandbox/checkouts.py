"""/v1/checkout/sessions, and what becomes of one: https://docs.stripe.com/api/checkout/sessions.

The payer decides on the hosted page; the result is told by webhook alone. The subscription is made after the payment:
before it a session has none.
"""

from typing import Any, Final

from metering.billing.sandbox import customers
from metering.billing.sandbox.amounts import pieces
from metering.billing.sandbox.bills import title
from metering.billing.sandbox.cards import Card, Payment, give_card
from metering.billing.sandbox.checkout_payments import PAYMENT_DATA, PRICE_DATA, once_sold, paid_once
from metering.billing.sandbox.checkout_tax import AUTOMATIC_TAX, CUSTOMER_UPDATE, settle, tax_of
from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.contracts import Wish, check_prices, wished_price
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.fields import (
    COUNT,
    CREATED,
    LIST,
    METADATA,
    TEXT,
    Fields,
    Many,
    Need,
    OneOf,
    Text,
)
from metering.billing.sandbox.invoices import declined
from metering.billing.sandbox.lists import as_list, listing, page
from metering.billing.sandbox.metadata import merged
from metering.billing.sandbox.metered import is_metered
from metering.billing.sandbox.methods import TestMethod
from metering.billing.sandbox.renewals import begin
from metering.billing.sandbox.subscription_calls import ANCHOR_CONFIG, BILLING_MODE, anchored
from metering.billing.sandbox.timers import on, wind
from metering.billing.sandbox.unbuilt import URL, No, Only, unbuilt

KIND: Final = "checkout.session"
_WISH: Final = "sandbox.wish"

OPEN_S: Final = 24 * 3600
_OPEN_MIN_S: Final = 30 * 60
"""How long a session is open, and how short it may be made."""

_NOTHING: Final[Obj] = {
    "adaptive_pricing": None,
    "after_expiration": None,
    "allow_promotion_codes": None,
    "billing_address_collection": None,
    "client_secret": None,
    "collected_information": None,
    "consent": None,
    "consent_collection": None,
    "currency_conversion": None,
    "custom_fields": [],
    "custom_text": {
        "after_submit": None,
        "shipping_address": None,
        "submit": None,
        "terms_of_service_acceptance": None,
    },
    "customer_account": None,
    "customer_details": None,
    "discounts": [],
    "invoice": None,
    "invoice_creation": None,
    "livemode": False,
    "locale": None,
    "object": "checkout.session",
    "origin_context": None,
    "payment_intent": None,
    "payment_link": None,
    "payment_method_collection": "always",
    "payment_method_configuration_details": None,
    "payment_method_options": {},
    "payment_method_types": ["card"],
    "payment_status": "unpaid",
    "permissions": None,
    "phone_number_collection": {"enabled": False},
    "recovered_from": None,
    "saved_payment_method_options": None,
    "setup_intent": None,
    "shipping_address_collection": None,
    "shipping_cost": None,
    "shipping_options": [],
    "status": "open",
    "submit_type": None,
    "subscription": None,
    "ui_mode": "hosted_page",
    "wallet_options": None,
}


def create(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/checkout/sessions: of a subscription (metered prices have no quantity), or of one payment."""
    if params.get("customer") and params.get("customer_email"):
        raise ApiError("You may only specify one of these parameters: customer, customer_email.")
    if params.get("customer") and ctx.need("customer", params["customer"], param="customer").get("deleted"):
        raise ApiError(f"No such customer: '{params['customer']}'", code="resource_missing", param="customer")
    once = params["mode"] == "payment"
    _check_mode(params, "subscription_data" if once else "payment_intent_data")
    read = once_sold if once else _line_item
    rows = [read(ctx, line, f"line_items[{number}]") for number, line in enumerate(params["line_items"])]
    if not once:
        check_prices(price for price, _ in rows)
    session = _session(ctx, params, rows)
    ctx.db.put(KIND, session)
    data = params.get("payment_intent_data" if once else "subscription_data") or {}
    if not once:
        anchored(ctx, data)
    ctx.db.put(_WISH, {"id": session["id"], "data": data, "lines": [[row["id"], units] for row, units in rows]})
    wind(ctx.db, "expire", session["id"], session["expires_at"])
    return session


def retrieve(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/checkout/sessions/{id}."""
    del params
    return ctx.need(KIND)


def list_all(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/checkout/sessions: the newest first."""
    return listing(ctx, KIND, params, "customer", "status", "subscription")


def list_lines(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/checkout/sessions/{id}/line_items."""
    return page(ctx, ctx.need(KIND)["line_items"]["data"], params)


def expire(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/checkout/sessions/{id}/expire."""
    del params
    session = ctx.need(KIND)
    if session["status"] != "open":
        raise ApiError(f'Only Checkout Sessions with a status in ["open"] can be expired: it is {session["status"]}.')
    _close(ctx, session)
    return session


def pay_once(ctx: Context, session: Obj, test: TestMethod, tax_percent: int = 0) -> Obj:
    """The payer pays one amount, and the tax of where they are, with a test method.

    Raises ApiError 402 where it does not pay, as `complete` does.
    """
    customer = _payer(ctx, session)
    settle(session, tax_percent)
    paid_once(ctx, session, customer, ctx.need(_WISH, session["id"])["data"], test)
    session["customer_details"] = _details(session, customer)
    ctx.db.put(KIND, session)
    wind(ctx.db, "expire", session["id"], None)
    ctx.emit("checkout.session.completed", session)
    return session


def complete(ctx: Context, session: Obj, card: Card) -> Obj:
    """The payer gives a card. Raises ApiError 402 where it does not pay: then nothing is made, and it stays open."""
    if card is not Card.GOOD:
        raise declined(Payment.DECLINED if card is Card.BAD else Payment.ASKS)
    wish = ctx.need(_WISH, session["id"])
    customer = _payer(ctx, session)
    give_card(ctx, customer["id"], card)
    settle(session)
    subscription, outcome = begin(ctx, _wish(ctx, customer, wish, taxed=session["automatic_tax"]["enabled"]))
    if outcome is not Payment.PAID:
        raise declined(outcome)
    invoice = ctx.need("invoice", subscription["latest_invoice"])
    session |= {
        "customer": customer["id"],
        "customer_details": _details(session, customer),
        "invoice": invoice["id"],
        "payment_status": "paid" if invoice["amount_due"] else "no_payment_required",
        "status": "complete",
        "subscription": subscription["id"],
        "url": None,
    }
    ctx.db.put(KIND, session)
    wind(ctx.db, "expire", session["id"], None)
    ctx.emit("checkout.session.completed", session)
    return session


@on("expire")
def _expire_due(ctx: Context, session_id: str) -> None:
    session = ctx.db.get(KIND, session_id)
    if session is not None and session["status"] == "open":
        _close(ctx, session)


def _close(ctx: Context, session: Obj) -> None:
    session |= {"status": "expired", "url": None}
    wind(ctx.db, "expire", session["id"], None)
    ctx.db.put(KIND, session)
    ctx.emit("checkout.session.expired", session)


def _check_mode(params: dict[str, Any], foreign: str) -> None:
    if params.get(foreign):
        raise ApiError(f"You can not pass `{foreign}` in `{params['mode']}` mode.", param=foreign)


def _line_item(ctx: Context, line: dict[str, Any], where: str) -> tuple[Obj, int | None]:
    if line.get("price") is None:
        raise ApiError(f"Missing required param: {where}[price].", code="parameter_missing", param=f"{where}[price]")
    price, quantity = wished_price(ctx, line["price"], line.get("quantity"), where)
    if line.get("quantity") is None and not is_metered(price):
        told = f"Quantity is required. Add `quantity` to `{where}`"
        raise ApiError(told, code="parameter_missing", param=f"{where}[quantity]")
    return price, quantity


def _session(ctx: Context, params: dict[str, Any], rows: list[tuple[Obj, int | None]]) -> Obj:
    session_id = ctx.db.new_id("cs_test")
    total = sum(piece.amount for price, units in rows if units for piece in pieces(price, units))
    currency = rows[0][0]["currency"]
    expires = params.get("expires_at") or ctx.now_s + OPEN_S
    if not ctx.now_s + _OPEN_MIN_S <= expires <= ctx.now_s + OPEN_S:
        raise ApiError("`expires_at` must be 30 minutes to 24 hours from now.", param="expires_at")
    return {
        **_NOTHING,
        "id": session_id,
        "amount_subtotal": total,
        "amount_total": total,
        "automatic_tax": tax_of(params),
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "created": ctx.now_s,
        "currency": currency,
        "customer": params.get("customer"),
        "customer_creation": None if params.get("customer") else "always",
        "customer_email": params.get("customer_email"),
        "expires_at": expires,
        "line_items": as_list(
            f"/v1/checkout/sessions/{session_id}/line_items", [_shown(ctx, price, units) for price, units in rows]
        ),
        "metadata": merged({}, params.get("metadata") or {}),
        "mode": params["mode"],
        "success_url": params["success_url"],
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "url": f"{ctx.base}/c/pay/{session_id}",
    }


def _shown(ctx: Context, price: Obj, units: int | None) -> Obj:
    """A line item as the session shows it."""
    total = sum(piece.amount for piece in pieces(price, units)) if units else 0
    return {
        "id": ctx.db.new_id("li"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": total,
        "amount_tax": 0,
        "amount_total": total,
        "currency": price["currency"],
        "description": title(ctx.db, price),
        "metadata": {},
        "price": {name: value for name, value in price.items() if name != "tiers"},
        "quantity": units,
    }


def _payer(ctx: Context, session: Obj) -> Obj:
    """The customer that was named, or a new one with the e-mail address that was."""
    if session["customer"]:
        return ctx.need("customer", session["customer"])
    return customers.create(ctx, {"email": session["customer_email"]})


def _details(session: Obj, customer: Obj) -> Obj:
    return {
        "address": None,
        "business_name": None,
        "email": customer.get("email") or session["customer_email"],
        "individual_name": None,
        "name": customer.get("name"),
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": [],
    }


def _wish(ctx: Context, customer: Obj, wish: Obj, *, taxed: bool) -> Wish:
    data = wish["data"]
    anchor_s, config = anchored(ctx, data)
    return Wish(
        customer,
        [(ctx.need("price", price), units) for price, units in wish["lines"]],
        metadata=merged({}, data.get("metadata") or {}),
        description=data.get("description"),
        anchor_s=anchor_s,
        anchor_config=config,
        prorate=data.get("proration_behavior") != "none",
        taxed=taxed,
    )


_LINE: Final = Fields(
    price=TEXT, price_data=PRICE_DATA, quantity=COUNT, **unbuilt("adjustable_quantity metadata tax_rates")
)

_DATA: Final = Fields(
    billing_cycle_anchor=COUNT,
    billing_cycle_anchor_config=ANCHOR_CONFIG,
    billing_mode=BILLING_MODE,
    description=TEXT,
    metadata=METADATA,
    proration_behavior=OneOf("create_prorations", "none"),
    **unbuilt("application_fee_percent default_tax_rates invoice_settings on_behalf_of pending_invoice_item_interval"),
    **unbuilt("transfer_data trial_end trial_period_days trial_settings"),
)

ROUTES: Final = (
    Route(
        "POST",
        "/v1/checkout/sessions",
        create,
        Fields(
            allow_promotion_codes=No(),
            automatic_tax=AUTOMATIC_TAX,
            cancel_url=URL,
            client_reference_id=Text(200),
            customer=TEXT,
            customer_email=Text(800),
            customer_update=CUSTOMER_UPDATE,
            expires_at=COUNT,
            line_items=Need(Many(_LINE, 20)),
            metadata=METADATA,
            mode=Need(Only(("subscription", "payment"))),
            payment_intent_data=PAYMENT_DATA,
            payment_method_collection=Only(("always",)),
            subscription_data=_DATA,
            success_url=Need(URL),
            ui_mode=Only(("hosted_page",)),
            **unbuilt(
                "adaptive_pricing after_expiration allowed_payment_method_types branding_settings"
                " billing_address_collection consent_collection currency custom_fields custom_text customer_account"
                " customer_creation discounts excluded_payment_method_types integration_identifier"
                " invoice_creation locale managed_payments name_collection optional_items origin_context"
                " payment_method_configuration payment_method_data payment_method_options"
                " permissions phone_number_collection redirect_on_completion return_url saved_payment_method_options"
                " setup_intent_data shipping_address_collection shipping_options submit_type tax_id_collection"
                " wallet_options"
            ),
        ),
    ),
    Route("GET", "/v1/checkout/sessions/{id}", retrieve),
    Route(
        "GET",
        "/v1/checkout/sessions",
        list_all,
        Fields(
            LIST,
            created=CREATED,
            customer=TEXT,
            status=OneOf("open", "complete", "expired"),
            subscription=TEXT,
            **unbuilt("customer_account customer_details payment_intent payment_link"),
        ),
    ),
    Route("GET", "/v1/checkout/sessions/{id}/line_items", list_lines, Fields(LIST)),
    Route("POST", "/v1/checkout/sessions/{id}/expire", expire),
)
