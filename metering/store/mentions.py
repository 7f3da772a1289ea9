"""What names an organisation in keys that are not its own: windows, lanes, customers, marks of ended API keys, lists.

Found by walking the store, as its own keys are: an index may name it that nobody would think of, such as that of a
customer who paid for it before.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from metering.store.connect import answered, text_of
from metering.store.erasure import LISTS
from metering.store.keys import Keys
from metering.store.org_keys import pages
from metering.store.scripts import script
from metering.store.totals import Client, replies_of
from metering.store.window_lists import LISTS as WINDOW_LISTS

_BY_MEMBER: Final = ("dirty", "unbilled", "spent")
"""Lists of a partition whose members are `organisation|...`."""

_INDEXES: Final = "{p*}:[lf]:*"
"""Lanes and customers of every partition. The brace stands once in a key, so no feature or dimension called so fits."""

_ROWS: Final = 500
"""Keys of one round trip."""

Renew = Callable[[], Awaitable[None]]
"""Called now and then, as long as it takes."""


class Mentions:
    """Those of one data set. Errors of the store come out as 503 problems."""

    def __init__(self, client: Client, keys: Keys, *, fake: bool = False) -> None:
        self._client: Any = client
        self._keys = keys
        self._lane: Any = self._client.register_script(script("pass_lane", fake=fake).text)

    async def remove(self, org_id: str, renew: Renew) -> int:
        """Take out all that name an organisation which was erased; how many there were."""
        tag = self._keys.shared("", self._keys.partition(org_id))
        removed = await self._lists(org_id)
        for match, remove in ((f"{tag}[bx]:*", self._rows), (_INDEXES, self._indexes)):
            async for page in pages(self._client, match):
                for at in range(0, len(page), _ROWS):
                    removed += await remove(page[at : at + _ROWS], org_id)
                await renew()
        return removed

    async def _lists(self, org_id: str) -> int:
        """Lists of its partition; somebody who read it before it was erased may have listed it after."""
        partition, pipe = self._keys.partition(org_id), self._client.pipeline(transaction=False)
        for kind in LISTS:
            pipe.zrem(self._keys.shared(kind, partition), org_id)
        for kind in _BY_MEMBER:
            key = self._keys.shared(kind, partition)
            found = [member async for member, _ in self._client.zscan_iter(key, match=f"{org_id}|*", count=1000)]
            if found:
                pipe.zrem(key, *found)
        return sum(await replies_of(pipe))

    async def _rows(self, keys: list[str], org_id: str) -> int:
        """Windows, and marks of ended API keys."""
        pipe = self._client.pipeline(transaction=False)
        for key in keys:
            if ":b:" in key:
                pipe.hget(key, "org")
            else:
                pipe.get(key)
        owners = await replies_of(pipe, spare=True)
        its = [key for key, owner in zip(keys, owners, strict=True) if text_of(owner) == org_id]
        for key in its:
            await self._unlink(key)
        return len(its)

    async def _unlink(self, key: str) -> None:
        """A row with its places in the lists of windows, in one step."""
        tag, _, name = key.split(":")
        pipe = self._client.pipeline(transaction=True)
        pipe.unlink(key)
        for kind in WINDOW_LISTS:
            pipe.zrem(f"{tag}:{kind}", name)
        await answered(pipe.execute())

    async def _indexes(self, keys: list[str], org_id: str) -> int:
        """Lanes that a window of it has, and customers that it is noted under."""
        pipe = self._client.pipeline(transaction=False)
        for key in keys:
            if ":l:" in key:
                pipe.hmget(key, "org", "window")
            else:
                pipe.srem(key, org_id)
        removed = 0
        for key, reply in zip(keys, await replies_of(pipe, spare=True), strict=True):
            if isinstance(reply, list):
                owner, window = map(text_of, reply)
                removed += owner == org_id and (await answered(self._lane(keys=[key], args=[window, "", ""])))[0]
            else:
                removed += reply or 0
        return removed
