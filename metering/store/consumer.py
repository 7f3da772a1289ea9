"""Counts what the queues hold, exactly once whatever crashes.

An event is counted under its own id and taken out only when that is answered. Between the two a worker may die: the
entry is handed to another, and the id makes its second count a duplicate.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from metering.erasure_errors import OrgErased
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

_FINAL: Final = (OrgErased, OrgNotFound, TimestampOutOfRange)
"""Problems that are an answer: trying again would change nothing."""

_COUNTED: Final = (Result.RECORDED, Result.CAPPED)

_ODD: Final = (Unreadable, ValueError, TypeError, KeyError)
"""What an entry that nobody here wrote, or that was damaged, raises."""

TrackAll = Callable[[Sequence[UsageEvent]], Awaitable[Sequence[Outcome | Problem]]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why an entry is not decided; `hopeless` where no further try mends it."""

    why: str
    hopeless: bool = False


_WAITS: Final = _Failure("")
_TOO_FAST: Final = _Failure("rate-limited")
"""A rate gives way by itself, and many events come at once here though their sender sent them one by one."""


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
        failed: dict[str, _Failure] = {}
        events: list[tuple[Entry, UsageEvent]] = []
        decided: list[Entry] = []
        for entry in entries:
            event = await self._event(entry, failed)
            if event is not None:
                events.append((entry, event))
            elif entry.name not in failed:
                self.stats.refused += 1
                decided.append(entry)
        outcomes = await self._track_all([event for _, event in events]) if events else ()
        for (entry, _), outcome in zip(events, outcomes, strict=True):
            failure = self._failure(outcome)
            if failure is None:
                decided.append(entry)
            elif failure is not _WAITS:
                failed[entry.name] = failure
        if decided:
            await self._reader.take_out(partition, decided)
        await self._give_up(partition, [entry for entry in entries if entry.name in failed], failed)

    async def _event(self, entry: Entry, failed: dict[str, _Failure]) -> UsageEvent | None:
        """The event as it was accepted. None: its organisation is gone, or `failed` says why it cannot be read."""
        try:
            event = await self._reader.event(entry)
        except Problem as problem:
            if isinstance(problem, _PASSING):
                raise
            failed[entry.name] = _Failure(problem.code)
            return None
        except _ODD as error:
            failed[entry.name] = _Failure(type(error).__name__, hopeless=True)
            return None
        if event is not None:
            event.accepted_ms = entry.accepted_ms
        return event

    def _failure(self, outcome: Outcome | Problem) -> _Failure | None:
        """None where the event is decided, which is noted; _WAITS where the store could not answer."""
        if isinstance(outcome, Problem):
            if isinstance(outcome, _FINAL):
                self.stats.refused += 1
                return None
            return _WAITS if isinstance(outcome, _PASSING) else _Failure(outcome.code)
        if outcome.result is Result.RATE_LIMITED:
            return _TOO_FAST
        if outcome.result in _COUNTED:
            self.stats.counted += 1
        elif outcome.result is Result.DUPLICATE:
            self.stats.duplicates += 1
        else:
            self.stats.refused += 1
        return None

    async def _give_up(self, partition: int, entries: Sequence[Entry], failed: Mapping[str, _Failure]) -> None:
        """Of entries that failed by themselves, end those that have been tried often enough."""
        tries = await self._reader.times_handed_out(partition, entries)
        for entry in entries:
            failure = failed[entry.name]
            if tries[entry.name] < TRIES_MAX and not failure.hopeless:
                continue
            if failure is _TOO_FAST:
                self.stats.refused += 1
                await self._reader.take_out(partition, [entry])
                continue
            log.error("queued event given up", partition=partition, entry=entry.name, why=failure.why)
            await self._reader.bury(partition, entry, failure.why)
            self.stats.given_up += 1
