"""The floor: an ASGI application that reads a JSON body and answers JSON, and does nothing else."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson

_HEADERS = [(b"content-type", b"application/json")]


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer every request with a part of its body."""
    if scope["type"] != "http":
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    sent = orjson.loads(body) if body else [{}]
    first = sent[0] if isinstance(sent, list) else sent
    answer = orjson.dumps({"org_id": first.get("org_id")})
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": answer})
