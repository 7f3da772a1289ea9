"""The counters: one usage event in, its outcome out, counted once whatever happens between.

This is the hot path's last step before the store and its first step after it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final

from metering.errors import OrgNotFound, Overloaded, Problem, TimestampOutOfRange
from metering.store.admission import AdmitMaker, AdmitRow
from metering.store.batch_stats import BatchStats
from metering.store.batcher import Batcher
from metering.store.calls import BUDGET_S, CallMaker, Pending
from metering.store.fields import FieldCodec
from metering.store.frames import Frame, bulk
from metering.store.keys import Keys
from metering.store.lane import Lane
from metering.store.orgs import Orgs
from metering.store.outcomes import outcome_of, outcomes_of
from metering.store.pendings import Pendings
from metering.store.retention import Retention
from metering.store.scripts import Script, script
from metering.store.timing import StoreTime
from metering.store.traced_batcher import TracedBatcher
from metering.traces import Traces
from metering.usage import Outcome, UsageEvent
from plans.periods import AHEAD_MAX_MS, oldest_accepted_ms

if TYPE_CHECKING:
    from redis.asyncio import Redis


DEFAULT_RETENTION: Final = Retention()


class LatePolicy(StrEnum):
    """What becomes of an event from before the running period."""

    CURRENT = "current"  # counted now
    ORIGINAL = "original"  # counted in the period that closed last, where it belongs there and that is not final
    REJECT = "reject"


class Counters:
    """Counts events for one worker. Make it inside a running loop; close it before the client."""

    def __init__(  # noqa: PLR0913 - wired in one place, by name
        self,
        client: "Redis",
        keys: Keys,
        orgs: Orgs,
        time: StoreTime,
        codec: FieldCodec,
        *,
        secret: bytes,
        auto_create: bool = True,
        late: LatePolicy = LatePolicy.CURRENT,
        one_partition: bool = False,
        retention: Retention = DEFAULT_RETENTION,
        dimensions: Mapping[str, int] | None = None,
        pending_max: int = 5_000,
        fake: bool = False,
        traces: Traces | None = None,
    ) -> None:
        self._keys, self._orgs, self._time, self._codec = keys, orgs, time, codec
        self._auto_create = auto_create
        self.pendings = Pendings(
            secret,
            dimensions=dimensions or {},
            keeps_events=retention.events_ms > 0,
            late_original=late is LatePolicy.ORIGINAL,
        )
        track, admit = script("track", fake=fake), script("admit", fake=fake)
        make = Batcher if traces is None else partial(TracedBatcher, traces)
        self._batcher = make(
            lane=lambda on_ready: Lane(client, on_ready=on_ready),
            resolve=self._frame,
            makers=(CallMaker(track.sha, keys, time, retention), AdmitMaker(admit.sha, keys, time, retention)),
            time=time,
            script_loads=tuple(_load(found) for found in (track, admit)),
            one_partition=one_partition,
            pending_max=pending_max,
            late_reject=late is LatePolicy.REJECT,
        )

    @property
    def stats(self) -> BatchStats:
        """What the batcher did since this worker began."""
        return self._batcher.stats

    @property
    def ready(self) -> bool:
        """Whether the connection to the store is up."""
        return self._batcher.ready

    async def track(self, event: UsageEvent) -> Outcome:
        """Count one event and say what became of it.

        Raises OrgNotFound (unknown, and not to be created), TimestampOutOfRange, and the 503 problems; after one of
        those the event may or may not be counted, and sending it again with its id is safe.
        """
        if event.timestamp_ms is not None:
            self._check_timestamp(event)
        pending = self.pendings.of(event)
        self._batcher.submit(pending)
        return outcome_of(event, pending, await pending.future)

    async def track_all(self, events: Sequence[UsageEvent], *, atomic: bool = False) -> list[Outcome | Problem]:
        """Count many events and say in their order what became of each: an outcome, or what `track` would raise.

        They share calls of the store: a handful for a thousand. `atomic`: they are of one organisation and counted
        together or not at all; one that has no outcome stands for all. Raises Overloaded, with nothing counted, where
        so many cannot wait.
        """
        if not self._batcher.room(len(events)):
            self.stats.shed += len(events)
            raise Overloaded
        if atomic:
            return await self._together(events)
        waiting = [self._tried(event) for event in events]
        if futures := [pending.future for pending in waiting if isinstance(pending, Pending)]:
            await asyncio.wait(futures)
        return [
            await _settled(event, pending) if isinstance(pending, Pending) else pending
            for event, pending in zip(events, waiting, strict=True)
        ]

    async def decide(self, event: UsageEvent, row: AdmitRow) -> Outcome:
        """Have one row decided that is made elsewhere, with its event told apart. Raises as `track`."""
        pending = self.pendings.together(event.org_id, [row])
        self._batcher.submit(pending)
        return outcome_of(event, pending, await pending.future)

    def room(self) -> bool:
        """Whether another event may wait; asked before any work is done for it."""
        return self._batcher.room()

    def forget(self, org_id: str) -> None:
        """Drop what this worker knows of an organisation. Never needed for exactness: claims prove themselves."""
        self._batcher.forget(org_id)

    def reconnect(self) -> None:
        """Cut the connection and make a new one; what is under way is asked again by itself."""
        self._batcher.reconnect()

    async def close(self) -> None:
        """Let what waits finish, then close the connection."""
        await self._batcher.close(BUDGET_S)

    async def abort(self) -> None:
        """Close at once; what waits is answered 503 and may or may not be counted."""
        await self._batcher.close(0)

    async def _together(self, events: Sequence[UsageEvent]) -> list[Outcome | Problem]:
        try:
            for event in events:
                self._check_timestamp(event)
            pending = self.pendings.all_of(events)
            self._batcher.submit(pending)
            return list(outcomes_of(events, pending, await pending.future))
        except Problem as problem:
            return [problem] * len(events)

    def _tried(self, event: UsageEvent) -> Pending | Problem:
        try:
            self._check_timestamp(event)
            pending = self.pendings.of(event)
            self._batcher.submit(pending)
        except Problem as problem:
            return problem
        return pending

    def _check_timestamp(self, event: UsageEvent) -> None:
        """Refuse what could no longer be recognised when repeated, and what lies ahead. What was accepted before was
        checked then.
        """
        at_ms = event.timestamp_ms
        if at_ms is None or event.accepted_ms is not None:
            return
        now_ms = self._time.now_ms()
        oldest_ms = oldest_accepted_ms(now_ms)
        if not oldest_ms <= at_ms <= now_ms + AHEAD_MAX_MS:
            raise TimestampOutOfRange(
                "timestamp lies outside the accepted window", oldest_ms=oldest_ms, newest_ms=now_ms + AHEAD_MAX_MS
            )

    async def _frame(self, org_id: str, full: str | None) -> Frame:
        """The organisation as it is now, or as it will be created. Raises OrgNotFound."""
        org = await self._orgs.present(org_id, full=full)
        if org is not None:
            return Frame(org, self._keys, self._codec, creates=False)
        if not self._auto_create:
            raise OrgNotFound(f"no organisation {org_id!r}", org_id=org_id)
        return Frame(await self._orgs.newcomer(org_id, full=full), self._keys, self._codec, creates=True)


async def _settled(event: UsageEvent, pending: Pending) -> Outcome | Problem:
    try:
        return outcome_of(event, pending, await pending.future)
    except Problem as problem:
        return problem


def _load(found: Script) -> bytes:
    """The command that teaches the store a script."""
    return b"*3\r\n" + bulk(b"SCRIPT") + bulk(b"LOAD") + bulk(found.text.encode())
