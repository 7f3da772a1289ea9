"""What is to come: projections, and what another plan would mean."""

from typing import Final

from metering.api import preview, projection
from metering.api.models.outlook import PreviewRequest, PreviewView, ProjectionQuery, ProjectionView
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import BILLING_READ
from metering.errors import Invalid, OrgNotFound, PlanUnknown

_PERIOD: Final = {"start": "2024-01-01T00:00:00Z", "end": "2024-02-01T00:00:00Z"}
_LINE: Final = {
    "units": 5, "price_minor": 25, "per": 1, "packages": 5, "flat_minor": 0, "amount_minor": 125,
    "text": "5 / 1 -> 5 x 25 = 125",
}  # fmt: skip
_CHARGE: Final = {"units": 5, "amount_minor": 125, "amount": "1.25 USD", "model": "package", "lines": [_LINE]}
_NOTHING: Final = {"units": 0, "amount_minor": 0, "amount": "0.00 USD", "model": "package", "lines": []}
_BILL: Final = {"plan_minor": 0, "overage_minor": 125, "total_minor": 125}

_PROJECTION: Final = {
    "org_id": "org-123",
    "plan": "free",
    "currency": "usd",
    "period": _PERIOD,
    "as_of": "2024-01-16T12:00:00Z",
    "basis": {"elapsed_s": 1339200, "period_s": 2678400, "recent_s": 604800},
    "features": {
        "scans": {
            "used": 8,
            "limit": 10,
            "on_limit": "overage",
            "enabled": True,
            "estimates": {"by_period": 16, "by_last_7_days": 14},
            "projected": {"low": 14, "expected": 15, "high": 16},
            "limit_reached_at": "2024-01-20T22:17:08.572Z",
            "blocked": "no",
            "overage": {"now": 0, "low": 4, "expected": 5, "high": 6},
            "price": {"now": _NOTHING, "low": _CHARGE, "expected": _CHARGE, "high": _CHARGE},
        }
    },
    "bill": {"now": _BILL, "low": _BILL, "expected": _BILL, "high": _BILL},
}

_PRESENT: Final = {
    "limit": 10, "remaining": 2, "on_limit": "overage", "enabled": True, "blocked": "no", "projected": 15,
    "overage": 5, "price": _CHARGE,
}  # fmt: skip
_OTHER: Final = {
    "limit": 1000, "remaining": 992, "on_limit": "overage", "enabled": True, "blocked": "no", "projected": 15,
    "overage": 0, "price": _NOTHING,
}  # fmt: skip
_OTHER_BILL: Final = {"plan_minor": 9900, "overage_minor": 0, "total_minor": 9900}
_PREVIEW: Final = {
    "org_id": "org-123",
    "plan": "free",
    "plan_previewed": "professional",
    "currency": "usd",
    "period": _PERIOD,
    "blocked": [],
    "drops_own_limits": False,
    "features": {
        "scans": {"used": 8, "expected": 15, "present": _PRESENT, "changed": _OTHER, "full_period": _OTHER},
    },
    "bill": {"present": _BILL, "changed": _OTHER_BILL, "full_period": _OTHER_BILL},
}

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/v1/billing/projection", "Where the running period will end", BILLING_READ, "billing",
        projection.get_projection, {200: ProjectionView},
        query=ProjectionQuery, problems=(Invalid, OrgNotFound, *READS), shows=_PROJECTION,
        about="Two estimates from history, what they mean for limits and overage, and its price line by line.",
    ),
    Route(
        "POST", "/v1/plans/{plan}/preview", "What a change of plan would mean", BILLING_READ, "billing",
        preview.preview_plan, {200: PreviewView},
        request=PreviewRequest, problems=(OrgNotFound, PlanUnknown, *READS), shows=_PREVIEW,
        example={"org_id": "org-123"}, reads=True,
        about="Holds usage and projection against another plan. Changes nothing.",
    ),
)  # fmt: skip
