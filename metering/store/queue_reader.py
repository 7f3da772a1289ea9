"""The other end of the queues: whoever counts reads here, and takes out what has been decided.

One consumer group a partition, and in it one name for all workers: an entry is handed to one of them, and to another
when it is still there after a while, whatever became of the first.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from metering.store.boxes import Unreadable, opened
from metering.store.connect import StoreError, answered, problem_of
from metering.store.keys import Keys
from metering.store.queue_owners import Owners
from metering.store.queued import BOXED, Entry, entry_of, event_of
from metering.store.totals import replies_of
from metering.usage import UsageEvent

if TYPE_CHECKING:
    from redis.asyncio import Redis

GROUP: Final = "counters"
READER: Final = "worker"

DEAD_MAX: Final = 10_000
"""Entries given up that a partition keeps, about: somebody looks at the first ten."""


class QueueReader:
    """Reads the queues of one data set. Errors of the store are the 503 problems."""

    def __init__(self, client: "Redis", keys: Keys, owners: Owners) -> None:
        self._client: Any = client
        self._keys, self._owners = keys, owners

    async def waiting(self) -> dict[int, int]:
        """The partitions that have entries, and how many."""
        pipe = self._client.pipeline(transaction=False)
        for partition in range(self._keys.partitions):
            pipe.xlen(self._key(partition))
        lengths = await replies_of(pipe, spare=True)  # a queue of another type must not hold up the others
        return {partition: length for partition, length in enumerate(lengths) if length}

    async def left(self, partition: int, *, idle_ms: int, most: int) -> list[Entry]:
        """Up to `most` entries that were handed out `idle_ms` ago or longer and are still there; ours from now on."""
        key = self._key(partition)

        def claim() -> Awaitable[Any]:
            claimed: Awaitable[Any] = self._client.xautoclaim(key, GROUP, READER, min_idle_time=idle_ms, count=most)
            return claimed

        return [entry_of(name, fields) for name, fields in (await self._grouped(key, claim))[1]]

    async def unread(self, partition: int, *, most: int) -> list[Entry]:
        """Up to `most` entries that nobody was handed yet."""
        key = self._key(partition)

        def read() -> Awaitable[Any]:
            found: Awaitable[Any] = self._client.xreadgroup(GROUP, READER, {key: ">"}, count=most)
            return found

        streams = await self._grouped(key, read)
        return [entry_of(name, fields) for _, entries in streams for name, fields in entries]

    async def event(self, entry: Entry) -> UsageEvent | None:
        """The event; None where its organisation is gone.

        Raises Unreadable for an entry that the organisation's key does not open, ValueError, TypeError or KeyError
        for one of another shape, and the 503 problems.
        """
        to, box = entry.fields[b"to"], entry.fields[b"box"]
        owner = await self._owners.owner(to)
        if owner is None:
            return None
        try:
            text = opened(box, owner.data_key, BOXED)
        except Unreadable:
            self._owners.forget(owner.org_id)  # it may have begun again, with another key
            owner = await self._owners.owner(to)
            if owner is None:
                return None
            text = opened(box, owner.data_key, BOXED)
        return event_of(owner.org_id, text)

    async def take_out(self, partition: int, entries: Sequence[Entry]) -> None:
        """Take out entries that are decided. Cut off between the two, the group forgets what is gone by itself."""
        names = [entry.name for entry in entries]
        pipe = self._client.pipeline(transaction=False)
        pipe.xdel(self._key(partition), *names)
        pipe.xack(self._key(partition), GROUP, *names)
        await replies_of(pipe)

    async def bury(self, partition: int, entry: Entry, why: str) -> None:
        """Move an entry that cannot be counted to the dead ones. Cut off in between, it stands there twice."""
        said = dict(entry.fields) | {b"entry": entry.name.encode(), b"why": why.encode()}
        dead = self._keys.shared("dead", partition)
        await answered(self._client.xadd(dead, said, maxlen=DEAD_MAX, approximate=True))
        await self.take_out(partition, [entry])

    async def times_handed_out(self, partition: int, entries: Sequence[Entry]) -> dict[str, int]:
        """How often each was handed to a reader, by name; 0 where it is gone."""
        if not entries:
            return {}
        pipe = self._client.pipeline(transaction=False)
        for entry in entries:
            pipe.xpending_range(self._key(partition), GROUP, entry.name, entry.name, 1)
        found = await replies_of(pipe)
        pairs = zip(entries, found, strict=True)
        return {entry.name: int(told[0]["times_delivered"]) if told else 0 for entry, told in pairs}

    async def _grouped(self, key: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """The reply to `call`; the group is made on first use, and sees what is in the stream already."""
        try:
            return await call()
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise problem_of(error) from error
        except StoreError as error:
            raise problem_of(error) from error
        await answered(self._made(key))
        return await answered(call())

    async def _made(self, key: str) -> None:
        with suppress(ResponseError):  # another worker was quicker
            await self._client.xgroup_create(key, GROUP, id="0")

    def _key(self, partition: int) -> str:
        return self._keys.shared("queue", partition)
