"""The portal of payers."""

from typing import Final

from metering.api.models.portal import PortalRequest, PortalView
from metering.api.portal import open_portal
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import BILLING_WRITE
from metering.errors import (
    CustomerUnknown,
    NotSubscribed,
    OrgNotFound,
    StripeFailed,
    StripeNotConfigured,
    StripeUnavailable,
)

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST", "/v1/billing/portal", "Let the payer into Stripe's portal", BILLING_WRITE, "billing", open_portal,
        {200: PortalView},
        request=PortalRequest, optional=True,
        problems=(
            OrgNotFound, NotSubscribed, CustomerUnknown, StripeNotConfigured, StripeFailed, StripeUnavailable, *READS,
        ),
        example={"org_id": "org-123"}, shows={"url": "https://billing.stripe.com/p/session/test_a1"},
        about="There payers see invoices, change card and address, and let the subscription end with its period or take"
        " that back. What they do comes back by Stripe's events.",
    ),
)  # fmt: skip
