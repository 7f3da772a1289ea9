"""Counting usage and looking at it."""

from typing import Final

from metering.api import usage
from metering.api.models.usage import OrgView, TrackAnswer, TrackRequest
from metering.api.route import Route
from metering.api.tables.shared import ORG, READS
from metering.api.track import TRACK, TRACK_PATHS
from metering.auth import USAGE_READ, USAGE_WRITE
from metering.encryption_errors import EncryptionKeyUnknown
from metering.errors import (
    ClockUnsafe,
    CreditsExhausted,
    EventConflict,
    FeatureDisabled,
    FeatureUnknown,
    HoldConflict,
    HoldExpired,
    HoldNotFound,
    HoldSettled,
    Invalid,
    LedgerFull,
    OrgCorrupt,
    OrgNotFound,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    StorageUnavailable,
    TimestampOutOfRange,
    TotalTooLarge,
    VersionConflict,
)

_TRACKED: Final = {
    "org_id": "org-123",
    "feature": "scans",
    "current_usage": 5,
    "limit": 10,
    "remaining": 5,
    "reset_date": "2024-02-01T00:00:00Z",
    "event_id": "evt_9",
    "allowed": True,
    "recorded": 5,
    "duplicate": False,
    "overage": 0,
    "unlimited": False,
    "period": {"start": "2024-01-01T00:00:00Z", "end": "2024-02-01T00:00:00Z"},
    "thresholds_crossed": [],
    "decided_by": "plan_limit",
}

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST", TRACK, "Count one usage event", USAGE_WRITE, "usage", None, {200: TrackAnswer},
        request=TrackRequest,
        problems=(
            CreditsExhausted, QuotaExceeded, FeatureDisabled, OrgNotFound, FeatureUnknown, EventConflict,
            TimestampOutOfRange, TotalTooLarge, RateLimited, HoldNotFound, HoldConflict, HoldExpired, HoldSettled,
            StorageUnavailable, Overloaded, LedgerFull, ClockUnsafe, OrgCorrupt,
            EncryptionKeyUnknown, VersionConflict,
        ),
        has_ids=True, rated=True,
        example={"org_id": "org-123", "feature": "scans", "quantity": 5, "metadata": {"chain": "ethereum"},
                 "event_id": "evt_9"},
        shows=_TRACKED,
        aliases=tuple(sorted(TRACK_PATHS - {TRACK})),
        about="Counts the event and answers with the balance, in one step: after a 200 it is on disk. Send an"
        " `event_id` and repeating is safe. Over the limit the plan decides: counted as overage, refused, or capped.",
    ),
    Route(
        "GET", "/usage", "Usage of the token's organisation", USAGE_READ, "usage", usage.get_usage, {200: OrgView},
        problems=(Invalid, OrgNotFound, *READS), shows=ORG, aliases=("/api/usage",),
    ),
    Route(
        "GET", "/usage/{org_id}", "Usage of an organisation", USAGE_READ, "usage", usage.get_usage, {200: OrgView},
        problems=(Invalid, OrgNotFound, *READS), shows=ORG,
    ),
)  # fmt: skip
