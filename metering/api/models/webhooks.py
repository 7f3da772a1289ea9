"""Stripe's events on the wire: what is read of them. All else in them is let be."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from metering.api.models.fields import Answer

_ID: Final = r"^evt_[A-Za-z0-9_]{1,200}$"
_TYPE: Final = r"^[a-z0-9_]+(\.[a-z0-9_]+)+$"

EventId = Annotated[str, Field(pattern=_ID)]
EventType = Annotated[str, Field(pattern=_TYPE, max_length=120)]


class _Open(BaseModel):
    """What Stripe may add to."""

    model_config = ConfigDict(extra="allow", strict=True, defer_build=True)


class SnapshotData(_Open):
    """The object as it was."""

    object: dict[str, Any]


class SnapshotEvent(_Open):
    """An event that carries its object: https://docs.stripe.com/api/events/object."""

    id: EventId
    object: Literal["event"]
    type: EventType
    created: int = Field(ge=0, lt=10**11, description="Seconds since the epoch.")
    livemode: bool
    data: SnapshotData


class ThinEvent(_Open):
    """An event that names its object: https://docs.stripe.com/api/v2/core/events/object."""

    id: EventId
    object: Literal["v2.core.event"]
    type: EventType
    created: str = Field(json_schema_extra={"format": "date-time"})
    livemode: bool


class StripeEventBody(RootModel[SnapshotEvent | ThinEvent]):
    """An event of Stripe's, of either kind."""


class ReceivedAnswer(Answer):
    """The event is on disk, or need not be."""

    received: Literal[True]
    duplicate: bool = Field(description="It came in before; its effect happens once.")
    ignored: Literal["other mode", "other account", "not ours"] | None = Field(
        description="Why nothing will be done: it is a test event for a live service or the other way round, or of a"
        " type that makes the service do nothing."
    )
