"""How bodies come in: within bounds of size and time, and as exactly one meaning."""

import asyncio
import json
import math
import re
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Protocol, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from metering.errors import HeadersTooLarge, Invalid, MalformedJson, RequestTimeout, TooLarge, UnsupportedMediaType
from plans.catalogue import nearest

Headers = Mapping[bytes, bytes]
Receive = Callable[[], Awaitable[Any]]
Faults = list[dict[str, str]]

BODY_BYTES_MAX: Final = 64 * 1024
"""An event with its largest metadata has 10 KiB; the rest is room for odd formatting."""

BODY_DEADLINE_S: Final = 15.0
"""From the headers to the last byte: 64 KiB in 15 s is a line of 35 kbit/s."""

FAULTS_MAX: Final = 50
"""Faults told at once: a body of 64 KiB can hold ten thousand."""

HEADERS_MAX: Final = 64
HEADER_BYTES_MAX: Final = 16 * 1024
"""What proxies allow by default is about the same."""

_QUICK_HEADER_BYTES_MAX: Final = HEADER_BYTES_MAX // 2
"""Values this small leave room for 64 names of 128 bytes."""

_SUGGESTIONS_MAX: Final = 5
"""Unknown fields that get a suggestion: each costs a comparison with every known one."""

CLOSING: Final = {"Connection": "close"}
"""Goes on answers to requests whose body is left unread: what follows on the connection is not a request."""

_QUICK_LENGTH_DIGITS: Final = 4
"""A Content-Length of so few digits is below the bound whatever they are."""

_INTEGER_DIGITS_MAX: Final = 18
"""Integers of up to so many digits are read as such everywhere; longer ones become floats."""

_T = TypeVar("_T")


class Huge(int):
    """Stands for a number beyond a float's range: an integer that every bound, and the JSON writer, refuses."""


HUGE: Final = Huge(2**64)


class ClientGone(Exception):
    """The client closed the connection before its body was complete: there is nobody to answer."""


class _Resumed(Awaitable[_T]):
    """An awaitable that has been started and waits at `future`."""

    def __init__(self, steps: Generator[Any, Any, _T], future: object) -> None:
        self._steps = steps
        self._future = future

    def __await__(self) -> Generator[Any, Any, _T]:
        try:
            yield self._future
        except BaseException:
            self._steps.close()
            raise
        return (yield from self._steps)


async def within(seconds: float, work: Awaitable[_T]) -> _T:
    """The result of `work`. Raises TimeoutError after `seconds`; a timer is made only when there is waiting to do.

    Nearly every body has arrived before its handler starts, and a timer costs a tenth of such a request.
    """
    steps = work.__await__()
    try:
        future = steps.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    async with asyncio.timeout(seconds):
        return await _Resumed(steps, future)


class Sink(Protocol):
    """Takes a body in piece by piece; raises TooLarge once it has taken more than it may."""

    def take(self, piece: bytes) -> None:
        """Take one more piece."""
        ...

    def whole(self) -> bytes:
        """The whole body."""
        ...


class Joined:
    """A body of at most `bytes_max` bytes as it came."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._pieces: list[bytes] = []
        self._size = 0

    def take(self, piece: bytes) -> None:
        """Take one more piece. Raises TooLarge."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._bytes_max:
            raise too_large(self._bytes_max, CLOSING)

    def whole(self) -> bytes:
        """All pieces together."""
        return b"".join(self._pieces)


async def read_body(
    headers: Headers,
    receive: Receive,
    deadline_s: float = BODY_DEADLINE_S,
    *,
    bytes_max: int = BODY_BYTES_MAX,
    sink: Sink | None = None,
) -> bytes:
    """The body, of at most `bytes_max` bytes; what `sink`, which has bounds of its own, makes of it where one is given.

    Raises TooLarge, RequestTimeout, ClientGone, or what the sink raises.
    """
    if len(headers.get(b"content-length", b"")) > _QUICK_LENGTH_DIGITS:
        await _check_length(headers[b"content-length"], receive, deadline_s, bytes_max)
    try:
        return await within(deadline_s, _collect(receive, bytes_max, sink))
    except TimeoutError as error:
        raise RequestTimeout(f"the body was not complete after {deadline_s:g} s", headers=CLOSING) from error


async def _check_length(declared: bytes, receive: Receive, deadline_s: float, bytes_max: int) -> None:
    """Raises TooLarge for a declared length over the bound, before anything of a really large body is read.

    Of a small excess, up to as much again, all is read, so that the connection stays usable.
    """
    length = int(declared) if declared.isdigit() else 2 * bytes_max + 1
    if length > 2 * bytes_max:
        raise too_large(bytes_max, CLOSING)
    if length > bytes_max:
        await discard(receive, length, deadline_s)
        raise too_large(bytes_max)


async def _collect(receive: Receive, bytes_max: int, sink: Sink | None) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    gone = message["type"] == "http.disconnect"
    if sink is None and not gone and not message.get("more_body", False) and len(body) <= bytes_max:
        return body
    taker = sink or Joined(bytes_max)
    while message["type"] != "http.disconnect":
        taker.take(message.get("body", b""))
        if not message.get("more_body", False):
            return taker.whole()
        message = await receive()
    raise ClientGone


async def discard(receive: Receive, size: int, seconds: float) -> None:
    """Take in and drop the rest of a body, at most about `size` bytes and no longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while size > 0:
                message = await receive()
                size -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def too_large(bytes_max: int, headers: Mapping[str, str] | None = None) -> TooLarge:
    """The refusal of a body of more than `bytes_max` bytes."""
    return TooLarge(f"the body has more than {bytes_max} bytes", headers=headers)


def check_headers(raw: Sequence[tuple[bytes, bytes]], headers: Headers) -> None:
    """Raises HeadersTooLarge over HEADERS_MAX lines or HEADER_BYTES_MAX bytes in all.

    `headers` is `raw` as a mapping; while no name is doubled its values are all there is to add up. The
    Authorization header has a bound of its own, told as a 401.
    """
    if len(headers) == len(raw) <= HEADERS_MAX and sum(map(len, headers.values())) <= _QUICK_HEADER_BYTES_MAX:
        return
    size = sum(len(name) + len(value) for name, value in raw if name != b"authorization")
    if len(raw) > HEADERS_MAX or size > HEADER_BYTES_MAX:
        raise HeadersTooLarge(f"{len(raw)} headers with {size} bytes")


def check_media_type(headers: Headers) -> None:
    """Raises UnsupportedMediaType unless the body is plain JSON. A missing type is taken as JSON."""
    kind = headers.get(b"content-type")
    if kind is not None and kind.partition(b";")[0].strip().lower() != b"application/json":
        raise UnsupportedMediaType("the Content-Type is not application/json", headers={"Accept": "application/json"})
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("the body is compressed", headers={"Accept-Encoding": "identity"})


class Unsure(Enum):
    """The type of UNSURE."""

    UNSURE = "unsure"


UNSURE: Final = Unsure.UNSURE
"""What the quick parser says where only the exact one can tell."""


def parse_json(body: bytes) -> Any:
    """The value that `body` says as JSON, every key once. Raises MalformedJson."""
    value = parse_quickly(body)
    return parse_exactly(body) if value is UNSURE else value


def parse_quickly(body: bytes) -> Any:
    """The value of an ordinary body, or UNSURE.

    The quick parser keeps the last of two equal keys. Each pair has one colon, so when the parsed value written out
    again has as many colons as the body, no key was lost: colons inside strings are the same in both, unless one
    was written as an escape.
    """
    try:
        value = orjson.loads(body)
        colons = orjson.dumps(value).count(b":")
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # the latter: nested more deeply than it writes
        return UNSURE
    if body.count(b":") != colons or (b"\\" in body and _escaped_colon(body)):
        return UNSURE
    return value


_escaped_colon = re.compile(rb"\\u003[aA]").search


def parse_exactly(body: bytes) -> Any:
    """As parse_json, slower: sees every key, and numbers beyond a float's range, which no bound lets pass."""
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_pairs_once,
            parse_constant=_no_constant,
            parse_float=_float,
            parse_int=_integer,
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair is no character
    except (ValueError, RecursionError) as error:
        raise MalformedJson(_why(error)) from error
    return value


def _pairs_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RepeatedKey
    return found


class _RepeatedKey(ValueError):
    """A key stands twice in one object."""


def _no_constant(_: str) -> Any:
    raise ValueError


def _float(text: str) -> float | int:
    number = float(text)
    return number if math.isfinite(number) else HUGE


def _integer(text: str) -> float | int:
    return int(text) if len(text) <= _INTEGER_DIGITS_MAX else _float(text)


def _why(error: Exception) -> str:
    """What is wrong with a body, without repeating any of it."""
    if isinstance(error, _RepeatedKey):
        return "a key stands twice in one object"
    if isinstance(error, UnicodeError):
        return "the body is not UTF-8"
    if isinstance(error, RecursionError):
        return "the body is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
    return "the body is not JSON"


def faults_of(error: ValidationError, model: type[BaseModel]) -> Faults:
    """Every fault pydantic found, as the members of a problem's `errors`; the input is not repeated."""
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    faults = [_fault(entry["type"], entry["loc"], entry["msg"]) for entry in errors[:FAULTS_MAX]]
    unknown = [fault for fault in faults if fault["code"] == "unknown-field"]
    known = [field.alias or name for name, field in model.model_fields.items()]
    for fault in unknown[:_SUGGESTIONS_MAX]:
        if near := nearest(fault["pointer"].rpartition("/")[2], known):
            fault["detail"] += f"; did you mean '{near}'?"
    return faults


_CODES: Final = {"extra_forbidden": ("unknown-field", "no such field"), "missing": ("missing", "the field is missing")}


def _fault(kind: str, place: tuple[int | str, ...], message: str) -> dict[str, str]:
    code, detail = _CODES.get(kind, (kind.replace("_", "-"), message))
    return fault(pointer_of(place), code, detail)


def fault(pointer: str, code: str, detail: str) -> dict[str, str]:
    """One entry of a problem's `errors`."""
    return {"pointer": pointer, "code": code, "detail": detail}


def pointer_of(place: tuple[int | str, ...]) -> str:
    """A JSON pointer (RFC 6901). pydantic marks a fault of a key itself by a last step `[key]`, which is left out."""
    steps = place[:-1] if place and place[-1] == "[key]" else place
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)


def invalid(faults: Faults) -> Invalid:
    """The 422 that tells all `faults`."""
    first = faults[0]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Invalid(f"{first['pointer'] or 'the body'}: {first['detail']}{more}", errors=faults)
