"""A worker may die before or after any call to the store or to Stripe: Stripe's sum is that of the delivered windows.

A fixed scenario runs once to learn its number of steps, and then once for every step and way to die, and for every two
of them. Whatever happened, in the end every unit of overage is at Stripe once.
"""

import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

import pytest

from metering.billing.exporter import Exporter
from metering.store.correction import By, Change, adjustment
from metering.store.fields import FieldCodec
from metering.store.orgs import Orgs
from metering.store.window import Sink, State, Window
from tests.faults.steps import WHEN, Crash, Schedule, SteppedRedis, SteppedTill, Steps, pairs, singles
from tests.lua.exporting import SOLD, exporter_of, till_of
from tests.lua.ledger import Ledger
from tests.lua.outboxes import customer_of, outbox_of
from tests.lua.scenes import DAY_MS, HOUR_MS, calm, event, lawful, move_to, next_year
from tests.support.monitor import Asked, monitored
from tests.support.servers import StoreServer
from tests.support.soak import SEED, drawn, often
from tests.support.till import Fault, broken, busy, lost


@pytest.fixture(autouse=True)
def unsynced(store: StoreServer) -> Iterator[None]:
    """It is workers that die here, never the store: it need not write to the disk thousands of times."""
    assert store.say("CONFIG", "SET", "appendfsync", "no").startswith("+OK")
    yield
    assert store.say("CONFIG", "SET", "appendfsync", "always").startswith("+OK")


PRICE: Final = 25
"""Of a scan above the limit, in the tests' catalogue."""

TURNS_MAX: Final = 60
PASSES_MS: Final = 11 * 60_000
"""Between two turns: any lease and any pause is over."""


class Scenario:
    """Workers that follow each other on one data set: where one dies the next begins."""

    def __init__(self, ledger: Ledger, schedule: Schedule, *, writes: bool = False, gap_ms: int = PASSES_MS) -> None:
        self.ledger, self.till = ledger, till_of(ledger)
        self.steps = Steps(schedule, writes)
        self.gap_ms = gap_ms
        self.crashes: list[str] = []

    def worker(self) -> Exporter:
        """A new one; its clients are the only ones it has, and count every call."""
        ledger, caller = self.ledger, self.ledger.callers[0]
        client = SteppedRedis.over(ledger.client, self.steps)
        orgs = Orgs(client, ledger.keys, ledger.catalogue, caller.time, FieldCodec(), fake=False)
        till = SteppedTill(self.till, self.steps)
        return exporter_of(ledger, till, client=client, orgs=orgs, at_once=1)

    async def turn(self) -> None:
        """One turn of a worker, which may be its last."""
        await self.live(lambda worker: worker.turn())

    async def live(self, work: Callable[[Exporter], Awaitable[None]]) -> None:
        """What a worker does before it dies."""
        try:
            await work(self.worker())
        except Crash as crash:
            self.crashes.append(str(crash))
            await self.pass_by(self.gap_ms)

    async def pass_by(self, ms: int) -> None:
        await move_to(self.ledger, await self.ledger.now_ms() + ms)

    async def track(self, org_id: str, units: int) -> None:
        await self.ledger.callers[0].counters.track(event(org_id, units))

    async def windows(self) -> list[Window]:
        names = [key.decode().rpartition(":")[2] async for key in self.ledger.client.scan_iter(match="*:b:*")]
        return [window for name in names if (window := await outbox_of(self.ledger).find(name))]

    async def finish(self) -> None:
        """Turns until everything is settled."""
        for _ in range(TURNS_MAX):
            await self.turn()
            windows = await self.windows()
            dirty = await self.ledger.client.zcard("{p00}:dirty")
            if not dirty and not [one for one in windows if one.state in {State.SEALED, State.INFLIGHT}]:
                return
            await self.pass_by(PASSES_MS)
        raise AssertionError(f"not settled after {TURNS_MAX} turns")

    async def check(self, expected: Mapping[str, int]) -> None:
        """Stripe's sum = sum of delivered windows = overage; no window lost, none doubled, every law held."""
        windows = await self.windows()
        assert {window.state for window in windows} == {State.DELIVERED}
        sums, items = Counter[str](), Counter[str]()
        for window in windows:
            if window.sink is Sink.METER:
                sums[window.customer] += window.units
            else:
                items[window.customer] += PRICE * window.units
        assert self.till.sums() == sums == expected
        assert sum(item["amount"] for item in self.till.items) == sum(items.values())
        assert len(self.till.items) == len([one for one in windows if one.sink is Sink.ITEM])
        assert len({sent.identifier for sent in self.till.taken}) == len(self.till.taken)
        await lawful(self.ledger)


async def small(scenario: Scenario) -> dict[str, int]:
    """One window, and usage between its seal and the next."""
    await customer_of(scenario.ledger)
    await scenario.track("acme", 13)
    await scenario.turn()
    await scenario.track("acme", 2)
    await scenario.finish()
    return {"cus_1": 5}


async def large(scenario: Scenario) -> dict[str, int]:
    """Two organisations of one customer, units given back, one that is linked late, and the end of a period."""
    ledger = scenario.ledger
    for name in ("acme", "beta"):
        await customer_of(ledger, name)
        await scenario.track(name, 12)
    await scenario.track("gamma", 14)
    await scenario.turn()
    back = Change("scans", -1, place="/delta")
    by = By("test", "because", "")
    await ledger.callers[0].corrections.make(
        adjustment("acme", back, "a1", by, minted=False, period_ms=None, at_ms=None)
    )
    await scenario.track("acme", 4)
    await scenario.turn()
    await ledger.client.hset(ledger.keys.profile("gamma"), "stripe_customer", "p.cus_2")
    await relink(scenario)
    await move_to(ledger, await next_year(ledger, "02-01T00:00:30"))
    await scenario.track("acme", 11)
    await scenario.finish()
    return {"cus_1": 2 + 3 + 2 + 1, "cus_2": 4}


async def late(scenario: Scenario) -> dict[str, int]:
    """A period whose invoice is finalised while some of its overage is on its way and some is not sealed."""
    ledger = scenario.ledger
    await customer_of(ledger)
    outcome = await ledger.callers[0].counters.track(event("acme", 13))
    await scenario.turn()
    await scenario.track("acme", 2)
    await move_to(ledger, await next_year(ledger, "02-01T00:00:30"))
    await ledger.callers[0].orgs.get("acme")
    key = ledger.keys.archive("acme", outcome.period.start_ms)
    await ledger.client.hset(key, "iv", await ledger.now_ms())
    await scenario.finish()
    for _ in range(4):
        await scenario.live(lambda worker: worker.closing.turn())
    assert await ledger.client.hexists(key, "final")
    sums = scenario.till.sums()
    assert sum(sums.values()) + sum(item["amount"] for item in scenario.till.items) // PRICE == 5
    return sums


async def relink(scenario: Scenario) -> None:
    """The slow look at what was put by, again where its worker died."""
    for _ in range(4):
        await scenario.turn()
        await scenario.live(lambda worker: worker.relink())
    assert not await scenario.ledger.client.zcard("{p00}:unbilled")


SCENARIOS: Final = {"small": small, "large": large, "late": late}


def emptied(store: StoreServer) -> StoreServer:
    """The server without any key."""
    assert store.say("FLUSHALL", "SYNC").startswith("+OK")
    return store


async def run(store: StoreServer, name: str, schedule: Schedule, **options: Any) -> Scenario:
    """Run a scenario from nothing, and check its end. What fails names its schedule."""
    faults: list[Fault | None] = options.pop("faults", [])
    async with calm(emptied(store).url, catalogue=SOLD, partitions=1, callers=1) as ledger:
        scenario = Scenario(ledger, schedule, **options)
        scenario.till.faults = list(faults)
        try:
            await scenario.check(await SCENARIOS[name](scenario))
        except Exception as error:
            error.add_note(f"{name}: {dict(schedule)}, {options}, {scenario.crashes}")
            raise
    return scenario


async def learned(store: StoreServer, name: str, **options: Any) -> Steps:
    """The steps of a scenario without a crash, the scripts being loaded already."""
    for _ in range(2):
        scenario = await run(store, name, {}, **options)
    return scenario.steps


@pytest.mark.parametrize("name", SCENARIOS)
async def test_without_a_crash_everything_arrives_once(each_store: StoreServer, name: str) -> None:
    scenario = await run(each_store, name, {})
    assert scenario.crashes == []


async def test_every_call_to_the_store_and_to_stripe_passes_the_counter(store: StoreServer) -> None:
    """What the server was asked, beside what scripts ask, is what was counted; Stripe has its own list of calls."""
    async with calm(store.url, catalogue=SOLD, partitions=1, callers=1) as ledger:
        scenario = Scenario(ledger, {})
        await customer_of(ledger)
        await scenario.track("acme", 13)
        await scenario.turn()  # the scripts are loaded
        await scenario.track("acme", 2)
        scenario.steps.names.clear()
        scenario.steps.piped.clear()
        now_ms = await ledger.now_ms()

        async def hand() -> int:
            return now_ms

        scenario.till.now_ms = hand  # Stripe does not ask our store
        sent = len(scenario.till.calls)
        async with monitored(store.address) as lines:
            await scenario.turn()
        asked = [one.name for one in map(Asked, lines) if not one.by_script and one.name not in {"CLIENT", "SELECT"}]
        counted = [name for name in scenario.steps.names if name.isupper() and name != "PIPELINE"]
        assert Counter(asked) == Counter(counted + scenario.steps.piped)
        assert scenario.steps.names.count("send_meter_event") == len(scenario.till.calls) - sent == 1


async def test_a_store_that_lost_a_window_does_not_lose_the_next_one(store: StoreServer) -> None:
    """An older copy of the data comes back. What is counted on it is other usage, under other identifiers."""
    async with calm(store.url, catalogue=SOLD, partitions=1, callers=1) as ledger:
        scenario = Scenario(ledger, {})
        await customer_of(ledger)
        await scenario.track("acme", 10)
        copy = await ledger.dump()
        await scenario.track("acme", 3)
        await scenario.finish()
        assert scenario.till.sums() == {"cus_1": 3}
        await ledger.client.flushdb()
        for key, value in copy.items():
            await ledger.client.restore(key, 0 if ":h:" not in key else 3_600_000, value)
        await scenario.track("acme", 5)
        await scenario.finish()
        assert scenario.till.sums() == {"cus_1": 8}


async def test_a_day_may_pass_after_any_crash(store: StoreServer) -> None:
    """Stripe has forgotten the identifier by then: its own sum decides."""
    steps = len((await learned(store, "small", writes=True)).names)
    for schedule in drawn(singles(steps), 4):
        await run(store, "small", schedule, writes=True, gap_ms=DAY_MS + HOUR_MS)


@pytest.mark.parametrize("when", WHEN)
async def test_row_1_a_worker_that_dies_at_a_call_to_stripe_leaves_nothing_out_and_doubles_nothing(
    store: StoreServer, when: str
) -> None:
    """Red when a window is settled before Stripe has it: what a worker was about to send would never go out."""
    names = (await learned(store, "small")).names
    calls = [number for number, name in enumerate(names, 1) if name == "send_meter_event"]
    assert len(calls) == 2
    for number in calls:
        scenario = await run(store, "small", {number: when})
        assert scenario.crashes == [f"{number} {when} send_meter_event"]


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_worker_may_die_before_or_after_any_call(store: StoreServer, name: str) -> None:
    steps = await learned(store, name, writes=name != "small")
    sys.stdout.write(f"{name}: N = {len(steps.names)} steps of {steps.calls} calls\n")
    for schedule in drawn(singles(len(steps.names)), 4):
        scenario = await run(store, name, schedule, writes=name != "small")
        assert len(scenario.crashes) == 1


async def test_two_workers_may_die_at_any_two_calls(store: StoreServer) -> None:
    steps = len((await learned(store, "small", writes=True)).names)
    schedules = drawn(pairs(steps), 20)
    sys.stdout.write(f"small: N = {steps} writes, {len(schedules)} pairs\n")
    for schedule in schedules:
        await run(store, "small", schedule, writes=True)


@pytest.mark.parametrize("fault", [lost(), broken(), busy()], ids=["lost", "broken", "busy"])
async def test_stripe_may_fail_as_well(store: StoreServer, fault: Fault) -> None:
    faults: list[Fault | None] = [fault, None, fault]
    steps = len((await learned(store, "small", writes=True, faults=faults)).names)
    for schedule in drawn(singles(steps), 4):
        await run(store, "small", schedule, writes=True, faults=faults)


async def test_random_schedules_of_three_crashes(store: StoreServer) -> None:
    dice = random.Random(SEED)
    steps = len((await learned(store, "large", writes=True)).names)
    for _ in range(often(40, 8)):
        places = dice.sample(range(1, steps + 10), 3)
        await run(store, "large", {place: dice.choice(WHEN) for place in places}, writes=True)
