"""The log of raw events as a sink reads it: every entry, at least once, through a consumer group.

What was handed out and not acknowledged is handed out again: to the same reader when it begins, to another after a
while. Entries that retention ends before a group came to them are lost to it, which is told.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import ResponseError

from metering.store.connect import StoreError, answered, problem_of
from metering.store.keys import Keys
from metering.store.totals import Client, replies_of

READ_MAX: Final = 200
"""Entries of one partition in one read: with 64 partitions 12,800 at most, some MB."""

IDLE_MS: Final = 60_000
"""Entries handed out this long ago have no reader any more."""


@dataclass(frozen=True, slots=True)
class Item:
    """One entry. `fields` None: it was handed out once and retention has ended it since."""

    partition: int
    name: str
    fields: Mapping[bytes, bytes] | None


class Feed:
    """All partitions' logs for one reader of a consumer group. Errors of the store are the 503 problems."""

    def __init__(self, client: Client, keys: Keys, group: str, reader: str) -> None:
        self._client: Any = client
        self._group, self._reader = group, reader
        self._keys = [keys.shared("events", partition) for partition in range(keys.partitions)]
        self._partition = {key.encode(): partition for partition, key in enumerate(self._keys)}

    async def open(self) -> None:
        """Make the group where it is missing: it begins with the oldest entry that is kept."""
        for key in self._keys:
            gone = 0
            with suppress(ResponseError):  # no such stream yet
                info = await self._asked(self._client.xinfo_stream(key))
                gone = int(info["entries-added"]) - int(info["length"])
            with suppress(ResponseError):  # the group is there
                made = self._client.xgroup_create(key, self._group, id="0", mkstream=True, entries_read=gone)
                await self._asked(made)

    async def mine(self) -> list[Item]:
        """Entries that were handed to this reader before and are not acknowledged: first of all when it begins."""
        return await self._read("0", None)

    async def unread(self, block_ms: int | None) -> list[Item]:
        """Entries that nobody was handed yet; waits `block_ms` for one (None: not at all)."""
        return await self._read(">", block_ms)

    async def left(self) -> list[Item]:
        """Entries that were handed to somebody a minute ago and are not acknowledged; ours from now on."""
        found: list[Item] = []
        for partition, key in enumerate(self._keys):
            call = self._client.xautoclaim(key, self._group, self._reader, min_idle_time=IDLE_MS, count=READ_MAX)
            _, entries, ended = await answered(call)
            found += [Item(partition, name.decode(), fields) for name, fields in entries]
            found += [Item(partition, name.decode(), None) for name in ended]
        return found

    async def acknowledge(self, items: Sequence[Item]) -> None:
        """These are safe elsewhere."""
        pipe = self._client.pipeline(transaction=False)
        for item in items:
            pipe.xack(self._keys[item.partition], self._group, item.name)
        await replies_of(pipe)

    async def missed(self) -> dict[int, int]:
        """How many entries retention ended before this group came to them, by partition; each is told once."""
        found: dict[int, int] = {}
        for partition, key in enumerate(self._keys):
            stream = await answered(self._client.xinfo_stream(key))
            groups = {group["name"]: group for group in await answered(self._client.xinfo_groups(key))}
            group = groups.get(self._group.encode())
            ended = int(stream["entries-added"]) - int(stream["length"])
            if group is None or _reached(group["last-delivered-id"], stream["first-entry"]):
                continue
            read = int(group["entries-read"] or 0)
            if ended > read:
                found[partition] = ended - read
                at = group["last-delivered-id"]
                await answered(self._client.xgroup_setid(key, self._group, at, entries_read=ended))
        return found

    async def _read(self, after: str, block_ms: int | None) -> list[Item]:
        streams = dict.fromkeys(self._keys, after)
        call = self._client.xreadgroup(self._group, self._reader, streams, count=READ_MAX, block=block_ms)
        found = await answered(call) or []
        return [
            Item(self._partition[key], n.decode(), fields or None) for key, entries in found for n, fields in entries
        ]

    async def _asked(self, call: Any) -> Any:
        """As `answered`, but a refusal comes as the server's own."""
        try:
            return await call
        except ResponseError:
            raise
        except StoreError as error:
            raise problem_of(error) from error


def _reached(last: bytes, first: tuple[bytes, Mapping[bytes, bytes]] | None) -> bool:
    """Whether what was delivered last is still in the stream, or younger than its first: then nothing was missed."""
    return first is not None and _place(last) >= _place(first[0])


def _place(name: bytes) -> tuple[int, int]:
    ms, _, number = name.partition(b"-")
    return int(ms), int(number)
