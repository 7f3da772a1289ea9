"""How queues stand: what waits, since when, and what was given up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metering.store.keys import Keys
from metering.store.queued import entry_of
from metering.store.totals import Client, replies_of


@dataclass(frozen=True, slots=True)
class QueueState:
    """Entries that are not decided yet, the age of the oldest (ms; 0 where there is none), entries given up."""

    length: int
    age_ms: int
    dead: int


async def read_state(client: Client, keys: Keys) -> QueueState:
    """How the queues of events accepted with `ack=async` stand, in two round trips at most. Raises the 503 problems."""
    return await _state(client, keys, "queue", "dead")


async def read_inbox_state(client: Client, keys: Keys) -> QueueState:
    """How the inboxes of Stripe's events stand. Raises the 503 problems."""
    return await _state(client, keys, "inbox", "dead_inbox")


async def _state(client: Client, keys: Keys, kind: str, dead_kind: str) -> QueueState:
    everywhere = range(keys.partitions)
    pipe: Any = client.pipeline(transaction=False)
    for each in (kind, dead_kind):
        for partition in everywhere:
            pipe.xlen(keys.shared(each, partition))
    lengths = [length or 0 for length in await replies_of(pipe, spare=True)]
    queued, dead = lengths[: keys.partitions], lengths[keys.partitions :]
    filled = [partition for partition in everywhere if queued[partition]]
    now_ms, oldest = await oldest_of(client, keys, filled, kind)
    waiting = [at_ms for at_ms in oldest if at_ms is not None]
    return QueueState(sum(queued), now_ms - min(waiting, default=now_ms), sum(dead))


async def oldest_of(
    client: Client, keys: Keys, partitions: Sequence[int], kind: str = "queue"
) -> tuple[int, list[int | None]]:
    """The store's effective time, and then when the oldest entry of each queue was accepted (ms).

    The time is asked first: what is accepted after it is not older. Raises the 503 problems. Entries of the inbox know
    real time only, in which their age is told.
    """
    pipe: Any = client.pipeline(transaction=False)
    pipe.time()
    pipe.get(keys.shared("clock", 0))
    for partition in partitions:
        pipe.xrange(keys.shared(kind, partition), count=1)
    (seconds, micros), offset, *found = await replies_of(pipe)
    ahead_ms = int(offset or 0) if kind == "queue" else 0
    now_ms = int(seconds) * 1000 + int(micros) // 1000 + ahead_ms
    return now_ms, [entry_of(*entries[0]).accepted_ms if entries else None for entries in found]
