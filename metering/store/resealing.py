"""Brings every encrypted value under the present key of the ring, and tells how many are left under each.

A value that somebody writes meanwhile is left as they wrote it: a service with the same ring writes under the same key.
So it may run beside the service, be cut short, and run again. What streams hold is encrypted under the data keys of
organisations, and these are among the values.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from metering.encryption_errors import EncryptionKeyUnknown
from metering.store.connect import answered, text_of, texts
from metering.store.fields import FieldCodec, key_id_of
from metering.store.grants import DETAILS
from metering.store.keys import DATASET, Keys
from metering.store.marker import SECRET
from metering.store.org import CUSTOMER, ENCODED
from metering.store.scripts import script
from metering.store.shadow_book import CUSTOMER as SHADOW_CUSTOMER
from metering.store.topups import SEALED as TOPUP
from metering.store.totals import Client, replies_of
from metering.store.window import CUSTOMER as PAYER

_PAGE: Final = 200
"""Organisations or windows of one round trip: some tens of KB."""

_WINDOWS: Final = ("dead_windows", "outbox", "settled", "dead_windows")
"""In an order in which no window is missed that moves from one list to another meanwhile."""

_VALUES: Final = 50
"""Values that one call writes: far below a ms."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Value:
    """One value: the hash and field that hold it, whose and what it is to the codec, and its text."""

    key: str
    field: str
    org_id: str
    name: str
    text: str


class Resealer:
    """The values of one data set. Errors of the store come out as 503 problems."""

    def __init__(self, client: Client, keys: Keys, codec: FieldCodec, *, fake: bool = False) -> None:
        self._client: Any = client
        self._keys, self._codec = keys, codec
        self._reseal: Any = client.register_script(script("reseal", fake=fake).text)

    async def counts(self) -> Counter[str]:
        """How many values rest under each key, by its id ('': not encrypted)."""
        found: Counter[str] = Counter()
        async for values in self._all():
            found.update(key_id_of(one.text) for one in values)
        return found

    async def run(self) -> int:
        """Encrypt everything under the present key that is not; how many values were. What does not open is left."""
        current, replaced = self._codec.current or "", 0
        async for values in self._all():
            old = [one for one in values if key_id_of(one.text) != current]
            for at in range(0, len(old), _VALUES):
                replaced += await self._replace(old[at : at + _VALUES])
        return replaced

    async def _replace(self, values: list[_Value]) -> int:
        words = [word for one in values for word in self._words(one)]
        return int(await answered(self._reseal(keys=[values[0].key], args=words))) if words else 0

    def _words(self, one: _Value) -> list[str]:
        """Field, text and new text of a value; nothing of one that does not open."""
        try:
            text = self._codec.decode_bare(one.org_id, one.name, one.text)
        except (EncryptionKeyUnknown, ValueError):
            log.warning("value left as it is: it does not open", key=one.key, field=one.field)
            return []
        return [one.field, one.text, self._codec.encode(one.org_id, one.name, text)]

    # ── where they are ───────────────────────────────────────────────────────────────────────────────────

    async def _all(self) -> AsyncIterator[list[_Value]]:
        """Every value there is, those of one hash at a time."""
        marker = text_of(await answered(self._client.hget(DATASET, SECRET)))
        yield [_Value(DATASET, SECRET, "", SECRET, marker)]
        place = self._keys.shared("shadow", 0)
        told = texts(await answered(self._client.hgetall(place)))
        yield [_Value(place, name, "", name, text) for name, text in told.items() if name.startswith(SHADOW_CUSTOMER)]
        for partition in range(self._keys.partitions):
            for names in await self._pages(partition, "orgs"):
                for values in await self._of_orgs(names):
                    yield values
            for names in await self._pages(partition, "erased"):
                for values in await self._of_marks(names):
                    yield values
            for names in await self._pages(partition, *_WINDOWS):
                for values in await self._of_windows(partition, names):
                    yield values

    async def _pages(self, partition: int, *kinds: str) -> list[list[str]]:
        """The members of lists, some at a time, each once."""
        found = [await answered(self._client.zrange(self._keys.shared(kind, partition), 0, -1)) for kind in kinds]
        members = list(dict.fromkeys(text_of(member) for some in found for member in some))
        return [members[at : at + _PAGE] for at in range(0, len(members), _PAGE)]

    async def _of_orgs(self, names: list[str]) -> Iterator[list[_Value]]:
        """What profiles, grants and top-ups of organisations hold; a key of the wrong type holds nothing."""
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(self._keys.profile(name))
            pipe.hgetall(self._keys.grants(name))
            pipe.hgetall(self._keys.topup(name))
        replies = [texts(reply or {}) for reply in await replies_of(pipe, spare=True)]
        rows = zip(names, replies[::3], replies[1::3], replies[2::3], strict=True)
        return (values for name, *found in rows for values in self._of_org(name, *found) if values)

    def _of_org(
        self, name: str, profile: Mapping[str, str], grants: Mapping[str, str], topup: Mapping[str, str]
    ) -> Iterator[list[_Value]]:
        key = self._keys.profile(name)
        yield [_Value(key, field, name, field, profile[field]) for field in ENCODED if field in profile]
        key = self._keys.grants(name)
        yield [_Value(key, grant, name, DETAILS, text) for grant, text in grants.items() if "|" not in grant]
        key = self._keys.topup(name)
        yield [_Value(key, field, name, field, topup[field]) for field in TOPUP if field in topup]

    async def _of_marks(self, names: list[str]) -> list[list[_Value]]:
        """What the marks of erased organisations hold."""
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.hget(self._keys.record(name), CUSTOMER)
        rows = [(name, text) for name, text in zip(names, await replies_of(pipe, spare=True), strict=True) if text]
        return [[_Value(self._keys.record(name), CUSTOMER, name, CUSTOMER, text_of(text))] for name, text in rows]

    async def _of_windows(self, partition: int, names: list[str]) -> list[list[_Value]]:
        keys = [self._keys.window_at(partition, name) for name in names]
        pipe = self._client.pipeline(transaction=False)
        for key in keys:
            pipe.hmget(key, "org", PAYER)
        rows = zip(keys, await replies_of(pipe, spare=True), strict=True)
        found = [(key, *map(text_of, row)) for key, row in rows if row is not None]
        return [[_Value(key, PAYER, org_id, PAYER, customer)] for key, org_id, customer in found if customer]
