"""Bodies that hold events: which of their media types one is, read within its bounds, taken apart into items.

An item is one event as it was sent, parsed but not understood yet. What is wrong with one of them is told with it and
leaves the others alone; what is wrong with the body as a whole refuses it.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from metering.api.bodies import (
    BODY_BYTES_MAX,
    UNSURE,
    Headers,
    Receive,
    fault,
    invalid,
    parse_exactly,
    parse_json,
    parse_quickly,
    read_body,
)
from metering.api.cloud_headers import DATA_TYPE, attributes_of, is_binary
from metering.api.gunzip import GZIP, Gunzip
from metering.api.models.ingest import is_json_type
from metering.errors import MalformedJson, TooLarge, UnsupportedMediaType

NATIVE: Final = "application/json"
LINES: Final = "application/x-ndjson"
CLOUD: Final = "application/cloudevents+json"
CLOUD_BATCH: Final = "application/cloudevents-batch+json"
BINARY: Final = "binary"
"""The media types of events; BINARY stands for a CloudEvent whose attributes are headers, whatever its data's type."""

BATCH_BYTES_MAX: Final = 1024 * 1024
"""A thousand events of a kilobyte, unpacked."""

EVENT_BYTES_MAX: Final = BODY_BYTES_MAX
"""The same as for an event that comes alone."""

_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_CLOUD_PREFIX: Final = "application/cloudevents"

RawHeaders = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class EventsBody:
    """A body of events as it came: one of the media types above, and headers that may hold attributes or a key."""

    kind: str
    content: bytes
    headers: RawHeaders


Reader = Callable[[RawHeaders, Headers, Receive], Awaitable[EventsBody]]


def reader(*kinds: str) -> Reader:
    """A reader of bodies of these media types, gzip or not. Raises UnsupportedMediaType and what `read_body` does."""

    async def read(raw: RawHeaders, headers: Headers, receive: Receive) -> EventsBody:
        kind = kind_of(raw, headers, kinds)
        coding = headers.get(b"content-encoding", b"identity").lower()
        if coding not in GZIP and coding != b"identity":
            raise UnsupportedMediaType(
                "the body's encoding is not known", headers={"Accept-Encoding": "gzip, identity"}
            )
        sink = Gunzip(BATCH_BYTES_MAX) if coding in GZIP else None
        return EventsBody(kind, await read_body(headers, receive, bytes_max=BATCH_BYTES_MAX, sink=sink), raw)

    return read


def kind_of(raw: RawHeaders, headers: Headers, kinds: Sequence[str]) -> str:
    """Which of `kinds` a body is. A missing type is JSON. Raises UnsupportedMediaType.

    As the CloudEvents binding says (HTTP 1.0.2, 1.3), the media type comes first and attributes among the headers make
    every other one a CloudEvent in binary mode.
    """
    given = headers.get(b"content-type", NATIVE.encode()).decode("latin-1").lower()
    kind, *parameters = (part.strip() for part in given.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in _CHARSETS:
            raise _not_taken(kinds, "the charset is not UTF-8")
    if BINARY in kinds and not kind.startswith(_CLOUD_PREFIX) and is_binary(raw):
        return BINARY
    if kind not in kinds:
        raise _not_taken(kinds, f"the Content-Type is none of {', '.join(_shown(kinds))}")
    return kind


def _shown(kinds: Sequence[str]) -> list[str]:
    return [kind for kind in kinds if kind != BINARY]


def _not_taken(kinds: Sequence[str], detail: str) -> UnsupportedMediaType:
    return UnsupportedMediaType(detail, headers={"Accept": ", ".join(_shown(kinds))})


@dataclass(slots=True)
class Item:
    """One event as it was sent, or why it could not be read.

    `size` is in bytes of its JSON text, `place` the JSON pointer of it in the body.
    """

    value: Any
    size: int
    place: str


async def items_of(body: EventsBody, events_max: int) -> list[Item]:
    """The events of a body in their order. Raises MalformedJson, Invalid and TooLarge for the body as a whole."""
    if body.kind == LINES:
        return list(_lines(body.content, events_max))
    if body.kind == BINARY:
        return [await _binary(body)]
    value, prefix = await _parsed(body.content), ""
    if body.kind == NATIVE and isinstance(value, dict) and "events" in value:
        value, prefix = _inner(value), "/events"
    elif body.kind == CLOUD_BATCH and not isinstance(value, list):
        raise invalid([fault("", "list-type", "a batch is an array of events")])
    if body.kind == CLOUD or not isinstance(value, list):
        return [_item(value, "")]
    _check_count(len(value), events_max)
    return [_item(entry, f"{prefix}/{index}") for index, entry in enumerate(value)]


def _inner(value: dict[str, Any]) -> list[Any]:
    """The array in `{"events": [...]}`. Raises Invalid."""
    faults = [fault(f"/{name}", "unknown-field", "no such field beside `events`") for name in value if name != "events"]
    if not isinstance(value["events"], list):
        faults.append(fault("/events", "list-type", "an array of events is needed"))
    if faults:
        raise invalid(faults[:50])
    events: list[Any] = value["events"]
    return events


async def _parsed(content: bytes) -> Any:
    """The JSON value of a body. Raises MalformedJson.

    What only the exact parser can tell takes it tens of milliseconds of a large body: a thread's, not the loop's.
    """
    if len(content) <= BODY_BYTES_MAX:
        return parse_json(content)
    value = parse_quickly(content)
    return await asyncio.to_thread(parse_exactly, content) if value is UNSURE else value


def _check_count(count: int, events_max: int) -> None:
    if count > events_max:
        raise TooLarge(f"{count} events, at most {events_max} are taken at once", events_max=events_max)


def _item(value: Any, place: str) -> Item:
    try:
        size = len(orjson.dumps(value))
    except orjson.JSONEncodeError:  # a number or a depth that only the exact parser takes
        size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
    return Item(value, size, place)


def _lines(content: bytes, events_max: int) -> Iterator[Item]:
    """One item a line that is not blank."""
    lines = [line for line in content.split(b"\n") if line.strip()]
    _check_count(len(lines), events_max)
    for index, line in enumerate(lines):
        value: Any = None
        if len(line) <= EVENT_BYTES_MAX:
            try:
                value = parse_json(line)
            except MalformedJson as problem:
                value = problem
        yield Item(value, len(line), f"/{index}")


async def _binary(body: EventsBody) -> Item:
    """The event of a request whose headers are its attributes. Raises MalformedJson, Invalid."""
    value: dict[str, Any] = dict(attributes_of(body.headers))
    if not body.content:
        value.pop(DATA_TYPE, None)  # the type of nothing, which clients send all the same
    elif is_json_type(value.get(DATA_TYPE, NATIVE)) and len(body.content) <= EVENT_BYTES_MAX:
        value["data"] = await _parsed(body.content)
    return Item(value, len(body.content), "")
