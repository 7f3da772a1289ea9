"""No order of events, no repeat and no crash makes a difference to where an organisation ends."""

import asyncio
from collections.abc import Callable
from itertools import permutations
from random import Random
from typing import Final

import pytest

from metering.billing.reactions import Reactions
from metering.store.org import Org
from plans.periods import Period
from tests.billing.account import Account, checkout, event, invoice, subscription
from tests.billing.rig import GRACE_DAYS, Crash, Rig, SteppedStore, Steps, rigged
from tests.lua.scenes import DAY_MS, lawful, move_to, next_year
from tests.support.servers import StoreServer
from tests.support.soak import drawn
from webhooks.stripe_events import StripeEvent

KINDS: Final = (
    ("customer.subscription.created", "sub_1"),
    ("customer.subscription.updated", "sub_1"),
    ("invoice.finalized", "in_1"),
    ("invoice.payment_failed", "in_1"),
    ("invoice.paid", "in_1"),
)
"""The five events of a payment that failed first, as they happened."""

SCENES: Final = ("paid", "owed", "ended")


async def begun(rig: Rig) -> Period:
    """Acme with usage, half a minute into the period of its item."""
    await rig.track(13)
    start_ms = await next_year(rig.ledger, "01-17T10:20:00")
    await move_to(rig.ledger, start_ms + 30_000)
    return Period(start_ms, await next_year(rig.ledger, "02-17T10:20:00"))


def five(at_ms: int) -> list[StripeEvent]:
    """The five events, the first at `at_ms`, each a second after the one before."""
    return [event(kind, name, at_ms=at_ms + 1_000 * n, name=f"evt_{n}") for n, (kind, name) in enumerate(KINDS)]


def happened(account: Account, period: Period, scene: str) -> None:
    """Everything as it is at Stripe when all of it has happened."""
    status = {"paid": "active", "owed": "past_due", "ended": "canceled"}[scene]
    account.put(subscription(period, status=status))
    account.put(invoice("in_1", period, status="paid" if scene == "paid" else "open"))


def stands(org: Org, scene: str, failed_ms: int) -> bool:
    """Whether an organisation ended as it must."""
    grace = None if scene == "paid" else failed_ms + GRACE_DAYS * DAY_MS
    return (org.plan, org.profile.grace_end_ms) == ("free" if scene == "ended" else "pro", grace)


@pytest.mark.parametrize("scene", SCENES)
async def test_all_120_orders_of_five_events_with_repeats_end_in_one_state(store: StoreServer, scene: str) -> None:
    """Byte for byte but for the claim's revision, instants of the run, the data key and the numbers of readings."""
    states: list[dict[str, dict[str, str]]] = []
    for number, order in drawn(enumerate(permutations(range(len(KINDS)))), 6):
        store.say("FLUSHALL", "SYNC")
        async with rigged(store.url) as rig:
            period = await begun(rig)
            events = five(period.start_ms)
            happened(rig.account, period, scene)
            again = Random(number).sample(order, len(order))
            for one in (*order[:3], again[0], *order[3:], *again):
                await rig.reactions.react(events[one])
            assert stands(await rig.org(), scene, events[3].created_ms), order
            trail = await rig.trail()
            assert [trail[kind] for kind, _ in KINDS] == [1] * len(KINDS), order
            states.append(await rig.state())
            await lawful(rig.ledger)
    assert len(states) >= 20
    assert all(state == states[0] for state in states)


def story(account: Account, period: Period) -> list[Callable[[], object]]:
    """What happens at Stripe before each of the five events."""
    return [
        lambda: account.put(subscription(period, status="incomplete")),
        lambda: account.change("sub_1", status="active"),
        lambda: account.put(invoice("in_1", period)),
        lambda: account.change("sub_1", status="past_due"),
        lambda: paid(account),
    ]


def paid(account: Account) -> None:
    """The invoice is paid after all."""
    account.change("in_1", status="paid")
    account.change("sub_1", status="active")


@pytest.mark.parametrize("seed", drawn(range(60), 15))
async def test_events_that_come_while_more_happens_end_in_the_same_state(store: StoreServer, seed: int) -> None:
    """Each event comes at some time after it happened, twice; what is read is what has happened by then."""
    random, states = Random(seed), []
    for mixed in (False, True):
        store.say("FLUSHALL", "SYNC")
        async with rigged(store.url) as rig:
            period = await begun(rig)
            waiting: list[StripeEvent] = []
            for step, one in zip(story(rig.account, period), five(period.start_ms), strict=True):
                step()
                waiting += [one, one]
                for _ in range(random.randint(0, len(waiting)) if mixed else 0):
                    await rig.reactions.react(waiting.pop(random.randrange(len(waiting))))
            random.shuffle(waiting)
            for one in waiting:
                await rig.reactions.react(one)
            assert stands(await rig.org(), "paid", 0)
            states.append(await rig.state())
    assert states[0] == states[1]


async def test_two_workers_that_take_turns_anywhere_end_in_the_same_state(store: StoreServer) -> None:
    states = []
    for _ in range(6):
        store.say("FLUSHALL", "SYNC")
        async with rigged(store.url) as rig:
            period = await begun(rig)
            events = five(period.start_ms)
            happened(rig.account, period, "owed")
            await asyncio.gather(*(rig.worker(n % 2).react(one) for n, one in enumerate([*events, *reversed(events)])))
            assert stands(await rig.org(), "owed", events[3].created_ms)
            states.append(await rig.state())
            await lawful(rig.ledger)
    assert all(state == states[0] for state in states)


SCRIPTED: Final = {
    "checkout": ("checkout.session.completed", "cs_1"),
    "subscription": ("customer.subscription.updated", "sub_1"),
    "failure": ("invoice.payment_failed", "in_1"),
    "draft": ("invoice.created", "in_2"),
    "final": ("invoice.finalized", "in_1"),
    "deletion": ("customer.deleted", "cus_1"),
}


@pytest.mark.parametrize("name", SCRIPTED)
async def test_row_16_a_crash_between_any_two_steps_leaves_an_event_that_takes_effect_once(
    store: StoreServer, name: str
) -> None:
    """Every call of the store and of Stripe is a step; the worker dies before it, or after it and unheard."""
    whole, steps = await _crashed(store, name, Steps())
    assert steps > 5
    for at in range(1, steps + 1):
        for after in (False, True):
            state, _ = await _crashed(store, name, Steps(at, after))
            assert state == whole, (name, at, after)


async def _crashed(store: StoreServer, name: str, steps: Steps) -> tuple[dict[str, dict[str, str]], int]:
    """The state after an event whose first worker died at one step, and how many steps there were."""
    store.say("FLUSHALL", "SYNC")
    async with rigged(store.url) as rig:
        period = await begun(rig)
        happened(rig.account, period, "owed")
        rig.account.put(checkout())
        rig.account.put(invoice("in_2", period, status="draft"))
        if name in {"deletion", "draft", "final"}:
            await rig.reactions.react(event("customer.subscription.created", "sub_1", name="evt_before"))
        if name in {"draft", "final"}:
            await rig.track(50)
            await move_to(rig.ledger, period.end_ms + 5_000)
        if name == "deletion":
            rig.account.put({"id": "cus_1", "object": "customer", "deleted": True})
        one = event(*SCRIPTED[name], at_ms=period.start_ms, name="evt_1")
        try:
            await _worker(rig, steps).react(one)
        except Crash:
            assert steps.taken == steps.at
        for _ in range(2):
            await rig.reactions.react(one)
        assert (await rig.trail())[one.type] == 1
        await lawful(rig.ledger)
        flushed = {org_id: str(start_ms) for org_id, start_ms in rig.told.flushed}
        assert bool(flushed) == (name == "draft")
        return await rig.state() | {"flushed": flushed}, steps.taken


def _worker(rig: Rig, steps: Steps) -> Reactions:
    """A worker whose every call is a step."""
    account = Account()
    account.objects = rig.account.objects

    async def begin() -> None:
        steps.begin()

    async def end() -> None:
        steps.end()

    account.before, account.after = begin, end
    return rig.worker(client=SteppedStore.over(rig.ledger.client, steps), account=account)
