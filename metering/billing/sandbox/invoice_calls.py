"""/v1/invoices and /v1/invoiceitems: https://docs.stripe.com/api/invoices, https://docs.stripe.com/api/invoiceitems."""

from fractions import Fraction
from typing import Any, Final

from metering.billing.sandbox import invoices
from metering.billing.sandbox.amounts import rounded
from metering.billing.sandbox.bills import item_line, put_lines, subscription_of
from metering.billing.sandbox.cards import Payment
from metering.billing.sandbox.changes import new_invoice_item, preview_change, subscription_parent
from metering.billing.sandbox.context import Context, Route
from metering.billing.sandbox.contracts import LIVE
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.errors import ApiError, missing
from metering.billing.sandbox.fields import (
    COUNT,
    CREATED,
    DECIMAL,
    FLAG,
    LIST,
    METADATA,
    TEXT,
    WHOLE,
    Fields,
    Need,
    OneOf,
)
from metering.billing.sandbox.lists import page, within
from metering.billing.sandbox.metadata import merged
from metering.billing.sandbox.renewals import preview
from metering.billing.sandbox.subscription_calls import ITEM_CHANGES, PRORATION
from metering.billing.sandbox.unbuilt import No, Only, unbuilt

KIND: Final = "invoice"
ITEM: Final = "invoiceitem"


def retrieve(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/invoices/{id}; of a draft the usage is what it is by now."""
    del params
    return _shown(ctx, invoices.counted(ctx, ctx.need(KIND)))


def list_all(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/invoices: the newest first."""
    rows = [row for row in ctx.db.all(KIND, newest_first=True) if _fits(row, params)]
    return page(ctx, [_shown(ctx, invoices.counted(ctx, row)) for row in within(rows, params.get("created"))], params)


def list_lines(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/invoices/{id}/lines."""
    return page(ctx, invoices.counted(ctx, ctx.need(KIND))["lines"]["data"], params)


def finalize(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/invoices/{id}/finalize: now, and not when its hour is over."""
    invoice = _in_status(ctx, "finalize", "draft")
    if params.get("auto_advance") is not None:
        invoice["auto_advance"] = params["auto_advance"]
    invoices.finalize(ctx, invoice)
    return _shown(ctx, ctx.need(KIND))


def pay(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/invoices/{id}/pay: with the customer's card; 402 where that declines."""
    invoice = _in_status(ctx, "pay", "open", "uncollectible")
    if params.get("paid_out_of_band"):
        invoices.settle(ctx, invoice, outside=True)
        return _shown(ctx, ctx.need(KIND))
    outcome = invoices.collect(ctx, invoice)
    if outcome is not Payment.PAID:
        raise invoices.declined(outcome)
    return _shown(ctx, ctx.need(KIND))


def void(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/invoices/{id}/void."""
    del params
    invoices.void(ctx, _in_status(ctx, "void", "open", "uncollectible"))
    return _shown(ctx, ctx.need(KIND))


def give_up(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/invoices/{id}/mark_uncollectible."""
    del params
    invoices.give_up(ctx, _in_status(ctx, "mark as uncollectible", "open"))
    return _shown(ctx, ctx.need(KIND))


def create_preview(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/invoices/create_preview: the next invoice of a subscription that runs, or what a change would bring."""
    found = ctx.db.all("subscription", newest_first=True)
    if params.get("subscription"):
        found = [ctx.need("subscription", params["subscription"], param="subscription")]
    live = [one for one in found if one["status"] in LIVE and params.get("customer") in {None, one["customer"]}]
    if not live:
        told = "No upcoming invoices for customer: " + str(params.get("customer"))
        raise ApiError(told, status=404, code="invoice_upcoming_none")
    details = params.get("subscription_details") or {}
    return preview_change(ctx, live[0], details) if details.get("items") else preview(ctx, live[0])


def create_item(ctx: Context, params: dict[str, Any]) -> Obj:
    """POST /v1/invoiceitems: on the draft that it names, or else on the next invoice."""
    customer = ctx.need("customer", params["customer"], param="customer")
    if customer.get("deleted"):
        raise missing("customer", customer["id"], "customer")
    item = new_invoice_item(ctx, customer["id"], *_price(params), params.get("description"))
    quantity = params.get("quantity") if params.get("quantity") is not None else 1
    item |= {"quantity": quantity, "quantity_decimal": str(quantity), "discountable": bool(params.get("discountable"))}
    item |= {"metadata": merged({}, params.get("metadata") or {}), "period": params.get("period") or item["period"]}
    if params.get("subscription"):
        ctx.need("subscription", params["subscription"], param="subscription")
        item["parent"] = subscription_parent(params["subscription"])
    if params.get("invoice"):
        _put_on(ctx, item, params["invoice"])
    ctx.db.put(ITEM, item)
    ctx.emit("invoiceitem.created", item)
    return item


def retrieve_item(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/invoiceitems/{id}."""
    del params
    return ctx.need(ITEM)


def list_items(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/invoiceitems: the newest first."""
    rows = ctx.db.all(ITEM, newest_first=True)
    for name in ("customer", "invoice"):
        if params.get(name):
            rows = [row for row in rows if row[name] == params[name]]
    if params.get("pending") is not None:
        rows = [row for row in rows if (row["invoice"] is None) == params["pending"]]
    created = params.get("created")
    known = within([{**row, "created": row["date"]} for row in rows], created)
    return page(ctx, [{name: row[name] for name in row if name != "created"} for row in known], params)


def _shown(ctx: Context, invoice: Obj) -> Obj:
    """The invoice with the addresses of its page and PDF, where whoever asks reaches the sandbox; a draft has none."""
    if invoice["status"] == "draft":
        return invoice
    address = f"{ctx.base}{invoices.PAGE}{invoice['id']}"
    return {**invoice, "hosted_invoice_url": address, "invoice_pdf": f"{address}/pdf"}


def _price(params: dict[str, Any]) -> tuple[str, int]:
    """Currency and amount: a whole one, or units at a price of up to twelve decimals."""
    currency = (params.get("currency") or "usd").lower()
    if params.get("unit_amount_decimal") is not None:
        exact = Fraction(params["unit_amount_decimal"]) * (params.get("quantity") or 1)
        return currency, rounded(exact, currency)
    if params.get("amount") is None:
        raise ApiError("Missing required param: amount.", code="parameter_missing", param="amount")
    return currency, params["amount"]


def _put_on(ctx: Context, item: Obj, invoice_id: str) -> None:
    invoice = ctx.need(KIND, invoice_id, param="invoice")
    if invoice["status"] != "draft":
        told = "Invoice items can only be added to a draft invoice."
        raise ApiError(told, code="invoice_not_editable", param="invoice")
    if invoice["currency"] != item["currency"] or invoice["customer"] != item["customer"]:
        raise ApiError("The invoice is of another customer or currency.", param="invoice")
    item["invoice"] = invoice_id
    put_lines(invoice, [*invoices.counted(ctx, invoice)["lines"]["data"], item_line(ctx, invoice_id, item)])
    ctx.db.put(KIND, invoice)
    ctx.emit("invoice.updated", invoice)


def _in_status(ctx: Context, verb: str, *wanted: str) -> Obj:
    invoice = ctx.need(KIND)
    if invoice["status"] not in wanted:
        told = f"You can only {verb} an invoice that is {' or '.join(wanted)}. This one is {invoice['status']}."
        raise ApiError(told, code="invoice_already_paid" if invoice["status"] == "paid" else None)
    return invoice


def _fits(row: Obj, params: dict[str, Any]) -> bool:
    known = {"customer": row["customer"], "status": row["status"], "subscription": subscription_of(row)}
    return all(params.get(name) in {None, value} for name, value in known.items())


_DETAILS: Final = Fields(
    items=ITEM_CHANGES,
    proration_behavior=PRORATION,
    billing_cycle_anchor=Fields(type=Need(Only(("unchanged",)))),
    **unbuilt("billing_mode billing_schedules cancel_at cancel_at_period_end cancel_now default_tax_rates metadata"),
    **unbuilt("pause proration_date resume_at start_date trial_end"),
)
_PERIOD: Final = Fields(start=Need(COUNT), end=Need(COUNT))

ROUTES: Final = (
    Route(
        "GET",
        "/v1/invoices",
        list_all,
        Fields(
            LIST,
            created=CREATED,
            customer=TEXT,
            status=OneOf("draft", "open", "paid", "uncollectible", "void"),
            subscription=TEXT,
            **unbuilt("collection_method customer_account due_date"),
        ),
    ),
    Route("GET", "/v1/invoices/{id}", retrieve),
    Route("GET", "/v1/invoices/{id}/lines", list_lines, Fields(LIST)),
    Route("POST", "/v1/invoices/{id}/finalize", finalize, Fields(auto_advance=FLAG)),
    Route(
        "POST",
        "/v1/invoices/{id}/pay",
        pay,
        Fields(paid_out_of_band=FLAG, off_session=FLAG, forgive=No(), **unbuilt("mandate payment_method source")),
    ),
    Route("POST", "/v1/invoices/{id}/void", void),
    Route("POST", "/v1/invoices/{id}/mark_uncollectible", give_up),
    Route(
        "POST",
        "/v1/invoices/create_preview",
        create_preview,
        Fields(
            customer=TEXT,
            subscription=TEXT,
            subscription_details=_DETAILS,
            **unbuilt(
                "automatic_tax currency customer_account customer_details discounts invoice_items issuer on_behalf_of"
                " preview_mode schedule schedule_details"
            ),
        ),
    ),
    Route(
        "POST",
        "/v1/invoiceitems",
        create_item,
        Fields(
            amount=WHOLE,
            currency=TEXT,
            customer=Need(TEXT),
            description=TEXT,
            discountable=FLAG,
            invoice=TEXT,
            metadata=METADATA,
            period=_PERIOD,
            quantity=COUNT,
            subscription=TEXT,
            unit_amount_decimal=DECIMAL,
            **unbuilt("customer_account discounts price_data pricing quantity_decimal tax_behavior tax_code tax_rates"),
        ),
    ),
    Route("GET", "/v1/invoiceitems/{id}", retrieve_item),
    Route(
        "GET",
        "/v1/invoiceitems",
        list_items,
        Fields(LIST, created=CREATED, customer=TEXT, invoice=TEXT, pending=FLAG, **unbuilt("customer_account")),
    ),
)
