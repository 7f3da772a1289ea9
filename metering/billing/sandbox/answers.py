"""Answers on their way back: Stripe's headers, and what a fault does to the connection."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

import orjson

from metering.billing.gateway import API_VERSION
from metering.billing.sandbox.db import Obj
from metering.billing.sandbox.door import Request
from metering.billing.sandbox.errors import ApiError, conflict, too_many
from metering.billing.sandbox.faults import Fault
from metering.billing.sandbox.idempotency import Kept

_HTML: Final = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(slots=True)
class Answer:
    """What goes back."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    @classmethod
    def right(cls, answer: Obj, request: Request) -> "Answer":
        """What a handler gave."""
        return cls(HTTPStatus.OK, _json(answer), _headers(request))

    @classmethod
    def replayed(cls, kept: Kept, request: Request) -> "Answer":
        """What was given under the same key before."""
        told = {"Idempotent-Replayed": "true", "Original-Request": kept.request_id}
        return cls(kept.status, kept.body.encode(), {**_headers(request), **told, **_retry(kept.status)})

    @classmethod
    def of_fault(cls, fault: Fault, request: Request) -> "Answer":
        """What a fault answers in place of the handler."""
        if fault.kind == "html":
            return cls(HTTPStatus.BAD_GATEWAY, _HTML, dict(fault.headers), "text/html")
        answer = failed(_FAULTS[fault.kind](), request)
        answer.headers |= fault.headers
        return answer


def _sorry() -> ApiError:
    told = "An unknown error occurred"
    return ApiError(told, status=HTTPStatus.INTERNAL_SERVER_ERROR, kind="api_error")


_FAULTS: Final = {
    "conflict": lambda: conflict("Another request is at work on this object.", code="lock_timeout"),
    "rate_limit": lambda: too_many("Request rate limit exceeded. https://docs.stripe.com/rate-limits"),
    "error_before": _sorry,
    "error_after": _sorry,
}


def failed(error: ApiError, request: Request) -> Answer:
    """An error as Stripe writes it."""
    headers = {**_headers(request), **_retry(error.status), **error.headers}
    return Answer(error.status, _json({"error": error.error}), headers)


def _retry(status: int) -> dict[str, str]:
    """What is wrong stays wrong; the client is told so. Of a 409 and a 429 it makes up its own mind."""
    open_ends = {HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
    refused = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in open_ends
    return {"Stripe-Should-Retry": "false"} if refused else {}


def _headers(request: Request) -> dict[str, str]:
    told = {"Request-Id": request.id, "Stripe-Version": API_VERSION}
    return told | ({"Idempotency-Key": request.key} if request.key else {})


def _json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


class Wire:
    """One request's connection."""

    def __init__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        self._scope, self._receive, self._send = scope, receive, send

    async def body(self) -> bytes:
        """All of the request's body."""
        parts, more = [], True
        while more:
            message = await self._receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        return b"".join(parts)

    async def answer(self, answer: Answer, now_s: int, fault: Fault | None = None) -> None:
        """Send it, with the sandbox's own time; a `slow_body` stops in the middle until the caller leaves."""
        headers = {
            "Date": formatdate(now_s, usegmt=True),
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            **answer.headers,
        }
        listed = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": answer.status, "headers": listed})
        rest = answer.body
        if fault is not None and fault.kind == "slow_body":
            half = len(rest) // 2
            await self._send({"type": "http.response.body", "body": rest[:half], "more_body": True})
            await self._gone(fault.seconds)
            rest = rest[half:]
        await self._send({"type": "http.response.body", "body": rest})

    async def lost(self, fault: Fault) -> None:
        """No answer: hang until the caller leaves (or `seconds` are over), or break the connection at once."""
        if fault.kind.startswith("timeout"):
            await self._gone(fault.seconds)
        transport = getattr(getattr(self._send, "__self__", None), "transport", None)
        if transport is None:
            raise ConnectionResetError("the sandbox breaks this connection; its server has no transport to abort")
        transport.abort()
        await self._gone(None)

    async def _gone(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
