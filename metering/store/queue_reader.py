"""The other end of the queues: whoever counts reads here, and takes out what has been decided."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from metering.store.boxes import Unreadable, opened
from metering.store.connect import answered
from metering.store.keys import Keys
from metering.store.queue_owners import Owners
from metering.store.queued import BOXED, Entry, entry_of, event_of
from metering.store.stream_group import StreamGroup
from metering.store.totals import replies_of
from metering.usage import UsageEvent

if TYPE_CHECKING:
    from redis.asyncio import Redis

GROUP: Final = "counters"

DEAD_MAX: Final = 10_000
"""Entries given up that a partition keeps, about: somebody looks at the first ten."""


class QueueReader:
    """Reads the queues of one data set. Errors of the store are the 503 problems."""

    def __init__(self, client: "Redis", keys: Keys, owners: Owners) -> None:
        self._client: Any = client
        self._keys, self._owners = keys, owners
        self._group = StreamGroup(client, keys, "queue", GROUP)

    async def waiting(self) -> dict[int, int]:
        """The partitions that have entries, and how many."""
        return await self._group.waiting()

    async def left(self, partition: int, *, idle_ms: int, most: int) -> list[Entry]:
        """Up to `most` entries that were handed out `idle_ms` ago or longer and are still there; ours from now on."""
        return [entry_of(*raw) for raw in await self._group.left(partition, idle_ms=idle_ms, most=most)]

    async def unread(self, partition: int, *, most: int) -> list[Entry]:
        """Up to `most` entries that nobody was handed yet."""
        return [entry_of(*raw) for raw in await self._group.unread(partition, most=most)]

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
        pipe.xdel(self._group.key(partition), *names)
        pipe.xack(self._group.key(partition), GROUP, *names)
        await replies_of(pipe)

    async def bury(self, partition: int, entry: Entry, why: str) -> None:
        """Move an entry that cannot be counted to the dead ones. Cut off in between, it stands there twice."""
        said = dict(entry.fields) | {b"entry": entry.name.encode(), b"why": why.encode()}
        dead = self._keys.shared("dead", partition)
        await answered(self._client.xadd(dead, said, maxlen=DEAD_MAX, approximate=True))
        await self.take_out(partition, [entry])

    async def times_handed_out(self, partition: int, entries: Sequence[Entry]) -> dict[str, int]:
        """How often each was handed to a reader, by name; 0 where it is gone."""
        return await self._group.times_handed_out(partition, [entry.name for entry in entries])
