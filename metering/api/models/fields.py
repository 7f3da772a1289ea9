"""What all bodies are made of: checked texts and numbers, requests that take no unknown field, answers."""

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

HOLD_ID_PATTERN: Final = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$"
"""Reservations and leases: their ids become parts of keys, and of paths, where `.` and `..` go astray."""

STRIPE_CUSTOMER_PATTERN: Final = r"^cus_[A-Za-z0-9_]{1,200}$"

EXACT_FLOAT_MAX: Final = 2**53
"""Below this every float without a fraction is one integer."""


def whole(value: object) -> object:
    """A float without a fraction is the integer it equals, as in JSON Schema; all else is left to the model."""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_FLOAT_MAX:
        return int(value)
    return value


def _flag(text: object) -> object:
    """A query is text."""
    return {"true": True, "false": False}.get(text, text) if isinstance(text, str) else text


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
Flag: TypeAlias = Annotated[bool, BeforeValidator(_flag)]
Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=TEXT_CHARS_MAX, pattern=TEXT_PATTERN)]
Quantity: TypeAlias = Annotated[int, Field(ge=1, le=QUANTITY_MAX), BeforeValidator(whole)]
Limit: TypeAlias = Annotated[int, Field(ge=0, le=LIMIT_MAX), BeforeValidator(whole)]
Moment: TypeAlias = Annotated[
    str,
    Field(json_schema_extra={"format": "date-time"}),
    AfterValidator(_moment),
]
HoldId: TypeAlias = Annotated[str, Field(pattern=HOLD_ID_PATTERN)]
Mode: TypeAlias = Literal["default", "overage", "block", "cap"]
Metadata: TypeAlias = Annotated[dict[str, Any], AfterValidator(_small), WithJsonSchema(_METADATA_SCHEMA)]
Zone: TypeAlias = Annotated[
    str, Field(max_length=64, json_schema_extra={"format": "iana-time-zone"}), AfterValidator(_zone)
]
OnLimitName: TypeAlias = Literal["overage", "block", "cap"]
ResetName: TypeAlias = Literal["calendar", "anniversary"]


class Request(BaseModel):
    """A body that comes in: strict types, no unknown fields."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)


def unset(default: Any, about: str, **more: Any) -> Any:
    """A field that may be left out. Its default says that it was, is no value one could send, and is not documented."""
    return Field(default, description=about, **more)


class PageQuery(Request):
    """How to walk a list."""

    # A query is text: numbers in it are read from their digits.
    model_config = ConfigDict(strict=False)

    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = Field(50, description="Entries on a page.")
    cursor: Annotated[str, Field(pattern=CURSOR_PATTERN)] | None = unset(None, "`next_cursor` of the page before.")


class Answer(BaseModel):
    """A body that goes out. Fields may be added; a client ignores what it does not know."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class Span(Answer):
    """A half-open span of time."""

    start: str = Field(json_schema_extra={"format": "date-time"})
    end: str = Field(json_schema_extra={"format": "date-time"})
