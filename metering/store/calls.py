"""One call of the track script, encoded: KEYS and ARGV as `track.lua` lists them."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Final, Protocol

from metering.store.frames import DAY_MS, EMPTY, INTS, Frame, bucket_of, bulk, day_text, integer
from metering.store.keys import Keys
from metering.store.retention import Retention
from metering.store.timing import StoreTime

MINUTE_MS: Final = 60_000

BUDGET_S: Final = 3.0
"""How long an event may wait for the store: a restart of two seconds passes unseen, a client is not kept longer."""


class Row(Protocol):
    """What a script takes of one feature of one event.

    `shard` is the unsigned id digest (None: no client id), `tail` the encoded feature, quantity and digests.
    """

    feature: str
    shard: int | None
    tail: bytes
    timestamp_ms: int | None

    def place(self, frame: Frame, now_ms: int) -> tuple[int, bytes]:
        """The instant whose day holds it in history, and its bucket; empty: the script's own now."""
        ...


class Pending:
    """One event that waits for its answer: a row, and where the answer goes. `size` is how many rows it has."""

    size: ClassVar[int] = 1

    __slots__ = (
        "attempts",
        "deadline",
        "feature",
        "future",
        "late",
        "org_id",
        "quantity",
        "shard",
        "tail",
        "timestamp_ms",
    )

    def __init__(
        self,
        org_id: str,
        feature: str,
        quantity: int,
        shard: int | None,
        tail: bytes,
        timestamp_ms: int | None,
        future: "asyncio.Future[Answer]",
        deadline: float,
    ) -> None:
        self.org_id, self.feature, self.quantity, self.shard, self.tail = org_id, feature, quantity, shard, tail
        self.timestamp_ms, self.future, self.deadline = timestamp_ms, future, deadline
        self.attempts, self.late = 0, False

    def is_late(self, frame: Frame) -> bool:
        """Whether an event with a timestamp is from before the running period."""
        return self.timestamp_ms is not None and self.timestamp_ms < frame.period.start_ms

    def place(self, frame: Frame, now_ms: int) -> tuple[int, bytes]:
        """Where an event with a timestamp goes in history. One from before the running period counts now and is late;
        one ahead of the period's end is clamped to now.
        """
        at_ms, period = self.timestamp_ms or 0, frame.period
        self.late = at_ms < period.start_ms
        if self.late or at_ms >= period.end_ms:
            return now_ms, EMPTY
        return at_ms, bulk(bucket_of(at_ms, period.start_ms).encode())


TRACK_WIDTH: Final = 3
"""Numbers that track answers a row with."""

PAID_WIDTH: Final = 4
"""The same where the organisation has credits: those the row burned, or could have used where it was refused."""

Answer = tuple[Frame, list[int], int, int]
"""The frame an event was decided under, the reply that holds its answer, where in it that begins, and its width."""

Group = tuple[Frame, list[Pending]]


class Call:
    """An encoded EVALSHA and the events in the order of its answers."""

    __slots__ = ("groups", "payload", "width")

    def __init__(self, groups: Sequence[Group], payload: bytes, width: int = TRACK_WIDTH) -> None:
        self.groups, self.payload, self.width = groups, payload, width

    def events(self) -> Iterator[Pending]:
        """Everything that waits for its reply."""
        return (event for _, events in self.groups for event in events)

    def width_of(self, frame: Frame) -> int:
        """How many numbers answer one row of this organisation."""
        return PAID_WIDTH if frame.pool_keys and self.width == TRACK_WIDTH else self.width


class CallMaker:
    """Encodes calls of track for one data set."""

    WIDTH: ClassVar[int] = TRACK_WIDTH
    KINDS: ClassVar[tuple[str, ...]] = ("crossings", "dirty", "totals")
    """The keys that all organisations of a partition share."""

    def __init__(self, sha: str, keys: Keys, time: StoreTime, retention: Retention) -> None:
        self._head = bulk(b"EVALSHA") + bulk(sha.encode())
        self._time = time
        self._options = [integer(retention.history_s)]
        self._shared = [
            b"".join(bulk(keys.shared(kind, number).encode()) for kind in self.KINDS)
            for number in range(keys.partitions)
        ]
        self._clock = [bulk(keys.shared("clock", number).encode()) for number in range(keys.partitions)]

    def make(self, groups: Iterable[Group]) -> Call:
        """Encode one call. An organisation stands in it once; events keep their order inside it."""
        now_ms = self._time.now_ms()
        offset = self._time.offset_text()
        ordered = sorted(groups, key=_partition)
        keys: list[bytes] = []
        args = [
            integer(self._time.caller_ms()),
            integer(now_ms // MINUTE_MS),
            bulk(offset.encode()),
            *self._options,
        ]
        key_count, arg_count = 0, len(args)
        start = 0
        while start < len(ordered):
            partition = ordered[start][0].partition
            end = start
            while end < len(ordered) and ordered[end][0].partition == partition:
                end += 1
            keys.append(self._shared[partition])
            key_count += len(self.KINDS)
            if offset:
                keys.append(self._clock[partition])
                key_count += 1
            args.append(integer(end - start))
            arg_count += 1
            for frame, events in ordered[start:end]:
                more_keys, more_args = self.append(frame, events, now_ms, keys, args)
                key_count += more_keys
                arg_count += more_args
            start = end
        head = b"*%d\r\n%b%b" % (3 + key_count + arg_count, self._head, integer(key_count))
        return Call(ordered, head + b"".join(keys) + b"".join(args), self.WIDTH)

    def append(
        self, frame: Frame, events: list[Pending], now_ms: int, keys: list[bytes], args: list[bytes]
    ) -> tuple[int, int]:
        """Append one organisation's keys and arguments; returns how many of each."""
        return organisation(frame, events, now_ms, keys, args)


def _partition(group: Group) -> int:
    return group[0].partition


def organisation(
    frame: Frame, events: Sequence[Row], now_ms: int, keys: list[bytes], args: list[bytes]
) -> tuple[int, int]:
    """Append one organisation's keys and arguments; returns how many of each."""
    days: dict[bytes, int] = {}
    groups: dict[int, int] = {}
    minted = False
    rows: list[bytes] = []
    for event in events:
        if event.shard is None:
            minted, group = True, 0
        else:
            group = groups.setdefault(event.shard & frame.finest, len(groups) + 1)
        day_ms, bucket = (now_ms, EMPTY) if event.timestamp_ms is None else event.place(frame, now_ms)
        day = days.setdefault(frame.day_key(event.feature, day_ms // DAY_MS), len(days) + 1)
        rows += (INTS[group], event.tail, INTS[day], bucket)
    minted_keys = 2 if minted else 0
    keys.append(frame.head_keys)
    if minted:
        keys += _minted(frame, now_ms)
    keys += days
    for group in groups:
        keys.append(frame.shards(group))
    keys += frame.pool_keys
    paid_day = bulk(day_text(now_ms // DAY_MS).encode()) if frame.pool_keys else EMPTY
    args += (frame.head_args, INTS[len(days)], INTS[len(groups)], INTS[minted_keys], INTS[len(events)])
    args += (integer(frame.creation_count), paid_day, frame.creation, *rows)
    key_count = frame.head_keys_count + minted_keys + len(days) + len(groups) * frame.tiers + len(frame.pool_keys)
    return key_count, 12 + frame.creation_count + 7 * len(events)


def _minted(frame: Frame, now_ms: int) -> tuple[bytes, bytes]:
    minute = now_ms // MINUTE_MS
    return (
        bulk(frame.keys.minted(frame.org_id, minute).encode()),
        bulk(frame.keys.minted(frame.org_id, minute - 1).encode()),
    )
