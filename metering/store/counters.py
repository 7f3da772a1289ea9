"""The counters: one usage event in, its outcome out, counted once whatever happens between.

This is the hot path's last step before the store and its first step after it.
"""

import asyncio
import itertools
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from metering.errors import OrgNotFound, Overloaded, Problem, TimestampOutOfRange
from metering.store.batch_stats import BatchStats
from metering.store.batcher import BUDGET_S, Batcher
from metering.store.calls import Answer, CallMaker, Pending
from metering.store.digests import Digests, digits, shard_of
from metering.store.fields import FieldCodec
from metering.store.frames import Frame, bulk, integer
from metering.store.keys import Keys
from metering.store.lane import Lane
from metering.store.orgs import Orgs
from metering.store.scripts import script
from metering.store.timing import StoreTime
from metering.usage import Outcome, Result, UsageEvent
from plans.periods import AHEAD_MAX_MS, oldest_accepted_ms
from plans.thresholds import MARKS

if TYPE_CHECKING:
    from redis.asyncio import Redis

_RESULTS: Final = {
    1: Result.RECORDED,
    2: Result.DUPLICATE,
    3: Result.CONFLICT,
    4: Result.REFUSED,
    5: Result.CAPPED,
    6: Result.TOTAL_TOO_LARGE,
    8: Result.FEATURE_UNKNOWN,
    9: Result.DISABLED,
}

_MARKS: Final = tuple(tuple(mark for bit, mark in enumerate(MARKS) if bits >> bit & 1) for bits in range(16))


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
        late_reject: bool = False,
        one_partition: bool = False,
        history_days: int = 770,
        pending_max: int = 5_000,
        fake: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._keys, self._orgs, self._time, self._codec = keys, orgs, time, codec
        self._auto_create = auto_create
        self._digests = Digests(secret)
        self._minted_prefix = b"m" + secrets.token_hex(8).encode()
        self._minted = itertools.count()
        track = script("track", fake=fake)
        self._batcher = Batcher(
            lane=lambda on_ready: Lane(client, on_ready=on_ready),
            resolve=self._frame,
            maker=CallMaker(track.sha, keys, time, history_keep_s=history_days * 86_400),
            time=time,
            script_load=b"*3\r\n" + bulk(b"SCRIPT") + bulk(b"LOAD") + bulk(track.text.encode()),
            one_partition=one_partition,
            pending_max=pending_max,
            late_reject=late_reject,
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
        pending = self._submitted(event)
        return self._outcome(event, pending, await pending.future)

    async def track_all(self, events: Sequence[UsageEvent]) -> list[Outcome | Problem]:
        """Count many events and say in their order what became of each: an outcome, or what `track` would raise.

        They share calls of the store: a handful for a thousand. Raises Overloaded, with nothing counted, where so
        many cannot wait.
        """
        if not self._batcher.room(len(events)):
            self.stats.shed += len(events)
            raise Overloaded
        waiting = [self._tried(event) for event in events]
        if futures := [pending.future for pending in waiting if isinstance(pending, Pending)]:
            await asyncio.wait(futures)
        return [
            await self._settled(event, pending) if isinstance(pending, Pending) else pending
            for event, pending in zip(events, waiting, strict=True)
        ]

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

    def _submitted(self, event: UsageEvent) -> Pending:
        """The event on its way. Raises TimestampOutOfRange, Overloaded, OrgCorrupt."""
        if event.timestamp_ms is not None:
            self._check_timestamp(event.timestamp_ms)
        pending = self._pending(event)
        self._batcher.submit(pending)
        return pending

    def _tried(self, event: UsageEvent) -> Pending | Problem:
        try:
            return self._submitted(event)
        except Problem as problem:
            return problem

    async def _settled(self, event: UsageEvent, pending: Pending) -> Outcome | Problem:
        try:
            return self._outcome(event, pending, await pending.future)
        except Problem as problem:
            return problem

    def _check_timestamp(self, at_ms: int) -> None:
        """Refuse what could no longer be recognised when repeated, and what lies ahead."""
        now_ms = self._time.now_ms()
        oldest_ms = oldest_accepted_ms(now_ms)
        if not oldest_ms <= at_ms <= now_ms + AHEAD_MAX_MS:
            raise TimestampOutOfRange(
                "timestamp lies outside the accepted window", oldest_ms=oldest_ms, newest_ms=now_ms + AHEAD_MAX_MS
            )

    def _pending(self, event: UsageEvent) -> Pending:
        """The event as it waits: digests made, arguments encoded."""
        feature = event.feature.encode()
        shard = None
        if event.event_id is None:
            ids = bulk(b"%b.%x" % (self._minted_prefix, next(self._minted))) + b"$0\r\n\r\n"
        else:
            first, second = self._digests.ids(event.org_id, event.source, event.event_id, ((feature, event.quantity),))
            shard = shard_of(first)
            ids = bulk(digits(first)) + bulk(digits(second))
        tail = bulk(feature) + integer(event.quantity) + ids
        loop = self._loop
        return Pending(
            event.org_id, event.feature, event.quantity, shard, tail, event.timestamp_ms,
            loop.create_future(), loop.time() + BUDGET_S,
        )  # fmt: skip

    def _outcome(self, event: UsageEvent, pending: Pending, answer: Answer) -> Outcome:
        frame, code, bits, used, extra = answer
        result = _RESULTS[code]
        recorded = overage = 0
        if result is Result.RECORDED:
            recorded, overage = event.quantity, extra
        elif result is Result.CAPPED:
            recorded = extra
        rule = frame.rules.get(event.feature)
        return Outcome(result, frame.plan, used, rule, frame.period, recorded, overage, _MARKS[bits], pending.late)

    async def _frame(self, org_id: str, full: str | None) -> Frame:
        """The organisation as it is now, or as it will be created. Raises OrgNotFound."""
        org = await self._orgs.present(org_id, full=full)
        if org is not None:
            return Frame(org, self._keys, self._codec, creates=False)
        if not self._auto_create:
            raise OrgNotFound(f"no organisation {org_id!r}", org_id=org_id)
        return Frame(await self._orgs.newcomer(org_id), self._keys, self._codec, creates=True)
