"""Every URL of the service, once. The router, the document and the tests of who may do what are made from here."""

from typing import Final

from metering.api.alias import older
from metering.api.route import Route
from metering.api.tables import (
    admin,
    audit,
    check,
    checkout,
    corrections,
    grants,
    history,
    holds,
    ingest,
    invoices,
    keys,
    live_events,
    ops,
    orgs,
    outlook,
    packages,
    past,
    payments,
    portal,
    quota,
    raw_events,
    reference,
    stripe,
    subscription,
    topups,
    usage,
    webhooks,
)
from metering.api.tables.aliases import ALIASES

_NOUNS: Final[tuple[Route, ...]] = (
    *usage.ROUTES,
    *check.ROUTES,
    *holds.ROUTES,
    *ingest.ROUTES,
    *history.ROUTES,
    *outlook.ROUTES,
    *raw_events.ROUTES,
    *live_events.ROUTES,
    *corrections.ROUTES,
    *orgs.ROUTES,
    *checkout.ROUTES,
    *portal.ROUTES,
    *packages.ROUTES,
    *grants.ROUTES,
    *payments.ROUTES,
    *topups.ROUTES,
    *subscription.ROUTES,
    *invoices.ROUTES,
    *admin.ROUTES,
    *quota.ROUTES,
    *past.ROUTES,
    *audit.ROUTES,
    *keys.ROUTES,
    *webhooks.ROUTES,
    *stripe.ROUTES,
    *ops.ROUTES,
    *reference.ROUTES,
)

ROUTES: Final[tuple[Route, ...]] = (*_NOUNS, *older(ALIASES, _NOUNS))
"""Literal paths stand before patterns: the first that fits answers."""
