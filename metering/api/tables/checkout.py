"""Buying."""

from typing import Final

from metering.api.checkout import begin_checkout
from metering.api.models.checkout import CheckoutRequest, CheckoutView
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import BILLING_WRITE
from metering.errors import (
    AlreadySubscribed,
    CustomerUnknown,
    OrgNotFound,
    PlanNotSold,
    PlanUnknown,
    StripeFailed,
    StripeNotConfigured,
    StripeUnavailable,
    TooManyGrants,
)
from metering.payment_errors import PackageUnknown

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST", "/v1/billing/checkout", "Buy a plan or credits", BILLING_WRITE, "billing", begin_checkout,
        {201: CheckoutView},
        request=CheckoutRequest,
        problems=(
            OrgNotFound, PlanUnknown, PackageUnknown, AlreadySubscribed, CustomerUnknown, PlanNotSold, TooManyGrants,
            StripeNotConfigured, StripeFailed, StripeUnavailable, *READS,
        ),
        example={"org_id": "org-123", "plan": "professional"},
        shows={
            "id": "cs_test_a1", "url": "https://checkout.stripe.com/c/pay/cs_test_a1",
            "expires_at": "2026-11-26T12:00:00Z",
        },
        about="Begins a session of Stripe's Checkout and says where the payer goes. Nothing changes before it is paid; "
        "then plan, limits and period follow from Stripe's events.",
    ),
)  # fmt: skip
