"""What is agreed with one organisation ends at its instant, whatever worker asks next, and in its trail."""

import asyncio
import json
from dataclasses import replace
from typing import Final

import pytest

from metering.store.org import Org
from metering.store.orgs import OrgChange
from metering.usage import Result
from plans.catalogue import KEEP, Override
from plans.limits import OnLimit, Rule
from plans.subwindows import Per, RateLimit, SubWindow
from plans.tiers import PriceModel, Pricing, Tier
from tests.lua.ledger import Ledger
from tests.lua.scenes import DAY_MS, HOUR_MS, calm, event, lawful, move_to, next_year
from tests.support.servers import StoreServer

OWN_PRICE: Final = Pricing(PriceModel.GRADUATED, (Tier(10, 7), Tier(None, 3, per=2, flat_minor=50)))


async def org_of(ledger: Ledger, caller: int = 0) -> Org:
    org = await ledger.callers[caller].orgs.get("acme")
    assert org is not None
    return org


async def agree(ledger: Ledger, change: OrgChange) -> Org:
    org, _ = await ledger.callers[0].orgs.update("acme", change, actor="ann", create=True)
    assert org is not None
    return org


async def ended(ledger: Ledger) -> list[list[str]]:
    """What the trail says is over, entry by entry."""
    entries = await ledger.client.xrange(ledger.keys.trail("acme"))
    return [json.loads(entry[b"overrides"]) for _, entry in entries if entry[b"type"] == b"overrides_ended"]


async def test_a_limit_with_an_end_holds_up_to_its_instant_and_the_plans_from_it_on(each_store: StoreServer) -> None:
    """The free plan has 10 scans and lets more pass as overage; until noon two days on, 3 are all there are."""
    async with calm(each_store.url, callers=2) as ledger:
        end_ms = await ledger.now_ms() // DAY_MS * DAY_MS + 2 * DAY_MS + 12 * HOUR_MS
        tight = Override(limit=3, on_limit=OnLimit.BLOCK, windows=(SubWindow(2, Per.DAY),), until_ms=end_ms)
        org = await agree(ledger, OrgChange(overrides={"scans": tight}))
        assert org.claim.valid_until_ms == end_ms
        await move_to(ledger, end_ms - 30_000)
        answers = [await caller.counters.track(event("acme", 2)) for caller in ledger.callers]
        assert [one.result for one in answers] == [Result.RECORDED, Result.REFUSED]
        await move_to(ledger, end_ms)
        answers = [await caller.counters.track(event("acme", 2)) for caller in ledger.callers]
        assert [(one.result, one.used) for one in answers] == [(Result.RECORDED, 4), (Result.RECORDED, 6)]
        assert answers[0].rule == ledger.catalogue.plans["free"].rules["scans"]
        org = await org_of(ledger)
        assert (org.profile.overrides, org.claim.valid_until_ms) == ({}, org.period.end_ms)
        assert await ended(ledger) == [["scans"]]
        assert "w:scans" not in await ledger.client.hgetall(ledger.keys.record("acme"))
        await lawful(ledger)


async def test_each_end_is_met_by_itself_and_by_the_sweep_where_nothing_comes(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        now_ms = await ledger.now_ms()
        overrides = {
            "scans": Override(limit=77, until_ms=now_ms + DAY_MS),
            "checks": Override(limit=78, until_ms=now_ms + 2 * DAY_MS),
            "calls": Override(limit=79),
        }
        await agree(ledger, OrgChange(overrides=overrides, sets_price=True, price_minor=5))
        await move_to(ledger, now_ms + DAY_MS)
        await ledger.callers[0].orgs.sweep()
        assert await ended(ledger) == [["scans"]]
        assert [(await org_of(ledger)).features[name].rule.limit for name in overrides] == [10, 78, 79]
        await move_to(ledger, now_ms + 40 * DAY_MS)
        org = await org_of(ledger)
        assert [org.features[name].rule.limit for name in overrides][2] == 79
        assert (set(org.profile.overrides), org.profile.price_minor) == ({"calls"}, 5)
        assert await ended(ledger) == [["scans"], ["checks"]]
        await lawful(ledger)


async def test_twenty_at_the_instant_have_one_effect(store: StoreServer) -> None:
    async with calm(store.url, callers=10) as ledger:
        end_ms = await ledger.now_ms() + HOUR_MS
        await agree(ledger, OrgChange(overrides={"scans": Override(limit=0, on_limit=OnLimit.BLOCK, until_ms=end_ms)}))
        await move_to(ledger, end_ms)
        answers = await asyncio.gather(*(caller.counters.track(event("acme")) for caller in ledger.callers * 2))
        assert {one.result for one in answers} == {Result.RECORDED}
        assert ((await org_of(ledger)).features["scans"].used, await ended(ledger)) == (20, [["scans"]])


async def test_price_and_rate_end_too_and_leave_the_limits_alone(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        end_ms = await ledger.now_ms() + HOUR_MS
        rate = RateLimit(60, Per.HOUR, 5)
        change = OrgChange(sets_rate=True, rate=rate, sets_price=True, price_minor=5, sets_end=True, end_ms=end_ms)
        org = await agree(ledger, replace(change, overrides={"scans": Override(pricing=OWN_PRICE)}))
        assert (org.rate, org.profile.price_minor) == (rate, 5)
        assert org.profile.overrides == {"scans": Override(pricing=OWN_PRICE, until_ms=end_ms)}
        await move_to(ledger, end_ms)
        org = await org_of(ledger)
        assert (org.rate, org.profile.rate, org.profile.price_minor) == (None, KEEP, None)
        assert {name: usage.rule for name, usage in org.features.items()} == ledger.catalogue.plans["free"].rules
        assert await ended(ledger) == [["scans", "rate limit", "plan price"]]


async def test_an_end_that_is_past_when_it_is_written_is_as_if_nothing_was_agreed(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        past = Override(limit=3, until_ms=await ledger.now_ms())
        org = await agree(ledger, OrgChange(overrides={"scans": past}))
        assert (org.profile.overrides, org.features["scans"].rule.limit) == ({}, 10)


async def test_another_end_moves_the_claim_and_no_limit(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        now_ms = await ledger.now_ms()
        await agree(ledger, OrgChange(overrides={"scans": Override(limit=3, until_ms=now_ms + HOUR_MS)}))
        for end_ms in (now_ms + DAY_MS, None):
            org = await agree(ledger, OrgChange(sets_end=True, end_ms=end_ms))
            assert org.claim.valid_until_ms == (end_ms or org.period.end_ms)
            assert org.features["scans"].rule == Rule(3, credits=2)


@pytest.mark.parametrize("plan", ["free", "pro"])
async def test_what_was_agreed_goes_with_the_plan_it_was_agreed_for(store: StoreServer, plan: str) -> None:
    async with calm(store.url) as ledger:
        rate = RateLimit(60, Per.HOUR, 5)
        own = {"scans": Override(pricing=OWN_PRICE)}
        await agree(ledger, OrgChange("free", own, sets_rate=True, rate=rate, sets_price=True, price_minor=5))
        await agree(ledger, OrgChange(plan))
        await move_to(ledger, await next_year(ledger, "02-01T00:00:00"))
        profile, kept = (await org_of(ledger)).profile, plan == "free"
        assert (profile.price_minor, profile.overrides) == ((5, own) if kept else (None, {}))
        assert profile.rate == (rate if kept else KEEP)
