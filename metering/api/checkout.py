"""Buying a plan: POST /v1/billing/checkout."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from metering.api.billing import plan_named
from metering.api.bodies import fault, invalid
from metering.api.guard import visible
from metering.api.models.checkout import CheckoutRequest
from metering.api.route import Call, Reply, json_reply
from metering.billing.checkout import Order
from metering.errors import OrgNotFound, StripeNotConfigured
from metering.moments import rfc3339
from metering.store.orgs import OrgChange

_SUCCESS: Final = "/billing?checkout=done&session_id={CHECKOUT_SESSION_ID}"
"""Stripe puts the session's id in (https://docs.stripe.com/payments/checkout/custom-success-page)."""

_CANCEL: Final = "/billing?checkout=cancelled"

_PORTS: Final = {"http": 80, "https": 443}


async def begin_checkout(call: Call) -> Reply:
    """Begin a checkout of a plan for the organisation in the body; one that is unknown is created as by an event."""
    body, services = call.sent(CheckoutRequest), call.services
    org_id = visible(call.caller, body.org_id)
    plan = plan_named(body.plan, services.catalogue).name
    home = services.return_origins[0]
    order = Order(
        plan,
        _checked("success_url", body.success_url or home + _SUCCESS, services.return_origins),
        _checked("cancel_url", body.cancel_url or home + _CANCEL, services.return_origins),
        call.idempotency_key or services.ulids.mint(),
    )
    if services.checkout is None:
        raise StripeNotConfigured
    create = services.auto_create_orgs
    org, _ = await services.orgs.update(org_id, OrgChange(), actor=call.caller.subject, create=create)
    if org is None:
        raise OrgNotFound
    session = await services.checkout.begin(org, order)
    return json_reply({"id": session.id, "url": session.url, "expires_at": rfc3339(session.expires_ms)}, 201)


def _checked(name: str, url: str, origins: Iterable[str]) -> str:
    """An address that Stripe may send the payer to: of the front end or of this service. Raises Invalid."""
    if _origin(url) not in {_origin(one) for one in origins}:
        told = f"it is at none of {', '.join(origins)}"
        raise invalid([fault(f"/{name}", "url-not-allowed", told)])
    return url


def _origin(url: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port; None for what browsers and this parser might read in two ways."""
    if not url.isascii() or not url.isprintable() or any(sign in url for sign in " \\<>\"'"):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port
