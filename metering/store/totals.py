"""The figures of the whole data set, as the scripts keep them: read in one round trip, whatever the number of orgs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import batched
from typing import TYPE_CHECKING, Any

from metering.store.connect import StoreError, problem_of
from metering.store.keys import Keys

if TYPE_CHECKING:
    from redis.asyncio import Redis


@dataclass(slots=True)
class Totals:
    """Sums over all partitions. Those of units and events only ever grow.

    `units` by (plan, feature) since ever, under the plan that held when they were counted; `events` by type of billing
    event; `plans` organisations by plan; `top` the organisations that may be among the highest, with their scores.
    """

    units: Counter[tuple[str, str]] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    plans: Counter[str] = field(default_factory=Counter)
    orgs: int = 0
    top: dict[str, float] = field(default_factory=dict)


async def read_totals(client: "Redis", keys: Keys, *, top: int) -> Totals:
    """The totals as they stand now, and the `top` highest organisations of each partition.

    Reads each partition once, in one pipeline. Raises the 503 problems.
    """
    pipe: Any = client.pipeline(transaction=False)
    for partition in range(keys.partitions):
        pipe.hgetall(keys.shared("totals", partition))
        pipe.hgetall(keys.shared("plans", partition))
        pipe.zcard(keys.shared("orgs", partition))
        pipe.zrange(keys.shared("top", partition), 0, top - 1, desc=True, withscores=True)
    try:
        replies = await pipe.execute()
    except StoreError as error:
        raise problem_of(error) from error
    return _summed(batched(replies, 4))
