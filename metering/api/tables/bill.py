"""What happened to bills."""

from typing import Any, Final

from metering.api.bill import get_history
from metering.api.models.bill import HistoryOfBills, HistoryOfBillsQuery
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import BILLING_READ
from metering.errors import Invalid, OrgNotFound

_HISTORY: Final[dict[str, Any]] = {
    "data": [
        {
            "id": "1705314600000-0",
            "at": "2024-01-15T10:30:00Z",
            "type": "credits_granted",
            "stripe_payment_intent_id": "pi_123",
            "stripe_refund_id": None,
            "details": {"grant": "cg_1", "credits": 500, "balance": 500, "kind": "paid"},
        }
    ],
    "next_cursor": None,
}

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/v1/billing/history", "What happened to plan, bills and credits", BILLING_READ, "billing", get_history,
        {200: HistoryOfBills},
        query=HistoryOfBillsQuery, problems=(Invalid, OrgNotFound, *READS), shows=_HISTORY,
        about="The newest first. Who did it, and why, is in the audit.",
    ),
)  # fmt: skip
