"""The tables of a catalogue file: what each may hold. `catalogue_file` reads them and tells what is wrong.

The `description` of a field is the cure that a fault shows for it.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from plans.limits import LIMIT_MAX, TOTAL_MAX, OnLimit
from plans.meters_file import METERS_MAX, CountTable, MeterTable
from plans.packages_file import PACKAGES_MAX, WEIGHT_MAX, CreditsTable, PackageTable
from plans.periods import Reset
from plans.prices_file import TIERS_ABOUT, TIERS_MAX, TierTable
from plans.subwindows import Per
from plans.tiers import PriceModel

NAME_PATTERN: Final = "^[a-z][a-z0-9_]{0,63}$"
"""Plans and features: their names become parts of keys and metric labels, so no ':', '|' or blank."""

FEATURES_MAX: Final = 200
"""Features of one catalogue: a script handles all of an organisation's fields at once, and Lua passes about 8,000."""

WINDOWS_MAX: Final = 8
"""Sub-windows of one rule: each is read and written with every event it holds."""

INCLUDES_MAX: Final = 50
"""Texts on the card of one plan: more than anybody reads."""

_ENV: Final = "^[A-Z][A-Z0-9_]{0,63}$"
_PRICE_ID: Final = "^price_[A-Za-z0-9_]{1,94}$"

DIMENSIONS_MAX: Final = 8
DIMENSION_VALUES_MAX: Final = 1000
"""Declared dimensions, and values of one of them a month: each value is a series of hours in history."""


def _whole_or(word: str, largest: int) -> PlainValidator:
    """A validator of `word` (kept as None) or a whole number from 0 to `largest`."""

    def check(value: object) -> int | None:
        if value == word:
            return None
        if type(value) is int and 0 <= value <= largest:
            return value
        raise PydanticCustomError("whole_or", f'is not "{word}" or a whole number from 0 to {largest}')

    return PlainValidator(check)


Name: TypeAlias = Annotated[str, Field(pattern=NAME_PATTERN)]
Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=100)]
Limit: TypeAlias = Annotated[int | None, _whole_or("unlimited", LIMIT_MAX)]
Price: TypeAlias = Annotated[int | None, _whole_or("custom", TOTAL_MAX)]


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class LeaseExpiry(StrEnum):
    """What becomes of a lease that was not settled in time."""

    CHARGE = "charge"  # all of it counts as used
    RELEASE = "release"  # none of it does


class WindowTable(_Table):
    """One limit beside the period's: at most `limit` units in each `per`, or in the last one where `rolling`."""

    limit: int = Field(ge=0, le=LIMIT_MAX, description="a whole number of units")
    per: Per = Field(strict=False, description="minute, hour, day or week")
    rolling: bool = Field(default=False, description="true for the last so much time, or leave it out")


class RateTable(_Table):
    """How many events of one organisation may come a `per`; `burst` of them at once."""

    events: int = Field(ge=1, le=10**9, description="a whole number of events, at least 1")
    per: Per = Field(strict=False, description="minute, hour, day or week")
    burst: int = Field(default=1, ge=1, le=10**6, description="a whole number of events, at least 1")


class RuleTable(_Table):
    """What a plan says of one feature. Only a feature that is off may leave `limit` out."""

    limit: Limit = Field(default=0, description='a whole number of units a period, or "unlimited"')
    on_limit: OnLimit | None = Field(
        default=None, strict=False, description="overage, block or cap, or leave it to the plan's on_limit"
    )
    enabled: bool = Field(default=True, description="true, or false where the plan leaves the feature out")
    windows: tuple[WindowTable, ...] = Field(
        default=(), strict=False, max_length=WINDOWS_MAX, description='up to 8 tables { limit = 5, per = "hour" }'
    )


class FeatureTable(_Table):
    """One feature and how its overage is sold: `overage_price_minor` per `overage_per` units, or by tiers."""

    title: Text = Field(description="a short text to show people")
    unit: Text = Field(description='the word for one unit, such as "scan"')
    # 100 is the longest event_name a Stripe meter takes.
    stripe_meter_event: Text | None = Field(default=None, description="the event name of a Stripe meter")
    overage_price_minor: int | None = Field(
        default=None, ge=0, le=TOTAL_MAX, description="a whole number of minor units (cents)"
    )
    overage_per: int = Field(
        default=1, ge=1, le=TOTAL_MAX, description="the number of units overage_price_minor buys, at least 1"
    )
    overage_model: PriceModel | None = Field(
        default=None, strict=False, description="flat or package, or graduated or volume with overage_tiers"
    )
    overage_tiers: tuple[TierTable, ...] = Field(
        default=(),
        strict=False,
        max_length=TIERS_MAX,
        description=TIERS_ABOUT,
    )
    lease_expiry: LeaseExpiry = Field(
        default=LeaseExpiry.CHARGE, strict=False, description="charge or release: what becomes of an unsettled lease"
    )
    credits: int | None = Field(
        default=None, ge=1, le=WEIGHT_MAX, description="the whole number of credits that one unit costs, at least 1"
    )


class YearlyTable(_Table):
    """What a plan costs by the year."""

    price_minor: int = Field(ge=1, le=TOTAL_MAX, description="a whole number of minor units (cents) a year")
    stripe_price_env: str | None = Field(
        default=None, pattern=_ENV, description="the name of the environment variable that holds the Stripe price id"
    )
    stripe_price_id: str | None = Field(default=None, pattern=_PRICE_ID, description='a Stripe price id ("price_...")')


class PlanTable(_Table):
    """One plan; `price_minor` is for one month."""

    title: Text = Field(description="a short text to show people")
    reset: Reset = Field(strict=False, description="calendar or anniversary")
    on_limit: OnLimit = Field(strict=False, description="overage, block or cap")
    price_minor: Price = Field(description='a whole number of minor units (cents), or "custom"')
    stripe_price_env: str | None = Field(
        default=None,
        pattern=_ENV,
        description="the name of the environment variable that holds the Stripe price id",
    )
    stripe_price_id: str | None = Field(default=None, pattern=_PRICE_ID, description='a Stripe price id ("price_...")')
    yearly: YearlyTable | None = Field(default=None, description="a table { price_minor = 99000 }")
    includes: tuple[Text, ...] = Field(
        default=(), strict=False, max_length=INCLUDES_MAX, description="a list of short texts to show people"
    )
    rate_limit: RateTable | None = Field(
        default=None, description='a table { events = 100, per = "minute", burst = 20 }'
    )
    features: dict[str, RuleTable] = Field(description="a table with one entry for each feature of the file")


class CatalogueTable(_Table):
    """The whole file."""

    version: int = Field(ge=1, le=TOTAL_MAX, description="a whole number from 1, raised with every change")
    currency: str = Field(pattern="^[a-z]{3}$", description='an ISO 4217 code in lower case, such as "usd"')
    default_plan: str = Field(description="the plan of a new organisation")
    default_feature: str = Field(description="the feature that counts events which name none")
    dimensions: dict[Name, Annotated[int, Field(ge=1, le=DIMENSION_VALUES_MAX)]] = Field(
        default={},
        max_length=DIMENSIONS_MAX,
        description="up to 8 names, each with its most values a month (1 to 1000)",
    )
    features: dict[Name, FeatureTable] = Field(description="a table [features.<name>] for each feature")
    plans: dict[Name, PlanTable] = Field(description="a table [plans.<name>] for each plan")
    meters: tuple[MeterTable, ...] = Field(
        default=(), strict=False, max_length=METERS_MAX, description="a table [[meters]] for each rule, up to 200"
    )
    credit_packages: tuple[PackageTable, ...] = Field(
        default=(),
        strict=False,
        max_length=PACKAGES_MAX,
        description="a table [[credit_packages]] for each package, up to 50",
    )
    credits: CreditsTable = Field(default=CreditsTable(), description="a table [credits]")


INSIDE: Final[Mapping[tuple[type[BaseModel], str], type[BaseModel]]] = {
    (CatalogueTable, "features"): FeatureTable,
    (CatalogueTable, "plans"): PlanTable,
    (CatalogueTable, "meters"): MeterTable,
    (CatalogueTable, "credit_packages"): PackageTable,
    (CatalogueTable, "credits"): CreditsTable,
    (MeterTable, "features"): CountTable,
    (PlanTable, "features"): RuleTable,
    (PlanTable, "rate_limit"): RateTable,
    (PlanTable, "yearly"): YearlyTable,
    (RuleTable, "windows"): WindowTable,
    (FeatureTable, "overage_tiers"): TierTable,
}
"""The table that stands in a field of another one; but for those ALONE, under a name or number of its own."""

ALONE: Final = frozenset({RateTable, YearlyTable, CreditsTable})
"""Tables of which a field holds one."""
