"""Windows as operators look at them: page by page, and how many there are.

A list of a partition is walked in an order that stays while windows come and go: those that wait by name, as their
turn moves, the others by when their way ended.
"""

import math
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from metering.store.connect import answered, text_of, texts
from metering.store.fields import FieldCodec
from metering.store.keys import Keys
from metering.store.totals import replies_of
from metering.store.window import State, Window, parsed

if TYPE_CHECKING:
    from redis.asyncio import Redis

READ: Final = 200
"""Rows of one round trip: about 80 KB."""

READS_MAX: Final = 100
"""Round trips of one page: what a filter passes over must not take for ever."""

LISTS: Final[Mapping[str, frozenset[State]]] = {
    "outbox": frozenset({State.SEALED, State.INFLIGHT}),
    "dead_windows": frozenset({State.DEAD}),
    "settled": frozenset({State.DELIVERED, State.WRITTEN_OFF}),
}
"""Where windows of each state stand, in the order in which a partition is walked."""

WAITING: Final = LISTS["outbox"] | LISTS["dead_windows"]
"""What Stripe does not have, or not for sure."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """How far a walk came."""

    partition: int
    list: str
    score: int
    name: str


Windows = list[Window]

Turns = Mapping[Place, int | None]
"""Windows, and when the next turn of each is."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A window and when its next turn is (None: it has none)."""

    window: Window
    due_ms: int | None


@dataclass(slots=True)
class Count:
    """Windows of one state, their units, and when the oldest was sealed (0: there is none)."""

    windows: int = 0
    units: int = 0
    oldest_ms: int = 0

    def add(self, window: Window) -> None:
        """One more."""
        self.windows += 1
        self.units += window.units
        self.oldest_ms = min(self.oldest_ms or window.at_ms, window.at_ms)


class WindowLists:
    """The windows of one data set. Errors of the store come out as 503 problems."""

    def __init__(
        self,
        client: "Redis",
        keys: Keys,
        codec: FieldCodec | None = None,
        *,
        read: int = READ,
        reads_max: int = READS_MAX,
    ) -> None:
        """`codec` (None: one without keys) is for the windows' customers."""
        self._client: Any = client
        self._keys, self._codec = keys, codec or FieldCodec()
        self._read, self._reads_max = read, reads_max

    async def page(
        self, states: Collection[State], org_id: str | None, limit: int, after: Place | None = None
    ) -> tuple[list[Listed], Place | None]:
        """Up to `limit` windows, and where to go on (None: done). A page may be short and there be more."""
        page: list[Listed] = []
        reads = 0
        async for places in self._places(states, org_id, after):
            if reads == self._reads_max:
                return page, after
            reads += 1
            rows = await self._rows(places)
            for (place, due_ms), window in zip(places.items(), rows, strict=True):
                if len(page) == limit:
                    return page, after
                after = place
                if window and window.state in states and org_id in (None, window.cut.org_id):
                    page.append(Listed(window, due_ms))
        return page, None

    async def counts(self, org_id: str | None) -> dict[State, Count]:
        """How many windows of each state Stripe does not have, of one organisation or all."""
        found = {state: Count() for state in State if state in WAITING}
        async for places in self._places(WAITING, org_id, None):
            for window in await self._rows(places):
                if window and window.state in found and org_id in (None, window.cut.org_id):
                    found[window.state].add(window)
        return found

    async def moving(self, since_ms: int) -> set[tuple[str, str]]:
        """Customer and feature of every window that may be at Stripe, or whose way ended since an instant."""
        found: set[tuple[str, str]] = set()
        for partition in range(self._keys.partitions):
            names = await answered(self._client.zrange(self._keys.shared("outbox", partition), 0, -1))
            for kind in ("settled", "dead_windows"):
                names += await answered(
                    self._client.zrangebyscore(self._keys.shared(kind, partition), since_ms, "+inf")
                )
            places = [Place(partition, "", 0, text_of(name)) for name in names]
            windows = await self._rows(places) if places else []
            found |= {(window.customer, window.cut.feature) for window in windows if window and window.customer}
        return found

    async def ended(self, partition: int, until_ms: int, after: Place | None) -> AsyncIterator[tuple[Place, Windows]]:
        """Windows of a partition whose way was over by an instant, the longest over first, some at a time.

        Each time with how far the walk came, to go on after. What goes meanwhile makes it miss nothing.
        """
        async for places in self._by_end(partition, "settled", after, until_ms):
            yield list(places)[-1], [window for window in await self._rows(places) if window]

    async def _places(self, states: Collection[State], org_id: str | None, after: Place | None) -> AsyncIterator[Turns]:
        """The windows after a place by partition and list, with their next turn, some at a time."""
        for partition, kind in await self._lists(states, org_id):
            start = after if after is not None and (after.partition, after.list) == (partition, kind) else None
            if after is not None and start is None and _rank(partition, kind) < _rank(after.partition, after.list):
                continue
            walk = self._by_name if kind == "outbox" else self._by_end
            async for places in walk(partition, kind, start):
                yield places

    async def _lists(self, states: Collection[State], org_id: str | None) -> list[tuple[int, str]]:
        """The lists that hold anything."""
        partitions = range(self._keys.partitions) if org_id is None else [self._keys.partition(org_id)]
        wanted = [(number, kind) for number in partitions for kind, held in LISTS.items() if held & set(states)]
        pipe: Any = self._client.pipeline(transaction=False)
        for number, kind in wanted:
            pipe.zcard(self._keys.shared(kind, number))
        return [place for place, size in zip(wanted, await replies_of(pipe), strict=True) if size]

    async def _by_name(self, partition: int, kind: str, start: Place | None) -> AsyncIterator[Turns]:
        found = await answered(self._client.zrange(self._keys.shared(kind, partition), 0, -1, withscores=True))
        due = {text_of(name): int(score) for name, score in found}
        names = sorted(name for name in due if start is None or name > start.name)
        for at in range(0, len(names), self._read):
            yield {Place(partition, kind, 0, name): due[name] for name in names[at : at + self._read]}

    async def _by_end(
        self, partition: int, kind: str, start: Place | None, until_ms: float = math.inf
    ) -> AsyncIterator[Turns]:
        """From a score on and not by how many came before: windows that go meanwhile must not hide others."""
        key, low, offset, more = self._keys.shared(kind, partition), 0 if start is None else start.score, 0, True
        while more:
            found = await answered(
                self._client.zrangebyscore(key, low, until_ms, start=offset, num=self._read, withscores=True)
            )
            places = [Place(partition, kind, int(score), text_of(name)) for name, score in found]
            if fresh := {place: None for place in places if start is None or place > start}:
                yield fresh
                start = places[-1]
            more = len(found) == self._read
            last = places[-1].score if places else low
            low, offset = last, offset + self._read if last == low else 0

    async def _rows(self, places: Collection[Place]) -> list[Window | None]:
        pipe: Any = self._client.pipeline(transaction=False)
        for place in places:
            pipe.hgetall(self._keys.window_at(place.partition, place.name))
        rows = zip(places, await replies_of(pipe, spare=True), strict=True)
        return [_window(place.name, row, self._codec) for place, row in rows]


def _rank(partition: int, kind: str) -> tuple[int, int]:
    return partition, list(LISTS).index(kind)


def _window(name: str, row: Any, codec: FieldCodec) -> Window | None:
    """A window as stored; one that went meanwhile, or that no script wrote, is left out."""
    try:
        return parsed(name, texts(row), codec) if row else None
    except (KeyError, ValueError):
        log.warning("window left out of a list", window=name)
        return None
