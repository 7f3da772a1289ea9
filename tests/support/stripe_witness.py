"""Reads along all traffic of the sandbox, whoever speaks to it, and holds it to what Stripe's own client says.

It stands between the sandbox and its server, so that it sees what the tests send without any client as well.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.stripe_schema import check_request, check_response


@dataclass(slots=True)
class Witness:
    """An ASGI app around the sandbox's. `faults` are what Stripe would not have taken, or not have said."""

    app: Any
    faults: list[str] = field(default_factory=list)

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Serve one request, and look at it."""
        if not str(scope.get("path", "")).startswith(("/v1/", "/v2/")):
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        finally:
            self.faults += exchange.faults()


class Exchange:
    """One request and its answer. The sandbox breaks connections through the owner of `send`, hence `transport`."""

    def __init__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._asked, self._told = b"", b""
        self._status, self._whole = 0, False
        self.transport = getattr(getattr(send, "__self__", None), "transport", None)

    async def receive(self) -> Any:
        """The next piece of the request."""
        message = await self._receive()
        self._asked += message.get("body", b"")
        return message

    async def send(self, message: Mapping[str, Any]) -> None:
        """The next piece of the answer."""
        self._status = message.get("status", self._status)
        self._told += message.get("body", b"")
        self._whole = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    def faults(self) -> list[str]:
        """What is wrong. A request that was refused may be; what broke off, or is a proxy's page, is no answer."""
        method, path = self._scope["method"], f"{self._scope['path']}?{self._scope['query_string'].decode()}"
        found = []
        if self._status and self._status < 300:
            found.append(_fault(check_request, method, path, self._asked, _kind(self._scope)))
        if self._whole and not self._told.startswith(b"<html>"):
            found.append(_fault(check_response, method, path, self._status, self._told))
        return [one for one in found if one]


def _fault(check: Any, *what: Any) -> str:
    try:
        check(*what)
    except (AssertionError, json.JSONDecodeError) as error:
        return str(error)
    return ""


def _kind(scope: Mapping[str, Any]) -> str:
    return next((value.decode() for name, value in scope["headers"] if name == b"content-type"), "")


def listen(http: Any, faults: list[str]) -> None:
    """Hold what goes through the HTTP of Stripe's client to the same, whoever answers; `faults` takes what is wrong."""
    sends = http.request_async

    async def request_async(method: str, url: str, headers: Mapping[str, str], post_data: Any = None) -> Any:
        body, status, told = await sends(method, url, headers, post_data)
        path = "/" + url.split("/", 3)[3]
        if status < 300:
            faults.append(_fault(check_request, method, path, post_data or b"", headers.get("Content-Type", "")))
        faults.append(_fault(check_response, method, path, status, body))
        return body, status, told

    http.request_async = request_async
