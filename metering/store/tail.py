"""Raw events as they are counted: what administrators watch live.

Nothing is remembered of who watches: a tail begins where the log stands, or some time back, and reads on from there,
no faster than its reader takes what it read.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from metering.clock import MS_PER_S, Clock
from metering.errors import Overloaded, Problem
from metering.store.boxes import Unreadable
from metering.store.connect import answered, text_of
from metering.store.fields import FieldCodec, pseudonym
from metering.store.keys import Keys
from metering.store.org import Org
from metering.store.raw_events import opened
from metering.store.raw_log import RawEvent, entry_of
from metering.store.raw_names import Known, Names
from metering.store.totals import Client

TAILS_MAX: Final = 10
"""Of one worker: each asks the store twice a second, some 50 us of its time with nothing new."""

POLL_S: Final = 0.5
"""Between two looks that found nothing: what people call live."""

READ_MAX: Final = 100
"""Entries of one partition in one read: with 64 partitions 6,400 at most, some MB."""

LATE_S: Final = 10.0
"""How long a tail whose time is over may go on reading what was there before."""

_FULL: Final = {"Retry-After": "30"}
_NUMBER_MAX: Final = 2**64 - 1

log = structlog.get_logger(__name__)

Seen = tuple[RawEvent, str | None]
"""An event, and whose it is (None: of somebody who is gone)."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What is watched: of one organisation or all, of one feature or all, from `back_ms` ago, for `for_s` seconds."""

    org: Org | None = None
    feature: str | None = None
    back_ms: int = 0
    for_s: float = 300


class Tail:
    """The tails of one worker over one data set. `ending` says that they have to end now."""

    def __init__(
        self, client: Client, keys: Keys, codec: FieldCodec, clock: Clock, ending: Callable[[], bool] = lambda: False
    ) -> None:
        self._client: Any = client
        self._keys, self._codec, self._monotonic, self._ending = keys, codec, clock.monotonic, ending
        self._partitions = {keys.shared("events", number): number for number in range(keys.partitions)}
        self._names: Names | None = None
        self._open = 0

    def enter(self) -> None:
        """Take a place, before anything is answered; whoever has one gives it back with `leave`. Raises Overloaded."""
        if self._open >= TAILS_MAX:
            raise Overloaded(f"{TAILS_MAX} live streams are open at this worker", headers=_FULL)
        self._open += 1

    def leave(self) -> None:
        """Give a place back. What was learnt of names goes with the last: it may be a lot."""
        self._open -= 1
        if not self._open:
            self._names = None

    async def follow(self, watched: Watched) -> AsyncIterator[list[Seen]]:
        """What is counted, some at a time, the oldest first; nothing at all twice a second while nothing is.

        While the store does not answer it waits; entries that retention ends meanwhile are missed.
        """
        until_s = self._monotonic() + watched.for_s
        places: dict[str, str] = {}
        while not self._ending():
            found: list[Seen] = []
            more = False
            try:
                places = places or await self._begin(watched)
                found, more = await self._read(places, watched)
            except Problem as problem:
                log.warning("live stream without the store", code=problem.code)
            yield found
            left_s = until_s - self._monotonic()
            if left_s <= (-LATE_S if more else 0):
                return
            if not more:
                await asyncio.sleep(min(POLL_S, max(left_s, 0)))

    async def _begin(self, watched: Watched) -> dict[str, str]:
        """The entry of each log after which the tail begins."""
        seconds, micros = await answered(self._client.time())
        at_ms = int(seconds) * MS_PER_S + int(micros) // MS_PER_S - watched.back_ms
        keys: Iterable[str] = self._partitions
        if watched.org is not None:
            keys = [self._keys.shared("events", self._keys.partition(watched.org.org_id))]
        return dict.fromkeys(keys, f"{max(1, at_ms) - 1}-{_NUMBER_MAX}")

    async def _read(self, places: dict[str, str], watched: Watched) -> tuple[list[Seen], bool]:
        """What came since, with `places` moved past it; and whether there may be more."""
        reply: Mapping[bytes, Sequence[Any]] | Sequence[Any]
        reply = await answered(self._client.xread(places, count=READ_MAX)) or []
        found: list[tuple[tuple[int, int], Seen]] = []
        more = False
        for key, entries in reply.items() if isinstance(reply, Mapping) else reply:
            name = text_of(key)
            for raw_id, fields in entries:
                places[name] = text_of(raw_id)
                seen = await self._seen(name, places[name], fields, watched)
                if seen is not None:
                    found.append((_order(places[name]), seen))
            more = more or len(entries) == READ_MAX
        return [seen for _, seen in sorted(found, key=lambda one: one[0])], more

    async def _seen(self, key: str, name: str, fields: Mapping[bytes, bytes], watched: Watched) -> Seen | None:
        """An entry, where it is watched."""
        try:
            entry, mark = entry_of(name, fields), text_of(fields[b"org"]).partition(".")[0]
        except (KeyError, ValueError):
            log.warning("a raw event of no known shape", entry=name)
            return None
        if watched.feature not in {None, entry.feature}:
            return None
        known = await self._known(key, mark, watched.org)
        if watched.org is not None and known is None:
            return None
        if known is not None:
            with suppress(Unreadable):  # shown without what the caller said of it
                entry = replace(entry, details=opened(fields.get(b"box", b""), known.data_key))
        return entry, None if known is None else known.org_id

    async def _known(self, key: str, mark: str, org: Org | None) -> Known | None:
        """Whose an entry is; of a tail of one organisation None where it is another's."""
        if org is not None:
            own = pseudonym(org.org_id, org.profile.data_key)
            return Known(org.org_id, org.profile.data_key) if mark == own else None
        if self._names is None:
            self._names = Names(self._client, self._keys, self._codec, self._monotonic)
        return await self._names.of(self._partitions[key], mark)


def _order(name: str) -> tuple[int, int]:
    ms, _, number = name.partition("-")
    return int(ms), int(number)
