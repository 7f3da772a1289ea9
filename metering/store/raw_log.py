"""The log of raw events: one stream a partition, written by the script that counts, read here.

Entries are kept for EVENT_RETENTION. Reading costs the store no more than a page may: an organisation that is quiet in
a busy partition is found over several pages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from metering.moments import rfc3339
from metering.store.boxes import Unreadable
from metering.store.connect import answered
from metering.store.fields import pseudonym
from metering.store.keys import Keys
from metering.store.org import Org
from metering.store.raw_events import Details, opened
from metering.store.timing import SKEW_MAX_MS, StoreTime

if TYPE_CHECKING:
    from redis.asyncio import Redis

LOOKED_MAX: Final = 5_000
"""Entries that one page looks at, of all organisations of the partition: ten reads, some tens of ms."""

_READ: Final = 500
"""Entries of one read: about 2 ms of the store and of this worker, so that nothing waits long behind one."""

_SLACK_MS: Final = 2 * SKEW_MAX_MS
"""An entry's name holds the store's clock, which never goes back there, and `at` the instant that was decided by. They
part only where the clock was set back, by no more than the clocks of service and store may differ."""

TRIM_S: Final = 3600.0
"""Between two turns of the job that ends what is too old; a partition that is written to is trimmed by each write."""

GRACE_MS: Final = 86_400_000
"""Entries younger than this are let be, also where EVENT_RETENTION is 0: a replica that is being started with the
setting must not lose its first entries to one without it."""

_TRIM: Final = 10_000
"""Entries one command removes: about a millisecond of the store."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries: those that fit everything that is not None. Counted within [from_ms, to_ms)."""

    feature: str | None = None
    event_id: str | None = None
    source: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One counted feature of an event. `id` names the entry; `details` is None where they cannot be read.

    `at_ms` is when it was counted; `requested`, `recorded` and `overage` in units, `used` the counter after it.
    """

    id: str
    at_ms: int
    feature: str
    requested: int
    recorded: int
    overage: int
    used: int
    details: Details | None


def entry_of(name: str, fields: Mapping[bytes, bytes]) -> RawEvent:
    """An entry as the script wrote it, its details not opened. Raises KeyError, ValueError for another shape."""
    return RawEvent(
        id=name,
        at_ms=int(fields[b"at"]),
        feature=fields[b"feature"].decode(),
        requested=int(fields[b"q"]),
        recorded=int(fields[b"n"]),
        overage=int(fields[b"x"]),
        used=int(fields[b"used"]),
        details=None,
    )


def shown(entry: RawEvent, org_id: str | None) -> dict[str, Any]:
    """An entry as the wire, and the line of a sink, shows it; `org_id` None where it is of somebody who is gone."""
    details = entry.details or Details()
    return {
        "id": entry.id,
        "at": rfc3339(entry.at_ms),
        "event_id": details.event_id,
        "source": details.source or None,
        "org_id": org_id,
        "feature": entry.feature,
        "quantity": entry.requested,
        "recorded": entry.recorded,
        "overage": entry.overage,
        "current_usage": entry.used,
        "actor": details.actor,
        "metadata": details.metadata,
        "timestamp": None if details.timestamp_ms is None else rfc3339(details.timestamp_ms),
    }


class RawLog:
    """The raw events of one data set, kept for `retention_ms` (0: none are). Raises the 503 problems."""

    def __init__(self, client: "Redis", keys: Keys, time: StoreTime, *, retention_ms: int) -> None:
        self._client: Any = client
        self._keys, self._time, self._retention_ms = keys, time, retention_ms

    async def page(self, org: Org, wanted: Wanted, cursor: str | None, limit: int) -> tuple[list[RawEvent], str | None]:
        """Up to `limit` entries of an organisation, the newest first, and the cursor of those before them.

        The cursor is the name of the last entry looked at: a page may be short, even empty, and have one all the same.
        """
        key = self._keys.shared("events", self._keys.partition(org.org_id))
        from_ms = max(wanted.from_ms or 0, self._time.now_ms() - self._retention_ms)
        reader = _Reader(org, replace(wanted, from_ms=from_ms))
        low = max(0, from_ms - (self._time.test_offset_ms or 0) - _SLACK_MS)
        high = f"({cursor}" if cursor else "+" if wanted.to_ms is None else f"{max(0, wanted.to_ms) + _SLACK_MS}"
        found: list[RawEvent] = []
        for _ in range(LOOKED_MAX // _READ):
            entries = await answered(self._client.xrevrange(key, high, low, count=_READ))
            for name, fields in entries:
                high = f"({name.decode()}"
                if (entry := reader.read(name.decode(), fields)) is not None:
                    found.append(entry)
                if len(found) == limit:
                    return found, high[1:]
            if len(entries) < _READ:
                return found, None
        return found, high[1:]

    async def trim(self) -> None:
        """End what is older than it is kept, also in partitions that nobody writes to."""
        seconds, micros = await answered(self._client.time())
        oldest_ms = int(seconds) * 1000 + int(micros) // 1000 - max(self._retention_ms, GRACE_MS)
        for partition in range(self._keys.partitions):
            key = self._keys.shared("events", partition)
            while await answered(self._client.xtrim(key, minid=oldest_ms, approximate=True, limit=_TRIM)):
                pass
            await answered(self._client.xtrim(key, minid=oldest_ms, approximate=False))


class _Reader:
    """Picks an organisation's entries that are wanted."""

    def __init__(self, org: Org, wanted: Wanted) -> None:
        self._key, self._wanted = org.profile.data_key, wanted
        self._mark = pseudonym(org.org_id, self._key).encode() + b"."

    def read(self, name: str, fields: Mapping[bytes, bytes]) -> RawEvent | None:
        """The entry, if it is one of them."""
        if not fields.get(b"org", b"").startswith(self._mark):
            return None
        try:
            entry = entry_of(name, fields)
        except (KeyError, ValueError):
            log.warning("a raw event of no known shape", entry=name)
            return None
        if not self._figures_fit(entry):
            return None
        entry = replace(entry, details=self._details(name, fields))
        return entry if self._details_fit(entry.details or Details()) else None

    def _details(self, name: str, fields: Mapping[bytes, bytes]) -> Details | None:
        try:
            return opened(fields.get(b"box", b""), self._key)
        except Unreadable:
            log.warning("a raw event whose details cannot be read", entry=name)
            return None

    def _figures_fit(self, entry: RawEvent) -> bool:
        wanted = self._wanted
        if wanted.feature not in {None, entry.feature}:
            return False
        return (wanted.from_ms or 0) <= entry.at_ms and (wanted.to_ms is None or entry.at_ms < wanted.to_ms)

    def _details_fit(self, details: Details) -> bool:
        return self._wanted.event_id in {None, details.event_id} and self._wanted.source in {None, details.source}
