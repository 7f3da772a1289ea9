"""Organisations and plans on the wire."""

from typing import Annotated, Literal

from pydantic import Field

from metering.api.models.fields import (
    STRIPE_CUSTOMER_PATTERN,
    Answer,
    FeatureName,
    Limit,
    OnLimitName,
    OrgId,
    PlanName,
    Request,
    ResetName,
    Zone,
    unset,
)
from metering.api.models.usage import OrgView


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
    reset: ResetName = unset("", "Kind of period, from the next one on.")
    timezone: Zone = unset("", "IANA name of the zone whose midnights part the periods.")
    stripe_customer_id: Annotated[str, Field(pattern=STRIPE_CUSTOMER_PATTERN)] = unset("", "The Stripe customer.")


class BillingUpdate(OrgSettings):
    """The same for an organisation named in the body."""

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")


class OrgPage(Answer):
    """One page of organisations, in no promised order; every organisation is on exactly one page of a walk."""

    data: list[OrgView]
    next_cursor: str | None


class RuleView(Answer):
    """What a plan says of one feature."""

    limit: int | None
    unlimited: bool
    on_limit: OnLimitName
    enabled: bool


class PlanView(Answer):
    """A plan of the catalogue. Prices in minor units of the catalogue's currency; null: by agreement."""

    name: str
    title: str
    reset: ResetName
    price_minor: int | None
    features: dict[str, RuleView]


class TierView(Answer):
    """One step of a price: units up to `up_to` (null: all above) cost `price_minor` per `per`, `flat_minor` once."""

    up_to: int | None
    price_minor: int
    per: int
    flat_minor: int


class FeatureKind(Answer):
    """Something that is metered. Overage is sold by one price per `overage_per` units, by steps, or (null) not."""

    name: str
    title: str
    unit: str
    overage_price_minor: int | None
    overage_per: int
    overage_model: Literal["flat", "package", "graduated", "volume"] | None
    overage_tiers: list[TierView]


class CatalogueView(Answer):
    """The plans and features on offer."""

    version: int
    currency: str
    default_plan: str
    default_feature: str
    features: list[FeatureKind]
    data: list[PlanView]
