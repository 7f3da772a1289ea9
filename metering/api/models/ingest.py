"""Many events on the wire: bodies of every media type, and what became of each event."""

import re
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, RootModel, WithJsonSchema
from pydantic_core import PydanticCustomError

from metering.api.models.fields import EXACT_FLOAT_MAX, Answer, Flag, Moment, OrgId, Request, Text, unset, whole
from metering.api.models.problems import FaultView
from metering.api.models.usage import TrackRequest

EVENTS_MAX: Final = 1000
"""Events of a batch unless the setting says otherwise."""

JSON_TYPE_PATTERN: Final = r"^[A-Za-z]+/([A-Za-z0-9.+-]+\+)?[Jj][Ss][Oo][Nn][ \t]*(;[^\r\n]*)?$"

EXTENSION_PATTERN: Final = r"^[a-z0-9]{1,64}$"
"""CloudEvents 1.0.2, 3: names of attributes consist of lower-case letters and digits."""

_json_type = re.compile(JSON_TYPE_PATTERN[1:-1]).fullmatch


def is_json_type(kind: str) -> bool:
    """Whether a media type is one of JSON."""
    return _json_type(kind) is not None


def _no_bytes(value: object) -> None:
    if value is not None:
        raise PydanticCustomError("data-base64", "data has to be JSON, in `data`")


def _scalar(value: object) -> object:
    value = whole(value)
    if value is None or isinstance(value, str) or (isinstance(value, int) and abs(value) < EXACT_FLOAT_MAX):
        return value  # bool is an int
    raise PydanticCustomError("extension", "a text, a whole number below 2^53, true or false is needed")


NoBytes: TypeAlias = Annotated[None, BeforeValidator(_no_bytes)]
Data: TypeAlias = Annotated[dict[str, Any], WithJsonSchema({"type": "object"})]
Extension: TypeAlias = Annotated[
    str | int | None,
    PlainValidator(_scalar),
    WithJsonSchema(
        {
            "type": ["string", "integer", "boolean", "null"],
            "minimum": 1 - EXACT_FLOAT_MAX,
            "maximum": EXACT_FLOAT_MAX - 1,
        }
    ),
]


class CloudEvent(Request):
    """A CloudEvent 1.0 in its JSON format. Further attributes are extensions: taken, and not looked at.

    What it counts is said by the meter rules of the catalogue. Without one the type `usage.<feature>` counts
    `data.quantity` units, 1 where it says none; `data` is then its metadata, within the same bounds.
    """

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"propertyNames": {"pattern": "^([a-z0-9]{1,64}|data_base64)$"}}
    )
    __pydantic_extra__: dict[Annotated[str, Field(pattern=EXTENSION_PATTERN)], Extension]

    specversion: Literal["1.0"]
    id: Text = Field(description="With `source` it names the event: the same again counts once.")
    source: Text
    type: Text = Field(description="What happened; the meter rules say what it counts.")
    subject: OrgId | None = unset(None, "The organisation; the token's when left out.")
    time: Moment | None = unset(None, "When it happened; the time of receipt when left out.")
    datacontenttype: Annotated[str, Field(pattern=JSON_TYPE_PATTERN)] | None = unset(None, "JSON.")
    dataschema: Text | None = unset(None, "Not looked at.")
    data: Data | None = unset(None, "What the meter rules look into.")
    data_base64: NoBytes = unset(None, "Not taken: data has to be JSON.")
    actor: Text | None = unset(None, "An extension attribute: who in the organisation used it.")


class CloudEvents(RootModel[Annotated[list[CloudEvent], Field(max_length=EVENTS_MAX)]]):
    """A batch of CloudEvents."""


Events: TypeAlias = Annotated[list[TrackRequest], Field(max_length=EVENTS_MAX)]


class EventList(Request):
    """Events under a name, for clients that send only objects."""

    events: Events


class NativeEvents(RootModel[TrackRequest | Events | EventList]):
    """One event as POST /usage/track takes it, an array of them, or the array as `events`."""


class EventLines(RootModel[Events]):
    """Events as POST /usage/track takes them, one JSON text a line; blank lines are passed over."""


class EventsQuery(Request):
    """How to take a batch in and how to answer it."""

    detail: Literal["full", "none"] = Field(
        "full", description="none: 204 when all were counted, otherwise only the events that were not."
    )
    ack: Literal["sync", "async"] = Field(
        "sync", description="async: answer 202 once the events are on disk, and count them afterwards."
    )
    atomic: Flag = Field(
        default=False,
        description="Count all events or none: of one organisation, and at most 250 counted features in all.",
    )


class ItemProblem(Answer):
    """Why an event was not counted: a problem as it would answer the event alone."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(json_schema_extra={"format": "uri-reference"})
    title: str
    status: int
    detail: str
    code: str
    cure: str
    retryable: bool
    errors: list[FaultView] = Field(description="Each fault with its JSON pointer inside the event.")


class FeatureResult(Answer):
    """One feature of an event that counted several."""

    feature: str
    recorded: int
    current_usage: int
    limit: int | None
    remaining: int | None
    overage: int


class ItemResult(Answer):
    """What became of one event. An event that was not counted has `problem`, and its balance where there is one."""

    index: int = Field(description="Its place among the events sent, from 0.")
    id: str | None = Field(description="null: it has none that could be read, and a repeat could not be recognised.")
    status: Literal["recorded", "capped", "duplicate", "blocked", "rejected"] = Field(
        description="capped: only `recorded` units fitted. blocked: the plan or a limit does not allow it now."
        " rejected: it cannot be counted as it is."
    )
    org_id: str = unset(None, "Where the event could be read.")
    feature: str = unset(None, "Where the event could be read.")
    recorded: int = unset(None, "Units counted now.")
    current_usage: int = unset(None, "The counter afterwards; of a duplicate as it is now.")
    limit: int | None = unset(None, "null: unlimited.")
    remaining: int | None = unset(None, "null: unlimited.")
    overage: int = unset(None, "Units of this event above the limit.")
    late: bool = Field(default=False, description="Only there when true: the event belongs to an earlier period.")
    dry_run: bool = Field(default=False, description="Only there when true: nothing was counted.")
    features: list[FeatureResult] = unset(None, "Only there when one event counted several features: all of them.")
    problem: ItemProblem = unset(None, "Why it was not counted.")


class EventsAnswer(Answer):
    """What became of a batch. `accepted` counts recorded and capped events."""

    accepted: int
    duplicates: int
    blocked: int
    rejected: int
    results: list[ItemResult] = Field(
        description="In the order of the events sent; with `detail=none` the failed ones."
    )


class AcceptedAnswer(Answer):
    """What became of a batch with `ack=async`. Whether a limit lets an event count shows later, not here."""

    accepted: int = Field(description="On disk, and counted soon.")
    rejected: int
    results: list[ItemResult] = Field(description="The rejected ones, in the order sent.")


class PartAnswer(RootModel[EventsAnswer | AcceptedAnswer]):
    """What became of a batch of which some were not counted, or not accepted (`ack=async`)."""
