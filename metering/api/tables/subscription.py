"""The subscription, and what customers do about it."""

from typing import Any, Final

from metering.api.models.subscription import (
    CancelRequest,
    ChangeRequest,
    QuoteView,
    ResumeRequest,
    SubscriptionQuery,
    SubscriptionView,
)
from metering.api.route import Route
from metering.api.subscription import (
    cancel_subscription,
    change_subscription,
    get_subscription,
    preview_subscription,
    resume_subscription,
)
from metering.api.tables.shared import READS
from metering.auth import BILLING_READ, BILLING_WRITE
from metering.errors import (
    CustomerUnknown,
    IntervalDiffers,
    Invalid,
    NotSubscribed,
    OrgNotFound,
    PaymentFailed,
    PlanNotSold,
    PlanUnknown,
    StripeFailed,
    StripeNotConfigured,
    StripeUnavailable,
    UsageSettling,
)

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

_AT_STRIPE: Final = (OrgNotFound, NotSubscribed, StripeNotConfigured, StripeFailed, StripeUnavailable, *READS)

_CHANGE: Final = (PlanUnknown, PlanNotSold, IntervalDiffers, CustomerUnknown, *_AT_STRIPE)

_REST: Final = {"start": "2024-01-27T10:20:00Z", "end": "2024-02-17T10:20:00Z"}
_QUOTE: Final[dict[str, Any]] = {
    "org_id": "org-123",
    "plan": "starter",
    "plan_previewed": "professional",
    "proration": "always_invoice",
    "currency": "usd",
    "billed": "now",
    "total_minor": 4742,
    "due_minor": 4742,
    "lines": [
        {"description": "Unused time on Starter", "amount_minor": -1965, "proration": True, "period": _REST},
        {"description": "Remaining time on Professional", "amount_minor": 6707, "proration": True, "period": _REST},
    ],
    "lines_left_out": False,
}

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/v1/billing/subscription", "The subscription of an organisation", BILLING_READ, "billing",
        get_subscription, {200: SubscriptionView},
        query=SubscriptionQuery, problems=(Invalid, OrgNotFound, *READS), shows=_SUBSCRIPTION,
        about="As Stripe told of it last. An organisation without one has its plan, and `status` null.",
    ),
    Route(
        "POST", "/v1/billing/subscription/cancel", "End the subscription", BILLING_WRITE, "billing",
        cancel_subscription, {200: SubscriptionView},
        request=CancelRequest, optional=True, problems=(*_AT_STRIPE, UsageSettling),
        example={"org_id": "org-123", "at_period_end": True},
        shows=_SUBSCRIPTION | {"cancel_at_period_end": True, "ends_at": "2024-02-17T10:20:00Z"},
        about="With its period, unless told otherwise. Now: what was used so far is brought to Stripe first and billed "
        "on a last invoice, and the organisation falls back to the default plan at once.",
    ),
    Route(
        "POST", "/v1/billing/subscription/resume", "Let the subscription go on", BILLING_WRITE, "billing",
        resume_subscription, {200: SubscriptionView},
        request=ResumeRequest, optional=True, problems=_AT_STRIPE, example={"org_id": "org-123"}, shows=_SUBSCRIPTION,
        about="Takes back that it ends with its period. What has ended is bought again.",
    ),
    Route(
        "POST", "/v1/billing/subscription/change", "Let the subscription be for another plan", BILLING_WRITE, "billing",
        change_subscription, {200: SubscriptionView},
        request=ChangeRequest, problems=(*_CHANGE, PaymentFailed),
        example={"org_id": "org-123", "plan": "professional"}, shows=_SUBSCRIPTION,
        about="The plan's item alone gets another price; counters, overage and the period stay. Plan and limits follow "
        "at once. An invoice of now that is not paid changes nothing.",
    ),
    Route(
        "POST", "/v1/billing/subscription/preview", "What another plan would cost", BILLING_READ, "billing",
        preview_subscription, {200: QuoteView},
        request=ChangeRequest, problems=_CHANGE, reads=True,
        example={"org_id": "org-123", "plan": "professional", "proration": "always_invoice"}, shows=_QUOTE,
        about="The invoice that the change would bring, as Stripe computes it by now. Changes nothing.",
    ),
)  # fmt: skip
