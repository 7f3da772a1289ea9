"""Older ways to ask: the paths of clients that were written for other services, each over one of our routes."""

from dataclasses import replace
from typing import Final

from metering.api.alias import Alias
from metering.api.models.portal import PortalQuery
from metering.api.route import Call
from metering.api.tables.grants import OLDER as OLDER_BALANCE
from metering.api.tables.packages import OLDER as OLDER_PACKAGES
from metering.api.tables.quota import OLDER as OLDER_LIMITS


def _query_as_body(call: Call) -> Call:
    return replace(call, body=call.query)


ALIASES: Final[tuple[Alias, ...]] = (
    Alias("POST", "/api/billing/portal", "POST /v1/billing/portal"),
    Alias("GET", "/subscription/portal", "POST /v1/billing/portal", asks=_query_as_body, query=PortalQuery),
    Alias("POST", "/api/checkout/create", "POST /v1/billing/checkout"),
    Alias("POST", "/api/billing/checkout", "POST /v1/billing/checkout"),
    Alias("POST", "/subscription/create", "POST /v1/billing/checkout"),
    Alias("GET", "/api/billing/subscription", "GET /v1/billing/subscription"),
    Alias("GET", "/subscription/status", "GET /v1/billing/subscription"),
    Alias("POST", "/subscription/cancel", "POST /v1/billing/subscription/cancel"),
    Alias("GET", "/api/billing/invoices", "GET /v1/billing/invoices"),
    Alias("GET", "/api/billing/admin/invoices", "GET /v1/admin/invoices"),
    Alias("GET", "/v1/admin/users", "GET /v1/admin/orgs"),
    Alias("GET", "/api/billing/admin/users", "GET /v1/admin/orgs"),
    OLDER_PACKAGES,
    *OLDER_LIMITS,
    OLDER_BALANCE,
)
