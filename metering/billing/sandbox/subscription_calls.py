"""/v1/subscriptions and /v1/subscription_items: https://docs.stripe.com/api/subscriptions."""

from typing import Any, Final

from metering.billing.sandbox.cards import Payment, card_of
from metering.billing.sandbox.changes import change
from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.contracts import Wish, items_of, wished_price
from metering.billing.sandbox.cycles import next_anchor
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError
from metering.billing.sandbox.fields import (
    COUNT,
    CREATED,
    FLAG,
    LIST,
    METADATA,
    TEXT,
    Field,
    Fields,
    Many,
    Need,
    OneOf,
    Whole,
)
from metering.billing.sandbox.invoices import declined
from metering.billing.sandbox.lists import page, within
from metering.billing.sandbox.metadata import merged
from metering.billing.sandbox.renewals import begin, cancel
from metering.billing.sandbox.unbuilt import No, Only, unbuilt

KIND: Final = "subscription"

ANCHOR_CONFIG: Final = Fields(
    day_of_month=Need(Whole(1, 31)), month=Whole(1, 12), hour=Whole(0, 23), minute=Whole(0, 59), second=Whole(0, 59)
)
BILLING_MODE: Final = Fields(type=Need(Only(("flexible",))), **unbuilt("flexible"))
PRORATION: Final = OneOf("always_invoice", "create_prorations", "none")

_STATUSES: Final = "active canceled incomplete incomplete_expired past_due paused trialing unpaid".split()
_OVER: Final = frozenset({"canceled", "incomplete_expired"})

_ITEM: Final[dict[str, Field]] = {"price": TEXT, "quantity": COUNT, "metadata": METADATA}
_ITEM_UNBUILT: Final = unbuilt("billing_thresholds current_trial discounts plan price_data tax_rates")
ITEM_CHANGES: Final = Many(Fields(_ITEM, id=TEXT, deleted=FLAG, clear_usage=FLAG, **_ITEM_UNBUILT), 20)
_BOTH: Final[dict[str, Field]] = {
    "cancel_at_period_end": FLAG,
    "collection_method": Only(("charge_automatically",)),
    "description": TEXT,
    "metadata": METADATA,
    "off_session": FLAG,
    "proration_behavior": PRORATION,
    **unbuilt(
        "add_invoice_items application_fee_percent automatic_tax billing_schedules billing_thresholds cancel_at"
        " days_until_due default_payment_method default_source default_tax_rates discounts invoice_settings"
        " on_behalf_of payment_settings pending_invoice_item_interval transfer_data trial_end trial_from_plan"
        " trial_settings"
    ),
}


def create(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/subscriptions: the first invoice is paid at once with the customer's card."""
    customer = ctx.need("customer", params["customer"], param="customer")
    if customer.get("deleted"):
        raise ApiError(f"No such customer: '{customer['id']}'", code="resource_missing", param="customer")
    prices = [
        wished_price(ctx, item.get("price") or "", item.get("quantity"), f"items[{number}]")
        for number, item in enumerate(params["items"])
    ]
    anchor_s, config = anchored(ctx, params)
    wish = Wish(
        customer,
        prices,
        metadata=merged({}, params.get("metadata") or {}),
        description=params.get("description"),
        anchor_s=anchor_s,
        anchor_config=config,
        prorate=params.get("proration_behavior") != "none",
        cancel_at_period_end=bool(params.get("cancel_at_period_end")),
    )
    behavior = params.get("payment_behavior") or "allow_incomplete"
    subscription, outcome = begin(ctx, wish, pay=behavior != "default_incomplete")
    if behavior == "default_incomplete" or outcome is Payment.PAID:
        return subscription
    if behavior == "error_if_incomplete" or card_of(ctx.db, customer["id"]) is None:
        raise declined(outcome)
    return subscription


def anchored(ctx: Context, params: dict[str, Any]) -> tuple[int | None, dict[str, int] | None]:
    """The moment at which whole periods begin, and the config that it came from. Raises ApiError 400."""
    config, moment = params.get("billing_cycle_anchor_config"), params.get("billing_cycle_anchor")
    if config and moment is not None:
        raise ApiError("You may set only one of billing_cycle_anchor and billing_cycle_anchor_config.")
    if config:
        return next_anchor(config, ctx.now_s), config
    if moment is not None and moment <= ctx.now_s:
        raise ApiError("billing_cycle_anchor must be in the future.", param="billing_cycle_anchor")
    return moment, None


def retrieve(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/subscriptions/{id}."""
    del params
    return ctx.need(KIND)


def update(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/subscriptions/{id}."""
    return change(ctx, ctx.need(KIND), params)


def cancel_now(ctx: Context, params: dict[str, Any]) -> Obj:
    """DELETE /v1/subscriptions/{id}: usage that is not billed is dropped, unless `invoice_now`."""
    subscription = ctx.need(KIND)
    if subscription["status"] in _OVER:
        raise ApiError(f"No such subscription: '{ctx.id}'", status=404, code="resource_missing", param="id")
    subscription["cancellation_details"] |= params.get("cancellation_details") or {}
    return cancel(ctx, subscription, "cancellation_requested", invoice_now=bool(params.get("invoice_now")))


def list_all(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/subscriptions: the newest first; those that are over only where `status` asks for them."""
    status = params.get("status")
    rows = [row for row in ctx.db.all(KIND, newest_first=True) if _wanted(row, status)]
    if params.get("customer"):
        rows = [row for row in rows if row["customer"] == params["customer"]]
    if params.get("price"):
        rows = [row for row in rows if params["price"] in {item["price"]["id"] for item in items_of(row)}]
    return page(ctx, within(rows, params.get("created")), params)


def list_items(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/subscription_items."""
    subscription = ctx.need(KIND, params["subscription"], param="subscription")
    return page(ctx, items_of(subscription), params)


def _wanted(row: Obj, status: str | None) -> bool:
    if status == "all":
        return True
    if status == "ended":
        return row["status"] in _OVER
    return bool(row["status"] == status if status else row["status"] != "canceled")


_DETAILS: Final = Fields(comment=TEXT, feedback=TEXT, **unbuilt("feedback_option"))

ROUTES: Final = (
    Route(
        "POST",
        "/v1/subscriptions",
        create,
        Fields(
            _BOTH,
            customer=Need(TEXT),
            items=Need(Many(Fields(_ITEM, **_ITEM_UNBUILT), 20)),
            billing_cycle_anchor=COUNT,
            billing_cycle_anchor_config=ANCHOR_CONFIG,
            billing_mode=BILLING_MODE,
            currency=TEXT,
            payment_behavior=OneOf(
                "allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete"
            ),
            **unbuilt("backdate_start_date customer_account trial_period_days"),
        ),
    ),
    Route(
        "GET",
        "/v1/subscriptions",
        list_all,
        Fields(
            LIST,
            created=CREATED,
            customer=TEXT,
            price=TEXT,
            status=OneOf(*_STATUSES, "all", "ended"),
            **unbuilt("automatic_tax collection_method current_period_end current_period_start customer_account"),
            **unbuilt("plan test_clock"),
        ),
    ),
    Route("GET", "/v1/subscriptions/{id}", retrieve),
    Route(
        "POST",
        "/v1/subscriptions/{id}",
        update,
        Fields(
            _BOTH,
            billing_cycle_anchor=Fields(type=Need(OneOf("now", "unchanged", "timestamp")), timestamp=COUNT),
            cancellation_details=_DETAILS,
            items=ITEM_CHANGES,
            payment_behavior=Only(("allow_incomplete", "pending_if_incomplete", "error_if_incomplete")),
            **unbuilt("pause_collection proration_date"),
        ),
    ),
    Route(
        "DELETE",
        "/v1/subscriptions/{id}",
        cancel_now,
        Fields(cancellation_details=_DETAILS, invoice_now=FLAG, prorate=No()),
    ),
    Route("GET", "/v1/subscription_items", list_items, Fields(LIST, subscription=Need(TEXT))),
)
