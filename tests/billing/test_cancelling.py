"""A subscription that ends inside its period: our period closes there, and every unit of it is billed once."""

from itertools import permutations
from random import Random
from typing import Final

import pytest

from metering.billing.sandbox.renewals import wind_up
from metering.store.window import State
from plans.periods import Period
from tests.billing.account import event, invoice, subscription
from tests.billing.rig import Rig, rigged
from tests.billing.test_outage import LIMIT, PRICE
from tests.billing.test_outage import Rig as Wired
from tests.billing.test_outage import rig as wired
from tests.lua.scenes import DAY_MS, lawful, move_to, next_year
from tests.lua.test_exporter import windows
from tests.support.servers import StoreServer
from tests.support.soak import drawn
from webhooks.stripe_events import StripeEvent, event_of

KINDS: Final = (
    ("customer.subscription.updated", "sub_1"),
    ("customer.subscription.deleted", "sub_1"),
    ("invoice.created", "in_2"),
    ("invoice.finalized", "in_2"),
    ("invoice.paid", "in_2"),
)
"""The five events of a subscription that was cancelled and billed at once."""


async def running(rig: Rig, units: int = 45) -> Period:
    """Acme three days into its subscription's period, with so many scans in it."""
    await rig.track(1)
    period = Period(await next_year(rig.ledger, "01-17T10:20:00"), await next_year(rig.ledger, "02-17T10:20:00"))
    await move_to(rig.ledger, period.start_ms + 30_000)
    rig.account.put(subscription(period))
    await rig.reactions.react(event("customer.subscription.created", "sub_1", name="evt_begun"))
    await rig.track(units)
    await move_to(rig.ledger, period.start_ms + 3 * DAY_MS)
    return period


def cancelled(rig: Rig, period: Period, ended_ms: int, *, status: str = "paid") -> None:
    """The subscription is over, and its last invoice is as it is."""
    rig.account.change("sub_1", status="canceled", ended_at=ended_ms // 1000)
    span = Period(period.start_ms, ended_ms)
    final = {"finalized_at": None if status == "draft" else ended_ms // 1000}
    rig.account.put(
        invoice("in_2", span, status=status, billing_reason="subscription_update", status_transitions=final)
    )


DELETED: Final = ("customer.subscription.deleted", "sub_1")


@pytest.mark.parametrize("counted_since", [0, 7])
async def test_row_12_our_period_closes_where_the_subscription_ended_or_just_after_what_was_counted(
    store: StoreServer, counted_since: int
) -> None:
    async with rigged(store.url) as rig:
        period = await running(rig)
        before, ended_ms = await rig.org(), await rig.ledger.now_ms() // 1000 * 1000
        cancelled(rig, period, ended_ms)
        border_ms = ended_ms
        if counted_since:
            await rig.track(counted_since)
            border_ms = ((await rig.org()).features["scans"].last_updated_ms or 0) + 1
        await move_to(rig.ledger, ended_ms + 5_000)
        await rig.reactions.react(event(*DELETED))
        org = await rig.org()
        assert (org.plan, org.features["scans"].used) == ("free", 0)
        assert org.period == Period(border_ms, period.end_ms)
        assert org.before == Period(before.period.start_ms, border_ms)
        archive = await rig.ledger.client.hgetall(rig.ledger.keys.archive("acme", before.period.start_ms))
        assert (int(archive[b"u:scans"]), int(archive[b"x:scans"])) == (45 + counted_since, 5 + counted_since)
        await rig.track(3)
        await lawful(rig.ledger)
        await move_to(rig.ledger, period.end_ms)
        assert (await rig.org()).features["scans"].used == 0
        await lawful(rig.ledger)


@pytest.mark.parametrize(
    ("case", "closes"),
    [
        ("it is the current one", True),
        ("another one", False),
        ("nobody says when", False),
        ("of a period before", False),
    ],
)
async def test_only_the_end_of_the_current_subscription_closes_a_period(
    store: StoreServer, case: str, closes: bool
) -> None:
    async with rigged(store.url) as rig:
        period = await running(rig)
        before = (await rig.org()).period
        ended_ms = await rig.ledger.now_ms()
        if case == "another one":
            rig.account.put(subscription(period, name="sub_0", status="canceled", ended_at=ended_ms // 1000, created=1))
        else:
            ended_s = {"nobody says when": None, "of a period before": before.start_ms // 1000 - 1}
            rig.account.change("sub_1", status="canceled", ended_at=ended_s.get(case, ended_ms // 1000))
        await rig.reactions.react(event("customer.subscription.deleted", "sub_0" if case == "another one" else "sub_1"))
        assert ((await rig.org()).period != before) is closes
        await lawful(rig.ledger)


async def test_of_two_that_ended_unheard_the_newest_closes_the_period(store: StoreServer) -> None:
    async with rigged(store.url) as rig:
        period = await running(rig)
        start_ms, day_s = (await rig.org()).period.start_ms, DAY_MS // 1000
        begun_s = period.start_ms // 1000
        rig.account.change("sub_1", status="canceled", ended_at=begun_s + day_s)
        second = Period(period.start_ms + DAY_MS, period.end_ms + DAY_MS)
        rig.account.put(subscription(second, name="sub_2", status="canceled", ended_at=begun_s + 2 * day_s))
        await rig.reactions.react(event("customer.subscription.deleted", "sub_1"))
        org = await rig.org()
        assert (org.plan, org.before) == ("free", Period(start_ms, period.start_ms + 2 * DAY_MS))
        await lawful(rig.ledger)


async def test_all_120_orders_of_the_five_events_of_a_cancel_with_repeats_end_in_one_state(store: StoreServer) -> None:
    states: list[dict[str, dict[str, str]]] = []
    for number, order in drawn(enumerate(permutations(range(len(KINDS)))), 6):
        store.say("FLUSHALL", "SYNC")
        async with rigged(store.url) as rig:
            period = await running(rig)
            ended_ms = period.start_ms + 2 * DAY_MS
            cancelled(rig, period, ended_ms)
            events = [event(kind, name, at_ms=ended_ms, name=f"evt_{n}") for n, (kind, name) in enumerate(KINDS)]
            again = Random(number).sample(order, len(order))
            for one in (*order[:3], again[0], *order[3:], *again):
                await rig.reactions.react(events[one])
            org = await rig.org()
            assert org.before is not None
            assert (org.plan, org.period.start_ms, org.before.end_ms) == ("free", ended_ms, ended_ms), order
            archive = rig.ledger.keys.archive("acme", org.before.start_ms)
            assert int(await rig.ledger.client.hget(archive, "iv")) == ended_ms
            trail = await rig.trail()
            assert [trail[kind] for kind, _ in KINDS] == [1] * len(KINDS), order
            assert trail["period_closed"] == 2, order
            states.append(await rig.state())
            await lawful(rig.ledger)
    assert len(states) >= 20
    assert all(state == states[0] for state in states)


@pytest.mark.parametrize("seed", drawn(range(30), 6))
async def test_events_of_a_cancel_that_come_while_more_happens_end_in_the_same_state(
    store: StoreServer, seed: int
) -> None:
    random, states = Random(seed), []
    for mixed in (False, True):
        store.say("FLUSHALL", "SYNC")
        async with rigged(store.url) as rig:
            period = await running(rig)
            ended_ms = period.start_ms + 2 * DAY_MS
            waiting: list[StripeEvent] = []
            steps = {2: "draft", 3: "open", 4: "paid"}
            for n, (kind, name) in enumerate(KINDS):
                if n:
                    cancelled(rig, period, ended_ms, status=steps.get(n, "draft"))
                waiting += [event(kind, name, at_ms=ended_ms, name=f"evt_{n}")] * 2
                for _ in range(random.randint(0, len(waiting)) if mixed else 0):
                    await rig.reactions.react(waiting.pop(random.randrange(len(waiting))))
            random.shuffle(waiting)
            for one in waiting:
                await rig.reactions.react(one)
            states.append(await rig.state())
    assert states[0] == states[1]


# ── what the last invoice shows ──────────────────────────────────────────────────────────────────────────


async def hear(at: Wired) -> None:
    """Every event arrives, and takes effect."""
    for row in at.world.rows("event"):
        await at.billing.intake.take(event_of(row))
    await at.turn("stripe events")


async def cancel(at: Wired, how: str) -> None:
    """End acme's subscription: billed at once, by a draft of an hour, or without an invoice."""
    customer = at.customers["acme"]
    [sold] = [row for row in at.world.rows("subscription") if row["customer"] == customer]
    if how == "a draft":
        sold |= {"cancel_at": at.world.now[0]}
        at.world.sandbox.db.put("subscription", sold)
        wind_up(at.world.sandbox.db, sold)
        await at.world.say("POST", "/sandbox/run")
    else:
        await at.world.v1.subscriptions.cancel_async(sold["id"], {"invoice_now": how == "at once"})


@pytest.mark.parametrize(
    ("how", "on_invoices", "in_items"), [("at once", 5, 7), ("a draft", 12, 0), ("no invoice", 0, 7)]
)
async def test_row_12_what_was_not_told_before_the_end_is_on_the_last_invoice_or_an_item(
    store: StoreServer, how: str, on_invoices: int, in_items: int
) -> None:
    """Five units were told, four came after that, and three more between the end and the word of it."""
    async with wired(store.url) as at:
        await hear(at)
        await at.track("acme", LIMIT + 5)
        await at.hours(1)
        await at.turn("overage")
        await at.track("acme", 4)
        await at.hours(0.1)
        await cancel(at, how)
        await at.hours(0.1)
        await at.track("acme", 3)
        await at.hours(0.01)
        await hear(at)
        org = await at.ledger.callers[0].orgs.get("acme")
        assert org is not None
        assert (org.plan, org.features["scans"].used) == ("free", 0)
        for _ in range(3):
            await at.hours(1)
            await hear(at)
            await at.turn("overage")
        on_meter = sum(
            line.quantity
            for one in await at.world.invoices(at.customers["acme"])
            for line in one.lines.data
            if line.parent.type == "subscription_item_details" and line.amount == line.quantity * PRICE
        )
        assert (on_meter, at.items("acme")) == (on_invoices, in_items)
        assert {window.state for window in await windows(at.ledger)} == {State.DELIVERED}
        assert org.before is not None
        await at.turn("final periods")
        assert await at.ledger.client.hexists(at.ledger.keys.archive("acme", org.before.start_ms), "final")


async def test_what_is_used_after_the_end_is_put_by_and_billed_as_an_item_when_somebody_pays_again(
    store: StoreServer,
) -> None:
    async with wired(store.url) as at:
        await hear(at)
        await at.track("acme", LIMIT)
        await at.hours(1)
        await cancel(at, "at once")
        await hear(at)
        await at.track("acme", 13)
        for _ in range(2):
            await at.hours(24 * 31)
            await at.turn("overage")
        assert (at.metered("acme"), at.items("acme")) == (0, 0)
        await at.world.subscribe(at.customers["acme"], "base", "over", metadata={"org_id": "acme"})
        await hear(at)
        for _ in range(2):
            await at.hours(0.2)
            await at.turn("unbilled", "overage")
        assert (at.metered("acme"), at.items("acme")) == (0, 3)


async def test_a_period_without_a_last_invoice_is_final_though_nothing_of_it_waits(store: StoreServer) -> None:
    async with wired(store.url) as at:
        await hear(at)
        await at.track("acme", LIMIT + 5)
        await at.hours(1)
        await at.turn("overage")
        await cancel(at, "no invoice")
        await hear(at)
        org = await at.ledger.callers[0].orgs.get("acme")
        assert org is not None
        assert org.before is not None
        archive = at.ledger.keys.archive("acme", org.before.start_ms)
        await at.turn("final periods")
        assert not await at.ledger.client.hexists(archive, "iv")
        await at.hours(1)
        await at.turn("final periods")
        assert int(await at.ledger.client.hget(archive, "iv")) == org.before.end_ms
        assert await at.ledger.client.hexists(archive, "final")
