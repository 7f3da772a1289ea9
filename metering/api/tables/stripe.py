"""What goes to Stripe."""

from typing import Any, Final

from metering.api import reconciliation, stripe
from metering.api.models.reconciliation import (
    ReconciliationPage,
    ReconciliationQuery,
    RepairAnswer,
    RepairQuery,
    RunAnswer,
)
from metering.api.models.stripe import DiscardRequest, OutboxPage, OutboxQuery, OverageWindow
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import ADMIN, BILLING_READ
from metering.errors import Invalid, OrgNotFound, StripeNotConfigured, WindowNotDead, WindowNotFound

_WINDOW: Final[dict[str, Any]] = {
    "window": "mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dzpiydcmrtgq2t",
    "org_id": "org-123",
    "feature": "scans",
    "period": {"start": "2024-01-01T00:00:00Z", "end": "2024-02-01T00:00:00Z"},
    "from_units": 40,
    "to_units": 52,
    "units": 12,
    "state": "dead",
    "sink": "meter",
    "customer": "cus_123",
    "attempts": 1,
    "sealed_at": "2024-01-15T10:30:00Z",
    "first_attempt_at": None,
    "last_attempt_at": "2024-01-15T10:30:02Z",
    "next_attempt_at": None,
    "settled_at": "2024-01-15T10:30:02Z",
    "error": "400 resource_missing No such customer: 'cus_123'",
}
_NONE: Final = {"windows": 0, "units": 0, "oldest_seconds": 0}
_DEAD: Final = {"windows": 1, "units": 12, "oldest_seconds": 3600}

_LINE: Final[dict[str, Any]] = {
    "org_id": "org-123",
    "feature": "scans",
    "period": {"start": "2024-01-01T00:00:00Z", "end": "2024-02-01T00:00:00Z"},
    "customer": "cus_123",
    "overage": 52,
    "sealed": 52,
    "delivered": 40,
    "written_off": 0,
    "journal": 40,
    "stripe": 40,
    "drift": 0,
    "verdict": "even",
}

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/v1/stripe/outbox", "Overage that Stripe does not have", BILLING_READ, "stripe", stripe.get_outbox,
        {200: OutboxPage},
        query=OutboxQuery, problems=(Invalid, OrgNotFound, *READS),
        shows={"data": [_WINDOW], "next_cursor": None,
               "counts": {"sealed": _NONE, "inflight": _NONE, "dead": _DEAD}},
        about="Windows of overage. A page may be short, or empty, while there is more: `next_cursor` says so.",
    ),
    Route(
        "POST", "/v1/stripe/outbox/{window}/replay", "Send a dead window again", ADMIN, "stripe", stripe.replay_window,
        {200: OverageWindow},
        problems=(WindowNotFound, WindowNotDead, *READS),
        shows=_WINDOW | {"state": "sealed", "settled_at": None},
        about="Where nothing of it can have arrived, for the customer that the organisation has then. Any other for the"
        " customer it may have reached: repeated within 23 hours, afterwards held against Stripe's own sum first.",
    ),
    Route(
        "POST", "/v1/stripe/outbox/{window}/discard", "Let a dead window go", ADMIN, "stripe", stripe.discard_window,
        {200: OverageWindow},
        request=DiscardRequest, problems=(WindowNotFound, WindowNotDead, *READS),
        example={"reason": "credited by hand, ticket 4711"},
        shows=_WINDOW | {"state": "written_off", "error": "credited by hand, ticket 4711"},
        about="Its units are written off, for a reason that stands in the audit.",
    ),
    Route(
        "GET", "/v1/reconciliation", "Our books and Stripe's, side by side", ADMIN, "stripe",
        reconciliation.get_reconciliation, {200: ReconciliationPage},
        query=ReconciliationQuery, problems=(Invalid, OrgNotFound, StripeNotConfigured, *READS),
        shows={"data": [_LINE], "next_cursor": None}, media=("text/csv",),
        about="Stripe is asked for each line. `journal` and `stripe` are of a customer and a meter, in whole hours; two"
        " organisations of one customer share them.",
    ),
    Route(
        "POST", "/v1/reconciliation/repair", "Repair what Stripe's sums prove", ADMIN, "stripe",
        reconciliation.repair, {200: RepairAnswer},
        query=RepairQuery, problems=(Invalid, StripeNotConfigured, WindowNotDead, *READS),
        shows={"dry_run": True, "data": [
            {"window": _WINDOW["window"], "org_id": "org-123", "feature": "scans", "units": 12, "proof": "lacks"}]},
        about="Dead windows that may have arrived are replayed where Stripe's sum of the hour has all of them, or none."
        " A dry run, unless `dry_run=false`.",
    ),
    Route(
        "POST", "/v1/reconciliation/run", "Reconcile everything now", ADMIN, "stripe",
        reconciliation.run_reconciliation, {202: RunAnswer},
        problems=(StripeNotConfigured,), shows_at={202: {"started": True}},
        about="It happens every hour anyway. What differs is in the log and in `metering_stripe_drift_units`.",
    ),
)  # fmt: skip
