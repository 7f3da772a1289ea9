"""Automatic top-ups on the wire."""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field

from metering.api.models.credit_fields import Credits
from metering.api.models.fields import Answer, Moment, OrgId, Request, unset, whole
from metering.api.models.payments import AMOUNT_MAX
from metering.store.topups import Stop

PER_DAY_MAX: Final = 24
COOLDOWN_S_MAX: Final = 86_400

_PerDay: TypeAlias = Annotated[int, Field(ge=1, le=PER_DAY_MAX), BeforeValidator(whole)]
_PerMonth: TypeAlias = Annotated[int, Field(ge=1, le=100 * AMOUNT_MAX), BeforeValidator(whole)]
_Cooldown: TypeAlias = Annotated[int, Field(ge=60, le=COOLDOWN_S_MAX), BeforeValidator(whole)]


_NEEDED: Final = ("threshold", "package", "max_amount_per_month")
_RULE: Final[dict[str, Any]] = {
    "required": list(_NEEDED),
    "properties": {name: {"type": "integer"} for name in _NEEDED},
}
_OFF: Final[dict[str, Any]] = {
    "required": ["enabled"],
    "properties": {"enabled": {"const": False}, **{name: {"type": "null"} for name in _NEEDED}},
}


class TopUpRequest(Request):
    """When to buy which package without being asked, and the most that is bought."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_RULE, _OFF]})

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")
    enabled: bool = Field(
        True, description="False buys nothing. Alone, without the next three, it keeps what was set before."
    )
    threshold: Credits | None = unset(None, "Below this balance it buys. It is the mark below which credits are low.")
    package: Credits | None = unset(None, "The credits of a package. What it costs is in the catalogue.")
    max_per_day: _PerDay = Field(3, description="Attempts in any 24 hours, declined ones too.")
    max_amount_per_month: _PerMonth | None = unset(None, "Minor units of the currency in any 31 days.")
    cooldown_s: _Cooldown = Field(60, description="Seconds between two attempts.")


class PausedView(Answer):
    """Why it buys no more until it is set again."""

    reason: Literal[tuple(Stop)]  # type: ignore[valid-type]
    detail: str = Field(description="Stripe's own word for it; empty where it has none.")
    at: Moment


class TopUpView(Answer):
    """Automatic top-ups of an organisation. Without any, `status` is `off` and the rest is null."""

    org_id: str
    status: Literal["off", "ready", "charging", "paused"]
    enabled: bool
    threshold: int | None = Field(description="The mark below which credits are low.")
    package: int | None
    max_per_day: int | None
    max_amount_per_month: int | None
    cooldown_s: int | None
    currency: str
    attempts_in_24_hours: int
    amount_in_31_days: int = Field(description="Minor units that were paid, or are on their way.")
    paused: PausedView | None
