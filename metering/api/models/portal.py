"""Stripe's portal on the wire."""

from pydantic import Field

from metering.api.models.checkout import URL_CHARS_MAX
from metering.api.models.fields import Answer, OrgId, Request, unset


class PortalRequest(Request):
    """Whose payer wants to get in."""

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")
    return_url: str = unset(
        "", "Where the payer comes back to: of FRONTEND_URL or this service.", max_length=URL_CHARS_MAX
    )


class PortalQuery(PortalRequest):
    """The same as a query."""


class PortalView(Answer):
    """The portal is open."""

    url: str = Field(description="Where the payer goes, within minutes; it lets nobody in twice.")
