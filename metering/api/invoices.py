"""Invoices, as Stripe has them: GET /v1/billing/invoices and GET /v1/admin/invoices."""

from typing import Any

from metering.api.models.invoices import EveryInvoiceQuery, InvoicesQuery
from metering.api.route import Call, Reply, json_reply
from metering.api.usage import found
from metering.billing.gateway import StripeObject
from metering.billing.invoice_list import Wanted
from metering.billing.subscriptions import id_of
from metering.clock import MS_PER_S
from metering.moments import rfc3339

_NONE: dict[str, Any] = {"data": [], "next_cursor": None}


async def get_invoices(call: Call) -> Reply:
    """One page of the invoices of an organisation; of one that nobody pays for there are none."""
    query, invoices = call.asked(InvoicesQuery), call.services.at_stripe().invoices
    customer = (await found(call, query.org_id)).profile.stripe_customer_id
    if customer is None:
        return json_reply(_NONE)
    rows, following = await invoices.page(Wanted(query.limit, customer, query.status, query.cursor))
    return json_reply({"data": [invoice_view(row) for row in rows], "next_cursor": following})


async def list_invoices(call: Call) -> Reply:
    """One page of the invoices of the account, or of one organisation's customer, with who pays them."""
    query, invoices = call.asked(EveryInvoiceQuery), call.services.at_stripe().invoices
    customer = None
    if query.org_id is not None:
        customer = (await found(call, query.org_id)).profile.stripe_customer_id
        if customer is None:
            return json_reply(_NONE)
    rows, following = await invoices.page(Wanted(query.limit, customer, query.status, query.cursor))
    return json_reply({"data": [await _owned(call, row) for row in rows], "next_cursor": following})


async def _owned(call: Call, row: StripeObject) -> dict[str, Any]:
    customer = id_of(row["customer"])
    owners = await call.services.at_stripe().invoices.owners(customer)
    return {**invoice_view(row), "stripe_customer_id": customer or None, "org_ids": owners}


def invoice_view(row: StripeObject) -> dict[str, Any]:
    """An invoice as the wire shows it."""
    return {
        **{name: row[name] for name in ("id", "number", "status", "currency", "total")},
        **{name: row[name] for name in ("amount_due", "amount_paid", "amount_remaining")},
        "created": _moment(row["created"]),
        "period": {"start": _moment(row["period_start"]), "end": _moment(row["period_end"])},
        "due_date": _moment(row.get("due_date")),
        "hosted_invoice_url": row.get("hosted_invoice_url"),
        "invoice_pdf": row.get("invoice_pdf"),
    }


def _moment(at_s: int | None) -> str | None:
    return None if at_s is None else rfc3339(at_s * MS_PER_S)
