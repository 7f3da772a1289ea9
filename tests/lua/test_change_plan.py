"""change_plan.lua: settings change in one step, once, and never take anything that was counted."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

import pytest

from metering.errors import ClockUnsafe, OrgCorrupt, PlanUnknown
from metering.store.fields import FieldCodec
from metering.store.org import Org, profile_fields, rule_fields
from metering.store.orgs import OrgChange
from metering.store.scripts import script
from metering.usage import Result
from plans.catalogue import Override
from plans.limits import OnLimit, Rule
from plans.periods import Period, Reset, period_at
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, event, keys_of, lawful, move_to, next_year
from tests.support.servers import StoreServer

TAG: Final = "{p00}"

Overrides = Callable[[Mapping[str, Override]], Mapping[str, Override]]


async def update(ledger: Ledger, change: OrgChange, *, create: bool = True, caller: int = 0) -> Org:
    """Change acme as a person would."""
    org, _ = await ledger.callers[caller].orgs.update("acme", change, actor="ann", create=create)
    assert org is not None
    return org


async def track(ledger: Ledger, quantity: int, feature: str = "scans") -> tuple[Result, int]:
    outcome = await ledger.callers[0].counters.track(event("acme", quantity, None, feature))
    return outcome.result, outcome.used


async def trail(ledger: Ledger) -> list[dict[str, str]]:
    """Acme's billing events, without their instants."""
    entries = await ledger.client.xrange(ledger.keys.trail("acme"))
    told = [{name.decode(): value.decode() for name, value in entry.items()} for _, entry in entries]
    return [{name: value for name, value in entry.items() if name != "at"} for entry in told]


async def change(ledger: Ledger, org: Org, **other: Any) -> list[Any]:
    """Run the script by hand: put `org` there; `other` replaces single arguments."""
    keys, name = ledger.keys, org.org_id
    names = [keys.record(name), keys.profile(name), keys.trail(name)]
    names += [keys.shared(kind, keys.partition(name)) for kind in ("orgs", "plans", "due", "totals", "clock")]
    rules = {feature: usage.rule for feature, usage in org.features.items()}
    record = [part for pair in rule_fields(rules).items() for part in pair]
    profile = [part for pair in profile_fields(name, org.profile, FieldCodec()).items() for part in pair]
    seconds, _ = await ledger.client.time()
    head = {"caller_ms": seconds * 1000, "offset": ledger.offset_ms, "expected": org.claim.text(),
            "claim": replace(org.claim, revision=org.claim.revision + 1).text(), "plan": "pro"} | other  # fmt: skip
    counts = [len(record), 0, len(profile)]
    arguments = [*head.values(), *counts, *record, *profile, "plan_changed"]
    reply: list[Any] = await ledger.client.execute_command(
        "EVAL", script("change_plan").text, len(names), *names, *arguments
    )
    return reply


# ── what stops it ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_change_from_another_claim_writes_nothing_and_tells_the_stored_one(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        org = await update(ledger, OrgChange(plan="free"))
        before = await ledger.dump()
        for expected in ("", replace(org.claim, revision=org.claim.revision - 1).text()):
            assert await change(ledger, org, expected=expected) == [0, org.claim.text().encode()]
        assert await ledger.dump() == before


async def test_a_change_of_an_organisation_that_is_not_there_writes_nothing(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        org = await ledger.callers[0].orgs.newcomer("acme")
        before = await ledger.dump()
        assert await change(ledger, org) == [0, b""]
        assert await ledger.callers[0].orgs.update("acme", OrgChange("pro"), actor="ann", create=False) == (None, False)
        assert await ledger.dump() == before


@pytest.mark.parametrize("case", ["clocks apart", "other test clock", "claim run out"])
async def test_a_change_that_does_not_fit_the_clock_writes_nothing(each_store: StoreServer, case: str) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        org = await update(ledger, OrgChange(plan="free"))
        now_ms = await ledger.now_ms()
        cases: dict[str, dict[str, Any]] = {
            "clocks apart": {"caller_ms": now_ms - ledger.offset_ms + 61_000},
            "other test clock": {"offset": ledger.offset_ms + 1},
            "claim run out": {"claim": replace(org.claim, valid_until_ms=now_ms - 1).text()},
        }
        before = await ledger.dump()
        assert (await change(ledger, org, **cases[case]))[0] == -1
        assert await ledger.dump() == before


async def test_a_worker_with_a_wrong_clock_is_told_so(store: StoreServer) -> None:
    async with Ledger(store.url, test_clock=False) as ledger:
        await update(ledger, OrgChange(plan="free"))
        ledger.callers[0].clock.skew_ms = -120_000
        before = await ledger.dump()
        with pytest.raises(ClockUnsafe):
            await update(ledger, OrgChange(plan="pro"))
        assert await ledger.dump() == before


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("name", ["trail", "profile", "orgs", "plans", "due", "totals"])
async def test_a_key_of_a_wrong_type_stops_a_change_before_its_first_write(
    each_store: StoreServer, name: str, known: bool
) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        if known:
            await update(ledger, OrgChange(plan="free"))
        own = {"trail": ledger.keys.trail("acme"), "profile": ledger.keys.profile("acme")}
        await ledger.client.set(own.get(name) or f"{TAG}:{name}", "junk")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await update(ledger, OrgChange(plan="pro"))
        assert await ledger.dump() == before


async def test_an_unknown_plan_is_refused_and_creates_nothing(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        before = await ledger.dump()
        with pytest.raises(PlanUnknown):
            await update(ledger, OrgChange(plan="gold"))
        assert await ledger.dump() == before


# ── creating ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_created_organisation_is_in_every_index_once(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        org, created = await ledger.callers[0].orgs.update("acme", OrgChange("pro"), actor="ann", create=True)
        assert created
        assert org is not None
        assert await ledger.client.zrange(f"{TAG}:orgs", 0, -1) == [b"acme"]
        assert await ledger.client.hgetall(f"{TAG}:plans") == {b"pro": b"1"}
        assert await ledger.client.hgetall(f"{TAG}:totals") == {b"e:org_created": b"1"}
        due = await ledger.client.zrange(f"{TAG}:due", 0, -1, withscores=True)
        assert due == [(b"acme", float(org.claim.valid_until_ms))]
        assert await trail(ledger) == [{"type": "org_created", "plan": "pro", "actor": "ann"}]
        await lawful(ledger)


@pytest.mark.parametrize(
    ("change", "reset", "timezone"),
    [
        (OrgChange(), Reset.CALENDAR, "UTC"),
        (OrgChange(plan="pro"), Reset.ANNIVERSARY, "UTC"),
        (OrgChange(plan="pro", reset=Reset.CALENDAR), Reset.CALENDAR, "UTC"),
        (OrgChange(timezone="Pacific/Apia"), Reset.CALENDAR, "Pacific/Apia"),
    ],
)
async def test_a_created_organisation_begins_in_the_period_of_its_own_settings(
    store: StoreServer, change: OrgChange, reset: Reset, timezone: str
) -> None:
    async with calm(store.url) as ledger:
        org = await update(ledger, change)
        born_ms = org.profile.anchor_ms
        assert org.period == period_at(born_ms, reset=reset, anchor_ms=born_ms, timezone=timezone)
        assert (org.profile.reset, org.profile.timezone) == (reset, timezone)
        await lawful(ledger)


async def test_an_organisation_created_twice_at_once_is_one(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1, callers=10) as ledger:
        updates = (c.orgs.update("acme", OrgChange("pro"), actor="ann", create=True) for c in ledger.callers)
        tracks = (c.counters.track(event("acme", 1, "e1")) for c in ledger.callers)
        made, _ = await asyncio.gather(asyncio.gather(*updates), asyncio.gather(*tracks))
        assert sum(created for _, created in made) <= 1
        kinds = [entry["type"] for entry in await trail(ledger)]
        assert kinds.count("org_created") == 1
        assert await ledger.client.hgetall(f"{TAG}:plans") in ({b"pro": b"1"}, {b"pro": b"1", b"free": b"0"})
        org = await ledger.callers[0].orgs.get("acme")
        assert org is not None
        assert (org.plan, org.features["scans"].used) == ("pro", 1)
        await lawful(ledger)


# ── changing ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_another_plan_changes_limits_and_neither_counters_nor_period(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await track(ledger, 13)
        await track(ledger, 9, "checks")
        before = await ledger.callers[0].orgs.get("acme")
        after = await update(ledger, OrgChange(plan="pro"))
        assert before is not None
        assert after.period == before.period
        assert after.claim == replace(before.claim, revision=before.claim.revision + 1)
        for name, usage in after.features.items():
            assert usage == replace(before.features[name], rule=ledger.catalogue.plans["pro"].rules[name])
        assert await ledger.client.hgetall(f"{TAG}:plans") == {b"free": b"0", b"pro": b"1"}
        await lawful(ledger)


async def test_the_next_event_of_every_worker_is_decided_under_the_new_plan(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        for caller in ledger.callers:
            await caller.counters.track(event("acme", 1, None, "checks"))
        assert await track(ledger, 10, "checks") == (Result.REFUSED, 2)
        await update(ledger, OrgChange(plan="pro"))
        for used, caller in zip((12, 22), ledger.callers, strict=True):
            outcome = await caller.counters.track(event("acme", 10, None, "checks"))
            assert (outcome.plan, outcome.used, outcome.rule) == ("pro", used, Rule(25, OnLimit.CAP, credits=3))


KEPT: Final = {"scans": Override(limit=77), "checks": Override(enabled=False)}
OTHER: Final = {"calls": Override(limit=None, on_limit=OnLimit.OVERAGE)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (OrgChange(timezone="Europe/Paris"), KEPT),
        (OrgChange(plan="free"), KEPT),
        (OrgChange(plan="pro"), {}),
        (OrgChange(plan="pro", overrides=OTHER), OTHER),
        (OrgChange(overrides=OTHER), OTHER),
        (OrgChange(overrides={}), {}),
        (OrgChange(plan="free", overrides={}), {}),
    ],
    ids=["none named", "same plan", "other plan", "other plan with its own", "replaced", "cleared", "cleared on plan"],
)
async def test_overrides_are_kept_replaced_or_dropped_with_the_plan_they_were_made_for(
    store: StoreServer, change: OrgChange, expected: dict[str, Override]
) -> None:
    async with calm(store.url) as ledger:
        await update(ledger, OrgChange(plan="free", overrides=KEPT))
        org = await update(ledger, change)
        assert org.profile.overrides == expected
        law = ledger.catalogue.plans[change.plan or "free"]
        rules = {name: expected.get(name, Override()).over(rule) for name, rule in law.rules.items()}
        assert {name: usage.rule for name, usage in org.features.items()} == rules


def with_limit(feature: str, limit: int) -> Overrides:
    """Another limit for one feature, whatever the others have."""
    return lambda kept: {**kept, feature: Override(limit=limit)}


async def test_overrides_that_are_made_from_those_that_are_kept_lose_none_of_another_worker(
    store: StoreServer,
) -> None:
    async with calm(store.url, callers=6) as ledger:
        await track(ledger, 3)
        names = ("scans", "checks", "calls", "open", "closed")
        changes = [OrgChange(overrides=with_limit(name, 7)) for name in names] + [OrgChange(timezone="Europe/Paris")]
        await asyncio.gather(*(update(ledger, change, caller=number) for number, change in enumerate(changes)))
        org = await ledger.callers[0].orgs.get("acme")
        assert org is not None
        assert org.profile.overrides == {name: Override(limit=7) for name in names}
        assert {usage.rule.limit for usage in org.features.values()} == {7}


async def test_no_overrides_of_the_plan_before_are_kept_to_make_others_from(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await update(ledger, OrgChange(plan="free", overrides=KEPT))
        org = await update(ledger, OrgChange(plan="pro", overrides=with_limit("calls", 7)))
        assert org.profile.overrides == {"calls": Override(limit=7)}


async def test_a_disabled_feature_is_off_for_the_next_event_and_on_again_later(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        assert await track(ledger, 2) == (Result.RECORDED, 2)
        await update(ledger, OrgChange(overrides={"scans": Override(enabled=False)}))
        assert await track(ledger, 2) == (Result.DISABLED, 2)
        await update(ledger, OrgChange(overrides={}))
        assert await track(ledger, 2) == (Result.RECORDED, 4)
        await lawful(ledger)


async def test_another_time_zone_moves_the_next_period_and_not_the_running_one(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await track(ledger, 2)
        before = await ledger.callers[0].orgs.get("acme")
        org = await update(ledger, OrgChange(timezone="America/New_York"))
        assert before is not None
        assert org.period == before.period
        borders = [before.period.end_ms, await next_year(ledger, "02-01T05:00:00")]
        borders += [await next_year(ledger, "03-01T05:00:00")]
        for begin_ms, end_ms in pairwise(borders):
            await move_to(ledger, begin_ms)
            moved = await ledger.callers[0].orgs.get("acme")
            assert moved is not None
            assert moved.period == Period(begin_ms, end_ms)
        await lawful(ledger)


@pytest.mark.parametrize(
    "again",
    [
        OrgChange(),
        OrgChange(plan="free"),
        OrgChange(overrides=KEPT),
        OrgChange(plan="free", overrides=dict(reversed(KEPT.items()))),
        OrgChange(reset=Reset.CALENDAR),
        OrgChange(timezone="Europe/Paris"),
        OrgChange(stripe_customer_id="cus_1"),
        OrgChange("free", KEPT, Reset.CALENDAR, "Europe/Paris", "cus_1"),
    ],
)
async def test_a_change_that_changes_nothing_writes_nothing(each_store: StoreServer, again: OrgChange) -> None:
    async with calm(each_store.url) as ledger:
        first = await update(ledger, OrgChange("free", KEPT, Reset.CALENDAR, "Europe/Paris", "cus_1"))
        before = await ledger.dump()
        assert await update(ledger, again, caller=1) == first
        assert await ledger.dump() == before


async def test_twenty_equal_changes_at_once_have_one_effect(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1, callers=20) as ledger:
        await track(ledger, 3)
        await asyncio.gather(*(update(ledger, OrgChange(plan="pro"), caller=number) for number in range(20)))
        assert [entry["type"] for entry in await trail(ledger)] == ["org_created", "plan_changed"]
        assert await ledger.client.hgetall(f"{TAG}:plans") == {b"free": b"0", b"pro": b"1"}
        await lawful(ledger)


async def test_different_changes_at_once_all_take_effect(store: StoreServer) -> None:
    async with calm(store.url, partitions=1, callers=4) as ledger:
        await track(ledger, 3)
        changes = [OrgChange(plan="pro"), OrgChange(timezone="Europe/Paris"), OrgChange(stripe_customer_id="cus_1"),
                   OrgChange(reset=Reset.CALENDAR)]  # fmt: skip
        await asyncio.gather(*(update(ledger, change, caller=n) for n, change in enumerate(changes)))
        org = await ledger.callers[0].orgs.get("acme")
        assert org is not None
        profile = org.profile
        assert (org.plan, profile.timezone, profile.stripe_customer_id) == ("pro", "Europe/Paris", "cus_1")
        await lawful(ledger)


# ── what is told and kept ────────────────────────────────────────────────────────────────────────────────


async def test_the_trail_tells_who_changed_what_and_no_stripe_id(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await update(ledger, OrgChange(plan="free"))
        await update(ledger, OrgChange(plan="pro", overrides={"scans": Override(limit=None)}))
        await update(ledger, OrgChange(stripe_customer_id="cus_secret"))
        told = await trail(ledger)
        assert told[1:] == [
            {"type": "plan_changed", "actor": "ann", "plan_before": "free", "plan": "pro",
             "overrides": json.dumps({"scans": {"limit": None}})},
            {"type": "org_updated", "actor": "ann", "plan_before": "pro", "plan": "pro", "stripe_customer": "changed"},
        ]  # fmt: skip
        totals = await ledger.client.hgetall(ledger.keys.shared("totals", ledger.keys.partition("acme")))
        assert totals == {b"e:org_created": b"1", b"e:plan_changed": b"1", b"e:org_updated": b"1"}


async def test_a_change_touches_no_key_of_another_organisation(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("beta", 13))
        before = await keys_of(ledger, "beta")
        await update(ledger, OrgChange(plan="pro", overrides=KEPT, stripe_customer_id="cus_1"))
        await update(ledger, OrgChange(plan="free"))
        assert await keys_of(ledger, "beta") == before


async def test_an_organisation_is_read_back_with_everything_that_was_set(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        overrides = {
            "scans": Override(limit=None),
            "checks": Override(limit=0, on_limit=OnLimit.CAP, enabled=False),
            "calls": Override(),
        }
        made = await update(ledger, OrgChange("pro", overrides, Reset.CALENDAR, "Pacific/Apia", "cus_1"))
        read = await ledger.callers[1].orgs.get("acme")
        assert read == made
        assert (made.profile.overrides, made.profile.stripe_customer_id) == (overrides, "cus_1")
        assert await ledger.client.hget(ledger.keys.profile("acme"), "stripe_customer") == b"p.cus_1"


async def test_a_change_raises_the_instant_of_the_last_update(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        made = await update(ledger, OrgChange(plan="free"))
        await move_to(ledger, made.updated_ms + 60_000)
        changed = await update(ledger, OrgChange(plan="pro"))
        assert changed.updated_ms >= made.updated_ms + 60_000
        assert changed.profile.created_ms == made.profile.created_ms
