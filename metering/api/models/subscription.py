"""An organisation's subscription on the wire."""

from typing import Final, Literal

from pydantic import Field
from pydantic.config import JsonDict

from metering.api.models.fields import Answer, OrgId, PlanName, Request, Span, unset

_MOMENT: Final[JsonDict] = {"format": "date-time"}


class SubscriptionQuery(Request):
    """Whose subscription."""

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")


class ResumeRequest(Request):
    """Whose subscription is to go on."""

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")


class CancelRequest(ResumeRequest):
    """Whose subscription is to end, and when."""

    at_period_end: bool = Field(
        True, description="false: now, with a last invoice of what was used. What is paid in advance is not given back."
    )


class ChangeRequest(ResumeRequest):
    """Which plan the subscription is to be for, and how the rest of the period is settled."""

    plan: PlanName = Field(description="A plan of the catalogue that is paid for as often as the one there is.")
    proration: Literal["create_prorations", "always_invoice", "none"] = Field(
        "create_prorations", description="Settled on the next invoice, on one of now, or not at all."
    )


class QuoteLineView(Answer):
    """One line of an invoice to come."""

    description: str
    amount_minor: int = Field(description="Below zero: given back.")
    proration: bool = Field(description="Whether it settles the rest of a period.")
    period: Span


class QuoteView(Answer):
    """The invoice that a change of plan would bring, as Stripe computes it by now. Amounts are minor units."""

    org_id: str
    plan: str = Field(description="The plan that is paid for.")
    plan_previewed: str
    proration: Literal["create_prorations", "always_invoice", "none"]
    currency: str
    billed: Literal["now", "next_invoice"]
    total_minor: int
    due_minor: int = Field(description="What there is to pay, credit taken off.")
    lines: list[QuoteLineView]
    lines_left_out: bool = Field(description="Whether there are more lines than Stripe shows.")


class SubscriptionView(Answer):
    """The plan that is in force, and the subscription that pays for it as Stripe told of it last."""

    org_id: str
    plan: str = Field(description="The plan in force.")
    status: str | None = Field(
        description="Stripe's word: `active`, `trialing`, `past_due`, `unpaid`, `paused`, `canceled`. "
        "null: there never was a subscription."
    )
    subscription_id: str | None
    stripe_customer_id: str | None
    plan_subscribed: str | None = Field(description="What is paid for; another one may be in force, set by people.")
    started_at: str | None = Field(json_schema_extra=_MOMENT)
    period: Span = Field(description="The period that runs, by which usage is counted and billed.")
    cancel_at_period_end: bool
    ends_at: str | None = Field(description="When it stops, or stopped; null: it goes on.", json_schema_extra=_MOMENT)
    trial_ends_at: str | None = Field(json_schema_extra=_MOMENT)
    payment_overdue: bool
    grace_ends_at: str | None = Field(
        description="Until when what is not paid has no consequences; null: nothing is owed, or it is overdue.",
        json_schema_extra=_MOMENT,
    )
    metered: list[str] = Field(description="The features whose overage it bills.")
