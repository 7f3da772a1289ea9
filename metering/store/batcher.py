"""Events of one loop tick leave in one script call.

Whatever arrives in the same tick shares a call, so coalescing adds no wait. A call whose fate is unknown is repeated:
every event carries an id (the client's or a minted one) that the script recognises.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import hiredis
import structlog
from redis.exceptions import ResponseError

from metering.errors import (
    ClockUnsafe,
    InternalError,
    OrgCorrupt,
    Overloaded,
    Problem,
    StorageUnavailable,
    TimestampOutOfRange,
)
from metering.store.admission import AdmitMaker, stays_out
from metering.store.batch_stats import BatchStats
from metering.store.calls import Answer, Call, CallMaker, Group, Pending
from metering.store.codes import CLOCKS_APART, CORRUPT, EARLY, FINAL, FULL, MINUTE, OTHER_DAY, STALE, STATE
from metering.store.connect import problem_of
from metering.store.frames import Frame
from metering.store.lane import Lane
from metering.store.parked import PARK_S, Parked
from metering.store.timing import StoreTime
from plans.periods import AHEAD_MAX_MS

CALL_ORGS_MAX: Final = 64
CALL_EVENTS_MAX: Final = 250
"""Of one call: an organisation costs the store about 9 us, an event of it 3 more. 64 events of as many organisations
take 0.8 ms, 250 events over 50 of them 1.5 ms: the most that others should wait behind one call."""

CALLS_MAX: Final = 4
"""Calls in flight on one lane: enough to keep the store busy, few enough that waiting events coalesce."""

ATTEMPTS_MAX: Final = 16
"""Turns of one event: each stale answer is settled by one more call, so more means a fault."""

RESOLVES_MAX: Final = 16
"""Organisations read at once: half of the pool, so that a start with a thousand unknown ones starves nobody."""

FRAMES_MAX: Final = 20_000
"""Organisations a worker keeps encoded, about 3 KB each; the oldest makes room."""

_PAUSE_S: Final = 0.05
"""Before a call is repeated that the store refused for the moment (loading, busy, slot on the move)."""

_SWEEP_S: Final = 0.25

_US_PER_S: Final = 1_000_000

_RETRY: Final = {"Retry-After": "1"}

Resolve = Callable[[str, str | None], Awaitable[Frame]]
"""Makes the current frame of an organisation; the second argument is the claim found full, if one was."""

log = structlog.get_logger(__name__)


class Batcher:
    """Coalesces the events of one worker. `span` says what one call may hold: a node's partitions or one."""

    def __init__(
        self,
        *,
        lane: Callable[[Callable[[], None]], Lane],
        resolve: Resolve,
        makers: tuple[CallMaker, AdmitMaker],
        time: StoreTime,
        script_loads: tuple[bytes, ...],
        one_partition: bool,
        pending_max: int,
        late_reject: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._resolve_frame, self._time = resolve, time
        self._maker, self._admit = makers
        self._script_loads, self._one_partition, self._pending_max = script_loads, one_partition, pending_max
        self._late_reject = late_reject
        self._queue: deque[Pending] = deque()
        self._frames: dict[str, Frame] = {}
        self._resolving: dict[str, list[Pending]] = {}
        self._resolvers = asyncio.Semaphore(RESOLVES_MAX)
        self._paused: deque[list[Pending]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._parked = Parked(self._loop.time)
        self._in_flight: set[Call] = set()
        self._pending = 0
        self._scheduled = False
        self._sweeper: asyncio.TimerHandle | None = None
        self.stats = BatchStats()
        self._lane = lane(self._on_ready)

    @property
    def ready(self) -> bool:
        """Whether the store's connection is up."""
        return self._lane.ready

    def room(self, events: int = 1) -> bool:
        """Whether so many more events may wait; asked before any work is done for them."""
        return self._pending + events <= self._pending_max

    def submit(self, event: Pending) -> None:
        """Queue one event; its future is settled with an Answer or a Problem. Raises Overloaded, OrgCorrupt."""
        if self._pending >= self._pending_max:
            self.stats.shed += 1
            raise Overloaded(headers=_RETRY)
        if self._parked.holds(event.org_id):
            raise OrgCorrupt(headers={"Retry-After": str(int(PARK_S))})
        self._pending += 1
        self._queue.append(event)
        self._schedule()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    def forget(self, org_id: str) -> None:
        """Drop what is known of an organisation: the next event reads it anew."""
        self._frames.pop(org_id, None)

    def reconnect(self) -> None:
        """Cut the connection; a new one is made and what is under way is asked again."""
        self._lane.drop()

    async def close(self, wait_s: float) -> None:
        """Let what waits finish within `wait_s`, answer the rest 503, close the connection."""
        waiting = {event.future for event in self._waiting()}
        if waiting and wait_s:
            await asyncio.wait(waiting, timeout=wait_s)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._lane.close()
        self._fail(list(self._waiting()), StorageUnavailable(headers=_RETRY))
        self._queue.clear()

    def _waiting(self) -> Iterable[Pending]:
        yield from self._queue
        for events in (*self._resolving.values(), *self._paused):
            yield from events
        for call in self._in_flight:
            yield from call.events()

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────

    def _on_ready(self) -> None:
        """A connection came up: teach it the script, then send what waits."""
        self._load_scripts()
        self._schedule()

    def _load_scripts(self) -> None:
        for load in self._script_loads:
            self._lane.call(load, _ignore)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what waits, as far as the lane takes calls."""
        self._scheduled = False
        while self._queue and self._lane.ready and len(self._in_flight) < CALLS_MAX:
            plain, rich = self._take()
            for groups in (plain, rich):
                if groups and self._one_partition:
                    for partition in {frame.partition for frame, _ in groups}:
                        self._send([group for group in groups if group[0].partition == partition], groups is rich)
                elif groups:
                    self._send(groups, groups is rich)

    def _take(self) -> tuple[list[Group], list[Group]]:
        """The events of the next calls, by organisation: of track, and of admit, where one of an organisation's events
        needs it. Those of unknown organisations go to be resolved.
        """
        groups: dict[str, Group] = {}
        rich = set()
        queue, frames, taken = self._queue, self._frames, 0
        while queue and taken < CALL_EVENTS_MAX:
            if len(groups) == CALL_ORGS_MAX and queue[0].org_id not in groups:
                break
            event = queue.popleft()
            taken += event.size
            frame = frames.get(event.org_id)
            if frame is None:
                self._resolve(event.org_id, [event], None)
            elif event.timestamp_ms is not None and self._late_reject and event.is_late(frame):
                oldest_ms, newest_ms = frame.period.start_ms, self._time.now_ms() + AHEAD_MAX_MS
                self._fail([event], TimestampOutOfRange("too late", oldest_ms=oldest_ms, newest_ms=newest_ms))
            elif event.org_id in groups:
                groups[event.org_id][1].append(event)
            else:
                groups[event.org_id] = (frame, [event])
            if frame is not None and (frame.rich or type(event) is not Pending):
                rich.add(event.org_id)
        if self._admit.takes_all:
            return [], list(groups.values())
        if not rich:
            return list(groups.values()), []
        plain = [group for org_id, group in groups.items() if org_id not in rich]
        return plain, [group for org_id, group in groups.items() if org_id in rich]

    def _send(self, groups: list[Group], rich: bool) -> Call:
        call = (self._admit if rich else self._maker).make(groups)
        self._in_flight.add(call)
        self.stats.calls += 1
        self.stats.sizes.add(sum(len(events) for _, events in groups))
        sent_s = self._loop.time()
        self._lane.call(call.payload, lambda reply: self._on_reply(call, reply, sent_s))
        return call

    # ── answers ──────────────────────────────────────────────────────────────────────────────────────────

    def _on_reply(self, call: Call, reply: Any, sent_s: float) -> None:
        """Settle a call: answers, one refusal for all of it, or an unknown fate."""
        self._in_flight.discard(call)
        self.stats.replies_us.add(int((self._loop.time() - sent_s) * _US_PER_S))
        try:
            self._settle_call(call, reply)
        except Exception:  # a fault of ours must not leave clients waiting for ever
            log.exception("reply not understood")
            self._fail([event for event in call.events() if not event.future.done()], InternalError())
        if self._queue:
            self._schedule()

    def _settle_call(self, call: Call, reply: Any) -> None:
        if isinstance(reply, list):
            self._on_answers(call, reply)
        elif isinstance(reply, hiredis.ReplyError):
            self._on_refusal(call, str(reply))
        else:
            self._again(call.events())

    def _on_answers(self, call: Call, reply: list[int]) -> None:
        now_ms = reply[0]
        if reply[1] == CLOCKS_APART:
            return self._fail(call.events(), ClockUnsafe(headers={"Retry-After": "5"}))
        self._time.learn(now_ms)
        if reply[1] == OTHER_DAY:
            return self._again(call.events())
        at = 1
        for frame, events in call.groups:
            width = call.width_of(frame)
            if reply[at] == STALE:
                self._on_stale(frame, events, reply[at + 1])
            elif reply[at] == CORRUPT:
                self._park(frame.org_id, events, "a key of another type, or a figure that is no number")
            else:
                self._on_group(frame, events, reply, at, width)
            at += width * sum(event.size for event in events)
        return None

    def _on_group(self, frame: Frame, events: list[Pending], reply: list[int], at: int, width: int) -> None:
        """Hand every event of an organisation its answer."""
        if frame.creates and self._frames.get(frame.org_id) is frame:
            del self._frames[frame.org_id]
        for event in events:
            self._settle(event, (frame, reply, at, width))
            at += width * event.size
        self.stats.events += len(events)

    def _on_stale(self, frame: Frame, events: list[Pending], reason: int) -> None:
        """The script wrote nothing for this organisation: learn what is current, then ask again."""
        if reason == EARLY:
            return self._fail(events, ClockUnsafe(headers=_RETRY))
        if reason == MINUTE:
            return self._again(events)
        if reason == FINAL:
            return self._again(map(stays_out, events))
        if self._frames.get(frame.org_id) is frame:
            del self._frames[frame.org_id]
        alive = self._alive(events)
        if alive:
            self._resolve(frame.org_id, alive, frame.claim_text if reason == FULL else None)
        return None

    def _on_refusal(self, call: Call, words: str) -> None:
        """The server refused the whole call, or an organisation's data broke it halfway."""
        if words.startswith("NOSCRIPT"):
            if self._lane.ready:
                self._load_scripts()
            return self._again(call.events())
        if words.startswith(STATE):
            return self._later(call.events())
        problem = problem_of(ResponseError(words))
        if isinstance(problem, StorageUnavailable | Overloaded) or problem.code == "ledger-full":
            return self._fail(call.events(), problem)
        if len(call.groups) == 1:
            return self._park(call.groups[0][0].org_id, call.groups[0][1], words)
        for group in call.groups:  # one of them is bad; ids make it safe to ask the others again
            if self._lane.ready:
                self._send([group], call.width != self._maker.WIDTH)
            else:
                self._again(group[1])
        return None

    # ── settling ─────────────────────────────────────────────────────────────────────────────────────────

    def _settle(self, event: Pending, answer: Answer) -> None:
        self._pending -= 1
        if not event.future.done():  # its request may be gone; the event is counted all the same
            event.future.set_result(answer)

    def _fail(self, events: Iterable[Pending], problem: Problem) -> None:
        for event in events:
            self._pending -= 1
            if not event.future.done():
                event.future.set_exception(problem)

    def _alive(self, events: Iterable[Pending], *, turns: int = 1) -> list[Pending]:
        """Count a turn; events without budget or turns left are answered, the others returned."""
        alive: list[Pending] = []
        spent: list[Pending] = []
        now = self._loop.time()
        for event in events:
            event.attempts += turns
            (alive if event.attempts < ATTEMPTS_MAX and now < event.deadline else spent).append(event)
        self.stats.retries += len(alive)
        self._fail(spent, StorageUnavailable(headers=_RETRY))
        return alive

    def _again(self, events: Iterable[Pending]) -> None:
        """Ask again at once for events that may or may not be counted: the script recognises them."""
        self._put_back(self._alive(events))

    def _later(self, events: Iterable[Pending]) -> None:
        """Ask again after a pause, as often as the events' budget allows: the store says that it will pass."""
        self._paused.append(self._alive(events, turns=0))
        self._loop.call_later(_PAUSE_S, lambda: self._put_back(self._paused.popleft()))

    def _put_back(self, events: list[Pending]) -> None:
        self._queue.extendleft(reversed(events))
        self._schedule()

    def _park(self, org_id: str, events: list[Pending], words: str) -> None:
        """Refuse an organisation whose data has a shape no script wrote; the others are not affected."""
        log.error("org_parked", org=org_id, words=words)
        self._parked.add(org_id)
        self._frames.pop(org_id, None)
        self.stats.parked += 1
        self._fail(events, OrgCorrupt(headers={"Retry-After": str(int(PARK_S))}))

    def _sweep(self) -> None:
        """Answer events that waited out their budget for a connection, a pause or their organisation."""
        self._sweeper = None
        now = self._loop.time()
        for waiting in (self._queue, *self._resolving.values(), *self._paused):
            spent = [event for event in waiting if event.deadline <= now]
            if spent:
                alive = [event for event in waiting if event.deadline > now]
                waiting.clear()
                waiting.extend(alive)
                self._fail(spent, StorageUnavailable(headers=_RETRY))
        if self._pending:
            self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    # ── resolving ────────────────────────────────────────────────────────────────────────────────────────

    def _resolve(self, org_id: str, events: list[Pending], full: str | None) -> None:
        """Have the organisation's frame made; its events wait together."""
        waiting = self._resolving.get(org_id)
        if waiting is not None:
            waiting.extend(events)
            return
        self._resolving[org_id] = events
        task = self._loop.create_task(self._resolved(org_id, full))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resolved(self, org_id: str, full: str | None) -> None:
        try:
            async with self._resolvers:
                frame = await self._resolve_frame(org_id, full)
        except OrgCorrupt as problem:
            return self._park(org_id, self._resolving.pop(org_id), problem.detail)
        except Problem as problem:
            if isinstance(problem, StorageUnavailable | Overloaded):
                return self._later(self._resolving.pop(org_id))
            return self._fail(self._resolving.pop(org_id), problem)
        except BaseException:
            self._fail(self._resolving.pop(org_id), StorageUnavailable(headers=_RETRY))
            raise
        if len(self._frames) >= FRAMES_MAX:
            del self._frames[next(iter(self._frames))]
        self._frames[org_id] = frame
        return self._put_back(self._resolving.pop(org_id))


def _ignore(_: Any) -> None:
    """Nobody waits for this reply: a script that is not loaded shows as NOSCRIPT at the next call."""
