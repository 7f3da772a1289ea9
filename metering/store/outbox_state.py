"""How overage on its way to Stripe stands: what is not sealed, what waits, since when, and what was refused."""

from dataclasses import dataclass
from typing import Any, Final

from metering.store.drift import FIELDS, Drift, drift_of
from metering.store.keys import Keys
from metering.store.totals import Client, replies_of

_LOOKED_AT: Final = 20
"""Windows of a partition whose age is read: those whose turn is next. In an outage older ones may be behind."""

_KINDS: Final = ("dirty", "outbox", "dead_windows", "unbilled", "frozen")


@dataclass(frozen=True, slots=True)
class OutboxState:
    """Counters not sealed, windows on their way, the age of the oldest of both in ms (0: none), windows that Stripe
    refused, counters of which nobody pays, what the last reconciliation found, organisations whose sums do not hold.
    """

    unsealed: int
    windows: int
    age_ms: int
    dead: int
    unbilled: int
    drift: Drift
    frozen: int


async def read_outbox_state(client: Client, keys: Keys) -> OutboxState:
    """How the outboxes of a data set stand, in two round trips. Raises the 503 problems."""
    everywhere = range(keys.partitions)
    pipe: Any = client.pipeline(transaction=False)
    pipe.time()
    pipe.get(keys.shared("clock", 0))
    pipe.hmget(keys.shared("stripe", 0), FIELDS)
    for kind in _KINDS:
        for partition in everywhere:
            pipe.zcard(keys.shared(kind, partition))
    for partition in everywhere:
        pipe.zrange(keys.shared("dirty", partition), 0, 0, withscores=True)
        pipe.zrange(keys.shared("outbox", partition), 0, _LOOKED_AT - 1)
    (seconds, micros), offset, drift, *found = await replies_of(pipe, spare=True)
    now_ms = int(seconds) * 1000 + int(micros) // 1000 + int(offset or 0)
    counts, firsts = found[: len(_KINDS) * keys.partitions], found[len(_KINDS) * keys.partitions :]
    sums = [sum(n or 0 for n in counts[at : at + keys.partitions]) for at in range(0, len(counts), keys.partitions)]
    since = [int(dirty[0][1]) for dirty in firsts[::2] if dirty]
    since += await _sealed(client, keys, {partition: firsts[2 * partition + 1] or [] for partition in everywhere})
    return OutboxState(
        sums[0], sums[1], max(0, now_ms - min(since, default=now_ms)), sums[2], sums[3], drift_of(drift), sums[4]
    )


async def _sealed(client: Client, keys: Keys, names: dict[int, list[bytes]]) -> list[int]:
    """When these windows were sealed."""
    pipe: Any = client.pipeline(transaction=False)
    for partition, some in names.items():
        for name in some:
            pipe.hget(keys.window_at(partition, name.decode()), "at")
    found = await replies_of(pipe, spare=True) if any(names.values()) else []
    return [int(at) for at in found if at is not None]
