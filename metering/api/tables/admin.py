"""All organisations, for those who look after them."""

from typing import Final

from metering.api.admin import list_orgs, list_usage
from metering.api.models.admin import ManagedOrgPage, OrgsQuery, UsagePage, UsageQuery
from metering.api.route import Route
from metering.api.tables.shared import ORG, READS
from metering.auth import ADMIN
from metering.errors import Invalid

_ORG: Final = {**ORG, "subscription_status": "active", "cancel_at_period_end": False}
_USAGE: Final = {
    "org_id": "org-123",
    "plan": "professional",
    "feature": "scans",
    "current": 15,
    "limit": 1000,
    "remaining": 985,
    "percent": 1,
    "overage": 0,
    "period": {"start": "2024-01-01T00:00:00Z", "end": "2024-02-01T00:00:00Z"},
}
_SHORT: Final = "A request looks at 500 organisations at most: where few fit, a page is short and another one follows."

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/v1/admin/orgs", "Organisations with plan, usage and subscription", ADMIN, "organisations", list_orgs,
        {200: ManagedOrgPage},
        query=OrgsQuery, problems=(Invalid, *READS), shows={"data": [_ORG], "next_cursor": None}, about=_SHORT,
    ),
    Route(
        "GET", "/v1/admin/usage", "Usage of all organisations", ADMIN, "organisations", list_usage, {200: UsagePage},
        query=UsageQuery, problems=(Invalid, *READS), shows={"data": [_USAGE], "next_cursor": None}, about=_SHORT,
    ),
)  # fmt: skip
