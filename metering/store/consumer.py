"""Counts what the queues hold, exactly once whatever crashes.

An event is counted under its own id and taken out only when that is answered. Between the two a worker may die: the
entry is handed to another, and the id makes its second count a duplicate.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import structlog

from metering.errors import (
    ClockUnsafe,
    LedgerFull,
    OrgNotFound,
    Overloaded,
    Problem,
    StorageUnavailable,
    TimestampOutOfRange,
    VersionConflict,
)
from metering.store.batch_stats import QueueStats
from metering.store.boxes import Unreadable
from metering.store.queue_reader import QueueReader
from metering.store.queued import Entry
from metering.usage import Outcome, Result, UsageEvent

TURN_S: Final = 1.0
"""Between two looks at all queues. What this worker accepts it looks at at once; the rest is of workers that died."""

IDLE_MS: Final = 5_000
"""An entry handed out this long ago has no reader any more: counting takes three seconds at most."""

ENTRIES_MAX: Final = 250
"""Entries counted together: one call of the store where they are of a few organisations."""

ROUNDS_MAX: Final = 20
"""Reads of one partition a turn, so that a full one does not keep the others waiting."""

TRIES_MAX: Final = 5
"""Times an entry is handed out before it is given up, where it is the entry that fails and not the store."""

_PASSING: Final = (StorageUnavailable, Overloaded, LedgerFull, ClockUnsafe, VersionConflict)
"""Problems that are no entry's fault: it waits until they have passed."""

_FINAL: Final = (OrgNotFound, TimestampOutOfRange)
"""Problems that are an answer: trying again would change nothing."""

_COUNTED: Final = (Result.RECORDED, Result.CAPPED)

_ODD: Final = (Unreadable, ValueError, TypeError, KeyError)
"""What an entry that nobody here wrote, or that was damaged, raises."""

TrackAll = Callable[[Sequence[UsageEvent]], Awaitable[Sequence[Outcome | Problem]]]

log = structlog.get_logger(__name__)


class Consumer:
    """Counts the queues of one data set. Every worker may: they share the entries, and none is counted twice."""

    def __init__(
        self,
        reader: QueueReader,
        track_all: TrackAll,
        stats: QueueStats,
        *,
        most: int = ENTRIES_MAX,
        idle_ms: int = IDLE_MS,
    ) -> None:
        self._reader, self._track_all, self.stats = reader, track_all, stats
        self._most, self._idle_ms = max(1, min(most, ENTRIES_MAX)), idle_ms

    async def turn(self) -> None:
        """Count what waits, in every partition, until nothing is left that can be counted now. Raises the 503s."""
        busy = True
        while busy:
            busy = False
            for partition in await self._reader.waiting():
                busy = await self._partition(partition) or busy

    async def _partition(self, partition: int) -> bool:
        """Count what waits in one partition; whether there may be more."""
        await self._count(partition, await self._reader.left(partition, idle_ms=self._idle_ms, most=self._most))
        for _ in range(ROUNDS_MAX):
            entries = await self._reader.unread(partition, most=self._most)
            await self._count(partition, entries)
            if len(entries) < self._most:
                return False
        return True

    async def _count(self, partition: int, entries: Sequence[Entry]) -> None:
        """Count these, take out what is decided, leave what the store could not answer."""
        events: list[tuple[Entry, UsageEvent]] = []
        for entry in entries:
            event = await self._event(partition, entry)
            if event is not None:
                events.append((entry, event))
        if not events:
            return
        decided: list[Entry] = []
        for (entry, _), outcome in zip(events, await self._track_all([event for _, event in events]), strict=True):
            if await self._decided(partition, entry, outcome):
                decided.append(entry)
        if decided:
            await self._reader.take_out(partition, decided)

    async def _event(self, partition: int, entry: Entry) -> UsageEvent | None:
        """The event as it is to be counted: at its own time, or when it was accepted. None: nothing is to be."""
        try:
            event = await self._reader.event(entry)
        except Problem as problem:
            if isinstance(problem, _PASSING):
                raise
            await self._failed(partition, entry, problem.code)
            return None
        except _ODD as error:
            await self._bury(partition, entry, type(error).__name__)
            return None
        if event is None:
            await self._reader.take_out(partition, [entry])
            self.stats.refused += 1
            return None
        return event if event.timestamp_ms is not None else replace(event, timestamp_ms=entry.accepted_ms)

    async def _decided(self, partition: int, entry: Entry, outcome: Outcome | Problem) -> bool:
        """Whether the entry is decided, which is noted. An internal failure is tried again, a few times."""
        if isinstance(outcome, Outcome):
            self._note(outcome.result)
            return True
        if isinstance(outcome, _FINAL):
            self.stats.refused += 1
            return True
        if not isinstance(outcome, _PASSING):
            await self._failed(partition, entry, outcome.code)
        return False

    def _note(self, result: Result) -> None:
        if result in _COUNTED:
            self.stats.counted += 1
        elif result is Result.DUPLICATE:
            self.stats.duplicates += 1
        else:
            self.stats.refused += 1

    async def _failed(self, partition: int, entry: Entry, code: str) -> None:
        """An entry failed for a reason of its own: give it up after so many tries."""
        if await self._reader.times_handed_out(partition, entry) >= TRIES_MAX:
            await self._bury(partition, entry, code)

    async def _bury(self, partition: int, entry: Entry, why: str) -> None:
        log.error("queued event given up", partition=partition, entry=entry.name, why=why)
        await self._reader.bury(partition, entry, why)
        self.stats.given_up += 1
