"""Corrections on the wire."""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from metering.api.models.fields import (
    Answer,
    FeatureName,
    Moment,
    OrgId,
    Quantity,
    Request,
    Span,
    Text,
    unset,
    whole,
)
from plans.corrections import DELTA_MAX

FEATURES_MAX: Final = 100
"""Features of one correction: each costs the store a look at the days of a period."""


def _some(delta: int) -> int:
    if delta == 0:
        raise PydanticCustomError("zero", "nothing to correct")
    return delta


def _kept(keep: bool) -> bool:
    if not keep:
        raise PydanticCustomError("keep-anchor", "periods do not move: only true is taken")
    return keep


Delta: TypeAlias = Annotated[
    int,
    Field(ge=-DELTA_MAX, le=DELTA_MAX, json_schema_extra={"not": {"enum": [0]}}),
    BeforeValidator(whole),
    AfterValidator(_some),
]
Kept: TypeAlias = Annotated[bool, Field(json_schema_extra={"enum": [True]}), AfterValidator(_kept)]

_ORG: Final = "The token's organisation when left out."
_REASON: Final = "Why. It stands in the audit trail."
_ID: Final = "Makes repeating safe: an id corrects once. Left out, the Idempotency-Key header does."
_PERIOD: Final = "The start of a closed period, as `period.start` of an answer of that time. Left out: the running one."


class AdjustmentRequest(Request):
    """Units to put in (above any limit) or to take out (`delta` below zero)."""

    org_id: OrgId | None = unset(None, _ORG)
    feature: FeatureName
    delta: Delta = Field(description="Units, not 0.")
    reason: Text = Field(description=_REASON)
    id: Text | None = unset(None, _ID)
    period: Moment | None = unset(None, _PERIOD)
    timestamp: Moment | None = unset(
        None, "Where in the period: units put in stand in its hour, units taken out begin there. Left out: the newest."
    )


class VoidedFeature(Request):
    """One feature that an event hit, as the event said it."""

    feature: FeatureName
    quantity: Quantity = Field(description="As the event asked for.")
    recorded: Quantity | None = unset(
        None, "As its answer said, where fewer were recorded. Needed where an event of the period was recorded in part."
    )


_NEITHER: Final[dict[str, Any]] = {
    "required": ["features"],
    "properties": dict.fromkeys(VoidedFeature.model_fields, False),
}
_EITHER: Final[dict[str, Any]] = {"required": ["feature", "quantity"], "properties": {"features": False}}


class VoidRequest(Request):
    """An event to take back: all that it counted. Its content is compared with what the event left."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_EITHER, _NEITHER]})

    org_id: OrgId | None = unset(None, _ORG)
    source: Text | None = unset(None, "The event's source, if it had one.")
    feature: FeatureName = unset("", "The event's feature.")
    quantity: Quantity = unset(1, "As the event asked for.")
    recorded: Quantity | None = unset(None, VoidedFeature.model_fields["recorded"].description or "")
    features: Annotated[list[VoidedFeature], Field(min_length=1, max_length=FEATURES_MAX)] = unset(
        [], "In place of `feature` and `quantity`, of an event that hit several: all of them, in its order."
    )
    reason: Text = Field(description=_REASON)
    period: Moment | None = unset(None, _PERIOD + " An event is taken out of the period that it was counted in.")
    timestamp: Moment | None = unset(None, "The event's own, so that it leaves the hour it stands in.")


class ResetRequest(Request):
    """Counters of the running period to set back. The period itself does not move."""

    features: Annotated[list[FeatureName], Field(min_length=1, max_length=FEATURES_MAX)] | None = unset(
        None, "Left out: all that have units."
    )
    forgive_overage: bool = Field(
        default=False,
        description="true: to zero, and no overage is billed. false: overage stays billed, so its units stay counted.",
    )
    keep_anchor: Kept = Field(default=True, description="Periods never move.")
    reason: Text = Field(description=_REASON)
    id: Text | None = unset(None, _ID)


class CounterView(Answer):
    """A counter at one moment."""

    used: int
    overage: int = Field(description="Units above the limit, less what was given back.")
    remaining: int | None = Field(description="null: unlimited.")


class CorrectedFeature(Answer):
    """What became of one feature."""

    feature: str
    before: CounterView
    after: CounterView
    delta: int = Field(description="Units put in; below zero: taken out.")
    overage_given_back: int = Field(description="Units that are not billed as overage any more.")
    stripe_action: Literal["none"] = Field(description="What is done at Stripe by itself: nothing.")
    audit_id: str | None = Field(description="Its entry in GET /v1/audit; null where nothing changed.")


class CorrectionAnswer(CorrectedFeature):
    """An adjustment. Made before: `duplicate`, `delta` 0, and the counter as it is now, twice."""

    org_id: str
    id: str
    period: Span
    duplicate: bool


class VoidAnswer(CorrectionAnswer):
    """A void: as an adjustment, with the further features of the event in `also`."""

    also: list[CorrectedFeature]


class ResetAnswer(Answer):
    """A reset, by feature."""

    org_id: str
    id: str
    period: Span
    duplicate: bool
    data: list[CorrectedFeature]
