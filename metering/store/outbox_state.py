"""How overage on its way to Stripe stands: what is not sealed, what waits, since when, and what was refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from metering.store.drift import Drift
from metering.store.keys import Keys
from metering.store.totals import Client, replies_of

LOOKED_AT: Final = 20
"""Windows of a partition whose age is read: those whose turn is next. In an outage older ones may be behind."""


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


async def sealed(client: Client, keys: Keys, names: Mapping[int, Sequence[bytes]]) -> list[int]:
    """When these windows of each partition were sealed (ms). Raises the 503 problems."""
    pipe: Any = client.pipeline(transaction=False)
    for partition, some in names.items():
        for name in some:
            pipe.hget(keys.window_at(partition, name.decode()), "at")
    found = await replies_of(pipe, spare=True) if any(names.values()) else []
    return [int(at) for at in found if at is not None]
