"""The billing trail: what happened to an organisation, who did it and why. One stream each, oldest entry first."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from metering.errors import OrgCorrupt
from metering.store.connect import answered, text_of
from metering.store.fields import FieldCodec, is_own
from metering.store.keys import Keys
from metering.store.timing import SKEW_MAX_MS, StoreTime

if TYPE_CHECKING:
    from redis.asyncio import Redis

READ_ENTRIES: Final = 200
"""Entries of one read: about 50 KB."""

READS_MAX: Final = 100
"""Reads of one page, some tens of ms of a quiet connection: what a filter passes over must not take for ever."""

LATEST: Final = 256
"""Entries looked through for those of a correction that was made before."""

AMOUNTS: Final = ("total_minor", "paid_minor", "refunded_minor")
"""What an invoice or a payment comes to, in minor units of the entry's `currency`."""

SEALED: Final = frozenset({"event", "invoice_id", "payment_intent", "refund", *AMOUNTS})
"""Stripe's ids and amounts among the words of an entry: the organisation's data key opens them."""

FIRST: Final = "0-0"
"""The id before the first entry of a stream."""

_Raw = tuple[bytes, Mapping[bytes, bytes]]
"""An entry as the store gives it: its id, and its fields."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. `actor` None: the service itself. `fields` are the rest, as they are stored."""

    org_id: str
    entry_id: str
    at_ms: int
    kind: str
    actor: str | None
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries: those that fit everything that is set. `from_ms` is in the span, `to_ms` is not."""

    actor: str | None = None
    kind: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    def fits(self, entry: Entry) -> bool:
        """Whether an entry is wanted."""
        return (
            self.actor in (None, entry.actor)
            and self.kind in (None, entry.kind)
            and (self.from_ms is None or entry.at_ms >= self.from_ms)
            and (self.to_ms is None or entry.at_ms < self.to_ms)
        )


@dataclass(frozen=True, slots=True)
class Place:
    """How far a walk came: the organisation, and the last of its entries that was looked at."""

    org_id: str
    entry_id: str = FIRST


@dataclass(slots=True)
class _Page:
    """A page in the making: what is wanted, how much more of it, and how many more reads."""

    wanted: Wanted
    limit: int
    entries: list[Entry] = field(default_factory=list)
    reads: int = READS_MAX

    @property
    def full(self) -> bool:
        return len(self.entries) == self.limit

    @property
    def ended(self) -> bool:
        return self.full or self.reads == 0


class Trail:
    """The trails of one data set. Errors of the store come out as 503 problems.

    A page may be short, or empty, and there be more all the same: what a filter passes over is bounded too.
    """

    def __init__(self, client: "Redis", keys: Keys, time: StoreTime, codec: FieldCodec) -> None:
        self._client: Any = client
        self._keys, self._time, self._codec = keys, time, codec

    async def page(
        self, org_id: str, wanted: Wanted, limit: int, after: str = FIRST
    ) -> tuple[list[Entry], Place | None]:
        """Up to `limit` entries of one organisation, those after the entry `after`, and where to go on (None: done)."""
        page = _Page(wanted, limit)
        return page.entries, await self._read(Place(org_id, after), page)

    async def walk(self, wanted: Wanted, limit: int, after: Place | None) -> tuple[list[Entry], Place | None]:
        """The same over all organisations: by partition, in it by name, of each organisation its oldest first."""
        page = _Page(wanted, limit)
        following = None if after is None else await self._read(after, page)
        if following is not None:
            return page.entries, following
        async for org_id in self._names(after):
            following = Place(org_id) if page.ended else await self._read_sound(org_id, page)
            if following is not None:
                return page.entries, following
        return page.entries, None

    async def back(self, org_id: str, limit: int, before: str | None) -> tuple[list[Entry], str | None]:
        """Up to `limit` entries of one organisation, the newest first, those before the entry `before` where one is
        given, and what the next ones come before (None: there are none).
        """
        high = "+" if before is None else f"({before}"
        found = await answered(self._client.xrevrange(self._keys.trail(org_id), high, count=limit + 1))
        entries = await self._entries(org_id, found[:limit])
        return entries, entries[-1].entry_id if len(found) > limit else None

    async def latest(self, org_id: str, kind: str, name: str, source: str) -> list[Entry]:
        """The entries of one correction, oldest first, when they are among the organisation's newest."""
        found = await answered(self._client.xrevrange(self._keys.trail(org_id), count=LATEST))
        entries = await self._entries(org_id, reversed(found))
        same = {"id": name, "source": source}
        return [e for e in entries if e.kind == kind and all(e.fields.get(k, "") == v for k, v in same.items())]

    async def _read_sound(self, org_id: str, page: _Page) -> Place | None:
        """As `_read`; an organisation with corrupt data is left out rather than hiding all after it."""
        try:
            return await self._read(Place(org_id), page)
        except OrgCorrupt:
            log.warning("organisation left out of the audit", org=org_id, code=OrgCorrupt.code)
            return None

    async def _read(self, after: Place, page: _Page) -> Place | None:
        """Read one organisation into the page; where to go on when the page ended before it."""
        place, (low, high) = after, self._bounds(page.wanted)
        while not page.ended:
            start = low if place.entry_id == FIRST else f"({place.entry_id}"
            key = self._keys.trail(place.org_id)
            found = await answered(self._client.xrange(key, start, high, count=READ_ENTRIES))
            page.reads -= 1
            for entry in await self._entries(place.org_id, found):
                if page.full:
                    return place
                place = Place(place.org_id, entry.entry_id)
                if page.wanted.fits(entry):
                    page.entries.append(entry)
            if len(found) < READ_ENTRIES:
                return None
        return place

    def _bounds(self, wanted: Wanted) -> tuple[str, str]:
        """The ids worth reading. They are the store's real time, which a test clock is ahead of."""
        if self._time.test_offset_ms is not None:
            return "-", "+"
        low, high = wanted.from_ms, wanted.to_ms
        return (
            "-" if low is None else str(max(0, low - SKEW_MAX_MS)),
            "+" if high is None else str(max(0, high + SKEW_MAX_MS)),
        )

    async def _names(self, after: Place | None) -> AsyncIterator[str]:
        """The organisations after a place, by partition and name."""
        first = 0 if after is None else self._keys.partition(after.org_id)
        low = "-" if after is None else f"({after.org_id}"
        for number in range(first, self._keys.partitions):
            more = True
            while more:
                key = self._keys.shared("orgs", number)
                found = await answered(self._client.zrangebylex(key, low, "+", 0, READ_ENTRIES))
                for raw in found:
                    yield raw.decode()
                more = len(found) == READ_ENTRIES
                low = f"({found[-1].decode()}" if more else low
            low = "-"

    async def _entries(self, org_id: str, found: Iterable[_Raw]) -> list[Entry]:
        """Entries as they are read. One that is no script's is shown as far as it can be."""
        rows = [(raw_id.decode(), _words_of(raw)) for raw_id, raw in found]
        data_key = await self._data_key(org_id) if any(_sealed_in(fields) for _, fields in rows) else None
        return [self._entry(org_id, entry_id, fields, data_key) for entry_id, fields in rows]

    async def _data_key(self, org_id: str) -> bytes | None:
        """The organisation's own key; None where there is none that can be read."""
        stored = text_of(await answered(self._client.hget(self._keys.profile(org_id), "key")))
        try:
            return bytes.fromhex(self._codec.decode(org_id, "key", stored))
        except ValueError:
            return None

    def _entry(self, org_id: str, entry_id: str, fields: dict[str, str], data_key: bytes | None) -> Entry:
        for name in SEALED & fields.keys():
            with suppress(ValueError):  # of another version: shown as it is stored
                fields[name] = self._codec.decode(org_id, name, fields[name], data_key)
        at = fields.pop("at", "")
        at_ms = int(at) if at.isdecimal() and at.isascii() else int(entry_id.partition("-")[0])
        return Entry(org_id, entry_id, at_ms, fields.pop("type", "unknown"), fields.pop("actor", None), fields)


def _words_of(raw: Mapping[bytes, bytes]) -> dict[str, str]:
    return {name.decode(errors="replace"): value.decode(errors="replace") for name, value in raw.items()}


def _sealed_in(fields: Mapping[str, str]) -> bool:
    return any(is_own(fields.get(name, "")) for name in SEALED)
