"""One multiplexed connection to the store: calls go out as they come, replies are matched in order.

redis-py opens the connection (TLS, credentials, database, name); from then on its socket is driven here with
hiredis, because a pool lends a connection to one call at a time and costs several times the script itself.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

import hiredis
from redis.exceptions import ConnectionError as StoreConnectionError

from metering.store.connect import REPLY_TIMEOUT_S, StoreError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_BACKOFF_S: Final = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Between attempts to connect: a restarted store is met within a tenth of a second, a dead one is not hammered."""

Reply = Callable[[Any], None]
"""Takes one reply: what hiredis parsed, a hiredis.ReplyError, or a ConnectionError when its fate is unknown."""


class Lane(asyncio.Protocol):
    """Keeps one connection open, reconnecting for ever until closed. `ready` says whether calls can go out."""

    def __init__(self, client: "Redis", *, on_ready: Callable[[], None]) -> None:
        self._client = client
        self._on_ready = on_ready
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._connection: Any = None
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[float, Reply]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._connector = self._loop.create_task(self._connect())

    @property
    def ready(self) -> bool:
        """Whether the connection is up."""
        return self._transport is not None

    def call(self, payload: bytes, reply: Reply) -> None:
        """Send one encoded command; `reply` is called exactly once. Only when `ready`."""
        transport = cast("asyncio.Transport", self._transport)
        self._waiting.append((self._loop.time(), reply))
        if self._timer is None:
            self._timer = self._loop.call_later(REPLY_TIMEOUT_S, self._check)
        transport.write(payload)

    def drop(self) -> None:
        """Cut the connection: what waits learns that its fate is unknown, and a new one is made."""
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Close for good."""
        self._closing = True
        self._connector.cancel()
        await asyncio.gather(self._connector, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        self.drop()
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)

    # ── connecting ───────────────────────────────────────────────────────────────────────────────────────

    async def _connect(self) -> None:
        attempt = 0
        while not self._closing:
            try:
                await self._open()
            except StoreError:
                await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
                attempt += 1
            else:
                self._on_ready()
                return

    async def _open(self) -> None:
        """Let redis-py connect and greet, then take its socket over."""
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)
        connection: Any = cast("Any", self._client.connection_pool).make_connection()
        await connection.connect()
        writer: asyncio.StreamWriter | None = connection._writer  # noqa: SLF001 - redis-py offers no public way to lend the socket; a test pins it
        if writer is None:
            raise StoreConnectionError("the connection closed while it opened")
        self._connection = connection  # kept alive: its finaliser would close the socket
        self._reader = hiredis.Reader()
        transport = cast("asyncio.Transport", writer.transport)
        transport.set_protocol(self)
        if not transport.is_reading():
            transport.resume_reading()
        if transport.is_closing():
            raise StoreConnectionError("the connection closed while it opened")
        self._transport = transport

    # ── protocol ─────────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        """Match replies to calls, in order."""
        self._reader.feed(data)
        while True:
            try:
                reply = self._reader.gets()
                if reply is False:
                    return None
                _, take = self._waiting.popleft()
            except (hiredis.ProtocolError, IndexError):  # out of step: nothing on this connection can be trusted
                return self.drop()
            take(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every waiting call that its fate is unknown; connect anew."""
        self._transport = None
        lost, self._waiting = self._waiting, deque()
        error = StoreConnectionError(f"connection lost: {exc}")
        for _, take in lost:
            take(error)
        if not self._closing:
            self._connector = self._loop.create_task(self._connect())

    def _check(self) -> None:
        """Cut the connection when its oldest call waits too long; else look again when that would be so."""
        self._timer = None
        if not self._waiting:
            return
        due_s = self._waiting[0][0] + REPLY_TIMEOUT_S - self._loop.time()
        if due_s <= 0:
            self.drop()
        else:
            self._timer = self._loop.call_later(due_s, self._check)
