"""Every URL of the service, once. The router, the document and the tests of who may do what are made from here."""

from typing import Final

from metering.api import billing, ops, pages, usage
from metering.api.models import (
    BillingUpdate,
    CatalogueView,
    HealthView,
    Liveness,
    OrgPage,
    OrgSettings,
    OrgView,
    PageQuery,
    Readiness,
    TrackAnswer,
    TrackRequest,
)
from metering.api.route import OPEN, SIGNED_IN, Route
from metering.api.track import TRACK, TRACK_PATHS
from metering.auth import ADMIN, BILLING_WRITE, USAGE_READ, USAGE_WRITE
from metering.errors import (
    ClockUnsafe,
    EventConflict,
    FeatureDisabled,
    FeatureUnknown,
    Invalid,
    LedgerFull,
    NotFound,
    OrgCorrupt,
    OrgNotFound,
    Overloaded,
    PlanUnknown,
    QuotaExceeded,
    StorageUnavailable,
    TimestampOutOfRange,
    TotalTooLarge,
    Unauthenticated,
    VersionConflict,
)

_HTML: Final = "text/html"
_READS: Final = (StorageUnavailable, Overloaded, OrgCorrupt, ClockUnsafe, VersionConflict, LedgerFull)
"""What a read may meet as well as a write: reading an organisation closes a period that has ended."""

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

_ORG: Final = {
    "org_id": "org-123",
    "plan": "professional",
    "features": {
        "scans": {
            "current": 15,
            "limit": 1000,
            "reset_date": "2024-02-01T00:00:00Z",
            "last_updated": "2024-01-15T10:30:00Z",
            "remaining": 985,
            "overage": 0,
            "overage_billed": False,
            "unlimited": False,
            "reserved": 0,
            "percent": 1,
            "on_limit": "overage",
            "enabled": True,
        }
    },
    "stripe_customer_id": "cus_123",
    "payment_overdue": False,
    "created_at": "2024-01-01T00:00:00Z",
    "updated_at": "2024-01-15T10:30:00Z",
    "overage_flagged": False,
    "period": {"start": "2024-01-01T00:00:00Z", "end": "2024-02-01T00:00:00Z"},
    "reset": "calendar",
    "timezone": "UTC",
    "credits": None,
}

_SETTINGS: Final = {"plan": "professional", "limits": {"scans": 1000}, "stripe_customer_id": "cus_123"}

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST", TRACK, "Count one usage event", USAGE_WRITE, "usage", None, {200: TrackAnswer},
        request=TrackRequest,
        problems=(
            QuotaExceeded, FeatureDisabled, OrgNotFound, FeatureUnknown, EventConflict, TimestampOutOfRange,
            TotalTooLarge, StorageUnavailable, Overloaded, LedgerFull, ClockUnsafe, OrgCorrupt, VersionConflict,
        ),
        example={"org_id": "org-123", "feature": "scans", "quantity": 5, "metadata": {"chain": "ethereum"},
                 "event_id": "evt_9"},
        shows=_TRACKED,
        aliases=tuple(sorted(TRACK_PATHS - {TRACK})),
        about="Counts the event and answers with the balance, in one step: after a 200 it is on disk. Send an"
        " `event_id` and repeating is safe. Over the limit the plan decides: counted as overage, refused, or capped.",
    ),
    Route(
        "GET", "/usage", "Usage of the token's organisation", USAGE_READ, "usage", usage.get_usage, {200: OrgView},
        problems=(Invalid, OrgNotFound, *_READS), shows=_ORG, aliases=("/api/usage",),
    ),
    Route(
        "GET", "/usage/{org_id}", "Usage of an organisation", USAGE_READ, "usage", usage.get_usage, {200: OrgView},
        problems=(Invalid, OrgNotFound, *_READS), shows=_ORG,
    ),
    Route(
        "POST", "/billing/update", "Change plan and limits", BILLING_WRITE, "billing", billing.update_billing,
        {200: OrgView},
        request=BillingUpdate, problems=(OrgNotFound, PlanUnknown, *_READS),
        example={"org_id": "org-123", **_SETTINGS}, shows=_ORG,
        about="Takes effect with the next event. A plan change never resets counters.",
    ),
    Route(
        "GET", "/v1/orgs", "All organisations", ADMIN, "organisations", billing.list_orgs, {200: OrgPage},
        query=PageQuery, problems=(Invalid, *_READS), shows={"data": [_ORG], "next_cursor": None},
    ),
    Route(
        "GET", "/v1/orgs/{org_id}", "An organisation", USAGE_READ, "organisations", usage.get_usage, {200: OrgView},
        problems=(Invalid, OrgNotFound, *_READS), shows=_ORG,
    ),
    Route(
        "PUT", "/v1/orgs/{org_id}", "Create or change an organisation", BILLING_WRITE, "organisations",
        billing.put_org, {200: OrgView, 201: OrgView},
        request=OrgSettings, problems=(PlanUnknown, OrgNotFound, *_READS), example=_SETTINGS, shows=_ORG,
        about="As POST /billing/update for the organisation in the path, which is created if there is none.",
    ),
    Route(
        "GET", "/v1/plans", "The catalogue of plans and features", SIGNED_IN, "billing", billing.list_plans,
        {200: CatalogueView},
    ),
    Route(
        "GET", "/health", "State of the service", OPEN, "operations", ops.get_health,
        {200: HealthView, 503: HealthView},
    ),
    Route("GET", "/health/live", "The process runs", OPEN, "operations", ops.get_live, {200: Liveness}),
    Route(
        "GET", "/health/ready", "Traffic may come here", OPEN, "operations", ops.get_ready,
        {200: Readiness, 503: Readiness},
    ),
    *(
        Route(
            "GET", path, "Metrics for Prometheus", OPEN, "operations", ops.get_metrics, {200: "text/plain"},
            problems=(Unauthenticated, StorageUnavailable),
            about="METRICS_TOKEN is the bearer token; without one they are open where the server is bound to loopback.",
        )
        for path in ("/metrics/usage", "/metrics")
    ),
    Route(
        "GET", "/openapi.json", "This document", OPEN, "reference", pages.get_document, {200: "application/json"},
    ),
    Route("GET", "/docs", "The API reference as a page", OPEN, "reference", pages.get_docs, {200: _HTML}),
    Route(
        "GET", "/docs/{file}", "A file of the reference", OPEN, "reference", pages.get_docs_file,
        {200: "*/*"}, problems=(NotFound,),
    ),
    Route(
        "GET", "/problems/{code}", "What a problem means and its cure", OPEN, "reference", pages.get_problem,
        {200: _HTML}, problems=(NotFound,),
    ),
)  # fmt: skip
"""Literal paths stand before patterns: the first that fits answers."""
