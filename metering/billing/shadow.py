"""A shadow: a second, test account of Stripe is told what the first one took, to be compared with before money moves.

It stands behind billing and never in it: it reads windows whose way is over, with a gateway, a breaker and a cursor of
its own. What it tells has the identifier and the time of the original, so that telling it again counts once.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

import structlog

from metering.billing.breaker import Breaker
from metering.billing.errors import Barred, Duplicate, GatewayError
from metering.billing.gateway import Gateway, MeterEvent, StripeObject
from metering.billing.late import METER_AGE_MAX_MS
from metering.billing.sending import Fate, Sender, sent_of
from metering.billing.wanted import meter_for
from metering.clock import MS_PER_S
from metering.store.customers import Customers
from metering.store.frames import HOUR_MS
from metering.store.outbox import KNOWN_MS
from metering.store.shadow_book import Outcome, ShadowBook
from metering.store.stripe_lanes import Lanes
from metering.store.timing import SKEW_MAX_MS
from metering.store.window import Sink, State, Window
from metering.store.window_lists import WindowLists
from plans.catalogue import Catalogue

SHADOW_S: Final = 60.0
"""Between two turns."""

STEADY_MS: Final = 2 * SKEW_MAX_MS
"""Only windows whose way was over so long ago are read. Younger ones may still be joined by some that sort before them:
of the same ms, or of a store whose clock went back as far as it may."""

TAG: Final = "metering_shadow"
"""Metadata of a customer of the second account: the data set."""

log = structlog.get_logger(__name__)


class Shadows:
    """Who pays at the second account for whom. A customer there has no name, no card, and no subscription."""

    def __init__(self, shade: Gateway, book: ShadowBook, customers: Customers, dataset_id: str) -> None:
        self._shade, self._book, self._customers, self._dataset_id = shade, book, customers, dataset_id

    async def known(self, customer: str) -> str:
        """The customer there; '' where there is none yet."""
        return await self._book.customer(self._customers.digest(customer))

    async def of(self, customer: str, now_ms: int) -> str:
        """The customer there, made where there is none. One that a crash leaves behind is never used."""
        digest = self._customers.digest(customer)
        found = await self._book.customer(digest)
        if found:
            return found
        params = {"description": "usage of a customer, told twice", "metadata": {TAG: self._dataset_id}}
        made = await self._shade.create_customer(params, key=f"shadow-{digest}-{now_ms // HOUR_MS}")
        return await self._book.keep_customer(digest, made["id"])


class Shadow:
    """The job. Every worker may run it, one at a time does. Raises the 503 problems of the store."""

    def __init__(
        self, shade: Gateway, book: ShadowBook, shadows: Shadows, lists: WindowLists, lanes: Lanes, breaker: Breaker,
        catalogue: Catalogue, now_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        self._shade, self._book, self._shadows, self._lists, self._lanes = shade, book, shadows, lists, lanes
        self._breaker, self._features, self._now_ms = breaker, catalogue.features, now_ms
        self._sender = Sender(shade, catalogue.currency)
        self._account = ""

    async def turn(self) -> None:
        """Tell what the first account took since the last turn. An account that does not answer is asked later."""
        if self._breaker.open or not await self._book.lease():
            return
        try:
            await self._begin()
            for partition in range(self._book.partitions):
                await self._tell_all(partition)
        except GatewayError as error:
            self._breaker.failed(at_once=isinstance(error, Barred))
            log.warning("shadow not told", code=error.code, why=error.message or type(error).__name__)

    async def _begin(self) -> None:
        """What was noted of another account is none of this one's. Its meters are made once a process."""
        if not self._account:
            await self._make_meters()
            self._account = (await self._shade.account())["id"]
        await self._book.begin(self._account)

    async def _make_meters(self) -> None:
        """Those that it lacks: usage of no meter is answered 200 and dropped."""
        there = {one["event_name"] for one in await self._shade.meters() if one["status"] == "active"}
        lacking = {one.stripe_meter_event: one for one in self._features.values() if one.stripe_meter_event}
        for event in sorted(lacking.keys() - there):
            params = meter_for(lacking[event].name, lacking[event].title, event).params
            await self._shade.create_meter(params, key=f"shadow-{event}-{self._now_ms() // HOUR_MS}")

    async def _tell_all(self, partition: int) -> None:
        """Windows of a partition in the order in which their way was over, and how far after each page."""
        now_ms = self._now_ms()
        async for place, windows in self._lists.ended(partition, now_ms - STEADY_MS, await self._book.place(partition)):
            if not await self._book.lease():
                return
            found = Counter([await self._tell(window, now_ms) for window in windows])
            await self._book.move(place, found)

    async def _tell(self, window: Window, now_ms: int) -> Outcome:
        """What became of a window. Raises GatewayError where it has to be tried again."""
        feature = self._features.get(window.cut.feature)
        meter = None if feature is None else feature.stripe_meter_event
        if window.state is not State.DELIVERED or window.sink is not Sink.METER or not meter:
            return Outcome.PASSED
        if now_ms - window.stamp_ms > METER_AGE_MAX_MS:
            return Outcome.TOO_OLD
        outcome = Outcome.TOLD
        try:
            there = await self._shadows.of(window.customer, now_ms)
            await self._tell_once(replace(window, customer=there), meter, now_ms)
        except GatewayError as error:
            if sent_of(error).fate is not Fate.REFUSED:
                raise
            log.warning("shadow refused a window", window=window.id, code=error.code, why=error.message)
            outcome = Outcome.REFUSED
        self._breaker.ok()
        return outcome

    async def _tell_once(self, window: Window, meter: str, now_ms: int) -> None:
        """Tell a window, with the customer there, unless it is known to be there."""
        lane = self._lanes.name(window.customer, meter)
        if await self._is_there(window, meter, lane, now_ms):
            return
        event = MeterEvent(meter, window.customer, window.units, window.stamp_ms // MS_PER_S, window.id)
        with suppress(Duplicate):
            await self._shade.send_meter_event(event, attempt=now_ms)  # a key of its own, as a 500 is kept for a day
        await self._lanes.note(lane, window)

    async def _is_there(self, window: Window, meter: str, lane: str, now_ms: int) -> bool:
        """By what was noted, or by the account's sum of that hour where it may have forgotten the identifier."""
        if await self._lanes.has(lane, window):
            return True
        if now_ms - (window.settled_ms or 0) < KNOWN_MS:
            return False
        known = sum((await self._lanes.hour(lane, window.stamp_ms)).values())
        return (await self._sender.hour_usage(window, meter) or 0) >= known + window.units


class ShadowSums:
    """What the second account has, by the customers of the first one: for the reconciler in the place of Stripe."""

    def __init__(self, shade: Gateway, shadows: Shadows) -> None:
        self._shade, self._shadows = shade, shadows

    async def meters(self) -> list[StripeObject]:
        """Every meter."""
        return await self._shade.meters()

    async def meter_usage(self, meter_id: str, customer: str, start_s: int, end_s: int) -> int:
        """Units of a customer of the first account."""
        there = await self._shadows.known(customer)
        return await self._shade.meter_usage(meter_id, there, start_s, end_s) if there else 0
