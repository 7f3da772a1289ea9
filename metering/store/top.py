"""The organisations with the most units: who they are, and their figures.

Each worker sketches who uses much; every few seconds it reads the lifetime totals of those few and notes them in one
sorted set a partition. Everybody reads the same sets, so every replica shows the same organisations. The order is by
units, then by who had as many first: an organisation leaves only when enough others are above it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from heapq import nlargest
from typing import Any, Final

from metering.store.keys import Keys
from metering.store.totals import Client, replies_of

_CANDIDATES: Final = 4
"""Organisations sketched, and looked at in the store, for each that is shown."""

_MARGIN: Final = 2
"""Organisations kept in a partition's set, and read live, for each that is shown: scores lag a few seconds."""

_RECORDS_MAX: Final = 200
"""Records read in one pipeline: about 5 ms of this worker's time."""

_TIME_BITS: Final = 43
"""Milliseconds since the epoch need fewer bits than this until the year 2248."""


@dataclass(frozen=True, slots=True)
class OrgUnits:
    """Lifetime units of one organisation by (feature, plan), and when it was last counted (ms)."""

    org_id: str
    units: Mapping[tuple[str, str], int]
    counted_ms: int

    @property
    def total(self) -> int:
        """All units of all features."""
        return sum(self.units.values())

    @property
    def score(self) -> float:
        """The rank: units, and as a fraction below one how early they were reached. Grows with every unit.

        A double has room for the whole fraction up to a thousand units and for seconds of it up to a billion: the
        more units, the rarer are ties that need it.
        """
        return self.total + (1 - self.counted_ms / (1 << _TIME_BITS))


def units_of(org_id: str, record: Mapping[bytes, bytes]) -> OrgUnits:
    """Read a record. Raises ValueError or KeyError for a shape that no script wrote.

    Units of closed periods and of the running one count for the present plan; what a plan change moved from it to the
    plan before (`p:<plan>:<feature>`) stays there, so the series of a former plan keeps what it showed. Units that a
    correction took out stay there too, under the plan of that moment: together these are the units taken out.
    """
    units: Counter[tuple[str, str]] = Counter()
    plan, counted_ms = record[b"plan"].decode(), 0
    for name, value in record.items():
        kind, _, rest = name.decode().partition(":")
        if kind in {"u", "b"}:
            units[rest, plan] += int(value)
        elif kind == "p":
            moved_to, _, feature = rest.partition(":")
            units[feature, moved_to] += int(value)
        elif kind == "t":
            counted_ms = max(counted_ms, int(value))
    return OrgUnits(org_id, units, counted_ms)


class Sketch:
    """Who uses much of a stream, in bounded memory: Space-Saving, evicting in batches.

    Whoever has more than one in `size` of all units is in `units`, with a number too low by less than that.
    """

    __slots__ = ("_room", "_size", "units")

    def __init__(self, size: int) -> None:
        self._size, self._room = size, 4 * size
        self.units: dict[str, int] = {}

    def add(self, org_id: str, units: int) -> None:
        """Count `units` more."""
        held = self.units
        held[org_id] = held.get(org_id, 0) + units
        if len(held) > self._room:
            self._evict()

    def _evict(self) -> None:
        """Keep the highest `size`, less what the next one has: it and all below are gone, each at that cost."""
        least = sorted(self.units.values(), reverse=True)[self._size]
        self.units = {org_id: units - least for org_id, units in self.units.items() if units > least}

    def highest(self) -> dict[str, int]:
        """The highest `size` and their units."""
        return dict(nlargest(self._size, self.units.items(), key=lambda item: item[1]))

    def settle(self, seen: Mapping[str, int]) -> None:
        """Forget those of `highest` that have not been counted again since."""
        for org_id, units in seen.items():
            if self.units.get(org_id) == units:
                del self.units[org_id]


class TopOrgs:
    """The `shown` organisations with the most units. 0 shows none. Errors of the store are the 503 problems."""

    def __init__(self, client: Client, keys: Keys, shown: int) -> None:
        self._client = client
        self._keys = keys
        self._shown = shown
        self._sketch = Sketch(max(_CANDIDATES * shown, 1))
        self._moved: dict[str, float | None] = {}
        self.note = self._sketch.add
        """Takes (org id, units) of each event that counted."""

    @property
    def kept(self) -> int:
        """How many of each partition take part in the choice: 1 or more."""
        return max(_MARGIN * self._shown, 1)

    async def flush(self) -> None:
        """Note the totals of those who used much since the last flush where everybody reads them."""
        if not self._shown:
            return
        seen = self._sketch.highest()
        moved, self._moved = self._moved, {}
        found = await self._units(seen)
        await self._write(moved | {name: found[name].score if name in found else None for name in seen})
        self._sketch.settle(seen)

    async def units(self, scores: Mapping[str, float]) -> list[OrgUnits]:
        """The organisations to show, highest first, with figures read now. `scores` are those of the partitions."""
        names = nlargest(self.kept if self._shown else 0, scores, key=lambda name: (scores[name], name))
        found = await self._units(names)
        for name in names:
            score = found[name].score if name in found else None
            if score != scores[name]:
                self._moved[name] = score
        return nlargest(self._shown, found.values(), key=lambda org: (org.score, org.org_id))

    async def _units(self, names: Iterable[str]) -> dict[str, OrgUnits]:
        """What their records say now; those that are gone or cannot be read are missing."""
        listed = list(names)
        found: dict[str, OrgUnits] = {}
        for at in range(0, len(listed), _RECORDS_MAX):
            some = listed[at : at + _RECORDS_MAX]
            for name, record in zip(some, await self._records(some), strict=True):
                with suppress(KeyError, ValueError):
                    found[name] = units_of(name, record)
        return found

    async def _records(self, names: list[str]) -> list[Mapping[bytes, bytes]]:
        """Their records; empty for one that is gone, or is no hash (track parks it and says so)."""
        pipe: Any = self._client.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(self._keys.record(name))
        return [record or {} for record in await replies_of(pipe, spare=True)]

    async def _write(self, scores: Mapping[str, float | None]) -> None:
        """Raise scores, drop those without one, and keep each partition's set short."""
        partitions: dict[int, dict[str, float | None]] = defaultdict(dict)
        for name, score in scores.items():
            partitions[self._keys.partition(name)][name] = score
        pipe: Any = self._client.pipeline(transaction=False)
        for partition, members in partitions.items():
            key = self._keys.shared("top", partition)
            raised = {name: score for name, score in members.items() if score is not None}
            gone = members.keys() - raised.keys()
            if raised:
                pipe.zadd(key, raised, gt=True)
            if gone:
                pipe.zrem(key, *gone)
            pipe.zremrangebyrank(key, 0, -self.kept - 1)
        await replies_of(pipe)
