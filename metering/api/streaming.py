"""Answers that go on: sent part by part, until they end or nobody reads them any more."""

import asyncio
from collections.abc import AsyncIterator

from metering.api.answers import Send
from metering.api.bodies import Receive
from metering.api.route import Reply


async def streamed(reply: Reply, parts: AsyncIterator[bytes], receive: Receive, send: Send, *, bodiless: bool) -> None:
    """Send an answer of that many parts; `bodiless` its head alone."""
    listed = [(b"content-type", reply.kind), *((n.lower().encode(), v.encode()) for n, v in reply.headers.items())]
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await send({"type": "http.response.start", "status": reply.status, "headers": listed})
        if not bodiless:
            await _sent(parts, gone, send)
        await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()
        reply.done()


async def _sent(parts: AsyncIterator[bytes], gone: "asyncio.Future[None]", send: Send) -> None:
    async for part in parts:
        if gone.done():
            return
        if part:
            await send({"type": "http.response.body", "body": part, "more_body": True})


async def _gone(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
