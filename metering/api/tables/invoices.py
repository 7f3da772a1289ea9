"""Invoices, for those who pay them and for those who look after all of them."""

from typing import Any, Final

from metering.api.invoices import get_invoices, list_invoices
from metering.api.models.invoices import EveryInvoicePage, EveryInvoiceQuery, InvoicePage, InvoicesQuery
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import ADMIN, BILLING_READ
from metering.errors import (
    CustomerUnknown,
    Invalid,
    OrgNotFound,
    StripeFailed,
    StripeNotConfigured,
    StripeUnavailable,
)

_INVOICE: Final[dict[str, Any]] = {
    "id": "in_123",
    "number": "A1B2C3D4-0001",
    "status": "paid",
    "currency": "usd",
    "total": 10150,
    "amount_due": 10150,
    "amount_paid": 10150,
    "amount_remaining": 0,
    "created": "2024-02-17T10:20:00Z",
    "period": {"start": "2024-01-17T10:20:00Z", "end": "2024-02-17T10:20:00Z"},
    "due_date": None,
    "hosted_invoice_url": "https://invoice.stripe.com/i/acct_1/test_a1",
    "invoice_pdf": "https://pay.stripe.com/invoice/acct_1/test_a1/pdf",
}
_OWNED: Final[dict[str, Any]] = {**_INVOICE, "stripe_customer_id": "cus_123", "org_ids": ["org-123"]}
_PROBLEMS: Final = (
    Invalid, OrgNotFound, CustomerUnknown, StripeNotConfigured, StripeFailed, StripeUnavailable, *READS,
)  # fmt: skip

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/v1/billing/invoices", "The invoices of an organisation", BILLING_READ, "billing", get_invoices,
        {200: InvoicePage},
        query=InvoicesQuery, problems=_PROBLEMS, shows={"data": [_INVOICE], "next_cursor": None},
        about="Read from Stripe at each call, the newest first. An organisation that nobody pays for has none.",
    ),
    Route(
        "GET", "/v1/admin/invoices", "Every invoice of the account", ADMIN, "billing", list_invoices,
        {200: EveryInvoicePage},
        query=EveryInvoiceQuery, problems=_PROBLEMS, shows={"data": [_OWNED], "next_cursor": None},
        about="Those of other products on the same Stripe account too: they have no `org_ids`.",
    ),
)  # fmt: skip
