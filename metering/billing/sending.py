"""One window to Stripe, and what came of it. What is sent was written down before; nothing is computed here."""

from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from metering.billing.errors import Barred, Duplicate, GatewayError, Refused
from metering.billing.gateway import Invoices, MeterEvent, Meters
from metering.clock import MS_PER_S
from metering.store.frames import HOUR_MS
from metering.store.window import Sink, Window

WINDOW_TAG: Final = "metering_window"
"""Metadata of an invoice item: the window's identifier."""

_IN_FUTURE: Final = "timestamp_in_future"
"""https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage#handle-errors"""


class Till(Meters, Invoices, Protocol):
    """What the exporter needs of a gateway."""

    def stripe_ms(self) -> int | None:
        """Stripe's clock."""
        ...


class Fate(Enum):
    """What became of an attempt."""

    TAKEN = "taken"
    REFUSED = "refused"  # and will be again
    NOTHING = "nothing"  # it did not arrive
    UNKNOWN = "unknown"
    TOO_EARLY = "too early"  # Stripe's clock is behind the timestamp: it did not arrive


@dataclass(frozen=True, slots=True)
class Sent:
    """An attempt's end. `barred`: the key does not hold, so nothing else would arrive either."""

    fate: Fate
    why: str = ""
    retry_after_s: float | None = None
    barred: bool = False
    duplicate: bool = False


class Sender:
    """Sends windows. `currency` is that of the amounts, `titles` name features on invoices."""

    def __init__(self, till: Till, currency: str) -> None:
        self._till, self._currency = till, currency
        self._meter_ids: dict[str, str] = {}

    async def send(self, window: Window, meter: str, attempt: int) -> Sent:
        """Send a window as attempt number `attempt`; `meter` is the meter's event name."""
        try:
            if window.sink is Sink.ITEM:
                await self._item(window, again=attempt > 1)
            else:
                await self._till.send_meter_event(
                    MeterEvent(meter, window.customer, window.units, window.stamp_ms // MS_PER_S, window.id),
                    attempt=attempt,
                )
        except Duplicate:
            return Sent(Fate.TAKEN, duplicate=True)
        except GatewayError as error:
            return sent_of(error)
        return Sent(Fate.TAKEN)

    async def _item(self, window: Window, *, again: bool) -> None:
        """Put a window on the next invoice; one that is there already is not put there again."""
        if not window.amount_minor or (again and await self._there(window)):
            return
        cut = window.cut
        params = {
            "customer": window.customer, "amount": window.amount_minor, "currency": self._currency,
            "description": f"{cut.units} {cut.feature} above the plan, of a period billed before",
            "metadata": {WINDOW_TAG: window.id},
        }  # fmt: skip
        # A refusal is kept under its key for a day, and another customer must not meet that of the one before.
        await self._till.create_invoice_item(params, key=f"{window.id}-{window.customer}")

    async def _there(self, window: Window) -> bool:
        items = await self._till.invoice_items(window.customer)
        return any((item.get("metadata") or {}).get(WINDOW_TAG) == window.id for item in items)

    async def hour_usage(self, window: Window, meter: str) -> int | None:
        """What Stripe has of the hour in which a window's usage lies; None where there is no such meter.

        Raises the errors of the gateway.
        """
        if meter not in self._meter_ids:
            self._meter_ids = {one["event_name"]: one["id"] for one in await self._till.meters()}
        if meter not in self._meter_ids:
            return None
        start_s = window.stamp_ms // HOUR_MS * HOUR_MS // MS_PER_S
        return await self._till.meter_usage(
            self._meter_ids[meter], window.customer, start_s, start_s + HOUR_MS // MS_PER_S
        )


def sent_of(error: GatewayError) -> Sent:
    """What an error says of the attempt."""
    why = f"{error.status or ''} {error.code} {error.message}".strip()
    if isinstance(error, Barred):
        return Sent(Fate.NOTHING, why, error.retry_after_s, barred=True)
    if isinstance(error, Refused):
        early = error.code == _IN_FUTURE or "in the future" in error.message.lower()
        return Sent(Fate.TOO_EARLY if early else Fate.REFUSED, why)
    return Sent(Fate.NOTHING if error.settled else Fate.UNKNOWN, why, error.retry_after_s)
