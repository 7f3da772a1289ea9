"""A shadow: a second, test account of Stripe is told what the first one took, to be compared with before money moves.

It stands behind billing and never in it: it reads windows whose way is over, with a gateway, a breaker and a cursor of
its own. What it tells has the identifier and the time of the original, so that telling it again counts once.
"""

from collections.abc import Callable
from typing import Final, Protocol

import structlog

from metering.billing.breaker import Breaker
from metering.billing.errors import Barred, Duplicate, GatewayError, Refused
from metering.billing.gateway import MeterEvent, Params, StripeObject
from metering.billing.late import METER_AGE_MAX_MS
from metering.clock import MS_PER_S
from metering.store.customers import Customers
from metering.store.frames import HOUR_MS
from metering.store.shadow_book import ShadowBook
from metering.store.window import Sink, State, Window
from metering.store.window_lists import WindowLists
from plans.catalogue import Catalogue

SHADOW_S: Final = 60.0
"""Between two turns."""

TAG: Final = "metering_shadow"
"""Metadata of a customer of the second account: the data set."""

log = structlog.get_logger(__name__)


class Shade(Protocol):
    """The verbs of the second account: see `metering.billing.gateway`."""

    async def send_meter_event(self, event: MeterEvent, *, attempt: int) -> None:
        """Tell usage."""
        ...

    async def create_customer(self, params: Params, *, key: str) -> StripeObject:
        """Make a customer."""
        ...

    async def meters(self) -> list[StripeObject]:
        """Every meter."""
        ...

    async def meter_usage(self, meter_id: str, customer: str, start_s: int, end_s: int) -> int:
        """Units of a customer."""
        ...


class Shadows:
    """Who pays at the second account for whom. A customer there has no name, no card, and no subscription."""

    def __init__(self, shade: Shade, book: ShadowBook, customers: Customers, dataset_id: str) -> None:
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
        self, shade: Shade, book: ShadowBook, shadows: Shadows, lists: WindowLists, breaker: Breaker,
        catalogue: Catalogue, now_ms: Callable[[], int], *, partitions: int,
    ) -> None:  # fmt: skip
        self._shade, self._book, self._shadows, self._lists, self._breaker = shade, book, shadows, lists, breaker
        self._meters = {name: feature.stripe_meter_event for name, feature in catalogue.features.items()}
        self._now_ms, self._partitions = now_ms, partitions

    async def turn(self) -> None:
        """Tell what the first account took since the last turn. An account that does not answer is asked later."""
        try:
            for partition in range(self._partitions):
                await self._tell_all(partition)
        except GatewayError as error:
            self._breaker.failed(at_once=isinstance(error, Barred))
            log.warning("shadow not told", code=error.code, why=error.message or type(error).__name__)

    async def _tell_all(self, partition: int) -> None:
        """Windows of a partition in the order in which their way was over, and how far after each page."""
        now_ms = self._now_ms()
        after = await self._book.place(partition, now_ms - METER_AGE_MAX_MS)
        async for place, windows in self._lists.ended(partition, now_ms, after):
            if self._breaker.open or not await self._book.lease():
                return
            for window in windows:
                await self._tell(window, now_ms)
            await self._book.move(place)

    async def _tell(self, window: Window, now_ms: int) -> None:
        meter = self._meters.get(window.cut.feature)
        if window.state is not State.DELIVERED or window.sink is not Sink.METER or not meter:
            return
        try:
            customer = await self._shadows.of(window.customer, now_ms)
            event = MeterEvent(meter, customer, window.units, window.stamp_ms // MS_PER_S, window.id)
            await self._shade.send_meter_event(event, attempt=now_ms)  # a key of its own, as a 500 is kept for a day
        except Barred:
            raise
        except Duplicate:
            pass
        except Refused as error:  # too old, or the account lacks the meter: the others flow on
            log.warning("shadow refused a window", window=window.id, code=error.code, why=error.message)
        self._breaker.ok()


class ShadowSums:
    """What the second account has, by the customers of the first one: for the reconciler in the place of Stripe."""

    def __init__(self, shade: Shade, shadows: Shadows) -> None:
        self._shade, self._shadows = shade, shadows

    async def meters(self) -> list[StripeObject]:
        """Every meter."""
        return await self._shade.meters()

    async def meter_usage(self, meter_id: str, customer: str, start_s: int, end_s: int) -> int:
        """Units of a customer of the first account."""
        there = await self._shadows.known(customer)
        return await self._shade.meter_usage(meter_id, there, start_s, end_s) if there else 0
