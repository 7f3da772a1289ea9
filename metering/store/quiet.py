"""Whether anything is left to do now: what `metering clock advance` waits for before it lets time go on."""

from collections import Counter
from typing import TYPE_CHECKING, Final

from metering.store.connect import answered
from metering.store.keys import Keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

SOON_MS: Final = 60_000
"""A window that waits no longer than this has been sent a moment ago, or is tried again at once."""

_LEFT: Final = (
    "events to count", "events of Stripe", "counters with overage", "windows of overage", "times of grace that ended",
)  # fmt: skip
_UNPAID: Final = 2
"""How many of these wait also where there is no Stripe."""


async def left_to_do(client: "Redis", keys: Keys, now_ms: int, *, pays: bool) -> Counter[str]:
    """How much waits of what, over all partitions; nothing: all is done that can be done now.

    Overage and grace count where the service `pays` Stripe; what waits for a later turn does not. Raises the 503
    problems.
    """
    pipe = client.pipeline(transaction=False)
    for partition in range(keys.partitions):
        pipe.xlen(keys.shared("queue", partition))
        pipe.xlen(keys.shared("inbox", partition))
        pipe.zcard(keys.shared("dirty", partition))
        pipe.zcount(keys.shared("outbox", partition), "-inf", now_ms + SOON_MS)
        pipe.zcount(keys.shared("grace", partition), "-inf", now_ms)
    found: list[int] = await answered(pipe.execute())
    left: Counter[str] = Counter()
    for at, number in enumerate(found):
        name = _LEFT[at % len(_LEFT)]
        if number and (pays or name in _LEFT[:_UNPAID]):
            left[name] += number
    return left


async def next_end(client: "Redis", keys: Keys, after_ms: int) -> int | None:
    """When the next organisation's period, month or time of grace ends after `after_ms`; None where none does."""
    pipe = client.pipeline(transaction=False)
    for partition in range(keys.partitions):
        for kind in ("due", "grace"):
            pipe.zrangebyscore(keys.shared(kind, partition), f"({after_ms}", "+inf", start=0, num=1, withscores=True)
    found: list[list[tuple[bytes, float]]] = await answered(pipe.execute())
    return min((int(some[0][1]) for some in found if some), default=None)
