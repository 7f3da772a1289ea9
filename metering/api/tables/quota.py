"""What may be used, and what was used so far with its price."""

from typing import Any, Final

from metering.api.alias import Alias
from metering.api.models.quota import OlderQuotaView, OlderSummaryView, QuotaQuery, QuotaView, SummaryView
from metering.api.quota import get_quota, get_summary, older_limits
from metering.api.route import Route
from metering.api.tables.shared import ORG, READS
from metering.auth import BILLING_READ
from metering.errors import Invalid, OrgNotFound

_QUOTA: Final[dict[str, Any]] = {
    "org_id": "org-123",
    "plan": "professional",
    "period": {"start": "2024-01-01T00:00:00Z", "end": "2024-02-01T00:00:00Z"},
    "reset_date": "2024-02-01T00:00:00Z",
    "features": {
        "scans": {
            "limit": 1000, "unlimited": False, "on_limit": "overage", "enabled": True, "windows": [],
            "current": 15, "reserved": 0, "remaining": 985,
        }
    },
}  # fmt: skip

_SUMMARY: Final[dict[str, Any]] = {
    **ORG,
    "currency": "usd",
    "charges": {"scans": {"included": 15, "credit": 0, "overage": 0, "price": None}},
    "bill": {"plan_minor": 9900, "overage_minor": 0, "total_minor": 9900},
}

_PROBLEMS: Final = (Invalid, OrgNotFound, *READS)

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/v1/billing/quota", "The limits of an organisation, and what is left of them", BILLING_READ, "billing",
        get_quota, {200: QuotaView}, query=QuotaQuery, problems=_PROBLEMS, shows=_QUOTA,
    ),
    Route(
        "GET", "/v1/billing/usage", "The running period and what it costs so far", BILLING_READ, "billing",
        get_summary, {200: SummaryView}, query=QuotaQuery, problems=_PROBLEMS, shows=_SUMMARY,
        about="The organisation with its counters, how each is covered, and the bill as it stands.",
    ),
)  # fmt: skip

OLDER: Final[tuple[Alias, ...]] = (
    Alias(
        "GET", "/api/billing/quota", "GET /v1/billing/quota",
        tells=older_limits, answers={200: OlderQuotaView}, shows=_QUOTA,
    ),
    Alias(
        "GET", "/api/billing/usage", "GET /v1/billing/usage",
        tells=older_limits, answers={200: OlderSummaryView}, shows=_SUMMARY,
    ),
)  # fmt: skip
"""To clients of these paths a limit of 0 is no limit."""
