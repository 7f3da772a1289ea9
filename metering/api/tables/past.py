"""The billing history."""

from typing import Final

from metering.api.models.past import PastPage, PastQuery
from metering.api.past import get_past
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import BILLING_READ
from metering.errors import Invalid, OrgNotFound

_PAGE: Final = {
    "data": [
        {
            "id": "1706745600000-0",
            "at": "2024-02-01T00:00:00Z",
            "type": "period_closed",
            "details": {
                "plan": "free",
                "period": "2024-01-01T00:00:00Z",
                "until": "2024-02-01T00:00:00Z",
                "features": {"scans": {"used": 15, "credit": 0, "overage": 5, "billed": 5}},
                "final": False,
            },
            "stripe_payment_intent_id": None,
            "stripe_refund_id": None,
            "stripe_invoice_id": None,
        },
        {
            "id": "1704153600000-0",
            "at": "2024-01-02T00:00:00Z",
            "type": "invoice.paid",
            "details": {
                "subscription": "active",
                "invoice": "paid",
                "currency": "usd",
                "total_minor": 2900,
                "paid_minor": 2900,
            },
            "stripe_payment_intent_id": None,
            "stripe_refund_id": None,
            "stripe_invoice_id": "in_1",
        },
    ],
    "next_cursor": None,
}

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/v1/billing/history", "What changed an organisation's bill", BILLING_READ, "billing", get_past,
        {200: PastPage}, query=PastQuery, problems=(Invalid, OrgNotFound, *READS), shows=_PAGE,
        about="Plans, periods, overage, subscription, payments, refunds and credits, the newest first.",
    ),
)  # fmt: skip
