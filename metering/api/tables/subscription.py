"""The subscription, and what customers do about it."""

from typing import Any, Final

from metering.api.models.subscription import SubscriptionQuery, SubscriptionView
from metering.api.route import Route
from metering.api.subscription import get_subscription
from metering.api.tables.shared import READS
from metering.auth import BILLING_READ
from metering.errors import Invalid, OrgNotFound

_SUBSCRIPTION: Final[dict[str, Any]] = {
    "org_id": "org-123",
    "plan": "professional",
    "status": "active",
    "subscription_id": "sub_123",
    "stripe_customer_id": "cus_123",
    "plan_subscribed": "professional",
    "started_at": "2023-12-17T10:20:00Z",
    "period": {"start": "2024-01-17T10:20:00Z", "end": "2024-02-17T10:20:00Z"},
    "cancel_at_period_end": False,
    "ends_at": None,
    "trial_ends_at": None,
    "payment_overdue": False,
    "grace_ends_at": None,
    "metered": ["api_requests", "scans", "wallet_checks"],
}

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/v1/billing/subscription", "The subscription of an organisation", BILLING_READ, "billing",
        get_subscription, {200: SubscriptionView},
        query=SubscriptionQuery, problems=(Invalid, OrgNotFound, *READS), shows=_SUBSCRIPTION,
        about="As Stripe told of it last. An organisation without one has its plan, and `status` null.",
    ),
)  # fmt: skip
