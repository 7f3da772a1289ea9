"""Whose a raw event is: pseudonyms back to organisations, for sinks, which read everybody's."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from metering.store.fields import FieldCodec, pseudonym
from metering.store.keys import Keys
from metering.store.totals import Client, replies_of

REMEMBERED_S: Final = 600.0
"""How long an erased organisation's key may still be known here."""

LOOK_S: Final = 5.0
"""Between two searches of one partition for pseudonyms that are not known: they may be of erased organisations."""

_PAGE: Final = 500
"""Organisations read in one pipeline."""


@dataclass(frozen=True, slots=True)
class Known:
    """An organisation and its data key."""

    org_id: str
    data_key: bytes = field(repr=False)


@dataclass(slots=True)
class _Partition:
    """What is known of one; `loaded_s` when from nothing, `looked_s` when last."""

    known: dict[str, Known] = field(default_factory=dict)
    loaded_s: float = float("-inf")
    looked_s: float = float("-inf")


class Names:
    """The organisations of one data set by their pseudonyms, loaded a partition at a time as they are met.

    `monotonic` is a stopwatch in seconds. Takes about 0.3 KB an organisation.
    """

    def __init__(self, client: Client, keys: Keys, codec: FieldCodec, monotonic: Callable[[], float]) -> None:
        self._client: Any = client
        self._keys, self._codec, self._monotonic = keys, codec, monotonic
        self._partitions: dict[int, _Partition] = defaultdict(_Partition)

    async def of(self, partition: int, name: str) -> Known | None:
        """The organisation with this pseudonym; None where no key makes it. Raises the 503 problems."""
        inside, now_s = self._partitions[partition], self._monotonic()
        if now_s - inside.loaded_s > REMEMBERED_S:
            inside.known, inside.loaded_s, inside.looked_s = {}, now_s, float("-inf")
        if name not in inside.known and now_s - inside.looked_s > LOOK_S:
            inside.looked_s = now_s
            await self._look(partition, inside.known)
        return inside.known.get(name)

    async def _look(self, partition: int, known: dict[str, Known]) -> None:
        """Add the organisations of a partition that are not known yet."""
        pipe = self._client.pipeline(transaction=False)
        pipe.zrange(self._keys.shared("orgs", partition), 0, -1)
        (members,) = await replies_of(pipe)
        seen = {one.org_id for one in known.values()}
        new = [name for name in (member.decode() for member in members) if name not in seen]
        for at in range(0, len(new), _PAGE):
            some = new[at : at + _PAGE]
            for org_id, stored in zip(some, await self._stored(some), strict=True):
                if stored is not None:
                    key = bytes.fromhex(self._codec.decode(org_id, "key", stored.decode()))
                    known[pseudonym(org_id, key)] = Known(org_id, key)

    async def _stored(self, org_ids: list[str]) -> list[bytes | None]:
        """Their data keys as stored."""
        pipe = self._client.pipeline(transaction=False)
        for org_id in org_ids:
            pipe.hget(self._keys.profile(org_id), "key")
        return await replies_of(pipe, spare=True)
