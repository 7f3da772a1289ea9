"""Organisations and plans."""

from typing import Final

from metering.api import billing, erasure, export, plans
from metering.api.live_events import LINES
from metering.api.models.erasure import EraseQuery, ErasureView
from metering.api.models.fields import PageQuery
from metering.api.models.orgs import BillingUpdate, CatalogueView, OrgPage, OrgSettings, PlanOffer, PlansQuery
from metering.api.models.usage import OrgView
from metering.api.route import SIGNED_IN, Route
from metering.api.tables.shared import ORG, READS
from metering.auth import ADMIN, BILLING_WRITE, USAGE_READ
from metering.erasure_errors import ErasureBlocked, ErasureNotFound
from metering.errors import Invalid, OrgNotFound, PlanUnknown

_SETTINGS: Final = {"plan": "professional", "limits": {"scans": 1000}, "stripe_customer_id": "cus_123"}

_PLAN: Final = {
    "name": "professional",
    "title": "Professional",
    "reset": "calendar",
    "price_minor": 9900,
    "price": "99.00 USD",
    "yearly_price_minor": None,
    "yearly_price": None,
    "includes": ["Analytics"],
    "rate_limit": None,
    "features": {
        "scans": {"limit": 1000, "unlimited": False, "on_limit": "overage", "enabled": True, "windows": []},
    },
    "currency": "usd",
}

_AGREEMENT: Final = {
    "overrides": {"scans": {"limit": 5000, "overage_price_minor": 15, "expires_at": "2200-01-01T00:00:00Z"}},
    "price_minor": 79_900,
}

_ERASURE: Final = {
    "org_id": "org-123",
    "job_id": "era_01HZX3J5T6N7P8Q9R0S1T2V3W4",
    "status": "erased",
    "erased_at": "2024-01-15T10:30:00Z",
    "erased_by": "dpo@example.com",
    "reason": "request 4711",
    "finished_at": "2024-01-15T10:30:02Z",
    "overage_given_up": 0,
    "store_file": "rewritten",
    "stripe_customer_id": "cus_123",
    "left_to_do": ["Redact cus_123 at Stripe when the law lets its invoices go."],
}

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST", "/billing/update", "Change plan and limits", BILLING_WRITE, "billing", billing.update_billing,
        {200: OrgView},
        request=BillingUpdate, problems=(OrgNotFound, PlanUnknown, *READS),
        example={"org_id": "org-123", **_SETTINGS}, shows=ORG,
        about="Takes effect with the next event. A plan change never resets counters.", etag=True,
    ),
    Route(
        "GET", "/v1/orgs", "All organisations", ADMIN, "organisations", billing.list_orgs, {200: OrgPage},
        query=PageQuery, problems=(Invalid, *READS), shows={"data": [ORG], "next_cursor": None},
    ),
    Route(
        "GET", "/v1/orgs/{org_id}", "An organisation", USAGE_READ, "organisations", billing.get_org, {200: OrgView},
        problems=(Invalid, OrgNotFound, *READS), shows=ORG, etag=True,
        about="Its ETag names the settings, not the counters: a 304 says that the settings are unchanged.",
    ),
    Route(
        "PUT", "/v1/orgs/{org_id}", "Create or change an organisation", BILLING_WRITE, "organisations",
        billing.put_org, {200: OrgView, 201: OrgView},
        request=OrgSettings, problems=(PlanUnknown, OrgNotFound, *READS), example=_SETTINGS, shows=ORG,
        about="As POST /billing/update for the organisation in the path, which is created if there is none.", etag=True,
    ),
    Route(
        "PATCH", "/v1/orgs/{org_id}", "Change an organisation", BILLING_WRITE, "organisations",
        billing.patch_org, {200: OrgView},
        request=OrgSettings, problems=(PlanUnknown, OrgNotFound, *READS), example=_AGREEMENT, shows=ORG, etag=True,
        about="As PUT, of an organisation that is there. Limits, prices and their end may be its own.",
    ),
    Route(
        "DELETE", "/v1/orgs/{org_id}", "Erase an organisation", ADMIN, "organisations", erasure.erase_org,
        {202: ErasureView},
        query=EraseQuery, problems=(Invalid, OrgNotFound, ErasureBlocked, *READS), shows=_ERASURE,
        about="For good: its id is never used again. Counting ends and its data key goes at once, everything else of it"
        " follows within a minute or so. Its units stay in the totals, of nobody. Repeating it answers the same.",
    ),
    Route(
        "GET", "/v1/orgs/{org_id}/export", "What is known of an organisation", ADMIN, "organisations",
        export.export_org, {200: LINES},
        problems=(Invalid, OrgNotFound, *READS),
        about="A record a line, `record` says of which kind; the last one, `end`, how many there were before it.",
    ),
    Route(
        "GET", "/v1/orgs/{org_id}/erasure", "The receipt of an erasure", ADMIN, "organisations", erasure.get_erasure,
        {200: ErasureView},
        problems=(Invalid, ErasureNotFound, *READS), shows=_ERASURE,
    ),
    Route(
        "GET", "/v1/plans", "The catalogue of plans and features", SIGNED_IN, "billing", plans.list_plans,
        {200: CatalogueView},
        query=PlansQuery, problems=(Invalid,),
    ),
    Route(
        "GET", "/v1/plans/{plan}", "A plan", SIGNED_IN, "billing", plans.get_plan, {200: PlanOffer},
        problems=(PlanUnknown,), shows=_PLAN,
    ),
)  # fmt: skip
