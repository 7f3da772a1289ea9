"""A Stripe in memory for whoever sends usage: takes, refuses and breaks as it is told, and remembers what it has.

It knows what the exporter relies on: an identifier counts once for 24 hours, a sum is told by hour, an answer may be
lost after the effect. The sandbox speaks Stripe's HTTP; this speaks the verbs, so that a test can count every call.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from metering.billing.errors import Duplicate, GatewayError, KeyReused, Refused, TooMany, Unknown
from metering.billing.gateway import MeterEvent, Params, StripeObject
from tests.support.stripe_objects import whole
from tests.support.stripe_schema import check_params

DAY_MS: Final = 86_400_000

AFTER: Final = "after"
"""A fault that strikes when the call has had its effect."""

Fault = GatewayError | tuple[str, GatewayError]


@dataclass(slots=True)
class Till:
    """`faults` strike the next calls that send, in order; None lets one through."""

    now_ms: Callable[[], Awaitable[int]]
    faults: list[Fault | None] = field(default_factory=list)
    always: Fault | None = None
    known: dict[str, int] = field(default_factory=dict)  # identifier -> when
    taken: list[MeterEvent] = field(default_factory=list)
    calls: list[tuple[str, int]] = field(default_factory=list)  # identifier, attempt
    items: list[StripeObject] = field(default_factory=list)
    keys: dict[str, StripeObject] = field(default_factory=dict)
    asked: dict[str, Params] = field(default_factory=dict)  # what each key was used with
    lag: set[str] = field(default_factory=set)  # identifiers that no sum shows yet
    clock_ms: int | None = None
    on_call: Callable[[MeterEvent], Awaitable[None]] | None = None

    def stripe_ms(self) -> int | None:
        """Stripe's clock, as the test sets it."""
        return self.clock_ms

    def sums(self) -> dict[str, int]:
        """Units by customer."""
        found: dict[str, int] = {}
        for event in self.taken:
            found[event.customer] = found.get(event.customer, 0) + event.units
        return found

    async def send_meter_event(self, event: MeterEvent, *, attempt: int) -> None:
        """Take an event, or what the test wants."""
        self.calls.append((event.identifier, attempt))
        if self.on_call is not None:
            await self.on_call(event)
        late = self._struck()
        now_ms = await self.now_ms()
        if self.clock_ms is not None and event.timestamp_s * 1000 > self.clock_ms + 300_000:
            raise Refused("the timestamp is in the future", status=400, code="timestamp_in_future")
        if now_ms - self.known.get(event.identifier, -DAY_MS) < DAY_MS:
            raise Duplicate(f"An event already exists with identifier {event.identifier}.", status=400)
        self.known[event.identifier] = now_ms
        self.taken.append(event)
        if late is not None:
            raise late

    def _struck(self) -> GatewayError | None:
        """Raise the next fault; give it back where it comes after the effect."""
        fault = self.faults.pop(0) if self.faults else self.always
        if isinstance(fault, tuple):
            return fault[1]
        if fault is not None:
            raise fault
        return None

    async def meter_usage(self, meter_id: str, customer: str, start_s: int, end_s: int) -> int:
        """The sum of a span."""
        name = meter_id.removeprefix("mtr_")
        return sum(
            event.units
            for event in self.taken
            if (event.event_name, event.customer) == (name, customer)
            and start_s <= event.timestamp_s < end_s
            and event.identifier not in self.lag
        )

    async def meters(self) -> list[StripeObject]:
        """The meters of the tests' catalogue."""
        return [whole("billing.meter", id=f"mtr_{name}", event_name=name) for name in ("scans_over", "open_over")]

    async def create_meter(self, params: Params, *, key: str) -> StripeObject:
        """None is made."""
        raise NotImplementedError

    async def invoice(self, invoice_id: str) -> StripeObject:
        """None is asked for."""
        raise NotImplementedError

    async def invoices(self, customer: str) -> list[StripeObject]:
        """None are asked for."""
        raise NotImplementedError

    async def preview_invoice(self, params: Params) -> StripeObject:
        """None is asked for."""
        raise NotImplementedError

    async def invoice_items(self, customer: str) -> list[StripeObject]:
        """The items of a customer."""
        return [item for item in self.items if item["customer"] == customer]

    async def create_invoice_item(self, params: Params, *, key: str) -> StripeObject:
        """Put one on the next invoice, once a key; a key is remembered, refusals included."""
        check_params("POST", "/v1/invoiceitems", params)
        if self.asked.setdefault(key, params) != params:
            raise KeyReused("Keys can only be used with the same parameters", status=400, code="idempotency_error")
        late = self._struck()
        if key not in self.keys:
            item = whole("invoiceitem", id=f"ii_{len(self.items)}", **params)
            self.keys[key] = item
            self.items.append(item)
        if late is not None:
            raise late
        return self.keys[key]


def lost() -> Fault:
    """It happened, and nobody was told."""
    return AFTER, Unknown("a broken connection")


def broken() -> Fault:
    """It did not happen, and nobody can say so."""
    return Unknown("Stripe took too long")


def busy(retry_after_s: float | None = None) -> Fault:
    """429."""
    return TooMany("Too many requests", status=429, code="rate_limit", retry_after_s=retry_after_s)
