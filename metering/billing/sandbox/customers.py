"""/v1/customers: https://docs.stripe.com/api/customers."""

from typing import Any, Final

from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.contracts import LIVE
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import missing
from metering.billing.sandbox.fields import CREATED, LIST, METADATA, TEXT, Field, Fields, Text
from metering.billing.sandbox.invoices import end
from metering.billing.sandbox.lists import page, within
from metering.billing.sandbox.metadata import merged
from metering.billing.sandbox.unbuilt import unbuilt

KIND: Final = "customer"

_SET: Final = ("description", "email", "name", "phone")


def create(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/customers."""
    customer: Obj = {
        "id": ctx.db.new_id("cus"),
        "object": KIND,
        "address": None,
        "balance": 0,
        "created": ctx.now_s,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "discount": None,
        "invoice_prefix": ctx.db.new_id("x")[2:10].upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": merged({}, params.get("metadata") or {}),
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
        **{name: params.get(name) for name in _SET},
    }
    ctx.db.put(KIND, customer)
    ctx.emit("customer.created", customer)
    return customer


def retrieve(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/customers/{customer}; what is left of a deleted one says so."""
    del params
    return ctx.need(KIND)


def update(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/customers/{customer}."""
    customer = ctx.need(KIND)
    if customer.get("deleted"):
        raise missing(KIND, ctx.id)
    old = dict(customer)
    customer |= {name: params[name] for name in _SET if name in params}
    if "metadata" in params:
        customer["metadata"] = merged(customer["metadata"], params["metadata"])
    ctx.db.put(KIND, customer)
    before = {name: value for name, value in old.items() if customer[name] != value}
    if before:
        ctx.emit("customer.updated", customer, before)
    return customer


def list_all(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/customers: the newest first, without deleted ones."""
    rows = [row for row in ctx.db.all(KIND, newest_first=True) if not row.get("deleted")]
    if params.get("email"):
        rows = [row for row in rows if row["email"] == params["email"]]
    return page(ctx, within(rows, params.get("created")), params)


def delete(ctx: Context, params: dict[str, Any]) -> Obj:
    """DELETE /v1/customers/{customer}: its subscriptions end at once, and what was not billed is dropped."""
    del params
    customer = ctx.need(KIND)
    if customer.get("deleted"):
        raise missing(KIND, ctx.id)
    for subscription in ctx.db.all("subscription"):
        if subscription["customer"] == ctx.id and subscription["status"] in LIVE | {"incomplete"}:
            end(ctx, subscription, "cancellation_requested")
    left = {"id": ctx.id, "object": KIND, "deleted": True}
    ctx.db.put(KIND, left)
    ctx.db.delete("sandbox.card", ctx.id)
    ctx.emit("customer.deleted", customer)
    return left


_FIELDS: Final[dict[str, Field]] = {
    "description": TEXT,
    "email": Text(512),
    "metadata": METADATA,
    "name": Text(256),
    "phone": TEXT,
    **unbuilt(
        "address balance business_name cash_balance individual_name invoice_prefix invoice_settings"
        " next_invoice_sequence preferred_locales shipping source tax tax_exempt validate"
    ),
}

ROUTES: Final = (
    Route("POST", "/v1/customers", create, Fields(_FIELDS, **unbuilt("payment_method tax_id_data test_clock"))),
    Route("GET", "/v1/customers", list_all, Fields(LIST, created=CREATED, email=TEXT, **unbuilt("test_clock"))),
    Route("GET", "/v1/customers/{customer}", retrieve),
    Route("POST", "/v1/customers/{customer}", update, Fields(_FIELDS, **unbuilt("default_source"))),
    Route("DELETE", "/v1/customers/{customer}", delete),
)
