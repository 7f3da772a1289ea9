"""Checkouts on the wire."""

from typing import Literal

from pydantic import Field

from metering.api.models.credit_fields import Credits
from metering.api.models.fields import Answer, OrgId, PlanName, Request, unset

URL_CHARS_MAX = 2000
"""What browsers and Stripe take without cutting."""


class CheckoutRequest(Request):
    """A plan to be bought, or a package of credits."""

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")
    plan: PlanName | None = unset(None, "A plan of the catalogue.")
    package: Credits | None = unset(None, "In place of a plan: the number of credits of a package.")
    interval: Literal["month", "year"] = Field("month", description="How often the plan's price is paid.")
    success_url: str = Field(
        "", max_length=URL_CHARS_MAX, description="Where the payer goes afterwards: of FRONTEND_URL or this service."
    )
    cancel_url: str = Field(
        "", max_length=URL_CHARS_MAX, description="Where a payer goes who turns back: of FRONTEND_URL or this service."
    )


class CheckoutView(Answer):
    """A checkout that has begun. The plan changes once it is paid, not before."""

    id: str = Field(description="Stripe's id of the session.")
    url: str = Field(description="Where the payer goes.")
    expires_at: str = Field(json_schema_extra={"format": "date-time"})
