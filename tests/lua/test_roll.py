"""roll.lua: a period closes once, wholly and never early, and nothing is lost on the way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

import pytest

from metering.errors import ClockUnsafe, OrgCorrupt
from metering.store.claim import Claim
from metering.store.org import Org
from metering.store.orgs import OrgChange
from metering.store.scripts import script
from metering.usage import Result
from plans.catalogue import Override
from plans.periods import Period, Reset
from tests.lua.ledger import CATALOGUE, Ledger
from tests.lua.outboxes import delivered, outbox_of
from tests.lua.scenes import HOUR_MS, calm, event, keys_of, lawful, move_to, next_year
from tests.support.servers import StoreServer

FEBRUARY: Final = "02-01T00:00:00"

Record = dict[str, str]


async def org_of(ledger: Ledger, caller: int = 0) -> Org:
    """Acme as a caller sees it, rolled to the present."""
    org = await ledger.callers[caller].orgs.get("acme")
    assert org is not None
    return org


async def track(ledger: Ledger, quantity: int, feature: str = "scans", event_id: str | None = None) -> int:
    return (await ledger.callers[0].counters.track(event("acme", quantity, event_id, feature))).used


async def hash_at(ledger: Ledger, key: str) -> Record:
    return {name.decode(): value.decode() for name, value in (await ledger.client.hgetall(key)).items()}


async def trail(ledger: Ledger, kind: bytes) -> list[dict[bytes, bytes]]:
    entries = await ledger.client.xrange(ledger.keys.trail("acme"))
    return [entry for _, entry in entries if entry[b"type"] == kind]


async def archives(ledger: Ledger) -> list[str]:
    return sorted([key.decode() async for key in ledger.client.scan_iter(match="*:u:acme:*")])


async def roll(ledger: Ledger, org: Org, claim: Claim, period: Period, **other: Any) -> list[Any]:
    """Run the script by hand: from `org` to `claim` and `period`; `other` replaces single arguments."""
    keys = ledger.keys
    names = [keys.record("acme"), keys.archive("acme", org.period.start_ms), keys.trail("acme")]
    names += [keys.shared(kind, keys.partition("acme")) for kind in ("due", "dirty", "totals", "spent")]
    names += [keys.holds("acme")]
    names += [keys.shared(kind, keys.partition("acme")) for kind in ("queue", "unbilled", "clock")]
    seconds, _ = await ledger.client.time()
    arguments = {
        "caller_ms": seconds * 1000, "offset": ledger.offset_ms, "expected": org.claim.text(), "claim": claim.text(),
        "start_ms": period.start_ms, "end_ms": period.end_ms, "values": 0, "spent": 0, "early": "", "ended": "",
    } | other  # fmt: skip
    reply: list[Any] = await ledger.client.execute_command(
        "EVAL", script("roll").text, len(names), *names, *arguments.values()
    )
    return reply


def following(org: Org, **claim: Any) -> tuple[Claim, Period]:
    """The claim and the period after the ones that run."""
    period = Period(org.period.end_ms, org.period.end_ms + 28 * 24 * HOUR_MS)
    renewed = {"valid_until_ms": period.end_ms, "revision": org.claim.revision + 1} | claim
    return replace(org.claim, **renewed), period


# ── what stops it ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_roll_from_another_claim_writes_nothing_and_tells_the_stored_one(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await track(ledger, 3)
        org = await org_of(ledger)
        await move_to(ledger, org.period.end_ms)
        before = await ledger.dump()
        stale = replace(org, claim=replace(org.claim, revision=org.claim.revision + 1))
        assert await roll(ledger, stale, *following(org)) == [0, org.claim.text().encode()]
        assert await ledger.dump() == before


async def test_a_roll_of_an_organisation_that_is_not_there_writes_nothing(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        org = await ledger.callers[0].orgs.newcomer("acme")
        before = await ledger.dump()
        assert await roll(ledger, org, *following(org)) == [0, b""]
        assert await ledger.dump() == before


@pytest.mark.parametrize(
    "case", ["early", "overlapping", "claim run out", "period over", "clocks apart", "other test clock"]
)
async def test_a_roll_that_does_not_fit_the_clock_writes_nothing(each_store: StoreServer, case: str) -> None:
    async with calm(each_store.url) as ledger:
        await track(ledger, 3)
        org = await org_of(ledger)
        claim, period = following(org)
        await move_to(ledger, org.period.end_ms - (5_000 if case == "early" else -5_000))
        now_ms, other = await ledger.now_ms(), {}
        if case == "overlapping":
            period = Period(org.period.end_ms - 1, period.end_ms)
        elif case == "claim run out":
            claim = replace(claim, valid_until_ms=now_ms - 1)
        elif case == "period over":
            period = Period(period.start_ms, now_ms - 1)
        elif case == "clocks apart":
            other = {"caller_ms": now_ms - ledger.offset_ms - 61_000}
        elif case == "other test clock":
            other = {"offset": ledger.offset_ms - 1}
        before = await ledger.dump()
        verdict, told_ms = await roll(ledger, org, claim, period, **other)
        assert verdict == -1
        assert min(abs(told_ms - now_ms), abs(told_ms - now_ms + ledger.offset_ms)) < 5_000
        assert await ledger.dump() == before


async def test_a_worker_with_a_wrong_clock_is_told_so(store: StoreServer) -> None:
    async with Ledger(store.url, test_clock=False) as ledger:
        await track(ledger, 3)
        org = await org_of(ledger)
        await ledger.client.hset(ledger.keys.record("acme"), "k", replace(org.claim, valid_until_ms=1).text())
        ledger.callers[0].clock.skew_ms = 120_000
        before = await ledger.dump()
        with pytest.raises(ClockUnsafe):
            await ledger.callers[0].orgs.get("acme")
        assert await ledger.dump() == before


@pytest.mark.parametrize("name", ["archive", "trail", "due", "dirty", "totals", "spent", "unbilled"])
async def test_a_key_of_a_wrong_type_stops_a_roll_before_its_first_write(each_store: StoreServer, name: str) -> None:
    async with calm(each_store.url) as ledger:
        await track(ledger, 13)
        org = await org_of(ledger)
        own = {"archive": ledger.keys.archive("acme", org.period.start_ms), "trail": ledger.keys.trail("acme")}
        await ledger.client.set(own.get(name) or ledger.keys.shared(name, ledger.keys.partition("acme")), "junk")
        await move_to(ledger, org.period.end_ms)
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await ledger.callers[0].orgs.get("acme")
        assert await ledger.dump() == before


# ── closing ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_archive_is_the_record_as_the_period_closed(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        for feature, quantity in (("scans", 13), ("checks", 2), ("open", 10**12)):
            await track(ledger, quantity, feature)
        record = await hash_at(ledger, ledger.keys.record("acme"))
        await move_to(ledger, await next_year(ledger, FEBRUARY))
        await org_of(ledger)
        [key] = await archives(ledger)
        archive = await hash_at(ledger, key)
        assert abs(int(archive.pop("closed")) - await ledger.now_ms()) < 5_000
        assert archive == record
        await lawful(ledger)


async def test_a_new_period_begins_at_zero_and_keeps_what_was_counted_before(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        for month, quantity in (("02", 13), ("03", 4), ("04", 9)):
            await track(ledger, quantity)
            await move_to(ledger, await next_year(ledger, f"{month}-01T00:00:00"))
        org = await org_of(ledger)
        usage = org.features["scans"]
        assert (usage.used, usage.overage, usage.closed) == (0, 0, 26)
        assert org.period.start_ms == await next_year(ledger, "04-01T00:00:00")
        assert len(await archives(ledger)) == 3
        assert await track(ledger, 2) == 2
        await lawful(ledger)


async def test_units_of_closed_periods_are_exact_beyond_what_a_double_holds(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await track(ledger, 3)
        await ledger.client.hset(ledger.keys.record("acme"), "b:scans", 2**60 + 1)
        await move_to(ledger, await next_year(ledger, FEBRUARY))
        assert (await org_of(ledger)).features["scans"].closed == 2**60 + 4


async def test_a_period_without_usage_leaves_no_archive(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await ledger.callers[0].orgs.update("acme", OrgChange(plan="free"), actor="test", create=True)
        await move_to(ledger, await next_year(ledger, FEBRUARY))
        assert (await org_of(ledger)).period.start_ms == await next_year(ledger, FEBRUARY)
        assert await archives(ledger) == []
        assert await trail(ledger, b"period_closed") == []
        await lawful(ledger)


async def test_the_trail_tells_of_a_closed_period_once(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await track(ledger, 3)
        org = await org_of(ledger)
        await move_to(ledger, org.period.end_ms)
        await asyncio.gather(*(org_of(ledger, n % 2) for n in range(6)))
        [entry] = await trail(ledger, b"period_closed")
        assert (entry[b"plan"], int(entry[b"period"]), int(entry[b"until"])) == (
            b"free", org.period.start_ms, org.period.end_ms,
        )  # fmt: skip
        totals = await ledger.client.hgetall(ledger.keys.shared("totals", ledger.keys.partition("acme")))
        assert totals[b"e:period_closed"] == b"1"


# ── overage not yet sealed ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("put_by", [False, True])
async def test_overage_not_yet_sealed_is_dirty_under_the_start_of_its_period(
    each_store: StoreServer, put_by: bool
) -> None:
    async with calm(each_store.url) as ledger:
        await track(ledger, 13)
        org = await org_of(ledger)
        dirty, unbilled = (ledger.keys.shared(kind, ledger.keys.partition("acme")) for kind in ("dirty", "unbilled"))
        if put_by:
            assert await outbox_of(ledger).park("acme|scans", "")
        await move_to(ledger, org.period.end_ms)
        await org_of(ledger)
        assert await ledger.client.zrange(dirty, 0, -1) == [f"acme|scans|{org.period.start_ms}".encode()]
        assert await ledger.client.zrange(unbilled, 0, -1) == []
        await lawful(ledger)


async def test_a_closed_period_takes_with_it_what_was_sealed_and_delivered(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await track(ledger, 13)
        org = await org_of(ledger)
        name = await outbox_of(ledger).seal("acme|scans")
        assert name is not None
        await delivered(ledger, name)
        await move_to(ledger, org.period.end_ms)
        await org_of(ledger)
        archive = await hash_at(ledger, ledger.keys.archive("acme", org.period.start_ms))
        assert {kind: archive[f"{kind}:scans"] for kind in "xszd"} == {"x": "3", "s": "3", "z": "0", "d": "3"}
        record = await hash_at(ledger, ledger.keys.record("acme"))
        assert not [field for field in record if field[:2] in {"x:", "s:", "y:", "z:", "d:", "q:"}]
        assert await ledger.client.zcard(ledger.keys.shared("dirty", ledger.keys.partition("acme"))) == 0
        await lawful(ledger)


async def test_overage_of_two_periods_is_dirty_apart(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await track(ledger, 13)
        january = (await org_of(ledger)).period.start_ms
        await move_to(ledger, await next_year(ledger, FEBRUARY))
        await track(ledger, 11)
        dirty = ledger.keys.shared("dirty", ledger.keys.partition("acme"))
        found = await ledger.client.zrange(dirty, 0, -1)
        assert set(found) == {f"acme|scans|{january}".encode(), b"acme|scans"}
        assert len(await trail(ledger, b"overage_started")) == 2
        await lawful(ledger)


# ── time that passed ─────────────────────────────────────────────────────────────────────────────────────


async def test_five_idle_months_leave_one_archive_and_the_period_that_holds_now(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await track(ledger, 3, event_id="e1")
        await move_to(ledger, await next_year(ledger, "06-20T10:00:00"))
        org = await org_of(ledger)
        assert org.period == Period(
            await next_year(ledger, "06-01T00:00:00"), await next_year(ledger, "07-01T00:00:00")
        )
        assert len(await archives(ledger)) == 1
        assert (org.claim.month[4:], org.claim.tiers_before) == ("06", "")
        assert await track(ledger, 3, event_id="e1") == 3
        await lawful(ledger)


async def test_the_sweep_rolls_idle_organisations_and_only_those(store: StoreServer) -> None:
    async with calm(store.url, partitions=4) as ledger:
        for number in range(12):
            await ledger.callers[0].counters.track(event(f"org-{number}", 3))
        before = await ledger.dump()
        await ledger.callers[0].orgs.sweep()
        assert await ledger.dump() == before
        await move_to(ledger, await next_year(ledger, FEBRUARY))
        await ledger.callers[0].orgs.sweep()
        assert await due(ledger) == {await next_year(ledger, "03-01T00:00:00")}
        await lawful(ledger)


async def test_the_sweep_passes_over_an_organisation_whose_data_is_corrupt(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        for org_id in ("a-bad", "good"):
            await ledger.callers[0].counters.track(event(org_id, 3))
        await ledger.client.hset(ledger.keys.record("a-bad"), "u:scans", "many")
        await move_to(ledger, await next_year(ledger, FEBRUARY))
        await ledger.callers[0].orgs.sweep()
        assert await due(ledger) == {await next_year(ledger, f"{month}-01T00:00:00") for month in ("02", "03")}


async def due(ledger: Ledger) -> set[int]:
    """When the claims of the ledger's organisations run out."""
    found = set()
    for partition in range(ledger.keys.partitions):
        key = ledger.keys.shared("due", partition)
        found |= {int(score) for _, score in await ledger.client.zrange(key, 0, -1, withscores=True)}
    return found


async def test_the_end_of_a_month_inside_a_period_renews_the_claim_and_nothing_else(store: StoreServer) -> None:
    """An anniversary period runs on; only the months of the dedupe sets move."""
    async with calm(store.url) as ledger:
        await ledger.callers[0].orgs.update("acme", OrgChange(plan="pro"), actor="test", create=True)
        await track(ledger, 5)
        before, record = await org_of(ledger), await hash_at(ledger, ledger.keys.record("acme"))
        await move_to(ledger, await next_year(ledger, FEBRUARY))
        after = await org_of(ledger)
        assert after.period == before.period
        assert (after.claim.month[4:], after.claim.tiers, after.claim.tiers_before) == ("02", "0", "0")
        assert await hash_at(ledger, ledger.keys.record("acme")) == record | {"k": after.claim.text()}
        assert await archives(ledger) == []
        await lawful(ledger)


async def test_another_kind_of_reset_begins_with_the_next_period_and_periods_never_overlap(
    each_store: StoreServer,
) -> None:
    """Calendar months, then anniversaries of the 15th, then calendar months again."""
    steps = [("01-15", None), ("01-20", Reset.ANNIVERSARY), ("02-05", None), ("02-20", Reset.CALENDAR)]
    steps += [("03-20", None), ("04-02", None)]
    async with calm(each_store.url) as ledger:
        periods = []
        for day, reset in steps:
            await move_to(ledger, await next_year(ledger, f"{day}T00:00:00"))
            await track(ledger, 1)
            periods.append((await org_of(ledger)).period)
            await ledger.callers[0].orgs.update("acme", OrgChange(reset=reset), actor="test", create=False)
            assert (await org_of(ledger)).period == periods[-1]
        inside_ms = (await org_of(ledger)).profile.anchor_ms - await next_year(ledger, "01-15T00:00:00")
        at = {day: await next_year(ledger, f"{day}T00:00:00") for day in ("01-01", "02-01", "04-01", "05-01")}
        at |= {day: inside_ms + await next_year(ledger, f"{day}T00:00:00") for day in ("02-15", "03-15")}
        borders = [at[day] for day in ("01-01", "02-01", "02-15", "03-15", "04-01", "05-01")]
        assert list(dict.fromkeys(periods)) == [Period(*pair) for pair in pairwise(borders)]
        await lawful(ledger)


# ── another catalogue ────────────────────────────────────────────────────────────────────────────────────

NEWER: Final = (
    CATALOGUE.replace("version = 1", "version = 2")
    .replace("scans = { limit = 10,", "scans = { limit = 12,")
    .replace('closed = { title = "Closed", unit = "call" }\n', 'fresh = { title = "Fresh", unit = "call" }\n')
    .replace('closed = { limit = 5, on_limit = "block", enabled = false }\n', "fresh = { limit = 3 }\n")
    .replace('closed = { limit = 5, on_limit = "overage" }\n', "fresh = { limit = 4 }\n")
)


@asynccontextmanager
async def two_catalogues(url: str) -> AsyncIterator[tuple[Ledger, Ledger]]:
    """Workers of two versions on one data set, as during a deployment: the older, and the newer."""
    async with Ledger(url, catalogue=NEWER) as newer, calm(url) as ledger:
        newer.offset_ms = ledger.offset_ms
        for caller in newer.callers:
            caller.time.test_offset_ms = ledger.offset_ms
            caller.time.learn(await ledger.now_ms())
        yield ledger, newer


async def test_a_newer_catalogue_sets_limits_drops_features_and_keeps_what_was_counted(
    each_store: StoreServer,
) -> None:
    async with two_catalogues(each_store.url) as (ledger, newer):
        await track(ledger, 11)
        outcome = await newer.callers[0].counters.track(event("acme", 2))
        assert (outcome.used, outcome.overage) == (13, 1)
        org = await org_of(newer)
        assert {name: usage.rule for name, usage in org.features.items()} == newer.catalogue.plans["free"].rules
        gone = await newer.callers[0].counters.track(event("acme", 1, None, "closed"))
        assert gone.result is Result.FEATURE_UNKNOWN
        assert org.features["scans"].overage == 2
        await lawful(newer)


async def test_overrides_outlive_a_newer_catalogue(store: StoreServer) -> None:
    async with two_catalogues(store.url) as (ledger, newer):
        change = OrgChange("free", {"scans": Override(limit=77), "closed": Override(enabled=True)})
        await ledger.callers[0].orgs.update("acme", change, actor="test", create=True)
        org = await org_of(newer)
        assert (org.features["scans"].rule.limit, "closed" in org.features) == (77, False)


async def test_a_worker_with_the_older_catalogue_does_not_roll_back(each_store: StoreServer) -> None:
    async with two_catalogues(each_store.url) as (ledger, newer):
        await newer.callers[0].counters.track(event("acme", 11))
        before = await keys_of(ledger, "acme")
        assert (await org_of(ledger)).features["scans"].rule.limit == 12
        assert await keys_of(ledger, "acme") == before
        assert await track(ledger, 1) == 12
        await move_to(ledger, await next_year(ledger, FEBRUARY))
        assert (await org_of(ledger)).features["scans"].rule.limit == 12


async def test_a_change_that_a_worker_with_the_older_catalogue_makes_leaves_the_newer_limits(
    store: StoreServer,
) -> None:
    """What has nothing to do with limits leaves them; what sets them is set right by the next newer worker."""
    async with two_catalogues(store.url) as (ledger, newer):
        await newer.callers[0].counters.track(event("acme", 11))
        for change, seen_there in ((OrgChange(stripe_customer_id="cus_1"), 12), (OrgChange("free", {}), 12),
                                   (OrgChange(plan="pro"), 40), (OrgChange(plan="free"), 10)):  # fmt: skip
            await ledger.callers[0].orgs.update("acme", change, actor="test", create=False)
            assert (await org_of(ledger)).features["scans"].rule.limit == seen_there
        assert (await org_of(newer)).features["scans"].rule.limit == 12
        assert (await org_of(ledger)).features["scans"].rule.limit == 12


# ── many at once ─────────────────────────────────────────────────────────────────────────────────────────


async def test_twenty_rolls_and_changes_at_once_have_one_effect_each(each_store: StoreServer) -> None:
    async with calm(each_store.url, callers=20) as ledger:
        await track(ledger, 13)
        await move_to(ledger, await next_year(ledger, FEBRUARY))
        await asyncio.gather(
            *(org_of(ledger, number) for number in range(20)),
            *(
                caller.orgs.update("acme", OrgChange(plan="pro"), actor="test", create=False)
                for caller in ledger.callers[:8]
            ),
            *(caller.counters.track(event("acme", 1, "e1")) for caller in ledger.callers),
        )
        org = await org_of(ledger)
        assert (org.plan, org.features["scans"].used, org.features["scans"].closed) == ("pro", 1, 13)
        assert len(await trail(ledger, b"period_closed")) == 1
        assert len(await trail(ledger, b"plan_changed")) == 1
        assert len(await archives(ledger)) == 1
        await lawful(ledger)
