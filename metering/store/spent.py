"""Unlinks the ids of months that nobody looks up any more, when two clocks agree that they are over.

Ids carry no time to live: a store's clock that jumps ahead would expire them, and repeats would count again. A roll
notes what its new claim no longer names; this job removes it, and only what is older than the previous UTC month by
the store's clock and by this process's own.
"""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from metering.store.claim import shards_of
from metering.store.connect import StoreError, problem_of
from metering.store.keys import Keys
from metering.store.timing import SKEW_MAX_MS, StoreTime
from plans.periods import month_utc, previous_month

if TYPE_CHECKING:
    from redis.asyncio import Redis

SPENT_S: Final = 3600.0
"""Between two turns: what is over has been over for a month, an hour more is nothing."""

_CHUNK: Final = 256
"""Keys of one UNLINK: the store frees them in the background, the command itself stays short."""

_MEMBERS_MAX: Final = 1000
"""Months of organisations of one partition a turn."""


class SpentIds:
    """The job for one data set. Every worker may run it: removing twice is removing once."""

    def __init__(self, client: "Redis", keys: Keys, time: StoreTime) -> None:
        self._client: Any = client
        self._keys = keys
        self._time = time

    async def unlink(self) -> None:
        """One turn over all partitions. Does nothing while the clocks differ by over a minute. Raises the 503s."""
        try:
            seconds, micros = await self._client.time()
            now_ms = int(seconds) * 1000 + int(micros) // 1000
            if abs(now_ms - self._time.caller_ms()) > SKEW_MAX_MS:
                return
            oldest_kept = previous_month(month_utc(now_ms + (self._time.test_offset_ms or 0)))
            for partition in range(self._keys.partitions):
                await self._partition(self._keys.shared("spent", partition), oldest_kept)
        except StoreError as error:
            raise problem_of(error) from error

    async def _partition(self, spent: str, oldest_kept: str) -> None:
        for raw in await self._client.zrange(spent, 0, _MEMBERS_MAX - 1):
            org_id, month, tiers = raw.decode().split("|")
            if month >= oldest_kept:
                continue
            shards = self._shards(org_id, month, tiers)
            while chunk := list(islice(shards, _CHUNK)):
                await self._client.unlink(*chunk)
            await self._client.zrem(spent, raw)

    def _shards(self, org_id: str, month: str, tiers: str) -> Iterator[str]:
        for tier in tiers:
            for shard in range(shards_of(tier)):
                yield self._keys.seen(org_id, month, tier, shard)
