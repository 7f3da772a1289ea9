"""How answers go out: JSON, or a problem, each with its request id and the headers that keep browsers careful."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import orjson

from metering.api.bodies import Headers, Receive, discard
from metering.errors import Problem
from metering.ulid import Ulids

Send = Callable[[Any], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

JSON: Final = b"application/json"
PROBLEM: Final = b"application/problem+json"

REQUEST_ID: Final = b"x-request-id"
_ID_CHARS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_ID_LENGTH_MAX: Final = 64

NOSNIFF: Final = (b"x-content-type-options", b"nosniff")

CAREFUL: Final[Mapping[bytes, bytes]] = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}
"""On every answer that does not set them itself. Track answers carry the first alone: they are read by programs, a
POST is not cached, and every header costs the server 0.7 us."""

DEPRECATED: Final = b"@1795132800"
"""RFC 9745: since when the aliases have had a better name, the day of the first release."""

_LINGER_BYTES: Final = 1024 * 1024
_LINGER_S: Final = 2.0
"""What is still taken in after the answer to a body that is too large. A connection closed with unread bytes is
reset, and the reset can overtake the answer; clients that are only a little too eager see it this way."""


def request_id_of(headers: Headers, ulids: Ulids) -> str:
    """The client's X-Request-Id where it is 1 to 64 harmless characters, else a new one."""
    given = headers.get(REQUEST_ID)
    if given is not None and 0 < len(given) <= _ID_LENGTH_MAX and _ID_CHARS.issuperset(given):
        return given.decode("ascii")
    return ulids.mint()


def careful(headers: Iterable[tuple[bytes, bytes]], request_id: str) -> RawHeaders:
    """`headers` completed with the request id and whatever of CAREFUL they lack."""
    listed = list(headers)
    present = {name.lower() for name, _ in listed}
    if REQUEST_ID not in present:
        listed.append((REQUEST_ID, request_id.encode("ascii")))
    listed += [pair for pair in CAREFUL.items() if pair[0] not in present]
    return listed


def successor(path: str) -> RawHeaders:
    """What an older name of `path` answers with besides."""
    return [(b"deprecation", DEPRECATED), (b"link", f'<{path}>; rel="successor-version"'.encode())]


def completed(send: Send, headers: RawHeaders) -> Send:
    """`send` that puts `headers` on the answer."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *headers]
        await send(message)

    return sending


def problem_body(problem: Problem, request_id: str) -> bytes:
    """The problem document. What JSON cannot hold is shown as text rather than failing the answer."""
    return orjson.dumps(problem.members(request_id), default=str)


def problem_headers(problem: Problem, body: bytes, request_id: str) -> RawHeaders:
    """The headers that go with `problem_body`."""
    listed = [(b"content-type", PROBLEM), (b"content-length", b"%d" % len(body))]
    listed += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    return careful(listed, request_id)


async def refuse(
    problem: Problem, headers: Headers, request_id: str, receive: Receive, send: Send, *, unread: bool
) -> None:
    """Answer with a problem. `unread` says that the body was not read: an unbounded one ends the connection."""
    body = problem_body(problem, request_id)
    listed = problem_headers(problem, body, request_id)
    closing = "Connection" in problem.headers
    if unread and not closing and not bounded(headers):
        listed.append((b"connection", b"close"))
        closing = True
    await send({"type": "http.response.start", "status": problem.status, "headers": listed})
    await send({"type": "http.response.body", "body": body, "more_body": closing})
    if closing:
        await discard(receive, _LINGER_BYTES, _LINGER_S)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def bounded(headers: Headers) -> bool:
    """Whether an unread body is so small that the server may swallow it and keep the connection."""
    return b"transfer-encoding" not in headers and len(headers.get(b"content-length", b"")) <= 5  # noqa: PLR2004
