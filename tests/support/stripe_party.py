"""Stripe as the contract's tests meet it: the sandbox always, and a real account where STRIPE_TEST_KEY names one.

Both are spoken to by the service's own gateway. What a test makes there has names of its own, and is taken away again
as far as Stripe lets it be: meters are switched off, customers deleted, prices and products put aside.
"""

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import stripe

from metering.billing.gateway import MeterEvent, StripeObject
from metering.billing.gateways.live import LiveGateway, is_live
from metering.billing.sandbox.context import Options
from metering.clock import SystemClock
from tests.support.sandbox_world import HOUR_S, a_world, utc
from tests.support.stripe_witness import listen
from tests.support.wait import await_until

KEY: Final = "STRIPE_TEST_KEY"

SANDBOX_KEY: Final = "sk_test_tests"
STRANGE_KEY: Final = "sk_test_of_nobody"

SUMMED_S: Final = 150.0
"""A real account's sums lag behind: usually by seconds."""

GiveCard = Callable[[str], Awaitable[object]]


def key_of(environment: Mapping[str, str]) -> str | None:
    """The key of the real account; None without one. Raises ValueError for a live key: these tests make invoices."""
    key = environment.get(KEY) or None
    if key is not None and is_live(key):
        raise ValueError(f"{KEY} is no test key: only sk_test_, rk_test_, sk_sandbox_ and rk_sandbox_ are taken")
    return key


@dataclass(slots=True)
class Party:
    """One of the two. `client` does what the gateway has no verb for; `base` is None for Stripe itself."""

    gateway: LiveGateway
    client: Any
    base: str | None
    give_card: GiveCard
    name: str = field(default_factory=lambda: f"contract_{secrets.token_hex(8)}")
    tidy: AsyncExitStack = field(default_factory=AsyncExitStack)
    _numbers: Any = field(default_factory=count)

    @property
    def v1(self) -> Any:
        """The client's calls."""
        return self.client.v1

    def now_s(self) -> int:
        """Stripe's time."""
        now_ms = self.gateway.stripe_ms()
        assert now_ms is not None
        return now_ms // 1000

    def new(self) -> str:
        """A name that nothing has yet, in this run or another."""
        return f"{self.name}_{next(self._numbers)}"

    async def meter(self, **more: Any) -> StripeObject:
        """A meter that sums."""
        params = {"display_name": "Contract", "event_name": self.new(), "default_aggregation": {"formula": "sum"}}
        made = await self.gateway.create_meter({**params, **more}, key=self.new())
        self.tidy.push_async_callback(self.v1.billing.meters.deactivate_async, made["id"])
        return made

    async def customer(self) -> str:
        """A customer."""
        made = await self.gateway.create_customer({"name": self.name}, key=self.new())
        self.tidy.push_async_callback(self.v1.customers.delete_async, made["id"])
        return str(made["id"])

    async def payer(self) -> str:
        """A customer whose card pays."""
        customer = await self.customer()
        await self.give_card(customer)
        return customer

    async def price(self, **terms: Any) -> StripeObject:
        """A monthly price of a product of its own."""
        product = (await self.gateway.create_product({"name": self.name}, key=self.new()))["id"]
        self.tidy.push_async_callback(self.v1.products.update_async, product, {"active": False})
        params = {"currency": "usd", "product": product, "recurring": {"interval": "month"}, **terms}
        made = await self.gateway.create_price(params, key=self.new())
        self.tidy.push_async_callback(self.v1.prices.update_async, made["id"], {"active": False})
        return made

    async def overage(self, meter: StripeObject) -> StripeObject:
        """A price of 25 cents a unit of a meter."""
        recurring = {"interval": "month", "usage_type": "metered", "meter": meter["id"]}
        return await self.price(unit_amount_decimal="25", recurring=recurring)

    async def subscribed(self, customer: str, *prices: StripeObject) -> StripeObject:
        """A subscription to these prices, as the gateway reads it."""
        params = {"customer": customer, "items": [{"price": price["id"]} for price in prices]}
        made = await self.v1.subscriptions.create_async(params)
        return await self.gateway.subscription(made.id)

    def event(self, meter: StripeObject, customer: str, units: int = 5, at_s: int | None = None) -> MeterEvent:
        """Usage under an identifier of its own, of now where no time is given."""
        return MeterEvent(meter["event_name"], customer, units, self.now_s() if at_s is None else at_s, self.new())

    async def send(self, meter: StripeObject, customer: str, units: int = 5, at_s: int | None = None) -> MeterEvent:
        """The same, sent."""
        event = self.event(meter, customer, units, at_s)
        await self.gateway.send_meter_event(event, attempt=1)
        return event

    async def a_while(self) -> None:
        """Until it is not the same second any more."""
        now_s = self.now_s()
        await await_until(lambda: self.now_s() > now_s + 1, timeout_s=10, what="a second has passed")

    async def sums_to(self, meter: StripeObject, customer: str, units: int) -> None:
        """Wait until the hours around now show so much usage."""
        start = self.now_s() // HOUR_S * HOUR_S - HOUR_S

        async def there() -> bool:
            return await self.gateway.meter_usage(meter["id"], customer, start, start + 3 * HOUR_S) == units

        await await_until(there, timeout_s=SUMMED_S, what=f"the meter shows {units} units")


@asynccontextmanager
async def the_sandbox() -> AsyncIterator[Party]:
    """A sandbox of its own, whose clock runs as a real one's."""
    start_s = time.monotonic()
    options = Options(key=SANDBOX_KEY)
    now_s = utc(2026, 3, 17, 10, 30)
    async with a_world(now_s, options=options, passed_s=lambda: int(time.monotonic() - start_s)) as world:

        async def give_card(customer: str) -> None:
            await world.say("POST", "/sandbox/cards", customer=customer, card="succeed")

        async with _party(SANDBOX_KEY, world.url, world.client, give_card) as party:
            yield party


@asynccontextmanager
async def the_account(key: str) -> AsyncIterator[Party]:
    """The real account of a key, in test mode. What it says that its own client does not know is told at the end."""
    http: Any = stripe.AIOHTTPClient()
    faults: list[str] = []
    client = stripe.StripeClient(key, http_client=http)

    async def give_card(customer: str) -> None:
        await client.v1.payment_methods.attach_async("pm_card_visa", {"customer": customer})
        cards = await client.v1.customers.payment_methods.list_async(customer)
        settings: Any = {"invoice_settings": {"default_payment_method": cards.data[0].id}}
        await client.v1.customers.update_async(customer, settings)

    listen(http, faults)
    try:
        async with _party(key, None, client, give_card) as party:
            listen(party.gateway._transport, faults)  # noqa: SLF001 - the gateway lets nobody else see its HTTP
            yield party
    finally:
        await http.close_async()
    assert not any(faults), "\n".join(filter(None, faults))


@asynccontextmanager
async def _party(key: str, base: str | None, client: Any, give_card: GiveCard) -> AsyncIterator[Party]:
    gateway = LiveGateway(key, clock=SystemClock(), api_base=base)
    party = Party(gateway, client, base, give_card)
    try:
        await gateway.account()  # Stripe's clock is known from its first answer on
        async with party.tidy:
            yield party
    finally:
        await gateway.close()


def stranger(party: Party) -> LiveGateway:
    """A gateway with a key that nobody has."""
    return LiveGateway(STRANGE_KEY, clock=SystemClock(), api_base=party.base)
