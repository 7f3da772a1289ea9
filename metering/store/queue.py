"""Events accepted with `ack=async`: one stream a partition, appended to before the answer, emptied by counting.

An entry leaves when its event has been decided, so the oldest one in the stream is the oldest that is not, and a
period is final only once the stream is drained past its end. The streams are shared: an entry carries the pseudonym of
its organisation, the event in a box under the data key, and the organisation's id in one under a key of the data set,
because whoever counts must learn whose data key to take. Erasing the organisation leaves entries that nobody can read.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from redis.exceptions import NoScriptError

from metering.errors import ClockUnsafe, Overloaded, Problem, TimestampOutOfRange
from metering.store.boxes import shut
from metering.store.connect import StoreError, problem_of
from metering.store.keys import Keys
from metering.store.queue_owners import Owner, Owners
from metering.store.queue_state import oldest_of
from metering.store.queued import BOXED, text_of
from metering.store.scripts import script
from metering.store.timing import StoreTime
from metering.ulid import Ulids
from metering.usage import UsageEvent
from plans.periods import AHEAD_MAX_MS, oldest_accepted_ms

if TYPE_CHECKING:
    from redis.asyncio import Redis

APPEND_MAX: Final = 100
"""Events of one call of the script: about half a millisecond of the store, which others wait for."""

_LOOKUPS: Final = 8
"""Organisations looked up at once: a quarter of the pool, so that a batch of a thousand new ones starves nobody."""

_RETRY: Final = {"Retry-After": "1"}


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An event on its way into a queue: its place among those asked for, and the values of its entry."""

    at: int
    values: tuple[str, str, str]


_Call: TypeAlias = tuple[int, Sequence[_Waiting]]
"""A partition and the events to append there."""


class Queue:
    """The queues of one data set; at most `most` entries in each. Errors of the store are the 503 problems."""

    def __init__(
        self,
        client: "Redis",
        keys: Keys,
        time: StoreTime,
        owners: Owners,
        ulids: Ulids,
        *,
        most: int,
        fake: bool = False,
    ) -> None:
        self._client: Any = client
        self._keys, self._time, self._owners, self._ulids, self._most = keys, time, owners, ulids, most
        self._enqueue: Any = client.register_script(script("enqueue", fake=fake).text)
        self.woken = asyncio.Event()
        """Set when this worker accepted something: whoever counts need not wait for its next turn."""

    # ── accepting ────────────────────────────────────────────────────────────────────────────────────────

    async def accept(self, events: Sequence[UsageEvent], *, actor: str) -> list[Problem | None]:
        """Append events durably; in their order None for each that will be counted, or why it will not.

        An event without an id gets one here, so that it counts once whatever crashes later. After a 503 an event may
        or may not have been accepted. Unknown organisations are made as by a first event; `actor` is who did it.
        """
        owners = await self._senders({event.org_id for event in events}, actor)
        now_ms = self._time.now_ms()
        window = (oldest_accepted_ms(now_ms), now_ms + AHEAD_MAX_MS)
        fates = [_refusal(event, owners[event.org_id], window) for event in events]
        waiting: dict[int, list[_Waiting]] = defaultdict(list)
        for at, event in enumerate(events):
            owner = owners[event.org_id]
            if fates[at] is None and isinstance(owner, Owner):
                waiting[self._keys.partition(event.org_id)].append(self._waiting(at, event, owner))
        calls = [(partition, some) for partition, each in waiting.items() for some in _chunks(each)]
        for (_, some), fate in zip(calls, await self._append(calls), strict=True):
            for one in some:
                fates[one.at] = fate
        if None in fates:
            self.woken.set()
        return fates

    async def _senders(self, org_ids: Iterable[str], actor: str) -> dict[str, Owner | Problem]:
        """The organisations by id, or why one cannot be had."""
        limit = asyncio.Semaphore(_LOOKUPS)

        async def sender(org_id: str) -> Owner | Problem:
            async with limit:
                try:
                    return await self._owners.sender(org_id, actor)
                except Problem as problem:
                    return problem

        names = list(org_ids)
        return dict(zip(names, await asyncio.gather(*map(sender, names)), strict=True))

    def _waiting(self, at: int, event: UsageEvent, owner: Owner) -> _Waiting:
        named = event if event.event_id is not None else replace(event, event_id="evt_" + self._ulids.mint())
        return _Waiting(at, (owner.name, owner.to, shut(text_of(named), owner.data_key, BOXED)))

    async def _append(self, calls: Sequence[_Call]) -> list[Problem | None]:
        """What becomes of each call of the script. One that is asked twice leaves entries twice, which count once."""
        try:
            replies = await self._asked(calls)
            if any(isinstance(reply, NoScriptError) for reply in replies):  # the store was restarted meanwhile
                replies = await self._asked(calls)
        except StoreError as error:
            return [problem_of(error)] * len(calls)
        return [self._fate(reply) for reply in replies]

    async def _asked(self, calls: Sequence[_Call]) -> list[Any]:
        """The replies, or the errors, of each call: one round trip, after one that sees that the script is there."""
        pipe = self._client.pipeline(transaction=False)
        for partition, some in calls:
            args = [self._time.caller_ms(), self._time.offset_text(), self._most]
            args += [value for one in some for value in one.values]
            await self._enqueue(keys=self._keys_of(partition), args=args, client=pipe)
        replies: list[Any] = await pipe.execute(raise_on_error=False)
        return replies

    def _fate(self, reply: Any) -> Problem | None:
        if isinstance(reply, Exception):
            return problem_of(reply)
        code, now_ms, _ = reply
        if code < 0:
            return ClockUnsafe(headers={"Retry-After": "5"})
        self._time.learn(now_ms)
        return None if code else Overloaded("the queue is full", headers=_RETRY)

    def _keys_of(self, partition: int) -> list[str]:
        shared = self._keys.shared
        clock = [] if self._time.test_offset_ms is None else [shared("clock", partition)]
        return [shared("queue", partition), *clock]

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────

    async def drained_past(self, where: int | str, at_ms: int) -> bool:
        """Whether everything accepted before `at_ms` has been decided, in a partition or in that of an organisation.

        Never before the store's own time has passed `at_ms`: until then more may be accepted. Entries come in the
        order of the store's clock, which does not go back inside a stream.
        """
        partition = where if isinstance(where, int) else self._keys.partition(where)
        now_ms, oldest_ms = await oldest_of(self._client, self._keys, partition)
        return now_ms >= at_ms and (oldest_ms is None or oldest_ms >= at_ms)


def _refusal(event: UsageEvent, owner: Owner | Problem, window: tuple[int, int]) -> Problem | None:
    """Why an event is not accepted: nobody's, or a timestamp that can no longer be told from a repeat."""
    if isinstance(owner, Problem):
        return owner
    oldest_ms, newest_ms = window
    if event.timestamp_ms is None or oldest_ms <= event.timestamp_ms <= newest_ms:
        return None
    detail = "timestamp lies outside the accepted window"
    return TimestampOutOfRange(detail, oldest_ms=oldest_ms, newest_ms=newest_ms)


def _chunks(waiting: Sequence[_Waiting]) -> Iterator[Sequence[_Waiting]]:
    for at in range(0, len(waiting), APPEND_MAX):
        yield waiting[at : at + APPEND_MAX]
