"""What Stripe would take and bill nobody for is not sent: Stripe is asked before, where its events have not told."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from metering.billing.breaker import FAILURES
from metering.billing.coverage import DRAFT_MS, PAID_S, SHUT_MS, Coverage
from metering.billing.exporter import Exporter
from metering.billing.gateway import StripeObject
from metering.billing.gateways.live import LiveGateway
from metering.billing.payers import Payers
from metering.billing.prices import Prices
from metering.billing.subscriptions import Policy
from metering.clock import HandClock
from metering.store.customers import Customers
from metering.store.effects import Effects
from metering.store.fields import FieldCodec
from metering.store.org import Org
from tests.lua.exporting import SOLD, exporter_of
from tests.lua.ledger import SECRET, Ledger
from tests.lua.outboxes import customer_of, outbox_of
from tests.lua.scenes import HOUR_MS, calm, event, lawful, move_to
from tests.support.sandbox_world import World, a_world
from tests.support.servers import StoreServer

UNPAID = ["acme|scans"]


class Counted(LiveGateway):
    """The gateway, and how often it was asked what."""

    asked: Counter[str]

    async def subscriptions(self, customer: str) -> list[StripeObject]:
        """All of a customer."""
        self.asked["subscriptions"] += 1
        return await super().subscriptions(customer)

    async def invoices(self, customer: str) -> list[StripeObject]:
        """All of a customer."""
        self.asked["invoices"] += 1
        return await super().invoices(customer)


@dataclass(slots=True)
class Scene:
    """Acme with three scans above its limit, a Stripe that sells, and an exporter that asks it. No event is heard."""

    ledger: Ledger
    world: World
    gateway: Counted
    clock: HandClock
    made: list[Exporter] = field(default_factory=list)

    @property
    def exporter(self) -> Exporter:
        """That of one worker."""
        if not self.made:
            self.made.append(exporter_of(self.ledger, self.gateway, coverage=self._coverage()))
        return self.made[0]

    def _coverage(self) -> Coverage:
        ledger, codec, one = self.ledger, FieldCodec(), self.ledger.callers[0]
        customers = Customers(ledger.client, ledger.keys, codec, SECRET)
        effects = Effects(ledger.client, ledger.keys, one.orgs, ledger.catalogue, one.time, codec, fake=False)
        prices = Prices(ledger.catalogue, {})
        payers = Payers(self.gateway, customers, one.orgs, effects, prices)
        policy = Policy(ledger.catalogue.default_plan, 7, downgrades=False)
        return Coverage(self.gateway, payers, effects, prices, policy, self.clock.monotonic)

    async def payer(self, *prices: str, **params: Any) -> str:
        """A customer with a subscription to these prices, or none, typed in as acme's."""
        customer = await self.world.customer()
        if prices:
            await self.world.subscribe(customer, *prices, **params)
        await customer_of(self.ledger, customer=customer)
        return customer

    async def acme(self) -> Org:
        """Acme now."""
        org = await self.ledger.callers[0].orgs.get("acme")
        assert org is not None
        return org

    async def hours(self, hours: int) -> None:
        """Time goes on."""
        await self.until(await self.ledger.now_ms() + hours * HOUR_MS)

    async def until(self, at_ms: int) -> None:
        """Time goes on for everybody."""
        self.clock.advance(at_ms - await self.ledger.now_ms())
        await move_to(self.ledger, at_ms)
        await self.world.at(at_ms // 1000)

    def sent(self) -> int:
        """Units that Stripe took by meter."""
        return sum(int(row["payload"]["value"]) for row in self.world.rows("sandbox.accepted"))

    def items(self) -> list[int]:
        """What stands on invoices to come, in cents."""
        return [item["amount"] for item in self.world.rows("invoiceitem") if item["metadata"]]

    async def unbilled(self) -> list[str]:
        """What is put by, of whatever period."""
        return ["|".join(member.split("|")[:2]) for member in await outbox_of(self.ledger).unbilled(0)]


@asynccontextmanager
async def scene(url: str) -> AsyncIterator[Scene]:
    async with (
        calm(url, catalogue=SOLD, partitions=1) as ledger,
        a_world(await ledger.now_ms() // 1000) as world,
    ):
        clock = HandClock(0)
        gateway = Counted("sk_test_tests", clock=clock, api_base=world.url)
        gateway.asked = Counter()
        metered = {"interval": "month", "usage_type": "metered", "meter": await world.meter("scans_over")}
        await world.price("base", unit_amount=2900, lookup_key="metering_pro_base")
        await world.price("over", unit_amount=25, lookup_key="metering_scans_overage", recurring=metered)
        await world.price("other", unit_amount=100)
        await ledger.callers[0].counters.track(event("acme", 13))
        yield Scene(ledger, world, gateway, clock)
        await lawful(ledger)
        await gateway.close()


@pytest.mark.parametrize("prices", [(), ("other",), ("base",)], ids=str)
async def test_overage_that_no_subscription_bills_is_put_by_until_one_does(
    store: StoreServer, prices: tuple[str, ...]
) -> None:
    async with scene(store.url) as at:
        customer = await at.payer(*prices)
        for _ in range(3):
            await at.exporter.turn()
            await at.exporter.relink()
        await at.exporter.turn()
        assert (at.sent(), at.items()) == (0, [])
        assert (await at.unbilled(), at.gateway.asked["subscriptions"]) == (UNPAID, 1)
        await at.world.subscribe(customer, "base", "over")
        at.clock.advance(int(PAID_S * 1000))
        await at.exporter.relink()
        for _ in range(2):
            await at.exporter.turn()
        assert (at.sent() + sum(at.items()) // 25, await at.unbilled(), (await at.acme()).plan) == (3, [], "pro")


async def test_a_subscription_that_was_there_before_the_customer_was_typed_in_is_taken_over(store: StoreServer) -> None:
    async with scene(store.url) as at:
        await at.payer("base", "over")
        await at.exporter.turn()
        assert (at.sent(), (await at.acme()).plan) == (3, "pro")
        await at.ledger.callers[0].counters.track(event("acme", 45))
        await at.exporter.turn()
        assert (at.sent(), at.gateway.asked["subscriptions"]) == (3 + 5, 1)


async def test_overage_is_sold_without_a_plan_as_well(store: StoreServer) -> None:
    async with scene(store.url) as at:
        await at.payer("over")
        for _ in range(2):
            await at.exporter.turn()
            await at.ledger.callers[0].counters.track(event("acme", 4))
        assert (at.sent(), (await at.acme()).plan, at.gateway.asked["subscriptions"]) == (7, "free", 1)


@pytest.mark.parametrize(("named", "sent"), [("acme", 3), ("beta", 0)])
async def test_of_two_organisations_with_one_customer_the_named_one_is_paid_for(
    store: StoreServer, named: str, sent: int
) -> None:
    async with scene(store.url) as at:
        customer = await at.payer("over", metadata={"org_id": named})
        await customer_of(at.ledger, "beta", customer)
        await at.exporter.turn()
        assert at.sent() == sent


async def test_a_subscription_that_ended_pays_for_its_closed_periods_alone(store: StoreServer) -> None:
    async with scene(store.url) as at:
        customer = await at.payer("base", "over")
        await at.exporter.turn()
        await at.hours(1)
        [subscription] = at.world.rows("subscription")
        await at.world.v1.subscriptions.cancel_async(subscription["id"])
        coverage = at.exporter._parts.coverage  # noqa: SLF001 - what it remembers is what is looked at
        await coverage.ask_paid(await at.acme(), customer, "scans")
        org = await at.acme()
        assert org.profile.subscription is not None
        assert org.profile.subscription.status == "canceled"
        starts = (org.period.start_ms - 1, org.period.start_ms, None)
        assert [coverage.paid(org, "scans", start_ms) for start_ms in starts] == [True, False, False]
        await at.ledger.callers[0].counters.track(event("acme", 45))
        for _ in range(2):
            await at.exporter.turn()
        assert (at.sent(), await at.unbilled()) == (3, UNPAID)


async def test_what_a_customer_that_stripe_does_not_know_owes_is_sent_and_refused_where_all_can_see_it(
    store: StoreServer,
) -> None:
    async with scene(store.url) as at:
        await customer_of(at.ledger, customer="cus_of_nobody")
        await at.exporter.turn()
        assert await outbox_of(at.ledger).settled_sums("acme|scans") == (3, 0)
        await at.world.at(at.world.now[0] + 10)
        assert len(at.world.rows("sandbox.rejected")) == 1


async def test_while_stripe_cannot_be_asked_overage_waits_unsealed_and_stripe_is_left_alone(store: StoreServer) -> None:
    async with scene(store.url) as at:
        await at.payer("base", "over")
        for number in range(10):
            await at.ledger.callers[0].counters.track(event(f"org-{number}", 13))
            await customer_of(at.ledger, f"org-{number}", await at.world.customer())
        await at.world.say("POST", "/sandbox/faults", kind="error_before", path="/v1/subscriptions", count=100)
        await at.exporter.turn()
        assert at.gateway.asked["subscriptions"] == FAILURES
        assert (at.sent(), len(await outbox_of(at.ledger).dirty(0, 20)), await at.unbilled()) == (0, 11, [])


async def test_a_period_whose_invoice_is_final_though_nobody_told_is_billed_by_an_item(store: StoreServer) -> None:
    async with scene(store.url) as at:
        await at.payer("base", "over")
        await at.exporter.turn()
        await at.ledger.callers[0].counters.track(event("acme", 45))
        await at.hours(24 * 31 + 2)
        for _ in range(2):
            await at.exporter.turn()
        assert at.sent() == 3
        assert at.items() == [5 * 25]
        assert (await outbox_of(at.ledger).settled_sums("acme|scans")) == (0, 0)


async def test_a_draft_takes_usage_still_and_is_asked_for_once_a_turn(store: StoreServer) -> None:
    async with scene(store.url) as at:
        customer = await at.payer("base", "over")
        await at.exporter.turn()
        for _ in range(3):
            await at.ledger.callers[0].counters.track(event("acme", 45))
            await outbox_of(at.ledger).seal("acme|scans")
        await at.until((await at.acme()).period.end_ms + DRAFT_MS)
        await at.exporter.turn()
        assert (at.sent(), at.gateway.asked["invoices"]) == (3 + 3 * 45 - 40, 1)
        await at.hours(1)
        assert 3 + 3 * 45 - 40 in [
            line.quantity for invoice in await at.world.invoices(customer) for line in invoice.lines.data
        ]


async def test_nothing_is_told_for_a_draft_that_is_about_to_be_final(store: StoreServer) -> None:
    async with scene(store.url) as at:
        await at.payer("base", "over")
        await at.exporter.turn()
        await at.ledger.callers[0].counters.track(event("acme", 45))
        end_ms = (await at.acme()).period.end_ms
        await at.until(end_ms + 60 * 60_000 - SHUT_MS)
        await at.exporter.turn()
        assert (at.sent(), at.items()) == (3, [])
        await at.until(end_ms + 62 * 60_000)
        await at.exporter.turn()
        assert (at.sent(), at.items()) == (3, [5 * 25])
