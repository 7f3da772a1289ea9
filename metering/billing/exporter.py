"""The exporter: overage becomes windows, and every window reaches Stripe once.

Each step writes down what it is about to do before it does it. A worker that dies between any two calls leaves a
window that another one takes up: sent again under the same identifier while Stripe knows it, and held against Stripe's
own sum once it may not. What nobody can decide is set aside as dead and told, never guessed.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from metering.billing.asking import Asking, Pause
from metering.billing.breaker import Breaker, delay_ms
from metering.billing.closing import Closing
from metering.billing.coverage import Cover
from metering.billing.errors import GatewayError, Refused
from metering.billing.late import Late, Way
from metering.billing.meter_reports import MeterReport
from metering.billing.sending import Fate, Sender, Sent, sent_of
from metering.errors import ClockUnsafe, LedgerFull, Overloaded, Problem, StorageUnavailable
from metering.store.org import Subscription
from metering.store.orgs import Orgs
from metering.store.outbox import KNOWN_MS, Begun, Outbox, Start
from metering.store.pace import StorePace
from metering.store.stripe_lanes import Lanes
from metering.store.window import OPEN, REPORTED, Cut, Sink, State, Window
from plans.periods import Period

PAGE: Final = 200
"""Counters or windows of a partition that are looked at together."""

AT_ONCE: Final = 8
"""Calls to Stripe on their way at once: at a quarter of a second each they fill the rate of 25 a second."""

QUIET_MS: Final = 15 * 60_000
"""Stripe's sums lag behind what it took; after so long without an attempt they are believed."""

WAIT_MS: Final = 60_000
"""How long a window waits whose lane is taken, or whose organisation has no customer."""

OUTAGES: Final = (StorageUnavailable, Overloaded, ClockUnsafe, LedgerFull)
"""Not one organisation's fault: the others would meet them too."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What the exporter stands on. `drained(org_id, at_ms)`: all that was accepted before an instant was counted."""

    orgs: Orgs
    outbox: Outbox
    lanes: Lanes
    sender: Sender
    late: Late
    coverage: Cover
    pace: StorePace
    breaker: Breaker
    stripe_ms: Callable[[], int | None]
    drained: Callable[[str, int], Awaitable[bool]]
    partitions: int
    pause: Pause = asyncio.sleep
    at_once: int = AT_ONCE


class Exporter:
    """Seals and sends. Every worker may run it, all partitions each. Raises the 503 problems of the store."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._outbox, self._lanes, self._breaker = parts.outbox, parts.lanes, parts.breaker
        self._meters = {name: feature.stripe_meter_event for name, feature in parts.late.catalogue.features.items()}
        self._asking = Asking(parts.pace, parts.breaker, parts.pause)
        self.closing = Closing(parts.orgs, parts.outbox, parts.coverage, self._asking, parts.drained)
        """Who looks whether periods are final."""
        self.woken = asyncio.Event()
        """Set when there is something to send that should not wait for the next turn."""

    async def turn(self) -> None:
        """Seal what accrued, then send what is due."""
        for partition in range(self._parts.partitions):
            await self._seal_all(partition)
        for partition in range(self._parts.partitions):
            await self._send_all(partition)

    async def flush(self, org_id: str, _start_ms: int) -> None:
        """Seal what an organisation has, of whatever period, and send it now: its invoice is a draft for an hour."""
        for member in await self._outbox.dirty_of(org_id):
            await self._seal(member)
        self.woken.set()

    async def push(self, org_id: str, waiting: Iterable[Window]) -> bool:
        """Seal what an organisation has and send it, with its windows that are `waiting`, whenever their turn is.

        Whether Stripe has all of that now; what nobody pays for, and what is dead, is not for it.
        """
        sealed = [await self._seal(member) for member in await self._outbox.dirty_of(org_id)]
        fresh = [await self._outbox.window_of(org_id, name) for name in sealed if name]
        windows = sorted([*waiting, *(window for window in fresh if window)], key=_place)
        for window in windows:
            await self._look_at(window)
        after = [await self._outbox.window_of(org_id, window.id) for window in windows]
        return None not in sealed and not any(window and window.state in OPEN for window in after)

    async def linked(self, org_id: str) -> None:
        """Somebody pays for an organisation now: what was put by goes out."""
        org = await self._parts.orgs.living(org_id)
        if org is not None and await self._parts.orgs.link(org):
            self.woken.set()

    async def relink(self) -> None:
        """Take up what was put by of organisations that have a customer, in case nobody was there to be told."""
        for partition in range(self._parts.partitions):
            members = [member.split("|") for member in await self._outbox.unbilled(partition)]
            for org_id in sorted({org_id for org_id, feature, *_ in members if self._meters.get(feature)}):
                if (await self._outbox.customer(org_id))[0]:
                    await self.linked(org_id)

    async def reported(self, report: MeterReport) -> None:
        """Windows that Stripe took and could not use are dead; the journal does not count them any more."""
        for name, code in report.samples.items():
            window = await self._outbox.find(name)
            if window is None:
                log.warning("report of a window that is not kept", window=name, code=code)
                continue
            meter = self._meters.get(window.cut.feature)
            if meter and window.customer:
                await self._lanes.strike(self._lanes.name(window.customer, meter), window)
            revoked = window.state is State.DELIVERED
            await self._outbox.settle(window, State.DEAD, f"{REPORTED}{code}", revoked=revoked)

    # ── sealing ──────────────────────────────────────────────────────────────────────────────────────────

    async def _seal_all(self, partition: int) -> None:
        """Every counter of a partition that has overage; one that cannot be read does not hold up the others."""
        seen: set[str] = set()
        while fresh := [name for name in await self._outbox.dirty(partition, PAGE + len(seen)) if name not in seen]:
            for member in fresh:
                seen.add(member)
                await self._seal(member)

    async def _seal(self, member: str) -> str | None:
        """The window that was cut, '' where there was none to cut or nobody pays for it; None: it failed."""
        org_id, feature, *_ = member.split("|")
        if await self._outbox.frozen(org_id):
            return None
        try:
            customer, stored = await self._outbox.customer(org_id)
            if customer and self._meters.get(feature) and await self._is_paid(member, customer):
                return await self._outbox.seal(member) or ""
            await self._outbox.park(member, stored)
        except OUTAGES:
            raise
        except GatewayError as error:
            log.warning("overage not sealed", org=org_id, feature=feature, code=error.code)
            return None
        except Problem as problem:
            log.warning("overage not sealed", org=org_id, feature=feature, code=problem.code)
            return None
        return ""

    async def _is_paid(self, member: str, customer: str) -> bool:
        """Whether an invoice will show a counter's overage. Raises GatewayError where Stripe is asked in vain."""
        org_id, feature, *closed = member.split("|")
        org = await self._parts.orgs.living(org_id)
        paid = org is None or self._parts.coverage.paid(org, feature, int(closed[0]) if closed else None)
        if org is None or paid is not None:
            return bool(paid)
        return await self._asking.ask(lambda: self._parts.coverage.ask_paid(org, customer, feature))

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────

    async def _send_all(self, partition: int) -> None:
        """All windows of a partition that are due; a counter's one after the other, of counters several at once."""
        places = asyncio.Semaphore(self._parts.at_once)

        async def in_order(names: Sequence[Window]) -> None:
            async with places:
                for window in names:
                    await self._look_at(window)

        seen: set[str] = set()
        while not self._breaker.open:
            now_ms = await self._parts.orgs.server_now()
            names = await self._outbox.due(partition, now_ms, PAGE + len(seen))
            groups = await self._grouped(partition, [name for name in names if name not in seen])
            if not groups:
                return
            seen |= {window.id for windows in groups for window in windows}
            for ended in await asyncio.gather(*map(in_order, groups), return_exceptions=True):
                if ended is not None:
                    raise ended

    async def _grouped(self, partition: int, names: Sequence[str]) -> list[list[Window]]:
        """Windows by organisation and feature, those of each in the order they were sealed."""
        found: dict[tuple[str, str], list[Window]] = defaultdict(list)
        for name in names:
            window = await self._outbox.window(partition, name)
            if window is not None:
                found[window.cut.org_id, window.cut.feature].append(window)
        return [sorted(windows, key=_place) for windows in found.values()]

    async def _look_at(self, window: Window) -> None:
        """One window whose turn it is."""
        if self._breaker.open:
            return
        try:
            await self._go(window)
        except OUTAGES:
            raise
        except GatewayError as error:
            wait_ms = delay_ms(window.attempts, error.retry_after_s)
            await self._outbox.postpone(window, await self._parts.orgs.server_now() + wait_ms)
        except Problem as problem:
            log.warning("window not sent", org=window.cut.org_id, window=window.id, code=problem.code)
        except Exception:  # a fault of ours must not stop the other windows
            log.exception("window not sent", org=window.cut.org_id, window=window.id)

    async def _go(self, window: Window) -> None:
        org_id, meter = window.cut.org_id, self._meters.get(window.cut.feature)
        org = await self._parts.orgs.living(org_id)
        now_ms = await self._parts.orgs.server_now()
        customer = window.customer if not window.fresh else (await self._outbox.customer(org_id))[0]
        if not customer or not meter or await self._outbox.frozen(org_id):
            return await self._outbox.postpone(window, now_ms + WAIT_MS)
        sold = None if org is None else org.profile.subscription
        invoiced = await self._invoiced(window, customer, sold, now_ms)
        if invoiced is None:
            return await self._outbox.postpone(window, now_ms + WAIT_MS)
        way = Way(window.sink, window.amount_minor)
        if window.fresh:
            own = {} if org is None else org.profile.overrides
            way = self._parts.late.way_of(window.cut, now_ms, sold, invoiced=bool(invoiced), own=own)
        if way.sink is Sink.NONE:
            return await self._let_go(window, way.why)
        lane = self._lanes.name(customer, meter)
        if not await self._take(lane, window):
            return await self._outbox.postpone(window, now_ms + WAIT_MS)
        if doubtful(window, now_ms, invoiced=bool(invoiced)):
            return await self._reconcile(window, lane, meter, now_ms)
        start = Start(customer, way.sink, _last_ms(window.cut, sold), way.amount_minor, invoiced)
        return await self._attempt(window, lane, meter, start)

    async def _invoiced(self, window: Window, customer: str, sold: Subscription | None, now_ms: int) -> str | None:
        """When the invoice of a window's period was finalised, '' where it is to come; None: nobody can say yet.

        Stripe's word where ours is old.
        """
        org_id, period = window.cut.org_id, window.cut.period
        invoiced = await self._outbox.invoiced(org_id, period.start_ms)
        if invoiced or not self._parts.coverage.doubts(window, sold, now_ms):
            return invoiced
        to_come = await self._asking.ask(lambda: self._parts.coverage.ask_final(org_id, period, customer, sold, now_ms))
        return await self._outbox.invoiced(org_id, period.start_ms) or ("" if to_come else None)

    async def _take(self, lane: str, window: Window) -> bool:
        """Have the lane, also after a window that has no more use for it."""
        holder = await self._lanes.take(lane, window)
        if holder is None:
            return True
        other = await self._outbox.window_of(holder.org_id, holder.window)
        if other is None or other.state not in OPEN or (other.fresh and await self._lane_of(other) != lane):
            return await self._lanes.take(lane, window, before=holder.window) is None
        return False

    async def _lane_of(self, window: Window) -> str:
        """The lane that a window of which nothing was sent would take now."""
        customer, _ = await self._outbox.customer(window.cut.org_id)
        return self._lanes.name(customer, self._meters.get(window.cut.feature) or "")

    async def _attempt(self, window: Window, lane: str, meter: str, start: Start) -> None:
        await self._asking.paced()
        start = replace(start, stamp_ms=self._stamp(window.cut.period, start.stamp_ms))
        begun, attempt = await self._outbox.attempt(window, start)
        if begun is Begun.GONE:
            await self._lanes.leave(lane, window.id)
        if begun is not Begun.YES:
            return  # somebody else is at it, or it is to be looked at again
        going = window
        if window.fresh:
            going = replace(
                window, customer=start.customer, sink=start.sink, stamp_ms=start.stamp_ms,
                amount_minor=start.amount_minor,
            )  # fmt: skip
        sent = await self._parts.sender.send(going, meter, attempt)
        if sent.fate is Fate.TAKEN:
            self._breaker.ok()
            await self._delivered(going, lane, known=sent.duplicate)
        else:
            await self._failed(going, lane, attempt, sent, first=window.fresh)

    def _stamp(self, period: Period, last_ms: int) -> int:
        """A window's time at Stripe: that of its last unit, which Stripe's clock may not have reached."""
        stripe_ms = self._parts.stripe_ms()
        return last_ms if stripe_ms is None else max(period.start_ms, min(last_ms, stripe_ms))

    async def _delivered(self, window: Window, lane: str, *, known: bool = False) -> None:
        """Stripe has it (`known`: and had it before): first the journal says so, then the window."""
        if window.sink is Sink.METER:
            await self._lanes.note(lane, window)
        await self._outbox.settle(window, State.DELIVERED, known=known)
        await self._lanes.leave(lane, window.id)
        await self._finalize(window)

    async def _failed(self, window: Window, lane: str, attempt: int, sent: Sent, *, first: bool) -> None:
        """It did not arrive, or nobody knows. `first`: no attempt before this one can have arrived."""
        self._asking.note(sent)
        if sent.fate is Fate.REFUSED:
            return await self._bury(window, lane, sent.why, attempt, nothing=first)
        nothing = sent.fate is Fate.TOO_EARLY or (sent.fate is Fate.NOTHING and first)
        wait_ms = delay_ms(attempt, sent.retry_after_s)
        log.warning("window not sent", window=window.id, attempt=attempt, fate=sent.fate.value, why=sent.why)
        await self._outbox.defer(window, attempt, wait_ms, sent.why, nothing=nothing)
        return None

    async def _bury(self, window: Window, lane: str, why: str, attempt: int, *, nothing: bool = False) -> None:
        if await self._outbox.settle(window, State.DEAD, why, attempts=attempt, nothing=nothing):
            log.error("overage not billed", org=window.cut.org_id, window=window.id, units=window.units, why=why)
        await self._lanes.leave(lane, window.id)

    async def _let_go(self, window: Window, why: str) -> None:
        """Overage that no invoice will show, by the operator's choice."""
        await self._outbox.settle(window, State.WRITTEN_OFF, why, attempts=window.attempts, sink=Sink.NONE)
        await self._finalize(window)

    # ── doubt ────────────────────────────────────────────────────────────────────────────────────────────

    async def _reconcile(self, window: Window, lane: str, meter: str, now_ms: int) -> None:
        """A window that may have arrived and must not be sent again: Stripe's own sum of its hour tells."""
        rows = await self._lanes.hour(lane, window.stamp_ms)
        if window.id in rows:
            return await self._delivered(window, lane, known=True)
        quiet_ms = (window.tried_ms or 0) + QUIET_MS
        if now_ms < quiet_ms:
            return await self._outbox.postpone(window, quiet_ms)
        try:
            found = await self._asking.ask(lambda: self._parts.sender.hour_usage(window, meter))
        except Refused as error:  # of a customer who is gone, say: it will never be told
            sent = sent_of(error)
            if sent.barred:
                raise
            return await self._bury(window, lane, sent.why, window.attempts)
        known = sum(rows.values())
        if found == known + window.units:
            return await self._delivered(window, lane, known=True)
        if found == known:
            await self._outbox.defer(window, window.attempts, 0, "it did not arrive", nothing=True)
            return None
        why = f"of that hour Stripe has {found} units, the journal {known}, the window {window.units}"
        return await self._bury(window, lane, why, window.attempts)

    async def _finalize(self, window: Window) -> None:
        """Its period is final if this was the last that it lacked."""
        await self.closing.finalize(window.cut.org_id, window.cut.period.start_ms, window.cut.period.end_ms)


def doubtful(window: Window, now_ms: int, *, invoiced: bool) -> bool:
    """Whether a window may have arrived and must not be sent again.

    Stripe may have forgotten its identifier, or would take it and bill nothing, as the invoice is final.
    """
    if window.first_ms is None or window.sink is not Sink.METER:
        return False
    return invoiced or now_ms - window.first_ms >= KNOWN_MS


def _last_ms(cut: Cut, sold: Subscription | None) -> int:
    """The instant of a window's last unit, as the last invoice of a subscription that ended bills it."""
    ended_ms = None if sold is None else sold.ended_in(cut.period)
    return cut.last_ms if ended_ms is None else min(cut.last_ms, ended_ms - 1)


def _place(window: Window) -> tuple[int, int]:
    return window.cut.period.start_ms, window.cut.from_units
