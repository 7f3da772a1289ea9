"""Asking before acting."""

from typing import Final

from metering.api import check
from metering.api.models.check import CheckReply, ChecksRequest, Entitlements
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import CHECK, USAGE_READ
from metering.errors import FeatureUnknown, Invalid, OrgNotFound

_ASKED: Final = {"org_id": "org-123", "feature": "scans", "quantity": 5}
_TOLD: Final = {
    "org_id": "org-123",
    "feature": "scans",
    "allowed": False,
    "reason": "quota_exceeded",
    "decided_by": "plan_limit",
    "requested": 5,
    "granted": 0,
    "current_usage": 8,
    "limit": 10,
    "remaining": 2,
    "reserved": 0,
    "overage_allowed": False,
    "reset_date": "2024-02-01T00:00:00Z",
    "retry_after_ms": 1468800000,
    "upgrade": {"plan": "professional", "missing": 3},
    "cache_ttl_ms": 10000,
    "consumed": False,
    "duplicate": False,
}

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST", "/v1/check", "May it be used?", CHECK, "usage", check.post_check, {200: CheckReply},
        request=ChecksRequest, problems=(OrgNotFound, FeatureUnknown, *READS), rated=True, example=_ASKED,
        shows=_TOLD,
        about="Answers 200 whether it may or not, and why. Decided by the script that counts, on the same figures.",
    ),
    Route(
        "GET", "/v1/orgs/{org_id}/entitlements", "What an organisation may use", USAGE_READ, "usage",
        check.get_entitlements, {200: Entitlements}, problems=(Invalid, OrgNotFound, *READS), etag=True,
    ),
)  # fmt: skip
