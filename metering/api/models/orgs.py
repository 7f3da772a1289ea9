"""Organisations and plans on the wire."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from metering.api.models.agreements import (
    Amount,
    OverrideSetting,
    PerName,
    TierView,
    WindowSetting,
    WindowView,
)
from metering.api.models.fields import (
    STRIPE_CUSTOMER_PATTERN,
    Answer,
    FeatureName,
    Limit,
    Moment,
    OnLimitName,
    OrgId,
    PlanName,
    Request,
    ResetName,
    Zone,
    unset,
    whole,
)
from metering.api.models.usage import OrgView
from plans.catalogue_tables import WINDOWS_MAX


class RateSetting(Request):
    """A rate limit: so many events of the organisation a `per`, `burst` of them at once."""

    events: Annotated[int, Field(ge=1, le=10**9), BeforeValidator(whole)]
    per: PerName
    burst: Annotated[int, Field(ge=1, le=10**6), BeforeValidator(whole)] = Field(
        1, description="Events that may come at once."
    )


class OrgSettings(Request):
    """What can be set of an organisation. What is left out stays, but see `limits`."""

    plan: PlanName = unset("", "A plan of the catalogue.")
    limits: dict[FeatureName, Limit | None] = unset(
        {},
        "Limits of this organisation instead of the plan's; null is unlimited. Replaces all of them, {} clears them."
        " Left out: they stay while the plan stays and go when it changes.",
    )
    on_limit: dict[FeatureName, OnLimitName] = unset(
        {}, "What happens above a limit instead of what the plan says. Replaced and kept as `limits`."
    )
    windows: dict[FeatureName, Annotated[list[WindowSetting], Field(max_length=WINDOWS_MAX)]] = unset(
        {}, "Sub-windows instead of the plan's; an empty list is none. Replaced and kept as `limits`."
    )
    rate_limit: RateSetting | None = unset(
        None, "A rate limit instead of the plan's; null is none. Kept while the plan stays."
    )
    overrides: dict[FeatureName, OverrideSetting | None] = unset(
        {},
        "What this organisation has otherwise than its plan, feature by feature, prices too. Each feature named is set"
        " anew, null is as the plan has it; others stay. Not beside `limits`, `on_limit` and `windows`.",
    )
    price_minor: Amount | None = unset(
        None, "What the plan costs this organisation a period; null: what it costs all. Kept while the plan stays."
    )
    overrides_expire_at: Moment | None = unset(
        None,
        "Until when all of that holds: overrides, `rate_limit`, `price_minor`. null: always. Left out: what has"
        " an end keeps it.",
    )
    reset: ResetName = unset("", "Kind of period, from the next one on.")
    timezone: Zone = unset("", "IANA name of the zone whose midnights part the periods.")
    stripe_customer_id: Annotated[str, Field(pattern=STRIPE_CUSTOMER_PATTERN)] = unset("", "The Stripe customer.")


class BillingUpdate(OrgSettings):
    """The same for an organisation named in the body."""

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")


class PlansQuery(Request):
    """Which plans."""

    stripe_price: Annotated[str, Field(min_length=1, max_length=100)] | None = unset(
        None, "The id of a Stripe price: the plan alone that it buys, as the catalogue or the environment names it."
    )


class OrgPage(Answer):
    """One page of organisations, in no promised order; every organisation is on exactly one page of a walk."""

    data: list[OrgView]
    next_cursor: str | None


class RateView(Answer):
    """A rate limit."""

    events: int
    per: PerName
    burst: int


class RuleView(Answer):
    """What a plan says of one feature."""

    limit: int | None
    unlimited: bool
    on_limit: OnLimitName
    enabled: bool
    windows: list[WindowView]


class PlanView(Answer):
    """A plan of the catalogue. Prices in minor units of the catalogue's currency; null: by agreement."""

    name: str
    title: str
    reset: ResetName
    price_minor: int | None = Field(description="A month.")
    price: str | None = Field(description="The same as people write it.")
    yearly_price_minor: int | None = Field(description="A year; null: it is not sold by the year.")
    yearly_price: str | None
    includes: list[str] = Field(description="What people are shown besides the limits.")
    rate_limit: RateView | None = Field(description="Of all events of an organisation together; null: none.")
    features: dict[str, RuleView]


class PlanOffer(PlanView):
    """A plan by itself."""

    currency: str


class FeatureKind(Answer):
    """Something that is metered. Overage is sold by one price per `overage_per` units, by steps, or (null) not."""

    name: str
    title: str
    unit: str
    overage_price_minor: int | None
    overage_per: int
    overage_model: Literal["flat", "package", "graduated", "volume"] | None
    overage_tiers: list[TierView]
    lease_expiry: Literal["charge", "release"] = Field(description="What becomes of a lease that is not settled.")
    credits: int | None = Field(description="What one unit costs in credits; null: they do not pay for it.")


class CatalogueView(Answer):
    """The plans and features on offer."""

    version: int
    currency: str
    default_plan: str
    default_feature: str
    dimensions: dict[str, int] = Field(description="What history is also kept by, with the most values a month.")
    features: list[FeatureKind]
    data: list[PlanView]
