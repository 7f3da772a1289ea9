"""Raw events, one by one."""

from typing import Final

from metering.api import raw_events
from metering.api.models.raw_events import RawEventPage, RawEventsQuery
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import USAGE_READ
from metering.errors import EventsNotKept, Invalid, OrgNotFound

_EVENT: Final = {
    "id": "1705314600000-0",
    "at": "2024-01-15T10:30:00Z",
    "event_id": "evt_9",
    "source": "svc-a",
    "org_id": "org-123",
    "feature": "scans",
    "quantity": 5,
    "recorded": 5,
    "overage": 0,
    "current_usage": 15,
    "actor": "user-7",
    "metadata": {"chain": "ethereum"},
    "timestamp": None,
}

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/v1/events", "Raw events of an organisation", USAGE_READ, "usage", raw_events.list_events,
        {200: RawEventPage},
        query=RawEventsQuery, problems=(Invalid, OrgNotFound, EventsNotKept, *READS),
        shows={"data": [_EVENT], "next_cursor": None},
        about="What was counted, the newest first, for as long as EVENT_RETENTION keeps it. A page may be short, even"
        " empty, and have a `next_cursor`: then there may be more.",
    ),
)  # fmt: skip
