"""Automatic top-ups."""

from typing import Any, Final

from metering.api import topups
from metering.api.models.credits import BalanceQuery
from metering.api.models.topups import TopUpRequest, TopUpView
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import BILLING_READ, BILLING_WRITE
from metering.errors import (
    CustomerUnknown,
    Invalid,
    OrgNotFound,
    StripeFailed,
    StripeNotConfigured,
    StripeUnavailable,
)
from metering.payment_errors import NoPayer, PackageUnknown

_SET: Final[dict[str, Any]] = {
    "enabled": True, "threshold": 50, "package": 500, "max_per_day": 3, "max_amount_per_month": 20000, "cooldown_s": 60,
}  # fmt: skip
_SHOWN: Final[dict[str, Any]] = _SET | {
    "org_id": "org-123", "status": "ready", "currency": "usd", "attempts_in_24_hours": 1, "amount_in_31_days": 4500,
    "paused": None,
}  # fmt: skip

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "PUT", "/v1/credits/auto-topup", "Buy credits before they run out", BILLING_WRITE, "credits",
        topups.set_top_up, {200: TopUpView},
        request=TopUpRequest,
        problems=(
            OrgNotFound, PackageUnknown, NoPayer, CustomerUnknown, StripeNotConfigured, StripeFailed,
            StripeUnavailable, *READS,
        ),
        example=_SET,
        shows=_SHOWN,
        about="Charges what was saved when the organisation last paid. Both caps are hard, whatever fails. A card that"
        " declines or asks for its holder pauses it, `paused` says why, and setting it again goes on.",
    ),
    Route(
        "GET", "/v1/credits/auto-topup", "How credits are bought by themselves", BILLING_READ, "credits",
        topups.get_top_up, {200: TopUpView},
        query=BalanceQuery, problems=(Invalid, OrgNotFound, StripeNotConfigured, *READS),
        shows=_SHOWN,
    ),
)  # fmt: skip
