"""What is to come, on the wire: projections, what-if on a plan, and the arithmetic of prices."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from metering.api.models.fields import Answer, FeatureName, OnLimitName, OrgId, Request, Span, unset, whole
from plans.limits import TOTAL_MAX


class ProjectionQuery(Request):
    """Whose projection."""

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")


class PreviewRequest(Request):
    """Whose usage to hold against a plan."""

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")
    quantities: dict[FeatureName, Annotated[int, Field(ge=0, le=TOTAL_MAX), BeforeValidator(whole)]] = unset(
        {}, "Units of a whole period to take instead of what is used and projected, by feature."
    )


class LineView(Answer):
    """One line of a calculation. `text` is its arithmetic, such as `250 / 100 -> 3 x 20 = 60`."""

    units: int
    price_minor: int = Field(description="Minor units of the currency, for `per` units.")
    per: int
    packages: int | None = Field(description="Packages of `per` that were begun, where only whole ones are sold.")
    flat_minor: int = Field(description="Paid once, beside the units.")
    amount_minor: int | None = Field(description="Rounded, a half away from zero. null: beyond 2^53 - 1.")
    text: str


class ChargeView(Answer):
    """What overage comes to: the sum of its lines."""

    units: int
    amount_minor: int | None = Field(description="null: beyond 2^53 - 1.")
    amount: str = Field(description="The same for people, such as `1.25 USD`.")
    model: Literal["flat", "package", "graduated", "volume"]
    lines: list[LineView]


class Estimates(Answer):
    """Units at the period's end by two methods; null before there is an hour to go by."""

    by_period: int | None = Field(description="As it went since the period began: used / elapsed share of the period.")
    by_last_7_days: int | None = Field(description="Used, and for the rest of the period the rate of the last 7 days.")


class Ends(Answer):
    """Units at the period's end: the lower estimate, the mean (rounded up), the higher one."""

    low: int
    expected: int
    high: int


class OverageEnds(Answer):
    """Overage now and at the period's end."""

    now: int
    low: int
    expected: int
    high: int


class PriceEnds(Answer):
    """What that overage costs."""

    now: ChargeView
    low: ChargeView
    expected: ChargeView
    high: ChargeView


class FeatureProjection(Answer):
    """One feature at the end of the running period."""

    used: int
    limit: int | None = Field(description="null: unlimited.")
    on_limit: OnLimitName
    enabled: bool
    estimates: Estimates
    projected: Ends = Field(description="Where the plan blocks or caps, never above the limit.")
    limit_reached_at: str | None = Field(
        description="At the expected rate; null: not in this period, or reached already.",
        json_schema_extra={"format": "date-time"},
    )
    blocked: Literal["no", "now", "later"] = Field(description="Whether events are turned away before the end.")
    overage: OverageEnds
    price: PriceEnds | None = Field(description="null: overage of this feature is not sold.")


class Basis(Answer):
    """What the estimates stand on, in seconds."""

    elapsed_s: int
    period_s: int
    recent_s: int


class Bill(Answer):
    """A plan's price and overage, minor units. null: a price by agreement, or beyond 2^53 - 1."""

    plan_minor: int | None
    overage_minor: int | None
    total_minor: int | None


class BillEnds(Answer):
    """The bill as it stands, and at the period's end."""

    now: Bill
    low: Bill
    expected: Bill
    high: Bill


class ProjectionView(Answer):
    """Where the running period will end, should usage go on as it does."""

    org_id: str
    plan: str
    currency: str
    period: Span
    as_of: str = Field(json_schema_extra={"format": "date-time"})
    basis: Basis
    features: dict[str, FeatureProjection]
    bill: BillEnds


class PlanSide(Answer):
    """One feature under one plan, to the end of the running period."""

    limit: int | None = Field(description="null: unlimited.")
    remaining: int | None = Field(description="After what is used now.")
    on_limit: OnLimitName
    enabled: bool
    blocked: Literal["no", "now", "later"] = Field(description="Whether events are turned away before the end.")
    projected: int = Field(description="Units at the period's end.")
    overage: int = Field(description="Overage at the period's end; what has accrued stays, whatever the plan.")
    price: ChargeView | None = Field(description="null: overage of this feature is not sold.")


class PreviewFeature(Answer):
    """One feature under the present plan, after a change now, and in a whole period under the other plan."""

    used: int
    expected: int = Field(description="What is asked for by the period's end, before any limit.")
    present: PlanSide
    changed: PlanSide
    full_period: PlanSide


class PreviewBill(Answer):
    """The bills of the three; plan prices are for a whole period, nothing is prorated."""

    present: Bill
    changed: Bill
    full_period: Bill


class PreviewView(Answer):
    """What a change of plan would mean. Nothing was changed."""

    org_id: str
    plan: str = Field(description="The present plan.")
    plan_previewed: str
    currency: str
    period: Span
    blocked: list[str] = Field(description="Features that would be turned away at once after the change.")
    drops_own_limits: bool = Field(description="Whether the change would drop limits or prices of its own.")
    features: dict[str, PreviewFeature]
    bill: PreviewBill
