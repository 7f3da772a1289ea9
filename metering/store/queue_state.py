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


async def oldest_of(client: Client, keys: Keys, partition: int) -> tuple[int, int | None]:
    """The store's effective time, and then when the oldest entry of a queue was accepted (ms; None: it is empty).

    The time is asked first: what is accepted after it is not older. Raises the 503 problems.
    """
    pipe: Any = client.pipeline(transaction=False)
    pipe.time()
    pipe.get(keys.shared("clock", 0))
    pipe.xrange(keys.shared("queue", partition), count=1)
    (seconds, micros), offset, entries = await replies_of(pipe)
    now_ms = int(seconds) * 1000 + int(micros) // 1000 + int(offset or 0)
    return now_ms, entry_of(*entries[0]).accepted_ms if entries else None


def accepted_ms(name: bytes, values: Sequence[bytes]) -> int:
    """When an entry was accepted, as a script gives it: fields and values in one list. Entries of an inbox know real
    time only.
    """
    return entry_of(name, dict(zip(values[::2], values[1::2], strict=True))).accepted_ms
