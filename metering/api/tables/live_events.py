"""Raw events, live."""

from typing import Final

from metering.api.live_events import LINES, SERVER_SENT, watch_events
from metering.api.models.live_events import LiveEventsQuery
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import ADMIN
from metering.errors import EventsNotKept, Invalid, OrgNotFound

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/v1/admin/events", "Raw events as they are counted, live", ADMIN, "usage", watch_events, {200: LINES},
        query=LiveEventsQuery, problems=(Invalid, OrgNotFound, EventsNotKept, *READS), media=(SERVER_SENT,),
        about="An event a line, as `GET /v1/events` shows them, or server-sent events where `Accept` asks for"
        " `text/event-stream`. Empty lines keep the connection open. A worker has ten such streams at most.",
    ),
)  # fmt: skip
