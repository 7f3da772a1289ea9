"""A worker may die before or after any call while it takes an event in or reacts: it takes effect once all the same.

Events come in, each again until it is answered, and workers follow each other until nothing waits. A scene runs once to
learn the number of its steps, then for every step and way to die, and for every two of those that may write.
"""

import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import pytest

from metering.billing.inbox import InboxWorker
from metering.billing.intake import Intake
from metering.clock import HandClock
from metering.store.inbox import Inbox
from plans.periods import Period
from tests.billing.account import event, invoice, subscription
from tests.billing.rig import GRACE_DAYS, Rig, rigged
from tests.faults.steps import Crash, Schedule, SteppedRedis, SteppedTill, Steps, pairs, singles
from tests.lua.ledger import SECRET
from tests.lua.scenes import DAY_MS, lawful, move_to, next_year
from tests.support.monitor import Asked, monitored
from tests.support.servers import StoreServer
from tests.support.soak import drawn
from webhooks.stripe_events import StripeEvent

TURNS_MAX: Final = 20

State = dict[str, dict[str, str]]


@pytest.fixture(autouse=True)
def unsynced(store: StoreServer) -> Iterator[None]:
    """It is workers that die here, never the store: it need not write to the disk thousands of times."""
    assert store.say("CONFIG", "SET", "appendfsync", "no").startswith("+OK")
    yield
    assert store.say("CONFIG", "SET", "appendfsync", "always").startswith("+OK")


class Scenario:
    """Workers that follow each other on one data set: where one dies the next begins."""

    def __init__(self, rig: Rig, steps: Steps) -> None:
        self.rig, self.steps = rig, steps
        self.crashes: list[str] = []

    def inbox(self) -> Inbox:
        """That of a new worker, whose every call counts."""
        return Inbox(SteppedRedis.over(self.rig.ledger.client, self.steps), self.rig.ledger.keys, SECRET)

    async def turn(self) -> None:
        """One turn of a new worker over what waits."""
        account: Any = SteppedTill(self.rig.account, self.steps)
        client = SteppedRedis.over(self.rig.ledger.client, self.steps)
        reactions = self.rig.worker(client=client, account=account)
        await InboxWorker(self.inbox(), reactions.react, HandClock(0).monotonic, livemode=False, idle_ms=0).turn()

    async def live(self, work: Callable[[], Awaitable[object]]) -> bool:
        """What a worker does; whether it lived to its end."""
        died = len(self.crashes)
        try:
            await work()
        except* Crash as crashes:
            self.crashes += map(str, crashes.exceptions)
        return len(self.crashes) == died

    async def run(self, *events: StripeEvent) -> State:
        """Events until nothing waits; the state then."""
        for one in events:
            while not await self.live(partial(Intake(self.inbox()).take, one)):
                pass  # not answered: Stripe sends it again
        for _ in range(TURNS_MAX):
            if await self.live(self.turn) and not await plain(self.rig).waiting():
                return await self._checked(events)
        raise AssertionError(f"something waits after {TURNS_MAX} turns")

    async def _checked(self, events: Sequence[StripeEvent]) -> State:
        """Each event in the trail and counted once, none given up, every law held."""
        trail = await self.rig.trail()
        assert [trail[one.type] for one in events] == [1] * len(events)
        assert await plain(self.rig).dead() == []
        await lawful(self.rig.ledger)
        told = {org_id: str(start_ms) for org_id, start_ms in self.rig.told.flushed}
        return await self.rig.state() | {"flushed": told}


def plain(rig: Rig) -> Inbox:
    """The inbox, looked at from outside."""
    return Inbox(rig.ledger.client, rig.ledger.keys, SECRET)


async def failed(scenario: Scenario, period: Period) -> State:
    """A subscription begins, and its first renewal is not paid."""
    account = scenario.rig.account
    account.put(subscription(period, status="past_due"))
    account.put(invoice("in_1", period))
    state = await scenario.run(
        event("customer.subscription.created", "sub_1", name="evt_1", at_ms=period.start_ms),
        event("invoice.payment_failed", "in_1", name="evt_2", at_ms=period.start_ms),
    )
    org = await scenario.rig.org()
    assert (org.plan, org.profile.grace_end_ms) == ("pro", period.start_ms + GRACE_DAYS * DAY_MS)
    return state


async def billed(scenario: Scenario, period: Period) -> State:
    """A period ends: its usage is pushed for the draft, and frozen by the invoice."""
    rig = scenario.rig
    rig.account.put(subscription(period))
    await rig.reactions.react(event("customer.subscription.created", "sub_1", name="evt_0"))
    await rig.track(50)
    await move_to(rig.ledger, period.end_ms + 5_000)
    rig.account.put(invoice("in_1", period, status="draft"))
    rig.account.put(invoice("in_2", period, status="paid"))
    state = await scenario.run(
        event("invoice.created", "in_1", name="evt_1"), event("invoice.finalized", "in_2", name="evt_2")
    )
    assert rig.told.flushed
    assert await rig.ledger.client.hexists(rig.ledger.keys.archive("acme", period.start_ms), "iv")
    return state


SCENES: Final = {"failed": failed, "billed": billed}


async def run(store: StoreServer, name: str, schedule: Schedule, *, writes: bool = False) -> tuple[Scenario, State]:
    """A scene from nothing. What fails names its schedule."""
    store.say("FLUSHALL", "SYNC")
    async with rigged(store.url, partitions=1) as rig:
        await rig.track(13)
        start_ms = await next_year(rig.ledger, "01-17T10:20:00")
        await move_to(rig.ledger, start_ms + 30_000)
        scenario = Scenario(rig, Steps(schedule, writes))
        period = Period(start_ms, await next_year(rig.ledger, "02-17T10:20:00"))
        try:
            return scenario, await SCENES[name](scenario, period)
        except Exception as error:
            error.add_note(f"{name}: {dict(schedule)}, {scenario.crashes}")
            raise


async def learned(store: StoreServer, name: str, *, writes: bool = False) -> tuple[int, State]:
    """The steps of a scene without a crash, the scripts being loaded already, and its end."""
    for _ in range(2):
        scenario, state = await run(store, name, {}, writes=writes)
    sys.stdout.write(f"{name}: N = {len(scenario.steps.names)} steps of {scenario.steps.calls} calls\n")
    return len(scenario.steps.names), state


@pytest.mark.parametrize("name", SCENES)
async def test_a_worker_may_die_before_or_after_any_call(store: StoreServer, name: str) -> None:
    steps, whole = await learned(store, name)
    for schedule in drawn(singles(steps), 4):
        scenario, state = await run(store, name, schedule)
        assert (len(scenario.crashes), state) == (1, whole), dict(schedule)


async def test_two_workers_may_die_at_any_two_calls(store: StoreServer) -> None:
    steps, whole = await learned(store, "failed", writes=True)
    for schedule in drawn(pairs(steps), 20):
        _, state = await run(store, "failed", schedule, writes=True)
        assert state == whole, dict(schedule)


async def test_every_call_to_the_store_passes_the_counter(store: StoreServer) -> None:
    """What the server was asked beside what scripts ask is what was counted; the account has its own list of calls."""
    store.say("FLUSHALL", "SYNC")
    async with rigged(store.url, partitions=1) as rig:
        await rig.track(13)
        period = Period(await next_year(rig.ledger, "01-17T10:20:00"), await next_year(rig.ledger, "02-17T10:20:00"))
        rig.account.put(subscription(period))
        scenario = Scenario(rig, Steps())
        await Intake(scenario.inbox()).take(event("customer.subscription.created", "sub_1", name="evt_1"))
        scenario.steps.names.clear()
        rig.account.calls.clear()
        async with monitored(store.address) as lines:
            await scenario.turn()
        asked = [one.name for one in map(Asked, lines) if not one.by_script and one.name not in {"CLIENT", "SELECT"}]
        counted = [name.split()[0] for name in scenario.steps.names if name.isupper() and name != "PIPELINE"]
        assert Counter(asked) == Counter(counted + scenario.steps.piped)
        assert len([name for name in scenario.steps.names if name.islower()]) == len(rig.account.calls) > 0
