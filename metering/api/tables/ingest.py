"""Many events in one request."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from metering.api import ingest
from metering.api.event_bodies import BINARY, CLOUD, CLOUD_BATCH, LINES, NATIVE, reader
from metering.api.models.ingest import (
    AcceptedAnswer,
    CloudEvent,
    CloudEvents,
    EventLines,
    EventsAnswer,
    EventsQuery,
    NativeEvents,
    PartAnswer,
)
from metering.api.route import Media, Route
from metering.auth import USAGE_WRITE
from metering.errors import (
    BatchRefused,
    ClockUnsafe,
    LedgerFull,
    MalformedEncoding,
    OrgCorrupt,
    Overloaded,
    StorageUnavailable,
)

_NATIVE: Final = {"org_id": "org-123", "feature": "scans", "quantity": 2, "event_id": "evt_a1", "source": "svc-a"}
_SECOND: Final = {"org_id": "org-123", "feature": "wallet_checks", "event_id": "evt_a2", "source": "svc-a"}
_CLOUD: Final = {
    "specversion": "1.0",
    "id": "evt_c1",
    "source": "/svc-a",
    "type": "usage.scans",
    "subject": "org-123",
    "datacontenttype": "application/json",
    "data": {"quantity": 2, "chain": "ethereum"},
}

_RECORDED: Final = {
    "index": 0,
    "id": "evt_a1",
    "status": "recorded",
    "org_id": "org-123",
    "feature": "scans",
    "recorded": 2,
    "current_usage": 16,
    "limit": 1000,
    "remaining": 984,
    "overage": 0,
}
_REJECTED: Final = {
    "index": 1,
    "id": "evt_a2",
    "status": "rejected",
    "org_id": "org-123",
    "feature": "scnas",
    "problem": {
        "type": "/problems/feature-unknown",
        "title": "No such feature in the catalogue",
        "status": 404,
        "detail": "no feature 'scnas'; did you mean 'scans'?",
        "code": "feature-unknown",
        "cure": "Use a feature of the catalogue (GET /v1/plans), or add it there.",
        "retryable": False,
        "errors": [],
        "feature": "scnas",
        "nearest": "scans",
    },
}


def _shown(*results: Any) -> dict[str, Any]:
    accepted = sum(result["status"] == "recorded" for result in results)
    counts = {"accepted": accepted, "duplicates": 0, "blocked": 0, "rejected": len(results) - accepted}
    return counts | {"results": list(results)}


_NATIVE_MEDIA: Final = Media(
    NATIVE, NativeEvents, {"one": _NATIVE, "array": [_NATIVE, _SECOND], "object": {"events": [_NATIVE, _SECOND]}}
)
_PROBLEMS: Final = (
    BatchRefused,
    MalformedEncoding,
    StorageUnavailable,
    Overloaded,
    LedgerFull,
    ClockUnsafe,
    OrgCorrupt,
)
_ANSWERS: Final[Mapping[int, type[BaseModel] | str]] = {
    200: EventsAnswer,
    202: AcceptedAnswer,
    204: "",
    207: PartAnswer,
}

_SHOWS_AT: Final = {
    202: {"accepted": 2, "rejected": 0, "results": []},
    207: _shown(_RECORDED, _REJECTED),
}

_ABOUT: Final = (
    "Each event is counted, or told why not, by itself, in the order sent; all of it may be sent again at any time:"
    " events with an id count once. 200: all counted or duplicates. 207: some were blocked or rejected. 422: not one"
    " could be read. At most 1,000 events (a setting) and 1 MiB, unpacked; gzip is taken. With"
    " `ack=async` 202: accepted, on disk, and counted afterwards, each exactly once."
)

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST", "/v1/events", "Count many usage events", USAGE_WRITE, "usage", ingest.post_events, _ANSWERS,
        query=EventsQuery, problems=_PROBLEMS, has_ids=True, reader=reader(NATIVE, LINES, CLOUD, CLOUD_BATCH, BINARY),
        takes=(
            _NATIVE_MEDIA,
            Media(LINES, EventLines, {"lines": [_NATIVE, _SECOND]}),
            Media(CLOUD, CloudEvent, {"structured": _CLOUD}),
            Media(CLOUD_BATCH, CloudEvents, {"batch": [_CLOUD, _CLOUD | {"id": "evt_c2"}]}),
        ),
        shows=_shown(_RECORDED), shows_at=_SHOWS_AT,
        about=_ABOUT + " Takes events as POST /usage/track does, and CloudEvents 1.0 in all three HTTP modes: with"
        " `ce-specversion`, `ce-id`, `ce-source` and `ce-type` headers the body is one event's JSON data (binary).",
    ),
    Route(
        "POST", "/usage/track/batch", "Count many usage events, in plain JSON", USAGE_WRITE, "usage",
        ingest.post_events, _ANSWERS,
        query=EventsQuery, problems=_PROBLEMS, has_ids=True, reader=reader(NATIVE), takes=(_NATIVE_MEDIA,),
        shows=_shown(_RECORDED), shows_at=_SHOWS_AT, about=_ABOUT,
    ),
)  # fmt: skip
