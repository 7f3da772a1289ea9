"""What goes to the admit script: events under more than plain counters, trials, holds; and its calls, encoded."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final

from metering.store.calls import Answer, CallMaker, Pending, organisation
from metering.store.frames import DAY_MS, EMPTY, HOUR_MS, INTS, Frame, bucket_of, bulk, day_text, hour_text, integer
from metering.store.keys import Keys
from metering.store.retention import Retention
from metering.store.timing import StoreTime
from plans.limits import OnLimit

ADMIT_WIDTH: Final = 10
"""Numbers that admit answers a row with."""

_MODE: Final = {None: EMPTY, OnLimit.OVERAGE: bulk(b"o"), OnLimit.BLOCK: bulk(b"b"), OnLimit.CAP: bulk(b"c")}
_WHAT_FITS: Final = bulk(b"f")
_YES: Final = bulk(b"1")


class Verb(StrEnum):
    """What a row asks for."""

    TRACK = "t"
    TRIAL = "d"
    RESERVE = "r"
    COMMIT = "c"
    LATE_COMMIT = "l"
    CHARGE = "x"


@dataclass(frozen=True, slots=True)
class HoldAsk:
    """The hold a row makes or settles, `ttl_ms` to live.

    A `lease` keeps what fits where a reservation would be refused. `charged`: a lease that is not settled at its end
    counts as used.
    """

    hold_id: str
    charged: bool = False
    ttl_ms: int = 0
    lease: bool = False

    @property
    def kind(self) -> bytes:
        """The letter that the store knows its kind by."""
        if self.charged:
            return b"c"
        return b"l" if self.lease else b"r"


@dataclass(slots=True)
class AdmitRow:
    """One feature of one event, as admit takes it; what is left out is as track would have it.

    `further` says that it belongs to the event of the row above. `original` lets it go to the period that closed last,
    where its timestamp lies there; `archived` says that it went. `accepted_ms` is when it was accepted that is counted
    later. `dimensions` are (name, most values, value). `box` makes what the log of raw events keeps of it, with the
    organisation's data key.
    """

    feature: str
    shard: int | None
    tail: bytes
    timestamp_ms: int | None = None
    further: bool = False
    verb: Verb = Verb.TRACK
    mode: OnLimit | None = None
    hold: HoldAsk | None = None
    dimensions: Sequence[tuple[str, int, str]] = ()
    box: Callable[[bytes], str] | None = None
    original: bool = False
    accepted_ms: int | None = None
    archived: bool = False
    late: bool = False

    def is_late(self, frame: Frame) -> bool:
        """As `Pending.is_late`. What was accepted in an earlier period is late where it was late then."""
        at_ms, accepted_ms = self.timestamp_ms, self.accepted_ms
        start_ms, before = frame.period.start_ms, frame.org.before
        if at_ms is None or at_ms >= start_ms:
            return False
        if accepted_ms is None or accepted_ms >= start_ms:
            return True
        return before is not None and before.contains(accepted_ms) and at_ms < before.start_ms

    def place(self, frame: Frame, now_ms: int) -> tuple[int, bytes]:
        """As `Pending.place`; with `original` an event of the period that closed last stays in it."""
        at_ms, period, before = self.timestamp_ms or 0, frame.period, frame.org.before
        self.late = at_ms < period.start_ms
        self.archived = self.late and self.original and before is not None and before.contains(at_ms)
        if self.archived and before is not None:
            return at_ms, bulk(bucket_of(at_ms, before.start_ms).encode())
        if self.late or at_ms >= period.end_ms:
            return now_ms, EMPTY
        return at_ms, bulk(bucket_of(at_ms, period.start_ms).encode())


class Admission(Pending):
    """Rows that wait together: all of them are admitted, or none."""

    __slots__ = ("rows", "size")

    def __init__(self, org_id: str, rows: list[AdmitRow], future: "asyncio.Future[Answer]", deadline: float) -> None:
        oldest_ms = min((row.timestamp_ms for row in rows if row.timestamp_ms is not None), default=None)
        super().__init__(org_id, rows[0].feature, 0, rows[0].shard, b"", oldest_ms, future, deadline)
        self.rows = rows
        self.size = len(rows)  # type: ignore[misc]  # every plain event has one, so it stands in their class

    def is_late(self, frame: Frame) -> bool:
        """Whether one of its rows is."""
        return any(row.is_late(frame) for row in self.rows)


def stays_out(event: Pending) -> Pending:
    """The event, which may not go to a closed period any more: that is final, or was never there."""
    for row in rows_of(event):
        row.original = False
    return event


def rows_of(event: Pending) -> list[AdmitRow]:
    """The rows of whatever waits; an ordinary event is one."""
    if isinstance(event, Admission):
        return event.rows
    return [AdmitRow(event.feature, event.shard, event.tail, event.timestamp_ms, late=event.late)]


class _Places:
    """Keys of one organisation, each once, in the order in which they were first asked for."""

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}

    def number(self, key: str) -> bytes:
        """The key's place, counted from 1, encoded."""
        return integer(self.keys.setdefault(key, len(self.keys) + 1))


class AdmitMaker(CallMaker):
    """Encodes calls of admit."""

    WIDTH: ClassVar[int] = ADMIT_WIDTH
    KINDS: ClassVar[tuple[str, ...]] = ("crossings", "dirty", "totals", "events", "expiring")

    def __init__(self, sha: str, keys: Keys, time: StoreTime, retention: Retention) -> None:
        super().__init__(sha, keys, time, retention)
        self._options += [integer(retention.minutes_s), integer(retention.events_ms)]
        self._minutes_keep_s = retention.minutes_s

    @property
    def takes_all(self) -> bool:
        """Whether every event goes here, because minutes are kept of it."""
        return self._minutes_keep_s > 0

    def append(
        self, frame: Frame, events: list[Pending], now_ms: int, keys: list[bytes], args: list[bytes]
    ) -> tuple[int, int]:
        """Append one organisation's keys and arguments; returns how many of each."""
        units = [rows_of(event) for event in events]
        rows = [row for unit in units for row in unit]
        key_count, arg_count = organisation(frame, rows, now_ms, keys, args)
        for event, unit in zip(events, units, strict=True):
            event.late = any(row.late for row in unit)
        holds, archives, others = _Places(), _Places(), _Places()
        parts: list[bytes] = []
        for unit in units:
            for place, row in enumerate(unit):
                parts += (INTS[0] if place else integer(len(unit)), _YES if row.further else EMPTY)
                parts += self._row(row, frame, now_ms, holds, archives, others)
        listed = [frame.keys.holds(frame.org_id), frame.keys.windows(frame.org_id)]
        listed += [*holds.keys, *archives.keys, *others.keys]
        keys += (bulk(key.encode()) for key in listed)
        args += (frame.next_claim, *(integer(len(places.keys)) for places in (holds, archives, others)), *parts)
        return key_count + len(listed), arg_count + 4 + len(parts)

    def _row(
        self, row: AdmitRow, frame: Frame, now_ms: int, holds: _Places, archives: _Places, others: _Places
    ) -> list[bytes]:
        """What follows the unit's mark: from the verb to the dimensions."""
        at_ms, bucket = (now_ms, EMPTY) if row.timestamp_ms is None else row.place(frame, now_ms)
        asked, before = row.hold, frame.org.before
        archive = INTS[0]
        if row.archived and before is not None:
            archive = archives.number(frame.keys.archive(frame.org_id, before.start_ms))
        mode = _WHAT_FITS if asked is not None and asked.lease and row.verb is Verb.RESERVE else _MODE[row.mode]
        parts = [bulk(row.verb.encode()), mode]
        parts += _hold_parts(asked, frame, holds)
        parts += (archive, *self._minute(row, frame, at_ms, bucket, now_ms, others))
        parts.append(EMPTY if row.box is None else bulk(row.box(frame.org.profile.data_key).encode()))
        parts.append(integer(len(row.dimensions)))
        for name, most, value in row.dimensions:
            day = day_text(at_ms // DAY_MS)
            parts.append(others.number(frame.keys.groups(frame.org_id, row.feature, name, day)))
            parts.append(others.number(frame.keys.values(frame.org_id, name, frame.org.claim.month)))
            parts += (integer(most), bulk(value.encode()))
        return parts

    def _minute(
        self, row: AdmitRow, frame: Frame, at_ms: int, bucket: bytes, now_ms: int, others: _Places
    ) -> tuple[bytes, bytes]:
        """The place of the row's minutes and its minute there; 0 where its minutes are not kept."""
        kept = self._minutes_keep_s * 1000
        if not kept or at_ms < now_ms - kept or row.archived:
            return INTS[0], EMPTY
        key = frame.keys.minutes(frame.org_id, row.feature, hour_text(at_ms // HOUR_MS))
        minute = EMPTY if bucket is EMPTY else bulk(b"%02d" % (at_ms // 60_000 % 60))
        return others.number(key), minute


def _hold_parts(asked: HoldAsk | None, frame: Frame, holds: _Places) -> tuple[bytes, bytes, bytes, bytes]:
    """A hold's place, name, kind and life."""
    if asked is None:
        return INTS[0], EMPTY, EMPTY, INTS[0]
    place = holds.number(frame.keys.hold(frame.org_id, asked.hold_id))
    return place, bulk(asked.hold_id.encode()), bulk(asked.kind), integer(asked.ttl_ms)
