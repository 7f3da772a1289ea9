"""A small app for tests of the processes around the real one: it counts in the store, or hangs."""

import gc
import os
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from redis.asyncio import Redis

from metering.settings import Settings
from metering.store.connect import connect

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class TinyApp:
    """GET /pid, /count, /environment, /settled; /hang stops the event loop; any POST is read to its end first."""

    def __init__(self) -> None:
        self._client: Redis = connect(Settings.load().store_url())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        await _body(receive)
        answer = await self._answer(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer.encode()})

    async def _answer(self, path: str) -> str:
        if path == "/count":
            return str(await self._client.incr("count"))
        if path == "/settled":
            return str(gc.get_freeze_count())
        if path == "/hang":
            threading.Event().wait()  # the loop does not turn any more
        return os.environ.get(path.removeprefix("/environment/"), str(os.getpid()))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            refuse = os.environ.get("TINY_REFUSES")
            await send({"type": f"lifespan.startup.{'failed' if refuse else 'complete'}"})
        await self._client.aclose()
        sys.stdout.write("the app was closed\n")
        sys.stdout.flush()
        await send({"type": "lifespan.shutdown.complete"})


async def _body(receive: Receive) -> None:
    while (await receive()).get("more_body"):
        pass
