"""The store's time as a caller knows it. The scripts decide by the server's TIME; this only helps to guess it."""

from typing import TYPE_CHECKING, Final

from metering.clock import Clock

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from metering.store.keys import Keys


SKEW_MAX_MS: Final = 60_000
"""Clocks further apart than this write nothing; the scripts hold the same number."""


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


async def move_test_clock(client: "Redis", keys: "Keys", offset_ms: int) -> None:
    """Set the test clock's offset, one copy under each partition's tag. It is only ever raised.

    Raises ValueError when the stored offset is higher already.
    """
    for partition in range(keys.partitions):
        key = keys.shared("clock", partition)
        if int(await client.get(key) or 0) > offset_ms:
            raise ValueError("the test clock only goes forward")
        await client.set(key, offset_ms)
