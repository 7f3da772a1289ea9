"""Into Stripe's portal: POST /v1/billing/portal."""

from typing import Final

from metering.api.models.portal import PortalRequest
from metering.api.return_urls import checked_url
from metering.api.route import Call, Reply, json_reply
from metering.api.usage import found

_HOME: Final = "/billing"


async def open_portal(call: Call) -> Reply:
    """Let the payer of the organisation in the body into the portal."""
    body, services = call.sent(PortalRequest), call.services
    back = body.return_url or services.return_origins[0] + _HOME
    return_url = checked_url("return_url", back, services.return_origins)
    portal = services.at_stripe().portal
    org = await found(call, body.org_id)
    return json_reply({"url": await portal.open(org, return_url, call.name())})
