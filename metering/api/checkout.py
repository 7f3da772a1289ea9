"""Buying a plan, or a package of credits: POST /v1/billing/checkout."""

from typing import Final

from metering.api.billing import plan_named
from metering.api.bodies import fault, invalid
from metering.api.guard import visible
from metering.api.models.checkout import CheckoutRequest
from metering.api.return_urls import checked_url
from metering.api.route import Call, Reply, json_reply
from metering.billing.checkout import Order
from metering.billing.prices import Interval
from metering.errors import OrgNotFound
from metering.moments import rfc3339
from metering.store.orgs import OrgChange

_SUCCESS: Final = "/billing?checkout=done&session_id={CHECKOUT_SESSION_ID}"
"""Stripe puts the session's id in (https://docs.stripe.com/payments/checkout/custom-success-page)."""

_CANCEL: Final = "/billing?checkout=cancelled"


async def begin_checkout(call: Call) -> Reply:
    """Begin a checkout for the organisation in the body; one that is unknown is created as by an event."""
    body, services = call.sent(CheckoutRequest), call.services
    org_id = visible(call.caller, body.org_id)
    if (body.plan is None) == (body.package is None):
        raise invalid([fault("", "one-of", "give either a `plan` or a `package` of credits")])
    plan = "" if body.plan is None else plan_named(body.plan, services.catalogue).name
    home = services.return_origins[0]
    order = Order(
        plan,
        checked_url("success_url", body.success_url or home + _SUCCESS, services.return_origins),
        checked_url("cancel_url", body.cancel_url or home + _CANCEL, services.return_origins),
        call.name(),
        Interval(body.interval),
    )
    at_stripe = services.at_stripe()
    if body.package is not None:
        at_stripe.credits.package(body.package)
    create = services.auto_create_orgs
    org, _ = await services.orgs.update(org_id, OrgChange(), actor=call.caller.subject, create=create)
    if org is None:
        raise OrgNotFound
    if body.package is None:
        session = await at_stripe.checkout.begin(org, order)
    else:
        session = await at_stripe.credits.checkout(org, body.package, order)
    return json_reply({"id": session.id, "url": session.url, "expires_at": rfc3339(session.expires_ms)}, 201)
