"""Reading history: what was used in each hour (or minute), and by each value of a dimension.

Reads are bounded: a pipeline asks for so little that it holds up nobody, and hashes that can be large come in steps.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from metering.errors import OrgCorrupt
from metering.store.connect import answered
from metering.store.frames import DAY_MS, HOUR_MS, day_text, hour_text
from metering.store.keys import Keys
from metering.store.timing import StoreTime
from metering.store.totals import replies_of
from plans.periods import AHEAD_MAX_MS, Period
from plans.windows import MINUTE_MS, Window

if TYPE_CHECKING:
    from redis.asyncio import Redis

PIPELINE_KEYS: Final = 64
"""Hashes of one pipeline: of days at most 48 fields each, of minutes 120, so that the store answers within 1 ms."""

SCAN_FIELDS: Final = 500
"""Fields of one step through a dimension's day, which can have 24 and more for each of 1,000 values."""

Figures: TypeAlias = Mapping[bytes, int]
"""A hash of history as it is stored: units by bucket, or by `bucket|value`."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Units that were used somewhere in `span`: a UTC hour, its part on one side of a border, or a minute.

    `overage` of them was above a limit. Both are net of what was corrected.
    """

    span: Period
    units: int
    overage: int = 0


class History:
    """The history of one data set. Errors of the store come out as 503 problems; `read` counts what was read."""

    def __init__(self, client: "Redis", keys: Keys, time: StoreTime, *, days: int, minute_hours: int) -> None:
        self._client: Any = client
        self._keys = keys
        self._time = time
        self._days = days
        self._minute_hours = minute_hours

    def now_ms(self) -> int:
        """The best guess of the store's time."""
        return self._time.now_ms()

    def oldest_ms(self, window: Window) -> int | None:
        """The first instant whose history is still whole; None where windows of this kind are not kept.

        A key is made by its first event, which may be stamped a little ahead, and ends so long after.
        """
        if window is Window.MINUTE:
            if not self._minute_hours:
                return None
            return _border_after(self.now_ms() + AHEAD_MAX_MS - self._minute_hours * HOUR_MS, HOUR_MS)
        return _border_after(self.now_ms() + AHEAD_MAX_MS - self._days * DAY_MS, DAY_MS)

    async def days(self, names: Sequence[tuple[str, str, int]]) -> list[Figures]:
        """The hours of these (organisation, feature, UTC day since the epoch), in their order."""
        return await self._hashes([self._keys.history(org, feature, day_text(day)) for org, feature, day in names])

    async def minutes(self, names: Sequence[tuple[str, str, int]]) -> list[Figures]:
        """The minutes of these (organisation, feature, UTC hour since the epoch), in their order."""
        return await self._hashes([self._keys.minutes(org, feature, hour_text(hour)) for org, feature, hour in names])

    async def groups(self, org: str, feature: str, dim: str, day: int) -> AsyncIterator[Figures]:
        """Units by `bucket|value` of a dimension on one UTC day, in steps; each field once.

        A step through a hash may show a field again, but misses none that was there all the time, and none is ever
        taken out.
        """
        key = self._keys.groups(org, feature, dim, day_text(day))
        seen: set[bytes] = set()
        cursor = -1
        while cursor:
            cursor, fields = await answered(self._client.hscan(key, max(cursor, 0), count=SCAN_FIELDS))
            yield _figures({name: units for name, units in fields.items() if name not in seen})
            seen.update(fields)

    async def _hashes(self, keys: Sequence[str]) -> list[Figures]:
        found: list[Figures] = []
        for at in range(0, len(keys), PIPELINE_KEYS):
            pipe = self._client.pipeline(transaction=False)
            for key in keys[at : at + PIPELINE_KEYS]:
                pipe.hgetall(key)
            found += map(_figures, await replies_of(pipe))
        return found


def _border_after(at_ms: int, length_ms: int) -> int:
    return -(-at_ms // length_ms) * length_ms


@contextmanager
def _whole() -> Iterator[None]:
    """A figure that is no number, or stands under no bucket, is the organisation's fault and nobody else's."""
    try:
        yield
    except ValueError as error:
        raise OrgCorrupt from error


def _figures(fields: Mapping[bytes, bytes]) -> dict[bytes, int]:
    with _whole():
        return {name: int(value) for name, value in fields.items()}


# ── what the fields mean ─────────────────────────────────────────────────────────────────────────────────────


def hour_buckets(day: int, figures: Figures, borders_ms: Collection[int] = ()) -> list[Bucket]:
    """The buckets of one UTC day, in order. Raises OrgCorrupt.

    `borders_ms` are borders of periods, where an hour ends early though nothing was used after them yet.
    """
    found: dict[int, list[int]] = {}
    for name, units in figures.items():
        extra = name.startswith(b"x")
        found.setdefault(bucket_ms(day, name[extra:]), [0, 0])[extra] += units
    starts = sorted(found)
    ends = sorted({*starts, *borders_ms})
    return [Bucket(Period(at_ms, _end_of(at_ms, ends)), *found[at_ms]) for at_ms in starts]


def bucket_ms(day: int, bucket: bytes) -> int:
    """When a bucket of a UTC day begins: `07`, or `07+1500` in a period that began then. Raises OrgCorrupt."""
    hour, _, inside_ms = bucket.partition(b"+")
    with _whole():
        return day * DAY_MS + int(hour) * HOUR_MS + int(inside_ms or 0)


def _end_of(start_ms: int, borders_ms: Sequence[int]) -> int:
    """Where the bucket that begins at `start_ms` ends: with its hour, or at a border before."""
    hour_end_ms = (start_ms // HOUR_MS + 1) * HOUR_MS
    return min((at_ms for at_ms in borders_ms if start_ms < at_ms < hour_end_ms), default=hour_end_ms)


def by_minute(buckets: Sequence[Bucket], minutes: Figures) -> list[Bucket]:
    """The buckets of one hour cut into minutes, what the minutes do not hold left over. Sums stay as they are.

    Minutes hold less than their hour where they were not kept from its beginning on, or units were put in later. Where
    they hold more, units were taken out of the hour, nobody knows of which minute: then it stays as it is. The minute
    in which a period begins is shared out by what the two sides of the border have besides; where that does not come
    out even, the hour stays as it is, too. Raises OrgCorrupt.
    """
    hour_ms = buckets[0].span.start_ms // HOUR_MS * HOUR_MS
    pieces = _minutes(hour_ms, minutes)
    if len(buckets) == 1 and buckets[0].span == Period(hour_ms, hour_ms + HOUR_MS):
        cut = [*pieces, *_rest(buckets[0], pieces)]
        return cut if _possible(cut) else list(buckets)
    if any(bucket.span.start_ms % HOUR_MS and bucket.span.end_ms % HOUR_MS for bucket in buckets):
        return list(buckets)  # two borders in one hour
    cut = [piece for bucket in buckets for piece in _shared(bucket, pieces)]
    return cut if _possible(cut) and _sums(cut) == _sums(pieces) else list(buckets)


def _possible(buckets: Sequence[Bucket]) -> bool:
    return all(bucket.units >= 0 and bucket.overage >= 0 for bucket in buckets)


def _minutes(hour_ms: int, figures: Figures) -> list[Bucket]:
    found: dict[int, list[int]] = {}
    with _whole():
        for name, units in figures.items():
            extra = name.startswith(b"x")
            found.setdefault(hour_ms + int(name[extra:]) * MINUTE_MS, [0, 0])[extra] += units
    return [Bucket(Period(at_ms, at_ms + MINUTE_MS), *found[at_ms]) for at_ms in sorted(found)]


def _rest(whole: Bucket, pieces: Sequence[Bucket]) -> list[Bucket]:
    """What `whole` has beyond its pieces, on all of its span."""
    units, overage = _sums(pieces)
    rest = Bucket(whole.span, whole.units - units, whole.overage - overage)
    return [rest] if rest.units or rest.overage else []


def _shared(bucket: Bucket, pieces: Sequence[Bucket]) -> list[Bucket]:
    """A bucket that begins or ends inside a minute: its whole minutes, and what is left in the minute it shares."""
    start_ms, end_ms = bucket.span.start_ms, bucket.span.end_ms
    inside = [piece for piece in pieces if start_ms <= piece.span.start_ms and piece.span.end_ms <= end_ms]
    begun_ms, ended_ms = -(-start_ms // MINUTE_MS) * MINUTE_MS, end_ms // MINUTE_MS * MINUTE_MS
    part = Period(start_ms, begun_ms) if begun_ms > start_ms else Period(ended_ms, end_ms)
    return [*inside, *_rest(Bucket(part, bucket.units, bucket.overage), inside)]


def _sums(buckets: Sequence[Bucket]) -> tuple[int, int]:
    return sum(bucket.units for bucket in buckets), sum(bucket.overage for bucket in buckets)
