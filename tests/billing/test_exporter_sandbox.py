"""The exporter and the sandbox: what only shows when Stripe answers in its own time and of its own mind."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from structlog.testing import capture_logs

from metering.billing.exporter import Exporter
from metering.billing.gateways.live import LiveGateway
from metering.billing.payers import Payers
from metering.billing.prices import Prices
from metering.billing.reactions import Hooks, Reactions
from metering.billing.subscriptions import Policy
from metering.clock import HandClock
from metering.store.customers import Customers
from metering.store.effects import Effects
from metering.store.fields import FieldCodec
from metering.store.window import State
from tests.lua.exporting import SOLD, exporter_of
from tests.lua.ledger import SECRET, Ledger
from tests.lua.outboxes import customer_of, outbox_of
from tests.lua.scenes import CALM, calm, event, lawful, move_to, next_year
from tests.support.sandbox_world import HOUR_S, World, a_world, sums
from tests.support.servers import StoreServer
from webhooks.stripe_events import event_of


@dataclass(slots=True)
class Scene:
    """Acme with three scans above its limit, and the sandbox with the meter for them."""

    ledger: Ledger
    world: World
    gateway: LiveGateway

    @property
    def exporter(self) -> Exporter:
        """The exporter, which speaks to the sandbox."""
        return exporter_of(self.ledger, self.gateway)

    async def told(self, thin: dict[str, Any]) -> None:
        """A thin event takes effect."""
        await self._reactions().react(event_of(thin))

    def _reactions(self) -> Reactions:
        ledger, codec = self.ledger, FieldCodec()
        one = ledger.callers[0]
        customers = Customers(ledger.client, ledger.keys, codec, SECRET)
        effects = Effects(ledger.client, ledger.keys, one.orgs, ledger.catalogue, one.time, codec, fake=False)
        prices = Prices(ledger.catalogue, {})
        payers = Payers(self.gateway, customers, one.orgs, effects, prices)
        policy = Policy(ledger.catalogue.default_plan, 7, downgrades=False)
        return Reactions(self.gateway, payers, effects, prices, policy, Hooks(reported=self.exporter.reported))


@asynccontextmanager
async def scene(url: str, *, ahead_s: int = 0, at: str = CALM) -> AsyncIterator[Scene]:
    """A ledger whose clock is `ahead_s` before that of the sandbox."""
    async with (
        calm(url, at=at, catalogue=SOLD, partitions=1) as ledger,
        a_world(await ledger.now_ms() // 1000 - ahead_s) as world,
    ):
        gateway = LiveGateway("sk_test_tests", clock=HandClock(0), api_base=world.url)
        recurring = {"interval": "month", "usage_type": "metered", "meter": await world.meter("scans_over")}
        await world.price("over", unit_amount=25, recurring=recurring)
        await ledger.callers[0].counters.track(event("acme", 13))
        yield Scene(ledger, world, gateway)
        await lawful(ledger)
        await gateway.close()


async def test_row_8_usage_before_midnight_that_is_pushed_after_it_is_on_the_invoice_of_its_own_period(
    store: StoreServer,
) -> None:
    async with scene(store.url, at="01-31T23:59:30") as at:
        midnight_s = await next_year(at.ledger, "02-01T00:00:00") // 1000
        at.world.now[0] = await next_year(at.ledger, "01-01T00:00:00") // 1000
        customer = await at.world.customer()
        await at.world.subscribe(customer, "over")
        await customer_of(at.ledger, customer=customer)
        await move_to(at.ledger, (midnight_s + 30) * 1000)
        await at.world.at(midnight_s + 30)
        await at.exporter.turn()
        await at.world.at(midnight_s + HOUR_S)
        assert [sums(invoice) for invoice in await at.world.invoices(customer)][1:] == [[(3, 75)]]
        assert at.world.rows("sandbox.rejected") == []


async def test_row_25_with_a_clock_six_minutes_ahead_no_event_is_refused(store: StoreServer) -> None:
    async with scene(store.url, ahead_s=360) as at:
        customer = await at.world.customer(None)
        await customer_of(at.ledger, customer=customer)
        await at.gateway.account()
        await at.exporter.turn()
        assert at.world.rows("sandbox.rejected") == []
        [taken] = at.world.rows("sandbox.accepted")
        assert taken["timestamp"] == at.world.now[0]


async def test_row_27_usage_of_a_customer_that_stripe_does_not_know_is_told_and_shown_as_not_billed(
    store: StoreServer,
) -> None:
    async with scene(store.url) as at:
        await customer_of(at.ledger, customer="cus_of_nobody")
        await at.exporter.turn()
        outbox = outbox_of(at.ledger)
        assert await outbox.settled_sums("acme|scans") == (3, 0)
        await at.world.at(at.world.now[0] + 10)
        [report] = [row for row in at.world.rows("v2.core.event") if "error_report" in row["type"]]
        with capture_logs() as told:
            for _ in range(2):
                await at.told({name: value for name, value in report.items() if name != "data"})
        assert {(line["event"], line["log_level"]) for line in told} >= {("stripe could not bill usage", "error")}
        assert await outbox.settled_sums("acme|scans") == (0, 0)
        [name] = [row["identifier"] for row in at.world.rows("sandbox.rejected")]
        window = await outbox.find(name)
        assert window is not None
        assert (window.state, window.error) == (State.DEAD, "reported: meter_event_customer_not_found")
