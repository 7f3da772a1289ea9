"""Stripe is away for days: usage is counted as ever, and afterwards everything is billed once."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest
from pydantic import SecretStr

from metering.billing.errors import GatewayError
from metering.billing.reconcile import Line, Verdict
from metering.billing.wiring import Billing, Ground, open_billing
from metering.clock import HandClock
from metering.settings import Settings
from metering.store.customers import Customers
from metering.store.fields import FieldCodec
from metering.usage import Outcome, Result
from tests.lua.exporting import SOLD, always_drained
from tests.lua.ledger import SECRET, Ledger
from tests.lua.outboxes import customer_of, outbox_of
from tests.lua.scenes import HOUR_MS, calm, event, lawful, move_to
from tests.support.door import Door, a_door
from tests.support.sandbox_world import World, a_world
from tests.support.servers import StoreServer
from tests.support.soak import drawn

PRICE: Final = 25
"""Cents a unit of overage."""

LIMIT: Final = 40
"""Scans of the plan they buy."""

PAYING: Final = ("acme", "beta", "small")
ORDERS: Final = {
    "events first": ("stripe catch-up", "stripe events", "overage"),
    "overage first": ("overage", "stripe catch-up", "stripe events"),
}
"""In which order the jobs of a worker may meet a Stripe that is back."""

STEP_H: Final = 9
"""Hours between two looks while Stripe is away."""

METER: Final = "/v1/billing/meter_events"


@dataclass(slots=True)
class Rig:
    """Billing as the service wires it, its jobs done by hand, and a Stripe behind a door. No webhook ever arrives."""

    ledger: Ledger
    world: World
    door: Door
    billing: Billing
    clock: HandClock
    customers: dict[str, str] = field(default_factory=dict)
    used: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    answers: Counter[Result] = field(default_factory=Counter)

    async def subscribe(self, org_id: str) -> None:
        """A customer who pays for an organisation."""
        customer = await self.world.customer()
        await self.world.subscribe(customer, "base", "over", metadata={"org_id": org_id})
        await customer_of(self.ledger, org_id, customer)
        self.customers[org_id] = customer

    async def track(self, org_id: str, units: int) -> None:
        """Usage, which is answered as the plan says whether Stripe is there or not."""
        outcome: Outcome = await self.ledger.callers[0].counters.track(event(org_id, units))
        self.answers[outcome.result] += 1
        counter = org_id, outcome.period.start_ms
        self.used[counter] += units
        assert (outcome.used, outcome.recorded) == (self.used[counter], units)

    async def hours(self, hours: float) -> None:
        """Time goes on for everybody."""
        at_ms = await self.ledger.now_ms() + int(hours * HOUR_MS)
        self.clock.advance(int(hours * HOUR_MS))
        await move_to(self.ledger, at_ms)
        await self.world.at(at_ms // 1000)

    async def turn(self, *first: str) -> None:
        """A turn of each job, of these first. Each bears the failure of the others."""
        jobs = {job.name: job for job in self.billing.jobs}
        for name in dict.fromkeys((*first, *jobs)):
            await _borne(jobs[name].turn)

    async def turn_together(self) -> None:
        """A turn of each job at once, as a worker does them."""
        await asyncio.gather(*(_borne(job.turn) for job in self.billing.jobs))

    def overage(self) -> dict[str, int]:
        """Units above the limit by organisation, of all periods together."""
        found: Counter[str] = Counter()
        for (org_id, _), units in self.used.items():
            found[org_id] += max(0, units - LIMIT)
        return {org_id: found[org_id] for org_id in PAYING}

    def items(self, org_id: str) -> int:
        """Units that became items of an invoice."""
        mine = [row for row in self.world.rows("invoiceitem") if row["customer"] == self.customers[org_id]]
        return int(sum(row["amount"] for row in mine if row["metadata"]) // PRICE)

    def metered(self, org_id: str) -> int:
        """Units that Stripe took by meter, each identifier once."""
        rows = self.world.rows("sandbox.accepted")
        assert len({row["identifier"] for row in rows}) == len(rows)
        mine = [row for row in rows if row["payload"]["stripe_customer_id"] == self.customers[org_id]]
        return sum(int(row["payload"]["value"]) for row in mine)

    async def invoiced(self, org_id: str) -> int:
        """Units on final invoices, by meter and as items."""
        units = 0
        for invoice in await self.world.invoices(self.customers[org_id]):
            assert invoice.status == "paid"
            for line in invoice.lines.data:
                over = line.amount if line.parent.type == "invoice_item_details" else 0
                if line.parent.type == "subscription_item_details" and line.amount == line.quantity * PRICE:
                    over = line.amount
                units += over // PRICE
        return units

    async def lines(self) -> list[Line]:
        """Our books against Stripe's."""
        assert self.billing.reconciler is not None
        return [line async for line in self.billing.reconciler.lines()]


async def _borne(turn: Callable[[], Awaitable[None]]) -> None:
    """A turn as the workers of the service make it: one that fails is told, and comes again."""
    try:
        await turn()
    except GatewayError:
        return


@asynccontextmanager
async def rig(url: str, catalogue: str = SOLD) -> AsyncIterator[Rig]:
    """Three organisations with a subscription since a minute, and one for which nobody pays."""
    async with (
        AsyncExitStack() as stack,
        calm(url, catalogue=catalogue, partitions=2) as ledger,
        a_world(await ledger.now_ms() // 1000) as world,
        a_door(world.url) as door,
    ):
        metered = {"interval": "month", "usage_type": "metered", "meter": await world.meter("scans_over")}
        await world.price("base", unit_amount=2900, lookup_key="metering_pro_base")
        await world.price("over", unit_amount=PRICE, lookup_key="metering_scans_overage", recurring=metered)
        clock, one = HandClock(0), ledger.callers[0]
        settings = Settings(stripe_secret_key=SecretStr("sk_test_tests"), stripe_api_base=door.url, stripe_rate=1000)
        ground = Ground(
            settings, ledger.catalogue, ledger.client, ledger.keys, one.time, FieldCodec(), clock,
            SECRET, "ds_1", always_drained, fake=False,
        )  # fmt: skip
        customers = Customers(ledger.client, ledger.keys, FieldCodec(), SECRET)
        made = Rig(ledger, world, door, open_billing(stack, ground, one.orgs, customers), clock)
        for org_id in PAYING:
            await made.subscribe(org_id)
        await made.hours(1 / 60)
        await made.turn(*ORDERS["events first"])
        yield made
        await lawful(ledger)


async def use(at: Rig) -> None:
    """What everybody uses between two looks."""
    for org_id, units in (("acme", 7), ("beta", 3), ("small", 1), ("nobody", 5)):
        await at.track(org_id, units)


async def all_is_billed(at: Rig) -> None:
    """Every unit above a limit came to Stripe once, by its meter or as an item, and stands in our books like that."""
    expected = at.overage()
    assert {org_id: at.metered(org_id) + at.items(org_id) for org_id in PAYING} == expected
    assert expected["acme"] > expected["beta"] > expected["small"] == 0
    outbox = outbox_of(at.ledger)
    for partition in range(at.ledger.keys.partitions):
        assert await outbox.due(partition, 2**62, 10) == []
    assert all(
        line.verdict is (Verdict.EVEN if line.org_id in PAYING else Verdict.UNBILLED) for line in await at.lines()
    )


@pytest.mark.parametrize("order", drawn(ORDERS, 2))
async def test_row_7_72_hours_without_stripe_change_no_answer_and_everything_is_billed_once(
    store: StoreServer, order: str
) -> None:
    async with rig(store.url) as at:
        period = await at.ledger.callers[0].orgs.get("acme")
        assert period is not None
        await at.hours((period.period.end_ms - await at.ledger.now_ms()) / HOUR_MS - 36)
        for _ in range(14):
            await use(at)
        await at.turn()
        assert {org_id: at.metered(org_id) for org_id in PAYING} == at.overage()

        # Two answers are lost after their effect, then nothing answers any more; the period ends in the middle.
        await use(at)
        await at.world.say("POST", "/sandbox/faults", kind="reset_after", path=METER, count=2)
        await at.turn()
        await at.door.shut()
        for _ in range(72 // STEP_H):
            await at.hours(STEP_H)
            await use(at)
            await at.turn_together()
            assert at.metered("acme") < at.overage()["acme"]
        assert at.answers.keys() == {Result.RECORDED}

        # It comes back badly, then well.
        await at.door.open()
        for kind in ("html", "error_before", "rate_limit"):
            await at.world.say("POST", "/sandbox/faults", kind=kind, count=6)
            await at.hours(0.1)
            await at.turn_together()
        await at.world.say("DELETE", "/sandbox/faults")
        for _ in range(8):
            await at.hours(0.5)
            await at.turn(*ORDERS[order])
        await at.hours(2)
        await all_is_billed(at)
        assert {line.org_id for line in await at.lines()} == {"acme", "beta", "nobody"}

        # Later everything stands on a final invoice, once.
        await at.hours(24 * 31)
        await at.turn()
        await at.hours(24 * 31)
        await at.turn()
        assert {org_id: await at.invoiced(org_id) for org_id in PAYING} == at.overage()
        await all_is_billed(at)
