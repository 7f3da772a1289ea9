"""What is agreed with one organisation, on the wire: limits, sub-windows and prices that are not its plan's."""

from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from metering.api.models.fields import Answer, Limit, Moment, OnLimitName, Request, unset, whole
from plans.catalogue_tables import WINDOWS_MAX
from plans.limits import TOTAL_MAX
from plans.prices_file import TIERS_MAX

Amount: TypeAlias = Annotated[int, Field(ge=0, le=TOTAL_MAX), BeforeValidator(whole)]
PerName: TypeAlias = Literal["minute", "hour", "day", "week"]


class WindowSetting(Request):
    """A sub-window: at most `limit` units in each `per` (UTC), or in the last one where `rolling`."""

    limit: Limit
    per: PerName
    rolling: bool = Field(default=False, description="The last so much time, instead of whole minutes, hours, ...")


class TierSetting(Request):
    """A step of a price: units up to `up_to` (left out: all above) cost `price_minor` per `per`, `flat_minor` once."""

    up_to: Annotated[int, Field(ge=1, le=TOTAL_MAX), BeforeValidator(whole)] | None = unset(None, "The last unit.")
    price_minor: Amount
    per: Annotated[int, Field(ge=1, le=TOTAL_MAX), BeforeValidator(whole)] = Field(1, description="So many units.")
    flat_minor: Amount = Field(0, description="Paid once, beside the units.")


class OverrideSetting(Request):
    """What an organisation has otherwise than its plan, for one feature. What is left out is as the plan has it."""

    limit: Limit | None = unset(None, "null is unlimited.")
    on_limit: OnLimitName = unset("overage", "What happens above the limit.")
    enabled: bool = unset(True, "Whether the feature is on.")
    windows: Annotated[list[WindowSetting], Field(max_length=WINDOWS_MAX)] = unset([], "An empty list is none.")
    overage_price_minor: Amount = unset(0, "Minor units of the catalogue's currency, for `overage_per` units.")
    overage_per: Annotated[int, Field(ge=1, le=TOTAL_MAX), BeforeValidator(whole)] = unset(1, "1 when left out.")
    overage_model: Literal["flat", "package", "graduated", "volume"] = unset(
        "package", "`package` (whole ones; when left out), `flat`, or with `overage_tiers`: `graduated`, `volume`."
    )
    overage_tiers: Annotated[list[TierSetting], Field(max_length=TIERS_MAX)] = unset(
        [], "In place of one price: they ascend, and the last has no `up_to`."
    )
    expires_at: Moment | None = unset(None, "From then on the plan holds again; null or left out: never.")


class WindowView(Answer):
    """A sub-window."""

    limit: int
    per: PerName
    rolling: bool


class TierView(Answer):
    """One step of a price: units up to `up_to` (null: all above) cost `price_minor` per `per`, `flat_minor` once."""

    up_to: int | None
    price_minor: int
    per: int
    flat_minor: int


class OverrideView(Answer):
    """What one feature has otherwise than in the plan. Only what is set is there."""

    limit: int | None = Field(default=None, description="null: unlimited.")
    on_limit: OnLimitName = "overage"
    enabled: bool = True
    windows: list[WindowView] = Field(default=[], description="Sub-windows.")
    overage_model: Literal["flat", "package", "graduated", "volume"] = "package"
    overage_tiers: list[TierView] = Field(default=[], description="One step where the price has no tiers.")
    expires_at: str | None = Field(description="null: never.", json_schema_extra={"format": "date-time"})


class AgreedView(Answer):
    """What an organisation has otherwise than its plan says, as long as it holds."""

    price_minor: int | None = Field(description="Of the plan, a period; null: what it costs everybody.")
    price_expires_at: str | None = Field(json_schema_extra={"format": "date-time"})
    rate_limit_expires_at: str | None = Field(json_schema_extra={"format": "date-time"})
    overrides: dict[str, OverrideView]
