"""Looking back: a page of history in the windows of a time zone, read in bounded steps.

A page walks feature by feature and each feature forward in time. It ends with a whole window once it holds enough
rows or has read enough, and says where the next one begins; it may hold no row at all and still not be the last.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from metering.store.connect import answered, text_of
from metering.store.frames import DAY_MS, HOUR_MS
from metering.store.history import Bucket, Figures, History, bucket_ms, by_minute, hour_buckets
from metering.store.keys import Keys
from metering.store.timing import StoreTime
from plans.periods import AHEAD_MAX_MS, Period
from plans.windows import Window, Windows, clipped

if TYPE_CHECKING:
    from redis.asyncio import Redis

PAGE_COST: Final = 1000
"""What one page may read before it ends: each key counts 1, and so do 20 of its fields. A year of one feature's hours
costs about 730."""

STEP_KEYS: Final = 16
"""Days read at once: adding up their hours takes some milliseconds, in which a worker answers nobody else."""

_FIELDS_OF_ONE: Final = 20


@dataclass(frozen=True, slots=True)
class Question:
    """What to look for: the sum over `orgs`, by feature and window of `span`, and by value of `dim` if there is one.

    `value` keeps to one value of the dimension. `borders_ms` are the borders of running periods. `fill` gives windows
    without usage too, up to the one that holds now.
    """

    orgs: tuple[str, ...]
    features: tuple[str, ...]
    span: Period
    windows: Windows
    dim: str | None = None
    value: str | None = None
    borders_ms: frozenset[int] = frozenset()
    fill: bool = False


class Place(NamedTuple):
    """Where a page begins: a feature, and an instant in its history."""

    feature: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Row:
    """Units of a feature in `span`, of one value of the dimension or (None) of all that has none.

    `overage` is None where it is not known: it is not kept by dimension.
    """

    span: Period
    feature: str
    value: str | None
    units: int
    overage: int | None


@dataclass(slots=True)
class Page:
    """Rows by feature, time and value. `aligned` says that no unit is shown outside the window it was used in."""

    rows: list[Row] = field(default_factory=list)
    following: Place | None = None
    aligned: bool = True
    cost: int = 0

    def charge(self, figures: Figures) -> None:
        """Note that a hash, or a step through one, was read."""
        self.cost += 1 + len(figures) // _FIELDS_OF_ONE

    def full(self, limit: int) -> bool:
        """Whether another window belongs to the next page."""
        return len(self.rows) >= limit or self.cost >= PAGE_COST


class Lookback:
    """History in windows, over the hashes of one data set. Errors of the store come out as 503 problems."""

    def __init__(self, client: "Redis", keys: Keys, time: StoreTime, *, days: int, minute_hours: int) -> None:
        self._client = client
        self._keys = keys
        self._history = History(client, keys, time, days=days, minute_hours=minute_hours)

    def now_ms(self) -> int:
        """The best guess of the store's time."""
        return self._history.now_ms()

    def oldest_ms(self, window: Window) -> int | None:
        """The first instant whose history is whole; None where windows of this kind are not kept."""
        return self._history.oldest_ms(window)

    async def extend(self, page: Page, question: Question, begin: Place | None, limit: int) -> None:
        """Add to `page` what comes from `begin` on, until it is full."""
        for feature in question.features:
            if begin is not None and feature < begin.feature:
                continue
            resumed = begin is not None and feature == begin.feature
            at_ms = max(begin.at_ms, question.span.start_ms) if begin and resumed else question.span.start_ms
            if page.full(limit):
                page.following = Place(feature, at_ms)
            elif at_ms < question.span.end_ms:
                await _Walk(self._history, question, feature, page).run(at_ms, limit)
            if page.following is not None:
                return

    async def units(self, org: str, features: Sequence[str], span: Period) -> dict[str, int]:
        """Units of each feature in the hours that begin in `span`."""
        days = range(span.start_ms // DAY_MS, (span.end_ms - 1) // DAY_MS + 1)
        names = [(org, feature, day) for feature in features for day in days]
        found = dict.fromkeys(features, 0)
        for (_, feature, day), figures in zip(names, await self._history.days(names), strict=True):
            buckets = hour_buckets(day, figures)
            found[feature] += sum(bucket.units for bucket in buckets if span.contains(bucket.span.start_ms))
        return found

    async def orgs(self, at: str | None, limit: int) -> list[str]:
        """Up to `limit` organisations by partition and name, from `at` on: itself, if it is there."""
        names: list[str] = []
        low = "-" if at is None else f"[{at}"
        for partition in range(0 if at is None else self._keys.partition(at), self._keys.partitions):
            key = self._keys.shared("orgs", partition)
            found = await answered(self._client.zrangebylex(key, low, "+", 0, limit - len(names)))
            names += map(text_of, found)
            low = "-"
            if len(names) >= limit:
                break
        return names


_Sums: TypeAlias = defaultdict[bytes | None, list[int]]
"""Units and overage by value of a dimension; None is the rest."""


def _no_sums() -> _Sums:
    return defaultdict(lambda: [0, 0])


def _span_of(start_ms: int, spans: Mapping[int, Period]) -> Period:
    """The bucket that begins then: as long as the day's own says, else its hour."""
    return spans.get(start_ms) or Period(start_ms, (start_ms // HOUR_MS + 1) * HOUR_MS)


class _Walk:
    """One feature's history, forward from an instant."""

    def __init__(self, history: History, question: Question, feature: str, page: Page) -> None:
        self._history, self._question, self._feature, self._page = history, question, feature, page
        self._sums: dict[Period, _Sums] = defaultdict(_no_sums)
        self._now_ms = history.now_ms()
        self._minutes_from_ms = None if question.dim else history.oldest_ms(Window.MINUTE)
        self._days = 1 if question.dim else max(1, STEP_KEYS // len(question.orgs))

    async def run(self, at_ms: int, limit: int) -> None:
        """Read on until the page is full or the question's span ends."""
        page, end_ms = self._page, self._question.span.end_ms
        span = Period(at_ms, end_ms)
        read_end_ms = min(end_ms, self._now_ms + AHEAD_MAX_MS + HOUR_MS)
        day, last = at_ms // DAY_MS, (read_end_ms - 1) // DAY_MS
        done_ms = at_ms
        while day <= last:
            days = range(day, min(day + self._days, last + 1))
            await self._read(days, span)
            day = days.stop
            ready_ms = end_ms if day > last else max(done_ms, self._question.windows.at(day * DAY_MS).start_ms)
            done_ms = self._take(done_ms, ready_ms, limit)
            if page.full(limit) and at_ms < done_ms < end_ms:
                page.following = Place(self._feature, done_ms)
                return

    async def _read(self, days: range, span: Period) -> None:
        """Add up what these days hold."""
        question = self._question
        names = [(org, self._feature, day) for day in days for org in question.orgs]
        for (org, _, day), figures in zip(names, await self._history.days(names), strict=True):
            self._page.charge(figures)
            buckets = hour_buckets(day, figures, question.borders_ms)
            if question.value is None:
                self._add(await self._fine(org, buckets, span), span)
            if question.dim is not None:
                spans = {bucket.span.start_ms: bucket.span for bucket in buckets}
                await self._read_groups(org, day, spans, span, question.dim)

    async def _read_groups(self, org: str, day: int, spans: Mapping[int, Period], span: Period, dim: str) -> None:
        """Add a day's units by value, and take them out of the rest. `spans` are those of the day's buckets."""
        wanted = None if self._question.value is None else self._question.value.encode()
        places: dict[bytes, _Sums | None] = {}
        async for figures in self._history.groups(org, self._feature, dim, day):
            self._page.charge(figures)
            for name, units in figures.items():
                bucket, _, value = name.partition(b"|")
                if bucket not in places:
                    places[bucket] = self._place(_span_of(bucket_ms(day, bucket), spans), span)
                sums = places[bucket]
                if sums is not None and wanted in {None, value}:
                    sums[value][0] += units
                    sums[None][0] -= 0 if wanted else units

    async def _fine(self, org: str, buckets: list[Bucket], span: Period) -> list[Bucket]:
        """The buckets, by minute where an hour lies in several windows and its minutes are kept."""
        if self._minutes_from_ms is None:
            return buckets
        hours = [(hour, list(found)) for hour, found in groupby(buckets, lambda one: one.span.start_ms // HOUR_MS)]
        kept = [(hour, found) for hour, found in hours if hour * HOUR_MS >= self._minutes_from_ms]
        torn = [hour for hour, found in kept if any(self._torn(one, span) for one in found)]
        if not torn:
            return buckets
        replies = await self._history.minutes([(org, self._feature, hour) for hour in torn])
        for figures in replies:
            self._page.charge(figures)
        minutes = dict(zip(torn, replies, strict=True))
        return [one for hour, found in hours for one in (by_minute(found, minutes[hour]) if hour in minutes else found)]

    def _torn(self, bucket: Bucket, span: Period) -> bool:
        """Whether a bucket lies in more than one window, or also outside of what is asked for."""
        return self._question.windows.split(bucket.span) or clipped(bucket.span, span) != bucket.span

    def _add(self, buckets: Iterable[Bucket], span: Period) -> None:
        """Add units of whatever value to the windows of their buckets."""
        for bucket in buckets:
            sums = self._place(bucket.span, span)
            if sums is not None:
                sums[None][0] += bucket.units
                sums[None][1] += bucket.overage

    def _place(self, bucket: Period, span: Period) -> "_Sums | None":
        """The sums of the window that holds the beginning of a bucket; None: it begins outside of the span.

        By minute, a bucket that is longer has a row of its own.
        """
        windows, page = self._question.windows, self._page
        if not span.contains(bucket.start_ms):
            page.aligned &= not bucket.start_ms < self._question.span.start_ms < bucket.end_ms
            return None
        window = clipped(windows.at(bucket.start_ms), span)
        if window.end_ms < bucket.end_ms:
            if windows.window is Window.MINUTE:
                window = clipped(bucket, span)
            page.aligned &= window.end_ms == bucket.end_ms
        return self._sums[window]

    def _take(self, from_ms: int, ready_ms: int, limit: int) -> int:
        """Move what lies before `ready_ms` to the page, until it has enough rows; returns where it got to."""
        page = self._page
        ready = {window for window in self._sums if window.start_ms < ready_ms}
        if self._question.fill:
            filled_ms = min(ready_ms, self._question.windows.at(self._now_ms).end_ms)
            ready |= set(self._question.windows.between(Period(from_ms, filled_ms)))
        order = sorted(ready, key=lambda window: (window.start_ms, window.end_ms))
        for start_ms, found in groupby(order, lambda window: window.start_ms):
            if len(page.rows) >= limit and start_ms > from_ms:
                return int(start_ms)
            for window in found:
                page.rows += self._rows(window, self._sums.pop(window, _no_sums()))
        return ready_ms

    def _rows(self, window: Period, sums: "_Sums") -> Iterator[Row]:
        """The rows of one window, by value, the rest last; without any, one of zeros where windows are filled."""
        question = self._question
        known = question.dim is None
        none = True
        for value, (units, overage) in sorted(sums.items(), key=lambda pair: (pair[0] is None, pair[0] or b"")):
            if units or overage:
                none = False
                name = None if value is None else value.decode(errors="replace")
                yield Row(window, self._feature, name, units, overage if known else None)
        if none and question.fill:
            yield Row(window, self._feature, question.value, 0, 0 if known else None)
