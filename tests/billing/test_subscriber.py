"""Subscriptions that end, and go on, because their payers say so: what is billed, and what the organisation is then."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from metering.billing.last_usage import LastUsage
from metering.billing.sandbox.context import Options
from metering.billing.subscriber import Subscriber
from metering.errors import NotSubscribed, Problem, StripeUnavailable, UsageSettling
from metering.store.org import Org, Subscription
from metering.store.window import State
from tests.billing.test_cancelling import hear
from tests.billing.test_outage import LIMIT, METER, PRICE, Rig, rig
from tests.lua.test_exporter import windows
from tests.support.servers import StoreServer


def subscriber_of(at: Rig) -> Subscriber:
    """Who changes subscriptions."""
    assert at.billing.self_service is not None
    return at.billing.self_service.subscriber


async def org_of(at: Rig, name: str = "acme") -> Org:
    """An organisation as it is."""
    org = await at.ledger.callers[0].orgs.get(name)
    assert org is not None
    return org


def sold_to(org: Org) -> Subscription:
    """Its subscription."""
    assert org.profile.subscription is not None
    return org.profile.subscription


async def end(at: Rig, org: str = "acme", *, now: bool = True, name: str = "r1") -> Org:
    """Cancel an organisation's subscription."""
    subscriber = subscriber_of(at)
    cancel = subscriber.cancel_now if now else subscriber.cancel_with_period
    return await cancel(await org_of(at, org), name=f"{org}-{name}", by="ada")


def status(at: Rig, org: str = "acme") -> str:
    """Of its subscription, at Stripe."""
    [sold] = [row for row in at.world.rows("subscription") if row["customer"] == at.customers[org]]
    return str(sold["status"])


async def billed(at: Rig, org: str = "acme") -> int:
    """Units of overage on its invoices by meter."""
    invoices = await at.world.invoices(at.customers[org])
    lines = [line for one in invoices for line in one.lines.data if line.amount == line.quantity * PRICE]
    return sum(line.quantity for line in lines)


async def trail(at: Rig) -> Counter[str]:
    """How many entries of each type acme's trail has."""
    entries = await at.ledger.client.xrange(at.ledger.keys.trail("acme"))
    return Counter(entry[b"type"].decode() for _, entry in entries)


async def test_ended_now_all_that_was_used_is_on_the_last_invoice_and_the_plan_is_gone_at_once(
    store: StoreServer,
) -> None:
    async with rig(store.url) as at:
        await at.track("acme", LIMIT + 5)
        await at.turn("overage")
        await at.track("acme", 4)
        await at.hours(0.1)
        after = await end(at)
        assert (await billed(at), at.items("acme"), status(at)) == (9, 0, "canceled")
        assert (after.plan, sold_to(after).status, after.features["scans"].used) == ("free", "canceled", 0)
        assert (await trail(at))["subscription_cancelled"] == 1
        await hear(at)
        for _ in range(2):
            await at.hours(1)
            await at.turn("overage")
        assert (await billed(at), at.items("acme"), (await org_of(at)).plan) == (9, 0, "free")
        assert {window.state for window in await windows(at.ledger)} == {State.DELIVERED}


async def test_nothing_ends_while_stripe_was_not_told_of_usage_or_has_not_added_it_up(store: StoreServer) -> None:
    async with rig(store.url) as at:
        at.world.sandbox.options = Options(summary_lag_s=90)
        for org in ("acme", "beta"):
            await at.track(org, LIMIT + 5)
        await at.hours(0.01)
        with pytest.raises(UsageSettling):
            await end(at)
        await at.world.say("POST", "/sandbox/faults", kind="rate_limit", path=METER, count=1)
        with pytest.raises(UsageSettling):
            await end(at, "beta")
        assert (status(at), status(at, "beta"), (await org_of(at)).plan) == ("active", "active", "pro")
        assert (at.metered("acme"), at.metered("beta")) == (5, 0)
        at.world.sandbox.options = Options()
        await at.hours(0.1)
        for org in ("acme", "beta"):
            await end(at, org)
            assert (status(at, org), await billed(at, org)) == ("canceled", 5)


async def test_nothing_ends_before_all_that_was_accepted_is_counted() -> None:
    async def never(org_id: str, at_ms: int) -> bool:
        return False

    nobody: Any = None
    assert not await LastUsage(nobody, nobody, nobody, never, lambda: 0).told(Org(*[nobody] * 6))


async def test_ended_with_the_period_it_grants_until_then_and_can_be_taken_back(store: StoreServer) -> None:
    async with rig(store.url) as at:
        org = await end(at, now=False)
        assert (org.plan, sold_to(org).status, sold_to(org).cancel_at_period_end) == ("pro", "active", True)
        assert sold_to(org).stops_ms == org.period.end_ms
        back = sold_to(await subscriber_of(at).resume(org, name="r2", by="ada"))
        assert (back.cancel_at_period_end, back.stops_ms) == (False, None)
        await end(at, now=False, name="r3")
        told = await trail(at)
        assert (told["subscription_cancelled"], told["subscription_resumed"]) == (2, 1)
        await at.track("acme", LIMIT + 3)
        await at.hours((org.period.end_ms - await at.ledger.now_ms()) / 3_600_000 - 0.01)
        await at.turn("overage")
        await at.hours(0.5)
        await hear(at)
        await at.hours(2)
        await hear(at)
        assert ((await org_of(at)).plan, status(at), await billed(at)) == ("free", "canceled", 3)


async def test_what_ended_unheard_is_told_so_and_ending_it_again_is_no_fault(store: StoreServer) -> None:
    async with rig(store.url) as at:
        [sold] = [row for row in at.world.rows("subscription") if row["customer"] == at.customers["acme"]]
        known = await org_of(at)
        await at.world.v1.subscriptions.cancel_async(sold["id"], {"invoice_now": True})
        with pytest.raises(NotSubscribed):
            await subscriber_of(at).cancel_with_period(known, name="r1", by="ada")
        assert (await org_of(at)).plan == "free"
        assert (await subscriber_of(at).cancel_now(known, name="r2", by="ada")).plan == "free"
        for change in (subscriber_of(at).resume, subscriber_of(at).cancel_now):
            with pytest.raises(NotSubscribed):
                await change(await org_of(at), name="r3", by="ada")


async def test_a_500_that_stripe_keeps_keeps_nobody_and_without_stripe_nothing_changes(store: StoreServer) -> None:
    async with rig(store.url) as at:
        for org, now in (("acme", True), ("beta", False)):
            await at.world.say("POST", "/sandbox/faults", kind="error_after", path="/v1/subscriptions/*", count=1)
            sold = sold_to(await end(at, org, now=now))
            assert (sold.status == "canceled", sold.cancel_at_period_end) == (now, not now)
        await at.door.shut()
        with pytest.raises(StripeUnavailable):
            await end(at, "small", now=False)
        assert (status(at, "small"), (await org_of(at, "small")).plan) == ("active", "pro")


async def test_of_several_who_end_it_at_once_one_does_and_it_is_billed_once(store: StoreServer) -> None:
    async with rig(store.url) as at:
        await at.track("acme", LIMIT + 5)
        await at.hours(0.01)

        async def one(number: int) -> str:
            try:
                return (await end(at, name=f"r{number}")).plan
            except Problem as problem:
                return problem.code

        assert set(await asyncio.gather(*map(one, range(4)))) <= {"free", UsageSettling.code, NotSubscribed.code}
        assert (status(at), await billed(at), at.items("acme")) == ("canceled", 5, 0)
