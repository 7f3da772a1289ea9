"""The outbox: overage cut into windows, and every window's way until Stripe has it, as the store keeps it.

Every step is one script that may be repeated: asked twice it writes once. Whoever sends writes down that it begins
(`attempt`) before the first byte goes out, and how it ended afterwards; what happens in between is found out later.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from metering.errors import ClockUnsafe, OrgCorrupt
from metering.log import request_id
from metering.store.connect import answered, text_of, texts
from metering.store.fields import FieldCodec, without_ids
from metering.store.keys import Keys
from metering.store.scripts import script
from metering.store.timing import SKEW_MAX_MS, StoreTime
from metering.store.window import CUSTOMER, Cut, Figures, Seal, Sink, State, Window, parsed, seal_of
from plans.periods import Period

if TYPE_CHECKING:
    from redis.asyncio import Redis

LEASE_MS: Final = 60_000
"""How long an attempt has its window to itself: four times the longest that a push may take."""

KNOWN_MS: Final = 23 * 3_600_000
"""Stripe knows an identifier "at least 24 h" (https://docs.stripe.com/api/billing/meter-event/create); an hour is for
clocks and for the push itself. After that a window that may have arrived is not sent again."""

_TURNS: Final = 8
"""As many as the organisations allow: each lost turn means that somebody else made progress."""

_APART: Final = -1
_CORRUPT: Final = -2
_ERROR_MAX: Final = 300


class Begun(IntEnum):
    """What became of a wish to send a window."""

    GONE = 0  # it is settled, or not there
    YES = 1
    LATER = 2  # its turn is later: somebody is at it, or it waits
    STALE = 3  # its period was invoiced, or somebody began with another customer
    DOUBTFUL = 4  # it may have arrived, and Stripe would not know the identifier again, or bill nothing for it


@dataclass(frozen=True, slots=True)
class Start:
    """What a first attempt settles. `invoiced` is the stored instant of the period's invoice as it was seen, or ''."""

    customer: str
    sink: Sink
    stamp_ms: int
    amount_minor: int | None
    invoiced: str


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter with overage that is not sealed, as it was seen. `member` is how the lists name it."""

    member: str
    org_id: str
    feature: str
    period: Period
    figures: Figures
    counted_ms: int

    def cut(self, seal: Seal) -> Cut:
        """The window that a seal makes; its last unit lies in the period, whatever clocks said."""
        last_ms = max(self.period.start_ms, min(self.counted_ms, self.period.end_ms - 1))
        return Cut(self.org_id, self.feature, self.period, seal.from_units, seal.to_units, last_ms)


class Outbox:
    """The outboxes of one data set, whose id is `dataset_id`. Errors of the store come out as 503 problems."""

    def __init__(
        self, client: "Redis", keys: Keys, time: StoreTime, codec: FieldCodec, dataset_id: str, *, fake: bool = False
    ) -> None:
        self._client: Any = client
        self._keys, self._time, self._codec, self._dataset_id = keys, time, codec, dataset_id
        named = {name: client.register_script(script(name, fake=fake).text) for name in _SCRIPTS}
        self._scripts: dict[str, Any] = named

    # ── cutting out ──────────────────────────────────────────────────────────────────────────────────────

    async def dirty(self, partition: int, most: int) -> list[str]:
        """Up to `most` counters with overage that is not sealed, the oldest first."""
        return await self._names(self._client.zrange(self._keys.shared("dirty", partition), 0, most - 1))

    async def dirty_of(self, org_id: str) -> list[str]:
        """Those of one organisation."""
        key = self._keys.shared("dirty", self._keys.partition(org_id))
        return [name for name in await self._names(self._client.zrange(key, 0, -1)) if name.startswith(f"{org_id}|")]

    async def counter(self, member: str) -> Counter | None:
        """A counter as it is; None where there is none of that name."""
        org_id, feature, *start = member.split("|")
        key = self._keys.archive(org_id, int(start[0])) if start else self._keys.record(org_id)
        fields = ["ps", "pe", f"t:{feature}", *(f"{kind}:{feature}" for kind in "xsyz")]
        found = await answered(self._client.hmget(key, fields))
        if found[0] is None:
            return None
        try:
            start_ms, end_ms, counted_ms, *figures = [int(value or 0) for value in found]
        except ValueError as error:
            raise OrgCorrupt from error
        return Counter(member, org_id, feature, Period(start_ms, end_ms), Figures(*figures), counted_ms)

    async def settled_sums(self, member: str) -> tuple[int, int]:
        """Units of a counter that Stripe took, and that were written off. Raises OrgCorrupt."""
        org_id, feature, *start = member.split("|")
        key = self._keys.archive(org_id, int(start[0])) if start else self._keys.record(org_id)
        try:
            found = await answered(self._client.hmget(key, f"d:{feature}", f"q:{feature}"))
            delivered, let_go = (int(value or 0) for value in found)
        except ValueError as error:
            raise OrgCorrupt from error
        return delivered, let_go

    async def seal(self, member: str) -> str | None:
        """Cut the next window out of a counter; its identifier, or None where there was nothing to send."""
        for _ in range(_TURNS):
            counter = await self.counter(member)
            if counter is None or counter.figures.accrued == counter.figures.sealed:
                return None
            seal = seal_of(counter.figures)
            name = counter.cut(seal).identifier(self._dataset_id)
            if await self._seal(counter, seal, name):
                return name if seal.to_units > seal.from_units else None
        return None  # others seal it, or it grows too fast: the next turn has it

    async def _seal(self, counter: Counter, seal: Seal, name: str) -> bool:
        org_id, figures, cut = counter.org_id, counter.figures, counter.cut(seal)
        closed = counter.member.count("|") > 1
        start_ms = counter.period.start_ms
        key = self._keys.archive(org_id, start_ms) if closed else self._keys.record(org_id)
        partition = self._keys.partition(org_id)
        keys = [key, self._keys.window(org_id, name), *self._shared(partition, "outbox", "dirty")]
        args = [
            counter.member, counter.feature, start_ms, figures.sealed, figures.back, figures.netted,
            seal.sealed, seal.netted, name, org_id, cut.from_units, cut.to_units, cut.last_ms,
        ]  # fmt: skip
        return bool((await self._timed("seal", partition, keys, args))[0] == 1)

    async def frozen(self, org_id: str) -> bool:
        """Whether an organisation's sums do not hold: nothing of it is billed meanwhile (`metering.store.watch`)."""
        key = self._keys.shared("frozen", self._keys.partition(org_id))
        return await answered(self._client.zscore(key, org_id)) is not None

    # ── nobody to be billed ──────────────────────────────────────────────────────────────────────────────

    async def customer(self, org_id: str) -> tuple[str, str]:
        """Who pays for an organisation, and the same as it is stored; both '' where nobody does."""
        stored = text_of(await answered(self._client.hget(self._keys.profile(org_id), "stripe_customer")))
        return (self._codec.decode(org_id, "stripe_customer", stored) if stored else ""), stored

    async def park(self, member: str, stored: str) -> bool:
        """Put a counter by while the stored customer is `stored`: nobody can be billed for it."""
        org_id = member.partition("|")[0]
        lists = self._shared(self._keys.partition(org_id), "dirty", "unbilled")
        return await self._plain("park", [self._keys.profile(org_id), *lists], [member, stored]) == 1

    async def unbilled(self, partition: int) -> list[str]:
        """Every counter that was put by."""
        return await self._names(self._client.zrange(self._keys.shared("unbilled", partition), 0, -1))

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────

    async def due(self, partition: int, now_ms: int, most: int) -> list[str]:
        """Up to `most` windows whose turn it is, the longest waiting first."""
        key = self._keys.shared("outbox", partition)
        return await self._names(self._client.zrangebyscore(key, "-inf", now_ms, start=0, num=most))

    async def window(self, partition: int, name: str) -> Window | None:
        """A window of the partition; None where there is none. Raises OrgCorrupt."""
        row = texts(await answered(self._client.hgetall(self._row(partition, name))))
        try:
            return parsed(name, row, self._codec) if row else None
        except (KeyError, ValueError) as error:
            raise OrgCorrupt from error

    async def window_of(self, org_id: str, name: str) -> Window | None:
        """A window of an organisation."""
        return await self.window(self._keys.partition(org_id), name)

    async def find(self, name: str) -> Window | None:
        """A window whose organisation is not known: every partition is asked."""
        for partition in range(self._keys.partitions):
            window = await self.window(partition, name)
            if window is not None:
                return window
        return None

    async def invoiced(self, org_id: str, start_ms: int) -> str:
        """When the period that began at `start_ms` was invoiced, as stored; '' where it was not."""
        for key in (self._keys.record(org_id), self._keys.archive(org_id, start_ms)):
            found = await answered(self._client.hmget(key, ["ps", "iv"]))
            if text_of(found[0]) == str(start_ms):
                return text_of(found[1])
        return ""

    async def attempt(self, window: Window, start: Start) -> tuple[Begun, int]:
        """Begin to send a window; what became of it, and which attempt it is. `start` counts for a first one alone."""
        partition = self._keys.partition(window.cut.org_id)
        keys = [self._row(partition, window.id), *self._shared(partition, "outbox"), *self._counters(window)]
        amount = "" if start.amount_minor is None else start.amount_minor
        first = [self._payer(window, start), start.sink.value, start.stamp_ms, amount, start.invoiced]
        args = [window.id, LEASE_MS, KNOWN_MS, *first]
        code, attempts, _ = await self._timed("attempt", partition, keys, args)
        return Begun(code), attempts

    def _payer(self, window: Window, start: Start) -> str:
        """The customer of an attempt as the row is to hold it: where it is that of the attempt before, as it holds it.

        The script compares texts, and the same customer encrypted again is another text.
        """
        if start.customer == window.customer:
            return window.kept_customer
        return self._codec.encode(window.cut.org_id, CUSTOMER, start.customer)

    async def defer(self, window: Window, attempts: int, delay_ms: int, error: str, *, nothing: bool) -> bool:
        """Say that attempt number `attempts` did not succeed, and when the next may be.

        `nothing`: no byte of the window can have arrived, in this attempt or before.
        """
        partition = self._keys.partition(window.cut.org_id)
        keys = [self._row(partition, window.id), *self._shared(partition, "outbox")]
        args = [window.id, attempts, delay_ms, without_ids(error)[:_ERROR_MAX], "1" if nothing else ""]
        return bool((await self._timed("defer", partition, keys, args))[0] == 1)

    async def postpone(self, window: Window, at_ms: int) -> None:
        """Let a window wait that was not tried; one that was settled meanwhile stays settled."""
        key = self._keys.shared("outbox", self._keys.partition(window.cut.org_id))
        await answered(self._client.zadd(key, {window.id: at_ms}, xx=True))

    async def settle(
        self, window: Window, state: State, why: str = "", *, attempts: int | None = None,
        sink: Sink | None = None, known: bool = False, revoked: bool = False, nothing: bool = False,
    ) -> bool:  # fmt: skip
        """End the way of a window; False where it had ended. With `attempts` only if nobody tried since.

        `known`: Stripe had it already; `revoked`: it was delivered, and Stripe could not use it; `nothing`: none of it
        can have arrived. Raises OrgCorrupt where its counter is gone.
        """
        org_id = window.cut.org_id
        partition = self._keys.partition(org_id)
        keys = [
            self._row(partition, window.id), *self._shared(partition, "outbox", "settled", "dead_windows"),
            *self._counters(window), self._keys.trail(org_id), *self._shared(partition, "totals"),
        ]  # fmt: skip
        expected = "" if attempts is None else attempts
        word = "revoked" if revoked else "known" if known else state.value
        found = "" if sink is None else sink.value
        args = [window.id, word, expected, without_ids(why)[:_ERROR_MAX], found, "1" if nothing else ""]
        return bool((await self._timed("settle", partition, keys, args))[0] == 1)

    async def replay(self, window: Window, by: str, not_before_ms: int = 0) -> bool:
        """Put a dead window back by somebody's word, looked at from an instant on; False where it is not dead."""
        org_id = window.cut.org_id
        partition = self._keys.partition(org_id)
        lists = self._shared(partition, "outbox", "dead_windows")
        keys = [
            self._row(partition, window.id),
            *lists,
            self._keys.trail(org_id),
            self._keys.shared("totals", partition),
        ]
        args = [window.id, not_before_ms, by, request_id.get()]
        return bool((await self._timed("replay", partition, keys, args))[0] == 1)

    async def discard(self, window: Window, why: str, by: str) -> bool:
        """Write a dead window off, by somebody's word and for a reason; False where it is not dead."""
        org_id = window.cut.org_id
        partition = self._keys.partition(org_id)
        lists = self._shared(partition, "dead_windows", "settled")
        tail = [self._keys.trail(org_id), *self._shared(partition, "totals")]
        keys = [self._row(partition, window.id), *lists, *self._counters(window), *tail]
        args = [window.id, why[:_ERROR_MAX], by, request_id.get()]
        return bool((await self._timed("discard", partition, keys, args))[0] == 1)

    async def finalize(self, org_id: str, start_ms: int, at_ms: int) -> bool:
        """Mark a closed period as final where it is invoiced and all its overage has found its place."""
        return await self._plain("finalize", [self._keys.archive(org_id, start_ms)], [at_ms]) == 1

    async def prune(self, windows: Sequence[Window], keep_ms: int) -> int | None:
        """Remove windows of one counter, given as they follow each other, whose way ended `keep_ms` ago or earlier.

        How many of the first went: up to one that is not next after what went before, dead, on its way or younger. None
        where their period is not final. The counter keeps how far. Raises OrgCorrupt.
        """
        cut = windows[0].cut
        org_id, start_ms, partition = cut.org_id, cut.period.start_ms, self._keys.partition(cut.org_id)
        names = [window.id for window in windows]
        rows = [self._row(partition, name) for name in names]
        keys = [self._keys.archive(org_id, start_ms), *self._shared(partition, "settled"), *rows]
        final, gone, _ = await self._timed("prune", partition, keys, [org_id, cut.feature, start_ms, keep_ms, *names])
        return int(gone) if final else None

    # ── the store ────────────────────────────────────────────────────────────────────────────────────────

    async def _timed(self, name: str, partition: int, keys: list[str], args: list[Any]) -> list[Any]:
        """Run a script that looks at the clock. Raises ClockUnsafe, OrgCorrupt."""
        offset = self._time.test_offset_ms
        clock = [] if offset is None else [self._keys.shared("clock", partition)]
        for _ in range(_TURNS):
            told = [self._time.caller_ms(), self._time.offset_text(), *args]
            reply: list[Any] = await answered(self._scripts[name](keys=[*keys, *clock], args=told))
            if reply[0] == _CORRUPT:
                raise OrgCorrupt
            if reply[0] != _APART:
                self._time.learn(int(reply[-1]))
                return reply
            if offset is None or abs(int(reply[-1]) - self._time.caller_ms()) > SKEW_MAX_MS:
                break
            await self._learn_offset()
        raise ClockUnsafe(headers={"Retry-After": "5"})

    async def _learn_offset(self) -> None:
        self._time.test_offset_ms = int(await answered(self._client.get(self._keys.shared("clock", 0))) or 0)

    async def _plain(self, name: str, keys: list[str], args: list[Any]) -> int:
        code = int(await answered(self._scripts[name](keys=keys, args=args)))
        if code == _CORRUPT:
            raise OrgCorrupt
        return code

    async def _names(self, call: Awaitable[Any]) -> list[str]:
        return [text_of(name) for name in await answered(call)]

    def _row(self, partition: int, name: str) -> str:
        return self._keys.window_at(partition, name)

    def _counters(self, window: Window) -> list[str]:
        org_id = window.cut.org_id
        return [self._keys.record(org_id), self._keys.archive(org_id, window.cut.period.start_ms)]

    def _shared(self, partition: int, *kinds: str) -> list[str]:
        return [self._keys.shared(kind, partition) for kind in kinds]


_SCRIPTS: Final = ("seal", "park", "attempt", "defer", "settle", "replay", "discard", "finalize", "prune")
