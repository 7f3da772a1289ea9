"""Limits, and the running period with what it costs, on the wire."""

from pydantic import Field

from metering.api.models.fields import Answer, OrgId, Request, Span, unset
from metering.api.models.orgs import RuleView
from metering.api.models.outlook import Bill, ChargeView
from metering.api.models.usage import OrgView


class QuotaQuery(Request):
    """Whose quota, or usage."""

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")


class QuotaFeature(RuleView):
    """The limit of one feature and what is left of it."""

    current: int
    reserved: int = Field(description="Units that open reservations and leases keep.")
    remaining: int | None = Field(description="null: unlimited.")


class QuotaView(Answer):
    """What an organisation may use until `reset_date`."""

    org_id: str
    plan: str
    period: Span
    reset_date: str = Field(json_schema_extra={"format": "date-time"})
    features: dict[str, QuotaFeature]


class FeatureCharge(Answer):
    """How the units of one feature are covered, in this order; together they are its `current`."""

    included: int = Field(description="Units within the limit.")
    credit: int = Field(description="Units that credits paid for.")
    overage: int = Field(description="Units that are billed, where overage is sold.")
    price: ChargeView | None = Field(description="What the overage costs; null: it is not sold.")


class SummaryView(OrgView):
    """The running period: the organisation with its counters, how they are covered, and the bill as it stands."""

    currency: str
    charges: dict[str, FeatureCharge]
    bill: Bill


class OlderQuotaView(QuotaView):
    """A quota for clients to whom `limit` 0 means unlimited; null: nothing is included."""


class OlderSummaryView(SummaryView):
    """A summary for clients to whom `limit` 0 means unlimited; null: nothing is included."""
