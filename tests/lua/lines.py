"""Queues as tests drive them: what accepts and what counts, for callers of a ledger."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from metering.store.batch_stats import QueueStats
from metering.store.consumer import Consumer, TrackAll
from metering.store.queue import Queue
from metering.store.queue_owners import Owners
from metering.store.queue_reader import QueueReader
from metering.ulid import Ulids
from metering.usage import UsageEvent
from tests.lua.ledger import SECRET, Caller, Ledger


@dataclass(slots=True)
class Line:
    """One worker's two ends of the queues."""

    queue: Queue
    reader: QueueReader
    consumer: Consumer
    owners: Owners

    async def accept(self, *events: UsageEvent) -> None:
        """Accept these; every one of them has to be."""
        assert await self.queue.accept(events, actor="test") == [None] * len(events)


def line_of(
    ledger: Ledger,
    caller: Caller | None = None,
    *,
    most: int = 1000,
    idle_ms: int = 5000,
    auto_create: bool = True,
    track_all: TrackAll | None = None,
) -> Line:
    """Both ends for a caller."""
    worker = caller or ledger.callers[0]
    owners = Owners(worker.orgs, SECRET, worker.clock.monotonic, auto_create=auto_create)
    queue = Queue(ledger.client, ledger.keys, worker.time, owners, Ulids(worker.clock), most=most)
    reader = QueueReader(ledger.client, ledger.keys, owners)
    return Line(
        queue, reader, Consumer(reader, track_all or worker.counters.track_all, QueueStats(), idle_ms=idle_ms), owners
    )


async def used(ledger: Ledger, org_id: str, feature: str = "scans") -> int:
    """The counter of an organisation; 0 where there is none."""
    org = await ledger.callers[0].orgs.get(org_id)
    return 0 if org is None else org.features[feature].used


async def queued(ledger: Ledger) -> int:
    """Entries in all queues."""
    return sum([await ledger.client.xlen(ledger.keys.shared("queue", n)) for n in range(ledger.keys.partitions)])


async def dead(ledger: Ledger) -> list[dict[bytes, bytes]]:
    """The entries given up."""
    found: list[Any] = []
    for partition in range(ledger.keys.partitions):
        found += await ledger.client.xrange(ledger.keys.shared("dead", partition))
    return [fields for _, fields in found]


def once(act: Callable[[Sequence[UsageEvent]], Awaitable[Any]], error: Exception) -> TrackAll:
    """Counts by `act`, but the first time its answer is lost: `error` comes in its place."""
    calls: list[int] = []

    async def track_all(events: Sequence[UsageEvent]) -> Any:
        told = await act(events)
        calls.append(len(events))
        if len(calls) == 1:
            raise error
        return told

    return track_all
