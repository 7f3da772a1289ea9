"""Correcting usage."""

from typing import Any, Final

from metering.api import corrections
from metering.api.models.corrections import (
    AdjustmentRequest,
    CorrectionAnswer,
    ResetAnswer,
    ResetRequest,
    VoidAnswer,
    VoidRequest,
)
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import ADMIN
from metering.errors import (
    BelowZero,
    EventConflict,
    EventNotFound,
    FeatureUnknown,
    OrgNotFound,
    PeriodFinal,
    PeriodNotFound,
    TimestampOutOfRange,
    TotalTooLarge,
)

_PROBLEMS: Final = (OrgNotFound, FeatureUnknown, EventConflict, TotalTooLarge, *READS)
_IN_A_PERIOD: Final = (PeriodNotFound, PeriodFinal, BelowZero, TimestampOutOfRange, *_PROBLEMS)

_ROW: Final[dict[str, Any]] = {
    "feature": "scans",
    "before": {"used": 13, "overage": 3, "remaining": 0},
    "after": {"used": 8, "overage": 0, "remaining": 2},
    "delta": -5,
    "overage_given_back": 3,
    "stripe_action": "none",
    "audit_id": "1705314600000-0",
}
_WHOLE: Final[dict[str, Any]] = {
    "org_id": "org-123",
    "id": "ticket-4711",
    "period": {"start": "2024-01-01T00:00:00Z", "end": "2024-02-01T00:00:00Z"},
    "duplicate": False,
}

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST", "/v1/usage/adjustments", "Put units in or take them out", ADMIN, "corrections",
        corrections.adjust_usage, {200: CorrectionAnswer},
        request=AdjustmentRequest, problems=_IN_A_PERIOD, shows=_ROW | _WHOLE,
        example={"org_id": "org-123", "feature": "scans", "delta": -2, "reason": "double import of 14 January",
                 "id": "ticket-4711"},
        about="Counter, overage and history change together, with an audit entry. Units taken out give back the overage"
        " they had caused; a counter never goes below zero. Units put in count above any limit.",
    ),
    Route(
        "POST", "/v1/events/{event_id}/void", "Take an event back", ADMIN, "corrections", corrections.void_event,
        {200: VoidAnswer},
        request=VoidRequest, problems=(EventNotFound, *_IN_A_PERIOD),
        shows=_ROW | _WHOLE | {"id": "evt_9", "also": []},
        example={"org_id": "org-123", "source": "svc-a", "feature": "scans", "quantity": 5, "reason": "test run"},
        about="Takes out what the event counted, once. The body repeats the event's content, which is compared with"
        " what is stored of it. The id stays known: sending the event again counts nothing.",
    ),
    Route(
        "POST", "/v1/usage/{org_id}/reset", "Set counters back", ADMIN, "corrections", corrections.reset_usage,
        {200: ResetAnswer},
        request=ResetRequest, problems=_PROBLEMS, shows=_WHOLE | {"data": [_ROW]},
        example={"features": ["scans"], "forgive_overage": True, "reason": "goodwill after the outage"},
        about="Counters of the running period go to zero, or, unless the overage is forgiven, to the units that are"
        " billed as overage.",
    ),
)  # fmt: skip
