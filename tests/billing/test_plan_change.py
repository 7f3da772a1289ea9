"""Changes of plan that payers ask for: what they cost, and what becomes of plan, limits, usage and overage."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from metering.billing.plan_change import PlanChange, Proration
from metering.errors import IntervalDiffers, NotSubscribed, PaymentFailed, PlanNotSold, StripeUnavailable
from metering.store.org import Org
from tests.billing.rig import TEAM
from tests.billing.test_cancelling import hear
from tests.billing.test_outage import LIMIT, PRICE, Rig, rig
from tests.billing.test_subscriber import billed, end, org_of, sold_to, trail
from tests.lua.exporting import SOLD
from tests.support.servers import StoreServer

YEAR: Final = TEAM.replace("plans.team", "plans.year").replace("Team", "Year")
"""A plan that is paid by the year."""


@asynccontextmanager
async def selling(store: StoreServer) -> AsyncIterator[Rig]:
    """Acme on the plan of 29 dollars since a minute; there is another of 99, and one that is paid by the year."""
    async with rig(store.url, SOLD + TEAM + YEAR) as at:
        await at.world.price("team", unit_amount=9900, lookup_key="metering_team_base")
        yearly = {"interval": "year"}
        await at.world.price("year", unit_amount=99000, lookup_key="metering_year_base", recurring=yearly)
        yield at


def changes_of(at: Rig) -> PlanChange:
    """Who changes plans."""
    assert at.billing.self_service is not None
    return at.billing.self_service.plan_change


async def change(at: Rig, plan: str = "team", proration: Proration = "create_prorations", name: str = "c1") -> Org:
    """Let acme change."""
    return await changes_of(at).make(await org_of(at), plan, proration, name=name, by="ada")


def items(at: Rig) -> dict[str, str]:
    """Items of acme's subscription, and their prices."""
    [sold] = [row for row in at.world.rows("subscription") if row["customer"] == at.customers["acme"]]
    return {item["id"]: item["price"]["lookup_key"] for item in sold["items"]["data"]}


async def totals(at: Rig) -> list[int]:
    """Of acme's invoices, the oldest first."""
    return [invoice.total for invoice in await at.world.invoices(at.customers["acme"])]


async def test_a_change_swaps_the_plans_item_alone_and_the_plan_holds_at_once(store: StoreServer) -> None:
    async with selling(store) as at:
        await at.track("acme", LIMIT + 5)
        await at.hours(24 * 10)
        await at.turn("overage")
        before, period = items(at), (await org_of(at)).period
        quote = await changes_of(at).quote(await org_of(at), "team", "create_prorations")
        assert (items(at), await totals(at)) == (before, [2900])
        after = await change(at)
        [swapped] = [item for item, price in items(at).items() if price != before[item]]
        assert (list(items(at)), before[swapped], items(at)[swapped]) == (
            list(before), "metering_pro_base", "metering_team_base",
        )  # fmt: skip
        assert (after.plan, sold_to(after).plan, after.period) == ("team", "team", period)
        scans = after.features["scans"]
        assert (scans.rule.limit, scans.used, scans.overage) == (100, LIMIT + 5, 5)
        told = await trail(at)
        assert (told["subscription_changed"], told["plan_changed"]) == (1, 2)
        await hear(at)
        heard = await org_of(at)
        assert (heard.plan, heard.features["scans"].overage, (await trail(at))["plan_changed"]) == ("team", 5, 2)

        # The next invoice is the one that was shown, and bills the overage from before the change once.
        await at.hours((period.end_ms - await at.ledger.now_ms()) / 3_600_000 + 1.2)
        await hear(at)
        assert await totals(at) == [2900, quote.total_minor]
        assert (quote.at_once, quote.whole, quote.due_minor) == (False, True, quote.total_minor)
        prorated = [line.amount_minor for line in quote.lines if line.proration]
        assert (len(prorated), prorated[0] < 0 < prorated[1]) == (2, True)
        assert quote.total_minor == 9900 + 5 * PRICE + sum(prorated)
        assert await billed(at) == 5


async def test_billed_at_once_a_change_costs_what_was_shown_and_a_card_that_does_not_pay_changes_nothing(
    store: StoreServer,
) -> None:
    async with selling(store) as at:
        await at.hours(24 * 10)
        await hear(at)
        org, before = await org_of(at), items(at)
        quote = await changes_of(at).quote(org, "team", "always_invoice")
        for card in ("decline", "authentication_required"):
            await at.world.say("POST", "/sandbox/cards", customer=at.customers["acme"], card=card)
            with pytest.raises(PaymentFailed):
                await change(at, proration="always_invoice", name=card)
            assert (items(at), await totals(at), (await org_of(at)).plan) == (before, [2900], "pro")
        await at.world.say("POST", "/sandbox/cards", customer=at.customers["acme"], card="succeed")
        after = await change(at, proration="always_invoice")
        assert (after.plan, quote.at_once, await totals(at)) == ("team", True, [2900, quote.total_minor])
        assert all(line.proration for line in quote.lines)

        # Back again, without settling: what was paid stays paid, and nothing is asked for.
        assert (await changes_of(at).quote(after, "pro", "none")).total_minor == 2900
        assert (await change(at, "pro", "none", "c2")).plan == "pro"
        assert len(await totals(at)) == 2


async def test_what_cannot_be_changed_changes_nothing(store: StoreServer) -> None:
    async with selling(store) as at:
        before = items(at)
        org = await org_of(at)
        for plan, problem in (("year", IntervalDiffers), ("free", PlanNotSold)):
            with pytest.raises(problem):
                await change(at, plan)
            with pytest.raises(problem):
                await changes_of(at).quote(org, plan, "none")
        assert (await change(at, "pro")).plan == "pro"
        assert (await changes_of(at).quote(org, "pro", "always_invoice")).at_once is False
        assert (items(at), (await trail(at))["subscription_changed"]) == (before, 0)
        await at.door.shut()
        with pytest.raises(StripeUnavailable):
            await change(at)
        await at.door.open()
        await end(at)
        for call in (change(at), changes_of(at).quote(await org_of(at), "team", "none")):
            with pytest.raises(NotSubscribed):
                await call
        ended: Any = org
        with pytest.raises(NotSubscribed):
            await changes_of(at).make(ended, "team", "none", name="c9", by="ada")


async def test_what_is_owed_comes_first_and_a_500_that_stripe_keeps_keeps_nobody(store: StoreServer) -> None:
    async with selling(store) as at:
        await at.world.say("POST", "/sandbox/faults", kind="error_after", path="/v1/subscriptions/*", method="POST")
        assert (await change(at)).plan == "team"
        await at.world.say("POST", "/sandbox/cards", customer=at.customers["acme"], card="decline")
        org = await org_of(at)
        await at.hours((org.period.end_ms - await at.ledger.now_ms()) / 3_600_000 + 2)
        await hear(at)
        with pytest.raises(PaymentFailed):
            await change(at, "pro", name="c2")
        assert (await org_of(at)).plan == "team"
