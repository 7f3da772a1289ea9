"""One reading for all who ask at the same time, and never one that began before they asked."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Together(Generic[T]):
    """Shares calls of `read`: one is under way, and those who come meanwhile share the next one.

    A time for which an answer is kept would be simpler, but what another worker has said by then may be newer, and
    figures that only grow would go back. However many ask at once, it takes two readings. Whoever gives up waiting
    stops nobody else's reading; what `read` raises, all who share it get.
    """

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._now: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        """An answer that was read after this was called."""
        return await asyncio.shield(self._mine())

    def close(self) -> None:
        """Give up what is under way."""
        for task in (self._now, self._next):
            if task is not None:
                task.cancel()

    def _mine(self) -> "asyncio.Task[T]":
        """The reading that begins next."""
        if self._next is not None:
            return self._next
        before = self._now
        if before is None or before.done():
            self._now = asyncio.create_task(self._begun(None))
            return self._now
        self._next = asyncio.create_task(self._begun(before))
        return self._next

    async def _begun(self, before: "asyncio.Task[T] | None") -> T:
        """Read, once the one before is over, whatever became of it."""
        if before is not None:
            await asyncio.wait([before])
            self._now, self._next = self._next, None
        return await self._read()
