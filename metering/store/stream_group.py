"""Streams that workers share: one a partition, each entry handed to one of them.

One consumer group a stream, and in it one name for all workers: an entry is handed to one of them, and to another
when it is still there after a while, whatever became of the first.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import ResponseError

from metering.store.connect import StoreError, answered, problem_of
from metering.store.keys import Keys
from metering.store.totals import Client, replies_of

READER: Final = "worker"

Raw = tuple[bytes, Mapping[bytes, bytes]]
"""An entry as the store has it: its name and its fields."""


class StreamGroup:
    """The streams of one kind of a data set, read by `group`. Errors of the store are the 503 problems."""

    def __init__(self, client: Client, keys: Keys, kind: str, group: str) -> None:
        self._client: Any = client
        self._keys, self._kind, self._group = keys, kind, group

    async def waiting(self) -> dict[int, int]:
        """The partitions that have entries, and how many."""
        pipe = self._client.pipeline(transaction=False)
        for partition in range(self._keys.partitions):
            pipe.xlen(self.key(partition))
        lengths = await replies_of(pipe, spare=True)  # a stream of another type must not hold up the others
        return {partition: length for partition, length in enumerate(lengths) if length}

    async def left(self, partition: int, *, idle_ms: int, most: int, after: str = "") -> list[Raw]:
        """Up to `most` entries that were handed out `idle_ms` ago or longer and are still there; ours from now on.

        Only later ones than `after`, where it names an entry.
        """
        key, start = self.key(partition), _next(after) if after else "0-0"

        def claim() -> Awaitable[Any]:
            claimed: Awaitable[Any] = self._client.xautoclaim(
                key, self._group, READER, min_idle_time=idle_ms, start_id=start, count=most
            )
            return claimed

        found: list[Raw] = (await self._grouped(key, claim))[1]
        return found

    async def unread(self, partition: int, *, most: int) -> list[Raw]:
        """Up to `most` entries that nobody was handed yet."""
        key = self.key(partition)

        def read() -> Awaitable[Any]:
            found: Awaitable[Any] = self._client.xreadgroup(self._group, READER, {key: ">"}, count=most)
            return found

        return [entry for _, entries in await self._grouped(key, read) for entry in entries]

    async def times_handed_out(self, partition: int, names: Sequence[str]) -> dict[str, int]:
        """How often each was handed to a reader, by name; 0 where it is gone."""
        if not names:
            return {}
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.xpending_range(self.key(partition), self._group, name, name, 1)
        found = await replies_of(pipe)
        pairs = zip(names, found, strict=True)
        return {name: int(told[0]["times_delivered"]) if told else 0 for name, told in pairs}

    async def hand_back(self, partition: int, name: str, *, times: int) -> None:
        """Say that an entry was handed out `times` times so far: what was no fault of its own is no try."""
        claimed = self._client.xclaim(
            self.key(partition), self._group, READER, 0, [name], retrycount=times, justid=True
        )
        await answered(claimed)

    def key(self, partition: int) -> str:
        """The stream of a partition."""
        return self._keys.shared(self._kind, partition)

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
            await self._client.xgroup_create(key, self._group, id="0")


def _next(name: str) -> str:
    """The first name after another: XAUTOCLAIM does not know open bounds on every server."""
    ms, _, number = name.partition("-")
    return f"{ms}-{int(number) + 1}"
