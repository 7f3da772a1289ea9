"""What goes over the wire, both ways: these models check requests and describe every body in /openapi.json."""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeAlias

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from metering.moments import parse_ms
from metering.names import FEATURE_PATTERN, ORG_ID_PATTERN, RESERVED, TEXT_CHARS_MAX, TEXT_PATTERN
from plans.limits import LIMIT_MAX, QUANTITY_MAX
from plans.periods import zone_known

METADATA_KEYS_MAX: Final = 50
METADATA_BYTES_MAX: Final = 8 * 1024
METADATA_DEPTH_MAX: Final = 3

PAGE_MAX: Final = 500
"""Organisations of one page: each costs a read of the store."""

CURSOR_PATTERN: Final = r"^[0-9]{1,5}\.[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"

STRIPE_CUSTOMER_PATTERN: Final = r"^cus_[A-Za-z0-9_]{1,200}$"

EXACT_FLOAT_MAX: Final = 2**53
"""Below this every float without a fraction is one integer."""


def _whole(value: object) -> object:
    """A float without a fraction is the integer it equals, as in JSON Schema; all else is left to the model."""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_FLOAT_MAX:
        return int(value)
    return value


def _only(expected: str | bool | None) -> Callable[[object], object]:
    """Takes `expected` alone, the neutral value of what is not built yet, and says so of every other value."""
    taken = orjson.dumps(expected).decode()

    def checked(value: object) -> object:
        if type(value) is not type(expected) or value != expected:  # 0 equals False
            raise PydanticCustomError("not-built", "not built yet: only {taken} is taken", {"taken": taken})
        return value

    return checked


def _not_reserved(org_id: str) -> str:
    if org_id in RESERVED:
        raise PydanticCustomError("reserved", "'{word}' is a reserved word, not an organisation id", {"word": org_id})
    return org_id


def _moment(text: str) -> str:
    try:
        parse_ms(text)
    except ValueError as error:
        raise PydanticCustomError("timestamp", "{reason}", {"reason": str(error)}) from error
    return text


def _zone(name: str) -> str:
    if not zone_known(name):
        raise PydanticCustomError("timezone", "not an IANA time zone; one looks like 'Europe/Paris'")
    return name


def depth(value: object) -> int:
    """How many containers lie inside each other at `value`; a scalar has depth 0."""
    level, found = [value], -1
    while level:
        found += 1
        level = [item for box in level if isinstance(box, dict | list) for item in _items(box)]
    return found


def _items(box: dict[str, Any] | list[Any]) -> list[Any]:
    # An empty container still counts as one level: `None` stands for what it could hold.
    return list(box.values() if isinstance(box, dict) else box) or [None]


def _small(metadata: dict[str, Any]) -> dict[str, Any]:
    """Refuse metadata over its bounds. Size is that of the compact JSON text."""
    if len(metadata) > METADATA_KEYS_MAX:
        raise PydanticCustomError("metadata-keys", "at most {most} keys", {"most": METADATA_KEYS_MAX})
    if depth(metadata) > METADATA_DEPTH_MAX:
        raise PydanticCustomError("metadata-depth", "at most {most} levels deep", {"most": METADATA_DEPTH_MAX})
    try:
        size = len(orjson.dumps(metadata))
    except orjson.JSONEncodeError as error:
        raise PydanticCustomError("metadata-number", "a number in it is too large") from error
    if size > METADATA_BYTES_MAX:
        raise PydanticCustomError("metadata-size", "at most {most} bytes", {"most": METADATA_BYTES_MAX})
    return metadata


_SCALAR: Final[dict[str, Any]] = {"type": ["string", "number", "boolean", "null"]}


def _nested(levels: int) -> dict[str, Any]:
    """The JSON Schema of a value with at most `levels` containers inside each other."""
    if levels == 0:
        return _SCALAR
    inner = _nested(levels - 1)
    return {
        "anyOf": [
            _SCALAR,
            {"type": "array", "items": inner},
            {"type": "object", "additionalProperties": inner},
        ]
    }


_METADATA_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "maxProperties": METADATA_KEYS_MAX,
    "additionalProperties": _nested(METADATA_DEPTH_MAX - 1),
}

OrgId: TypeAlias = Annotated[
    str,
    Field(pattern=ORG_ID_PATTERN, json_schema_extra={"not": {"enum": sorted(RESERVED)}}),
    AfterValidator(_not_reserved),
]
FeatureName: TypeAlias = Annotated[str, Field(pattern=FEATURE_PATTERN)]
PlanName: TypeAlias = Annotated[str, Field(pattern=FEATURE_PATTERN)]
Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=TEXT_CHARS_MAX, pattern=TEXT_PATTERN)]
Quantity: TypeAlias = Annotated[int, Field(ge=1, le=QUANTITY_MAX), BeforeValidator(_whole)]
Limit: TypeAlias = Annotated[int, Field(ge=0, le=LIMIT_MAX), BeforeValidator(_whole)]
Moment: TypeAlias = Annotated[
    str,
    Field(json_schema_extra={"format": "date-time"}),
    AfterValidator(_moment),
]
Default: TypeAlias = Annotated[Literal["default"], BeforeValidator(_only("default"))]
Nothing: TypeAlias = Annotated[None, BeforeValidator(_only(None))]
No: TypeAlias = Annotated[Literal[False], BeforeValidator(_only(expected=False))]
Metadata: TypeAlias = Annotated[dict[str, Any], AfterValidator(_small), WithJsonSchema(_METADATA_SCHEMA)]
Zone: TypeAlias = Annotated[
    str, Field(max_length=64, json_schema_extra={"format": "iana-time-zone"}), AfterValidator(_zone)
]
OnLimitName: TypeAlias = Literal["overage", "block", "cap"]
ResetName: TypeAlias = Literal["calendar", "anniversary"]


class Request(BaseModel):
    """A body that comes in: strict types, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _unset(default: Any, about: str, **more: Any) -> Any:
    """A field that may be left out. Its default says that it was, is no value one could send, and is not documented."""
    return Field(default, description=about, **more)


class PageQuery(Request):
    """How to walk a list."""

    # A query is text: numbers in it are read from their digits.
    model_config = ConfigDict(strict=False)

    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = Field(50, description="Entries on a page.")
    cursor: Annotated[str, Field(pattern=CURSOR_PATTERN)] | None = _unset(None, "`next_cursor` of the page before.")


class Answer(BaseModel):
    """A body that goes out. Fields may be added; a client ignores what it does not know."""

    model_config = ConfigDict(extra="forbid")


class TrackRequest(Request):
    """One usage event. `feature` or `endpoint` is needed; where null is taken, it is the same as leaving out."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["feature"]}, {"required": ["endpoint"]}]})

    org_id: OrgId | None = _unset(None, "The token's organisation when left out.")
    feature: FeatureName = _unset("", "A feature of the catalogue; with `endpoint` alone its default feature.")
    quantity: Quantity = Field(1, description="Units used.")
    metadata: Metadata | None = _unset(
        None, "Anything you know of the event: at most 50 keys, 8 KiB and 3 levels. Checked, not stored."
    )
    event_id: Text | None = _unset(None, "Makes repeating safe: an id counts once for each organisation and source.")
    source: Text | None = _unset(None, "Keeps the event ids of several senders apart.")
    timestamp: Moment | None = _unset(None, "When it happened; the time of receipt when left out.")
    actor: Text | None = _unset(None, "Who in the organisation used it. Checked, not stored.")
    endpoint: Text = _unset("", "Short form, in place of `feature`: one call of this endpoint. Checked, not stored.")
    mode: Default = Field("default", description="What the plan says; other modes are not built yet.")
    reservation_id: Nothing = _unset(None, "Reservations are not built yet.")
    dry_run: No = Field(default=False, description="Dry runs are not built yet.")


class Span(Answer):
    """A half-open span of time."""

    start: str = Field(json_schema_extra={"format": "date-time"})
    end: str = Field(json_schema_extra={"format": "date-time"})


class TrackAnswer(Answer):
    """The balance after an event. Of a repeated event: the balance now, `duplicate` true, `recorded` 0."""

    org_id: str
    feature: str
    current_usage: int
    limit: int | None = Field(description="null: unlimited.")
    remaining: int | None
    reset_date: str = Field(json_schema_extra={"format": "date-time"})
    event_id: str = Field(description="The caller's, or `evt_` and a ULID.")
    allowed: Literal[True]
    recorded: int = Field(description="Units counted now; fewer than asked for under `on_limit: cap`.")
    duplicate: bool
    overage: int = Field(description="Units of this event above the limit.")
    unlimited: bool
    period: Span
    thresholds_crossed: list[int] = Field(description="Percent of the limit: 75, 80, 90, 100.")
    decided_by: Literal["plan_limit", "unlimited", "event_id"]
    late: bool = Field(default=False, description="Only there when true: the event belongs to an earlier period.")


class FeatureView(Answer):
    """One feature's counter in the current period and the rule it stands under."""

    current: int
    limit: int | None = Field(description="null: unlimited.")
    reset_date: str = Field(json_schema_extra={"format": "date-time"})
    last_updated: str | None = Field(json_schema_extra={"format": "date-time"})
    remaining: int | None
    overage: int = Field(description="Units of this period above the limit.")
    overage_billed: bool = Field(description="Whether all of the overage has been sealed for billing.")
    unlimited: bool
    reserved: int = Field(description="Units held back by reservations.")
    percent: int | None = Field(description="Of the limit, cut to whole percent; null without a limit or with 0.")
    on_limit: OnLimitName
    enabled: bool


class OrgView(Answer):
    """An organisation: its plan, its counters, its billing state."""

    org_id: str
    plan: str
    features: dict[str, FeatureView]
    stripe_customer_id: str | None = Field(description="null also for callers without a billing scope.")
    payment_overdue: bool
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    updated_at: str = Field(json_schema_extra={"format": "date-time"})
    overage_flagged: bool = Field(description="From the first overage of a period on.")
    period: Span
    reset: ResetName
    timezone: str
    credits: None = Field(description="Always null: credits are not built yet.")


class OrgSettings(Request):
    """What can be set of an organisation. What is left out stays, but see `limits`."""

    plan: PlanName = _unset("", "A plan of the catalogue.")
    limits: dict[FeatureName, Limit | None] = _unset(
        {},
        "Limits of this organisation instead of the plan's; null is unlimited. Replaces all of them, {} clears them."
        " Left out: they stay while the plan stays and go when it changes.",
    )
    on_limit: dict[FeatureName, OnLimitName] = _unset(
        {}, "What happens above a limit instead of what the plan says. Replaced and kept as `limits`."
    )
    reset: ResetName = _unset("", "Kind of period, from the next one on.")
    timezone: Zone = _unset("", "IANA name of the zone whose midnights part the periods.")
    stripe_customer_id: Annotated[str, Field(pattern=STRIPE_CUSTOMER_PATTERN)] = _unset("", "The Stripe customer.")


class BillingUpdate(OrgSettings):
    """The same for an organisation named in the body."""

    org_id: OrgId | None = _unset(None, "The token's organisation when left out.")


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


class FeatureKind(Answer):
    """Something that is metered."""

    name: str
    title: str
    unit: str
    overage_price_minor: int | None
    overage_per: int


class CatalogueView(Answer):
    """The plans and features on offer."""

    version: int
    currency: str
    default_plan: str
    default_feature: str
    features: list[FeatureKind]
    data: list[PlanView]


class ServiceStates(Answer):
    """The state of each service this one needs."""

    redis: Literal["healthy", "unhealthy"]
    stripe: Literal["configured", "not_configured"]


class StoreView(Answer):
    """What is known of the store, and what it promises."""

    kind: Literal["external", "embedded", "ephemeral"]
    version: str
    durability: Literal["always", "attested", "lossy"] = Field(
        description="always: acknowledged events are on disk; attested: its operator says so; lossy: they can be lost."
    )
    lossy: bool


class HealthView(Answer):
    """The state of the service. Degraded: it works, but promises less than it should."""

    status: Literal["healthy", "degraded", "unhealthy"]
    timestamp: str = Field(json_schema_extra={"format": "date-time"})
    services: ServiceStates
    version: str
    store: StoreView


class Liveness(Answer):
    """The process runs."""

    status: Literal["alive"]


class Readiness(Answer):
    """Whether traffic should come here, and if not, why."""

    status: Literal["ready", "not_ready"]
    reasons: list[str]


class FaultView(Answer):
    """One fault of a request: `pointer` (RFC 6901) names its place in the body."""

    pointer: str
    code: str
    detail: str


class ProblemView(BaseModel):
    """RFC 9457. `code` is stable; further members depend on it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(json_schema_extra={"format": "uri-reference"})
    title: str
    status: int
    detail: str
    code: str
    cure: str
    retryable: bool = Field(description="Whether the same request may succeed after Retry-After seconds.")
    request_id: str
    errors: list[FaultView]
