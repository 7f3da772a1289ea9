"""The sandbox as a process of its own, beside a service: its file, the data set's clock, and what happens by itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog

from metering.billing.sandbox.app import Sandbox
from metering.billing.sandbox.context import Options
from metering.billing.sandbox.db import Db
from metering.clock import MS_PER_S, Clock, SystemClock
from metering.settings import Settings
from metering.store.connect import StoreError, connect
from metering.store.keys import Keys
from metering.store.timing import stored_offset

TURN_S: Final = 0.2
"""Between two looks at what is due: what falls due is seen at once by people, and costs nothing while nothing is."""

FILE: Final = "stripe-sandbox.sqlite"
"""In DATA_DIR."""

log = structlog.get_logger(__name__)

Offset = Callable[[], Awaitable[int]]
"""How far the data set's time is ahead of this machine's, in ms."""


class FollowedClock:
    """The data set's time: that of this machine and an offset, which is read again and again."""

    def __init__(self, clock: Clock, offset: Offset) -> None:
        self._clock, self._offset, self._offset_ms = clock, offset, 0

    def now_s(self) -> int:
        """Seconds since the epoch."""
        return (self._clock.now_ms() + self._offset_ms) // MS_PER_S

    async def look(self) -> None:
        """Read the offset. A store that does not answer leaves it as it is; it never goes back."""
        try:
            self._offset_ms = max(self._offset_ms, await self._offset())
        except StoreError as error:
            log.warning("sandbox: the store's clock cannot be read", error=type(error).__name__)


def create_app() -> Callable[..., Awaitable[None]]:
    """The ASGI app for the settings in the environment. Raises SettingsError."""
    settings = Settings.load()
    client = connect(settings.store_url(), reply_timeout_s=2.0)
    keys = Keys(settings.partitions)

    async def offset_ms() -> int:
        return await stored_offset(client, keys) or 0

    secret = settings.stripe_secret_key
    options = Options(key=None if secret is None else secret.get_secret_value())
    return serving(settings.data_dir.absolute() / FILE, SystemClock(), offset_ms, client.aclose, options)


def serving(
    file: Path | None,
    clock: Clock,
    offset: Offset,
    close: Callable[[], Awaitable[Any]],
    options: Options | None = None,
) -> Callable[..., Any]:
    """The app over `file` (None: memory). Time is read before each request, so that nobody is answered in the past."""
    followed = FollowedClock(clock, offset)
    if file is not None:
        file.touch(0o600)  # it holds what webhooks are signed with
    sandbox = Sandbox(Db(file), followed.now_s, options)

    async def app(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _live(sandbox, followed, close, receive, send)
            return
        await followed.look()
        await sandbox.app(scope, receive, send)

    return app


async def _live(
    sandbox: Sandbox, followed: FollowedClock, close: Callable[[], Awaitable[Any]], receive: Any, send: Any
) -> None:
    """From start-up to shut-down."""
    await receive()
    async with _turning(sandbox, followed):
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await sandbox.close()
    await close()
    await send({"type": "lifespan.shutdown.complete"})


@asynccontextmanager
async def _turning(sandbox: Sandbox, followed: FollowedClock) -> AsyncIterator[None]:
    """Do what falls due while the block runs."""

    async def turn() -> None:
        while True:
            await followed.look()
            try:
                await sandbox.settle()
            except Exception:  # the sandbox goes on: what is due stays due, and is tried in the next turn
                log.exception("sandbox: what is due cannot be done")
            await asyncio.sleep(TURN_S)

    task = asyncio.create_task(turn())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
