"""Who did what."""

from typing import Final

from metering.api import audit
from metering.api.models.audit import AuditPage, AuditQuery
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import AUDIT
from metering.errors import Invalid, OrgNotFound

_PAGE: Final = {
    "data": [
        {
            "id": "1705314600000-0",
            "at": "2024-01-15T10:30:00Z",
            "type": "plan_changed",
            "org_id": "org-123",
            "actor": "ann",
            "details": {"plan_before": "free", "plan": "professional", "request_id": "01HZX3J5T6N7P8Q9R0S1T2V3W4"},
        }
    ],
    "next_cursor": None,
}

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/v1/audit", "What happened, who did it and why", AUDIT, "audit", audit.get_audit, {200: AuditPage},
        query=AuditQuery, problems=(Invalid, OrgNotFound, *READS), shows=_PAGE,
        about="Of each organisation the oldest entry first; the organisations in an order of their own. A page"
        " may be short, or empty, while there is more: `next_cursor` says so.",
    ),
)  # fmt: skip
