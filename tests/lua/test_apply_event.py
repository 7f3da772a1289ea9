"""apply_event.lua: an event's effect, its entries and its mark are one step, done once, over what it was decided on."""

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metering.errors import OrgCorrupt
from metering.store.effects import Decide, Decision, Effects
from metering.store.fields import FieldCodec
from metering.store.org import Org
from metering.store.org_scripts import APPLIED_KEEP_S, Applied, OrgScripts
from metering.store.orgs import OrgChange
from metering.store.rolling import moved_end
from plans.billing_periods import Alignment
from plans.catalogue import Override
from plans.dunning import Debt, Word
from plans.periods import Period
from tests.lua.effecting import TOLD, effects_of, subscribed, trail_of
from tests.lua.ledger import Ledger
from tests.lua.scenes import DAY_MS, HOUR_MS, calm, event, keys_of, lawful, move_to
from tests.support.servers import StoreServer

EVENT = "evt_1"


async def begun(ledger: Ledger, units: int = 13) -> Org:
    """Acme with some usage."""
    await ledger.callers[0].counters.track(event("acme", units))
    return await acme(ledger)


async def acme(ledger: Ledger) -> Org:
    org = await ledger.callers[0].orgs.get("acme")
    assert org is not None
    return org


async def item_from_now(ledger: Ledger, days: int = 30) -> Period:
    """An item that begins a second from now, when that second has passed."""
    start_ms = await ledger.now_ms() + 1_000
    await move_to(ledger, start_ms + 1_000)
    return Period(start_ms, start_ms + days * DAY_MS)


def owing(grace_end_ms: int | None) -> Decide:
    """Decides that an invoice is owed until an end of grace, or no more."""

    def decide(org: Org, now_ms: int) -> Decision:
        debts = {} if grace_end_ms is None else {"in_1": Debt(Word.FAILED, 5)}
        profile = replace(org.profile, debts=debts, grace_end_ms=grace_end_ms)
        return Decision(org.plan, profile, Alignment(None, org.period), (("invoice.payment_failed",),))

    return decide


async def write(ledger: Ledger, before: Org, after: Org, mark: str | None = EVENT) -> Applied:
    """Run the script once."""
    scripts = OrgScripts(ledger.client, ledger.keys, ledger.callers[0].time, FieldCodec(), fake=False)
    return await scripts.apply(before, after, mark, TOLD)


async def test_plan_limits_period_and_profile_change_with_the_entries_and_the_mark(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        before = await begun(ledger)
        item = await item_from_now(ledger)
        org = await effects_of(ledger).apply("acme", EVENT, subscribed(item))
        assert org is not None
        assert (org.plan, org.period) == ("pro", item)
        assert org.before == Period(before.period.start_ms, item.start_ms)
        assert {name: usage.rule for name, usage in org.features.items()} == ledger.catalogue.plans["pro"].rules
        assert (org.features["scans"].used, org.features["scans"].closed) == (0, 13)
        assert org.profile.subscription is not None
        assert org.profile.subscription.period == item
        told = await trail_of(ledger)
        assert [entry["type"] for entry in told] == [
            "org_created", "overage_started", "period_closed", "customer.subscription.updated", "plan_changed",
        ]  # fmt: skip
        assert told[-1] == {"type": "plan_changed", "actor": "stripe", "plan_before": "free", "plan": "pro"}
        assert await ledger.client.hgetall("{p00}:plans") == {b"free": b"0", b"pro": b"1"}
        mark = ledger.keys.applied("acme", EVENT)
        assert 0 < await ledger.client.ttl(mark) <= APPLIED_KEEP_S
        await lawful(ledger)


async def test_an_event_that_comes_again_changes_nothing(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await begun(ledger)
        item = await item_from_now(ledger)
        first = await effects_of(ledger).apply("acme", EVENT, subscribed(item))
        before = await ledger.dump()
        assert await effects_of(ledger, 1).apply("acme", EVENT, subscribed(item, plan="free")) == first
        assert await ledger.dump() == before


async def test_twenty_parallel_applications_of_one_event_have_one_effect(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1, callers=20) as ledger:
        await begun(ledger)
        item = await item_from_now(ledger)
        made = (effects_of(ledger, number).apply("acme", EVENT, subscribed(item)) for number in range(20))
        orgs = await asyncio.gather(*made)
        assert {org.plan for org in orgs if org} == {"pro"}
        kinds = [entry["type"] for entry in await trail_of(ledger)]
        assert kinds.count("customer.subscription.updated") == kinds.count("plan_changed") == 1
        assert kinds.count("period_closed") == 1
        await lawful(ledger)


async def test_an_event_without_an_effect_leaves_its_entry_and_mark_and_nothing_else(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        org = await begun(ledger)
        before = await ledger.dump()
        assert await write(ledger, org, org) is Applied.DONE
        after = await ledger.dump()
        changed = {key for key in after if after[key] != before.get(key)}
        assert changed == {ledger.keys.trail("acme"), "{p00}:totals", ledger.keys.applied("acme", EVENT)}


async def test_an_effect_decided_on_another_state_writes_nothing(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        org = await begun(ledger)
        stale = replace(org, claim=replace(org.claim, revision=org.claim.revision - 1))
        before = await ledger.dump()
        assert await write(ledger, stale, replace(org, plan="pro")) is Applied.LOST
        assert await ledger.dump() == before


async def test_an_effect_whose_claim_has_run_out_writes_nothing(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        org = await begun(ledger)
        late = replace(org, claim=replace(org.claim, valid_until_ms=await ledger.now_ms() - 1))
        before = await ledger.dump()
        assert await write(ledger, org, late) is Applied.LOST
        assert await ledger.dump() == before


@pytest.mark.parametrize("name", ["trail", "profile", "plans", "due", "totals", "grace", "applied"])
async def test_a_key_of_a_wrong_type_stops_an_effect_before_its_first_write(each_store: StoreServer, name: str) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        org = await begun(ledger)
        own = {
            "trail": ledger.keys.trail("acme"),
            "profile": ledger.keys.profile("acme"),
            "applied": ledger.keys.applied("acme", EVENT),
        }
        key = own.get(name) or f"{{p00}}:{name}"
        await ledger.client.delete(key)
        await ledger.client.lpush(key, "junk")
        before = await ledger.dump()
        after = replace(org, plan="pro", claim=moved_end(org.claim, org.period, org.profile))
        with pytest.raises(OrgCorrupt):
            await write(ledger, org, after)
        assert await ledger.dump() == before


async def test_a_figure_that_is_no_number_stops_a_change_of_plan(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        org = await begun(ledger)
        await ledger.client.hset(ledger.keys.record("acme"), "u:scans", "junk")
        before = await ledger.dump()
        after = replace(org, plan="pro", claim=moved_end(org.claim, org.period, org.profile))
        with pytest.raises(OrgCorrupt):
            await write(ledger, org, after)
        assert await ledger.dump() == before


async def test_an_organisation_that_is_not_there_is_not_made(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        before = await ledger.dump()
        assert await effects_of(ledger).apply("acme", EVENT, owing(7)) is None
        assert await ledger.dump() == before


async def test_grace_is_listed_by_its_end_and_taken_off_the_list_with_it(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await begun(ledger)
        ends_ms = await ledger.now_ms() + HOUR_MS
        org = await effects_of(ledger).apply("acme", "evt_1", owing(ends_ms))
        assert org is not None
        assert org.profile.debts == {"in_1": Debt(Word.FAILED, 5)}
        assert await ledger.client.zrange("{p00}:grace", 0, -1, withscores=True) == [(b"acme", float(ends_ms))]
        await lawful(ledger)
        assert [name async for name in effects_of(ledger).ended_grace()] == []
        await move_to(ledger, ends_ms)
        assert [name async for name in effects_of(ledger).ended_grace()] == ["acme"]
        org = await effects_of(ledger).apply("acme", "evt_2", owing(None))
        assert org is not None
        assert (org.profile.debts, org.profile.grace_end_ms) == ({}, None)
        assert not {b"debts", b"grace"} & set(await ledger.client.hkeys(ledger.keys.profile("acme")))
        assert await ledger.client.exists("{p00}:grace") == 0
        await lawful(ledger)


async def test_a_change_by_people_keeps_what_stripe_said(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await begun(ledger)
        item = await item_from_now(ledger)
        told = await effects_of(ledger).apply("acme", "evt_1", subscribed(item, ticket=7))
        assert told is not None
        change = OrgChange(overrides={"scans": Override(limit=77)})
        org, _ = await ledger.callers[1].orgs.update("acme", change, actor="ann", create=False)
        assert org is not None
        assert (org.profile.subscription, org.profile.ticket) == (told.profile.subscription, 7)
        assert org.features["scans"].rule == replace(told.features["scans"].rule, limit=77)


async def test_another_organisation_keeps_every_key(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await begun(ledger)
        await ledger.callers[0].counters.track(event("beta", 13))
        before = await keys_of(ledger, "beta")
        await effects_of(ledger).apply("acme", EVENT, subscribed(await item_from_now(ledger)))
        assert await keys_of(ledger, "beta") == before


async def test_a_subscribed_organisation_rolls_by_the_anchor_of_its_item(store: StoreServer) -> None:
    async with calm(store.url, at="01-31T09:00:05") as ledger:
        await begun(ledger)
        item = await item_from_now(ledger, days=28)
        await effects_of(ledger).apply("acme", EVENT, subscribed(item))
        spans = []
        for _ in range(3):
            await move_to(ledger, (await acme(ledger)).period.end_ms)
            spans.append((await acme(ledger)).period)
        assert spans[0].start_ms == item.end_ms
        assert all(a.end_ms == b.start_ms for a, b in pairwise(spans))
        assert {span.end_ms % DAY_MS for span in spans} == {item.start_ms % DAY_MS}
        await lawful(ledger)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("track"), st.integers(1, 30)),
        st.tuples(
            st.just("item"), st.tuples(st.integers(-40, 20), st.integers(1, 40), st.sampled_from(["pro", "free"]))
        ),
        st.tuples(st.just("wait"), st.sampled_from([1_000, 50 * 60_000, 9 * DAY_MS, 33 * DAY_MS])),
        st.tuples(st.just("ahead"), st.integers(1, 5)),
        st.tuples(st.just("again"), st.just(0)),
    ),
    max_size=14,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
async def test_whatever_items_come_every_law_holds_and_periods_are_contiguous(
    store: StoreServer, steps: list[tuple[str, Any]]
) -> None:
    store.say("FLUSHALL", "SYNC")
    async with calm(store.url) as ledger:
        await begun(ledger)
        effects, seen, last = effects_of(ledger), [(await acme(ledger)).period], None
        units = 13
        for number, (verb, what) in enumerate(steps):
            if verb == "track":
                units += what
                await ledger.callers[0].counters.track(event("acme", what))
            elif verb == "ahead":
                units += what
                await ledger.callers[0].counters.track(
                    event("acme", what, timestamp_ms=await ledger.now_ms() + 240_000)
                )
            elif verb == "wait":
                await move_to(ledger, await ledger.now_ms() + what)
            elif verb == "item":
                start_ms = await ledger.now_ms() + what[0] * HOUR_MS * 6
                last = f"evt_{number}", subscribed(Period(start_ms, start_ms + what[1] * DAY_MS), plan=what[2])
                await effects.apply("acme", *last)
            elif last is not None:
                await _nothing_more(ledger, effects, *last)
            _follow(seen, await acme(ledger))
            await lawful(ledger)
        org = await acme(ledger)
        assert org.features["scans"].used + org.features["scans"].closed == units


async def _nothing_more(ledger: Ledger, effects: Effects, mark: str, decide: Decide) -> None:
    await acme(ledger)
    before = await keys_of(ledger, "acme")
    await effects.apply("acme", mark, decide)
    assert len(await trail_of(ledger)) == await ledger.client.xlen(ledger.keys.trail("acme"))
    after = await keys_of(ledger, "acme")
    assert after[ledger.keys.profile("acme")] == before[ledger.keys.profile("acme")]


def _follow(seen: list[Period], org: Org) -> None:
    """The period that runs begins where the one before ended, or is the same with another end."""
    if org.period.start_ms == seen[-1].start_ms:
        seen[-1] = org.period
        return
    if org.before is not None and org.before.start_ms == seen[-1].start_ms:
        assert org.before.end_ms <= org.period.start_ms
    assert org.period.start_ms >= seen[-1].start_ms
    seen.append(org.period)
