"""How the queues stand: what waits, since when, and what was given up."""

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
    """How the queues of a data set stand now, in two round trips at most. Raises the 503 problems."""
    everywhere = range(keys.partitions)
    pipe: Any = client.pipeline(transaction=False)
    for kind in ("queue", "dead"):
        for partition in everywhere:
            pipe.xlen(keys.shared(kind, partition))
    lengths = [length or 0 for length in await replies_of(pipe, spare=True)]
    queued, dead = lengths[: keys.partitions], lengths[keys.partitions :]
    now_ms, oldest = await oldest_of(client, keys, [partition for partition in everywhere if queued[partition]])
    waiting = [at_ms for at_ms in oldest if at_ms is not None]
    return QueueState(sum(queued), now_ms - min(waiting, default=now_ms), sum(dead))


async def oldest_of(client: Client, keys: Keys, partitions: Sequence[int]) -> tuple[int, list[int | None]]:
    """The store's effective time, and then when the oldest entry of each queue was accepted (ms).

    The time is asked first: what is accepted after it is not older. Raises the 503 problems.
    """
    pipe: Any = client.pipeline(transaction=False)
    pipe.time()
    pipe.get(keys.shared("clock", 0))
    for partition in partitions:
        pipe.xrange(keys.shared("queue", partition), count=1)
    (seconds, micros), offset, *found = await replies_of(pipe)
    now_ms = int(seconds) * 1000 + int(micros) // 1000 + int(offset or 0)
    return now_ms, [entry_of(*entries[0]).accepted_ms if entries else None for entries in found]
