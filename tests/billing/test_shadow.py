"""A second account is told what the first one took, once, and never stands in the way of billing."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import SecretStr

from metering.billing.breaker import FAILURES, Breaker
from metering.billing.gateways.live import LiveGateway
from metering.billing.reconcile import Books, Reconciler, Verdict
from metering.billing.shadow import STEADY_MS, Shadow, Shadows, ShadowSums
from metering.billing.wiring import open_billing, shade_of
from metering.clock import HandClock
from metering.settings import Settings
from metering.store.customers import Customers
from metering.store.drift import DriftBook
from metering.store.fields import FieldCodec
from metering.store.gate import GateRefusedError
from metering.store.pace import StorePace
from metering.store.shadow_book import LEASE_S, ShadowBook
from metering.store.window_lists import WindowLists
from tests.billing.test_wiring import customers_of, ground_of
from tests.lua.exporting import SOLD, exporter_of, till_of
from tests.lua.ledger import SECRET, Ledger
from tests.lua.outboxes import customer_of, lanes_of, outbox_of
from tests.lua.scenes import HOUR_MS, calm, event, lawful, move_to
from tests.support.door import Door, a_door
from tests.support.sandbox_world import World, a_world
from tests.support.servers import StoreServer
from tests.support.till import Till

METER = "/v1/billing/meter_events"


@dataclass(slots=True)
class Scene:
    """Acme and beta, whose overage goes to a Stripe in memory; the second account is a sandbox behind a door."""

    ledger: Ledger
    till: Till
    world: World
    door: Door
    shade: LiveGateway
    clock: HandClock

    def shadow(self, worker: str = "one") -> Shadow:
        """The job of a worker."""
        ledger = self.ledger
        return Shadow(
            self.shade, self.book(worker), self.shadows(worker), WindowLists(ledger.client, ledger.keys, read=2),
            lanes_of(ledger), Breaker(self.clock.monotonic), ledger.catalogue, ledger.callers[0].time.now_ms,
        )  # fmt: skip

    async def using(self, shade: LiveGateway) -> None:
        """The second account by another connection."""
        await self.shade.close()
        self.shade = shade

    def book(self, worker: str = "one") -> ShadowBook:
        return ShadowBook(self.ledger.client, self.ledger.keys, FieldCodec(), worker)

    def shadows(self, worker: str = "one") -> Shadows:
        customers = Customers(self.ledger.client, self.ledger.keys, FieldCodec(), SECRET)
        return Shadows(self.shade, self.book(worker), customers, "ds_1")

    async def bill(self, *orgs: str, units: int = 4) -> None:
        """Overage that the first account takes, old enough to be told."""
        for org_id in orgs or ("acme", "beta"):
            await self.ledger.callers[0].counters.track(event(org_id, units))
        await exporter_of(self.ledger, self.till).turn()
        await self.steady()

    async def steady(self, ms: int = STEADY_MS + 1_000) -> None:
        """So much time goes on that what is settled may be read."""
        await move_to(self.ledger, await self.ledger.now_ms() + ms)
        self.world.now[0] += ms // 1000

    async def sums(self) -> dict[str, int]:
        """Units at the second account, by the customer of the first one."""
        found = {}
        for customer in ("cus_1", "cus_2"):
            there = await self.shadows().known(customer)
            rows = [row for row in self.accepted() if row["payload"]["stripe_customer_id"] == there]
            found[customer] = sum(int(row["payload"]["value"]) for row in rows)
        return found

    def accepted(self) -> list[dict[str, Any]]:
        """What the second account took."""
        return self.world.rows("sandbox.accepted")

    async def hours(self, hours: int) -> None:
        """Time goes on."""
        at_ms = await self.ledger.now_ms() + hours * HOUR_MS
        await move_to(self.ledger, at_ms)
        await self.world.at(at_ms // 1000)
        self.clock.advance(hours * HOUR_MS)


@asynccontextmanager
async def scene(url: str, *, meters: bool = True) -> AsyncIterator[Scene]:
    async with (
        calm(url, catalogue=SOLD, partitions=2) as ledger,
        a_world(await ledger.now_ms() // 1000) as world,
        a_door(world.url) as door,
    ):
        for name in ("scans_over", "open_over") if meters else ():
            await world.meter(name)
        clock = HandClock(0)
        shade = LiveGateway("sk_test_shadow", clock=clock, api_base=door.url)
        await customer_of(ledger, "acme", "cus_1")
        await customer_of(ledger, "beta", "cus_2")
        at = Scene(ledger, till_of(ledger), world, door, shade, clock)
        try:
            yield at
        finally:
            await at.shade.close()
        await lawful(ledger)


async def test_everything_that_the_first_account_took_is_told_once_with_its_time(store: StoreServer) -> None:
    async with scene(store.url) as at:
        await at.bill(units=12)
        await at.shadow().turn()
        await at.bill()
        for _ in range(3):
            await at.shadow().turn()
        assert await at.sums() == at.till.sums() == {"cus_1": 6, "cus_2": 6}
        told = {(row["identifier"], row["timestamp"], int(row["payload"]["value"])) for row in at.accepted()}
        assert told == {(one.identifier, one.timestamp_s, one.units) for one in at.till.taken}
        assert len(at.world.rows("customer")) == 2
        assert all(row["email"] is None and row["name"] is None for row in at.world.rows("customer"))


@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "error_before", "error_after", "html", "rate_limit"])
@pytest.mark.parametrize("path", [METER, "/v1/customers"])
async def test_whatever_goes_wrong_there_it_is_told_once_later_and_billing_hears_nothing_of_it(
    store: StoreServer, kind: str, path: str
) -> None:
    async with scene(store.url) as at:
        await at.bill(units=12)
        await at.world.say("POST", "/sandbox/faults", kind=kind, path=path, count=1)
        for _ in range(4):
            await at.hours(1)
            await at.shadow().turn()  # a worker that dies has forgotten everything but what it wrote down
        assert await at.sums() == at.till.sums() == {"cus_1": 2, "cus_2": 2}
        assert len({row["identifier"] for row in at.accepted()}) == len(at.accepted())


async def test_an_account_that_is_away_is_left_alone_and_told_when_it_is_back(store: StoreServer) -> None:
    async with scene(store.url) as at:
        shadow = at.shadow()
        await at.door.shut()
        for _ in range(FAILURES + 2):
            await at.bill(units=12)
            await shadow.turn()
        assert at.till.sums()["cus_1"] == 12 * (FAILURES + 2) - 10
        await at.door.open()
        await shadow.turn()
        assert at.accepted() == []
        await at.hours(1)
        await shadow.turn()
        assert await at.sums() == at.till.sums()


async def test_one_worker_tells_and_another_takes_over_when_it_is_gone(store: StoreServer) -> None:
    async with scene(store.url) as at:
        await at.bill(units=12)
        await at.shadow("one").turn()
        await at.bill()
        await at.shadow("two").turn()
        assert len(at.accepted()) == 2
        assert 0 < await at.ledger.client.ttl(at.ledger.keys.shared("shadowing", 0)) <= LEASE_S
        await at.ledger.client.delete(at.ledger.keys.shared("shadowing", 0))
        await at.shadow("two").turn()
        assert await at.sums() == at.till.sums()


async def test_the_books_are_held_against_the_second_account(store: StoreServer) -> None:
    async with scene(store.url) as at:
        await at.bill(units=12)
        await at.shadow().turn()
        await at.hours(3)
        ledger = at.ledger
        books = Books(
            ledger.callers[0].orgs, outbox_of(ledger), lanes_of(ledger), WindowLists(ledger.client, ledger.keys),
            DriftBook(ledger.client, ledger.keys), ledger.catalogue, StorePace(ledger.client, ledger.keys, 1000),
        )  # fmt: skip
        reconciler = Reconciler(books, ShadowSums(at.shade, at.shadows()))
        assert [(line.stripe, line.verdict) async for line in reconciler.lines()] == [(2, Verdict.EVEN)] * 2
        await at.bill()
        await at.hours(3)
        assert {(line.drift, line.verdict) async for line in reconciler.lines()} == {(4, Verdict.DRIFT)}


async def test_it_is_a_job_where_there_is_a_key_and_never_the_key_that_bills(store: StoreServer) -> None:
    first, second = SecretStr("sk_test_first"), SecretStr("sk_test_second")
    async with calm(store.url, catalogue=SOLD) as ledger, AsyncExitStack() as stack:
        names = []
        for settings in (
            Settings(stripe_secret_key=first),
            Settings(stripe_secret_key=first, stripe_shadow_key=second),
        ):
            orgs, customers = ledger.callers[0].orgs, customers_of(ledger)
            names.append({job.name for job in open_billing(stack, ground_of(ledger, settings), orgs, customers).jobs})
        assert names[1] - names[0] == {"shadow"}
    with pytest.raises(GateRefusedError, match="STRIPE_SHADOW_KEY"):
        shade_of(Settings(stripe_secret_key=first, stripe_shadow_key=first), HandClock(0))
