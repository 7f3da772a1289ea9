"""The store's time as a caller knows it. The scripts decide by the server's TIME; this only helps to guess it."""

from typing import TYPE_CHECKING, Final

from metering.clock import Clock

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from metering.store.keys import Keys


SKEW_MAX_MS: Final = 60_000
"""Clocks further apart than this write nothing; the scripts hold the same number."""

FOLLOW_S: Final = 0.2
"""Between two looks at a test clock that somebody else may have moved: readers tell the wrong time no longer."""

_MINUTES: Final = "{p*}:i:*"
"""Every hour of history by minute."""

_SCAN_KEYS: Final = 1000


class StoreTime:
    """A guess of the server's effective time in ms, kept right by every answer that carries the real one.

    `test_offset_ms` is None in a live data set. In test-clock mode it is the stored offset, which the scripts add to
    TIME and compare with the copy under each partition's tag.
    """

    def __init__(self, clock: Clock, test_offset_ms: int | None = None) -> None:
        self._clock = clock
        self._ahead_ms = 0
        self.test_offset_ms = test_offset_ms

    def caller_ms(self) -> int:
        """The own clock of the process, for the guard against clocks that differ."""
        return self._clock.now_ms()

    def now_ms(self) -> int:
        """The best guess of the server's effective time."""
        return self._clock.now_ms() + self._ahead_ms

    def learn(self, server_ms: int) -> None:
        """Take the effective time of an answer."""
        self._ahead_ms = server_ms - self._clock.now_ms()

    def offset_text(self) -> str:
        """The test offset as the scripts take it; empty in a live data set."""
        return "" if self.test_offset_ms is None else str(self.test_offset_ms)


async def stored_offset(client: "Redis", keys: "Keys") -> int | None:
    """The test clock's offset in ms, the highest of its copies; None in a data set that has no test clock."""
    async with client.pipeline(transaction=False) as pipe:
        for key in _names(keys):
            pipe.get(key)
        copies = await pipe.execute()
    return max((int(copy) for copy in copies if copy is not None), default=None)


async def settled_offset(client: "Redis", keys: "Keys", *, test_clock: bool) -> int | None:
    """The offset for a service that starts: of the data set's test clock, made here, or None: it has none any more."""
    if test_clock:
        return await open_test_clock(client, keys)
    if await stored_offset(client, keys) is not None:
        await take_test_clock(client, keys)
    return None


async def open_test_clock(client: "Redis", keys: "Keys") -> int:
    """Give the data set a test clock where it has none; its offset in ms."""
    async with client.pipeline(transaction=False) as pipe:
        for key in _names(keys):
            pipe.setnx(key, 0)
        await pipe.execute()
    return await stored_offset(client, keys) or 0


async def take_test_clock(client: "Redis", keys: "Keys") -> None:
    """Take the test clock away, so that nobody can move the time of a data set that has become a live one."""
    async with client.pipeline(transaction=False) as pipe:
        for key in _names(keys):
            pipe.unlink(key)
        await pipe.execute()


async def move_test_clock(client: "Redis", keys: "Keys", offset_ms: int) -> None:
    """Set the test clock's offset, one copy under each partition's tag. It is only ever raised.

    Where the process ends half-way the copies differ and the partitions behind count nothing, until it is set again.
    Raises ValueError when the stored offset is higher already.
    """
    if (await stored_offset(client, keys) or 0) > offset_ms:
        raise ValueError("the test clock only goes forward")
    async with client.pipeline(transaction=False) as pipe:
        for key in _names(keys):
            pipe.set(key, offset_ms)
        await pipe.execute()


async def age_minutes(client: "Redis", ahead_ms: int) -> None:
    """Take `ahead_ms` off the life of history by minute: it ends by the server's clock, which did not move."""
    async for key in client.scan_iter(match=_MINUTES, count=_SCAN_KEYS):
        left_ms = await client.pttl(key)
        if left_ms > 0:
            await client.pexpire(key, left_ms - ahead_ms)


def _names(keys: "Keys") -> list[str]:
    return [keys.shared("clock", partition) for partition in range(keys.partitions)]
