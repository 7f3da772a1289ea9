"""What a counted event writes: the organisation it creates, overage, crossings, history, and at what price."""

import asyncio
from typing import Any

import pytest

from metering.errors import OrgNotFound
from metering.store.fields import opened_name
from metering.store.orgs import OrgChange
from metering.store.retention import Retention
from metering.usage import Result
from plans.catalogue import Override
from tests.lua.ledger import Caller, Ledger
from tests.lua.outboxes import outbox_of
from tests.lua.scenes import DAY_MS, HOUR_MS, calm, commands, event, inside_scripts, lawful, move_to, next_year
from tests.support.servers import StoreServer

# ── creation ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_two_workers_that_create_an_organisation_at_once_make_one(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        for number in range(10):
            org_id = f"org-{number}"
            tracks = [caller.counters.track(event(org_id)) for caller in ledger.callers for _ in range(3)]
            outcomes = await asyncio.gather(*tracks)
            assert sorted(outcome.used for outcome in outcomes) == [1, 2, 3, 4, 5, 6]
            trail = await ledger.client.xrange(ledger.keys.trail(org_id))
            assert [entry[b"type"] for _, entry in trail] == [b"org_created"]
        assert await ledger.client.hgetall("{p00}:plans") == {b"free": b"10"}
        assert await ledger.client.zcard("{p00}:orgs") == 10
        assert await ledger.client.hget("{p00}:totals", "e:org_created") == b"10"
        await lawful(ledger)


async def test_a_created_organisation_is_read_back_as_the_worker_meant_it(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await ledger.callers[0].counters.track(event("acme", 3))
        org = await ledger.callers[1].orgs.get("acme")
        assert org is not None
        assert (org.plan, org.features["scans"].used, org.profile.timezone) == ("free", 3, "UTC")
        assert {name: usage.rule for name, usage in org.features.items()} == ledger.catalogue.plans["free"].rules
        assert abs(org.profile.created_ms - await ledger.now_ms()) < 5_000


@pytest.mark.parametrize(
    ("feature", "quantity", "result"),
    [("closed", 1, Result.DISABLED), ("checks", 11, Result.REFUSED), ("unknown", 1, Result.FEATURE_UNKNOWN)],
)
async def test_a_first_event_that_is_not_counted_creates_nothing(
    each_store: StoreServer, feature: str, quantity: int, result: Result
) -> None:
    async with calm(each_store.url) as ledger:
        before = await ledger.dump()
        outcome = await ledger.callers[0].counters.track(event("acme", quantity, "e1", feature))
        assert outcome.result is result
        assert await ledger.dump() == before
        assert (await ledger.callers[0].counters.track(event("acme", 1, "e1"))).used == 1


async def test_an_unknown_organisation_is_not_created_where_that_is_off(store: StoreServer) -> None:
    async with calm(store.url, auto_create=False) as ledger:
        before = await ledger.dump()
        with pytest.raises(OrgNotFound):
            await ledger.callers[0].counters.track(event("acme"))
        assert await ledger.dump() == before


# ── overage ──────────────────────────────────────────────────────────────────────────────────────────────


async def overage_of(ledger: Ledger, org_id: str = "acme") -> int:
    org = await ledger.callers[0].orgs.get(org_id)
    assert org is not None
    return org.features["scans"].overage


async def track(caller: Caller, quantity: int, event_id: str | None = None) -> tuple[int, int]:
    """Count scans of acme; the counter after it and the event's own overage."""
    outcome = await caller.counters.track(event("acme", quantity, event_id))
    return outcome.used, outcome.overage


async def change(ledger: Ledger, plan: str, limit: int | None = None) -> None:
    overrides = {} if limit is None else {"scans": Override(limit=limit)}
    await ledger.callers[1].orgs.update("acme", OrgChange(plan, overrides), actor="test", create=True)


async def test_overage_accrues_under_the_limit_in_force_and_no_plan_change_recomputes_it(
    each_store: StoreServer,
) -> None:
    async with calm(each_store.url) as ledger:
        caller = ledger.callers[0]
        assert await track(caller, 14) == (14, 4)
        await change(ledger, "pro")  # the limit is 40 now
        assert await overage_of(ledger) == 4
        assert await track(caller, 26) == (40, 0)
        assert await track(caller, 5) == (45, 5)
        await change(ledger, "free")  # the limit is 10 again
        assert await overage_of(ledger) == 9
        assert await track(caller, 1) == (46, 1)
        assert await overage_of(ledger) == 10
        await lawful(ledger)


async def test_units_below_a_limit_that_was_lowered_since_are_never_charged(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        assert await track(caller, 8) == (8, 0)
        await change(ledger, "free", limit=5)
        assert await overage_of(ledger) == 0
        assert await track(caller, 1) == (9, 1)
        await lawful(ledger)


async def test_units_once_above_a_lower_limit_are_not_charged_again_below_a_higher_one(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        assert await track(caller, 20) == (20, 10)
        await change(ledger, "free", limit=15)
        assert await track(caller, 1) == (21, 1)
        assert await overage_of(ledger) == 11
        await lawful(ledger)


async def test_the_first_overage_of_a_period_is_marked_dirty_and_told_once(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        for quantity in (10, 1, 1, 1):
            await track(ledger.callers[0], quantity)
        dirty = await ledger.client.zrange("{p00}:dirty", 0, -1, withscores=True)
        trail = await ledger.client.xrange(ledger.keys.trail("acme"))
        [started] = [entry for _, entry in trail if entry[b"type"] == b"overage_started"]
        assert dirty == [(b"acme|scans", float(started[b"at"]))]
        assert {name: started[name] for name in (b"plan", b"feature", b"used", b"limit")} == {
            b"plan": b"free", b"feature": b"scans", b"used": b"11", b"limit": b"10",
        }  # fmt: skip
        assert await ledger.client.hget("{p00}:totals", "e:overage_started") == b"1"


async def test_overage_after_a_seal_is_dirty_again_from_its_own_first_event(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await track(ledger.callers[0], 12)
        assert await outbox_of(ledger).seal("acme|scans")
        await lawful(ledger)
        await track(ledger.callers[0], 1)
        assert await ledger.client.zrange("{p00}:dirty", 0, -1) == [b"acme|scans"]
        await lawful(ledger)


# ── crossings ────────────────────────────────────────────────────────────────────────────────────────────


async def crossings(ledger: Ledger) -> list[dict[bytes, bytes]]:
    return [entry for _, entry in await ledger.client.xrange("{p00}:crossings")]


async def test_a_crossing_names_mark_and_figures_and_its_organisation_only_to_the_key(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await track(ledger.callers[0], 7)
        outcome = await ledger.callers[0].counters.track(event("acme", 2))
        assert outcome.marks == (75, 80, 90)
        org = await ledger.callers[0].orgs.get("acme")
        assert org is not None
        found = await crossings(ledger)
        assert [entry[b"mark"] for entry in found] == [b"75", b"80", b"90"]
        for entry in found:
            assert b"acme" not in b" ".join(entry.values())
            assert opened_name(entry[b"org"].decode(), org.profile.data_key) == "acme"
            figures = [entry[name] for name in (b"feature", b"used", b"limit", b"period")]
            assert figures == [b"scans", b"9", b"10", b"%d" % org.period.start_ms]


async def test_a_mark_is_told_once_however_many_events_follow(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        for _ in range(13):
            await track(ledger.callers[0], 1)
        assert [entry[b"mark"] for entry in await crossings(ledger)] == [b"75", b"80", b"90", b"100"]


# ── history ──────────────────────────────────────────────────────────────────────────────────────────────


async def history(ledger: Ledger, day: str) -> dict[str, int]:
    """The buckets of acme's scans of a day (`mmdd` of next year)."""
    year = await next_year(ledger, "01-01")
    stamp = ledger.keys.history("acme", "scans", f"{1970 + (year + DAY_MS) // (365 * DAY_MS + DAY_MS // 4)}{day}")
    return {name.decode(): int(units) for name, units in (await ledger.client.hgetall(stamp)).items()}


async def test_history_holds_units_and_overage_by_hour(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await track(ledger.callers[0], 8)
        await move_to(ledger, await ledger.now_ms() + HOUR_MS)
        await track(ledger.callers[0], 5)
        assert await history(ledger, "0110") == {"12": 8, "13": 5, "x13": 3}


async def test_a_period_that_begins_inside_an_hour_has_its_own_part_of_that_hour(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        caller = ledger.callers[0]
        await change(ledger, "pro")  # monthly from the 10th, 12:30:05, once January is over
        border = await next_year(ledger, "02-10T12:30:05")
        org = await caller.orgs.get("acme")
        assert org is not None
        border += org.profile.anchor_ms % 1000
        await move_to(ledger, border - 3_000)
        await track(caller, 2, "before")
        await move_to(ledger, border)
        await track(caller, 3, "after")
        stamped = await caller.counters.track(event("acme", 4, "stamped", timestamp_ms=border))
        late = await caller.counters.track(event("acme", 5, "late", timestamp_ms=border - 1))
        assert (stamped.used, stamped.late, late.used, late.late) == (7, False, 12, True)
        assert await history(ledger, "0210") == {"12": 2, f"12+{border % HOUR_MS}": 12}
        await lawful(ledger)


@pytest.mark.parametrize(
    ("ago_ms", "bucket"), [(0, "12"), (31 * 60_000, "11"), (12 * HOUR_MS, "00"), (-4 * 60_000, "12")]
)
async def test_an_event_with_a_timestamp_counts_in_the_hour_of_its_timestamp(
    store: StoreServer, ago_ms: int, bucket: str
) -> None:
    async with calm(store.url) as ledger:
        at_ms = await ledger.now_ms() - ago_ms
        outcome = await ledger.callers[0].counters.track(event("acme", 5, "e1", timestamp_ms=at_ms))
        assert (outcome.used, outcome.late) == (5, False)
        assert await history(ledger, "0110") == {bucket: 5}
        await lawful(ledger)


async def test_an_event_ahead_of_the_periods_end_counts_now(store: StoreServer) -> None:
    async with calm(store.url, at="01-31T23:58:00") as ledger:
        at_ms = await next_year(ledger, "02-01T00:01:00")
        outcome = await ledger.callers[0].counters.track(event("acme", 5, "e1", timestamp_ms=at_ms))
        assert (outcome.used, outcome.late) == (5, False)
        assert await history(ledger, "0131") == {"23": 5}
        await lawful(ledger)


async def test_history_expires_after_the_days_it_is_kept_counted_from_the_first_unit(each_store: StoreServer) -> None:
    async with calm(each_store.url, retention=Retention(history_days=7)) as ledger:
        caller = ledger.callers[0]
        await track(caller, 1)
        [key] = [key async for key in ledger.client.scan_iter(match="*:h:acme:*")]
        assert 7 * 86_400 - 5 <= await ledger.client.ttl(key) <= 7 * 86_400
        await ledger.client.expire(key, 1_000)
        await track(caller, 1)
        await move_to(ledger, await ledger.now_ms() + HOUR_MS)
        await track(caller, 1)
        assert await ledger.client.ttl(key) <= 1_000


# ── the price ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_plain_event_costs_the_store_at_most_nine_commands(each_store: StoreServer) -> None:
    """Both months' dedupe sets are looked into: the dearer of the two usual cases."""
    async with calm(each_store.url, at="01-31T12:00:00") as ledger:
        caller = ledger.callers[0]
        await caller.counters.track(event("acme", 1, "january", "open"))
        await move_to(ledger, await next_year(ledger, "02-01T12:00:00"))
        await caller.counters.track(event("acme", 1, "february", "open"))
        await ledger.client.config_resetstat()
        for number in range(100):
            await caller.counters.track(event("acme", 1, f"e{number}", "open"))
        counts = await commands(ledger)
        assert counts["evalsha"] == 100
        assert inside_scripts(counts) - counts["get"] <= 900, counts  # only a test clock is read with GET


@pytest.mark.parametrize("one_partition", [False, True])
async def test_the_events_of_one_tick_leave_in_one_call(store: StoreServer, one_partition: bool) -> None:
    """Of one tick and, where a call may not hold more, of one partition."""
    async with calm(store.url, partitions=4, one_partition=one_partition) as ledger:
        caller = ledger.callers[0]
        orgs = [f"org-{number}" for number in range(16)]
        partitions = {ledger.keys.partition(org_id) for org_id in orgs}
        for _ in range(2):  # created, then known
            await asyncio.gather(*(caller.counters.track(event(org_id)) for org_id in orgs))
        await ledger.client.config_resetstat()
        outcomes = await burst(caller, orgs, 64)
        assert all(outcome.result is Result.RECORDED for outcome in outcomes)
        assert len(partitions) > 1
        assert (await commands(ledger))["evalsha"] == (len(partitions) if one_partition else 1)
        await lawful(ledger)


async def burst(caller: Caller, orgs: list[str], count: int) -> list[Any]:
    events = [event(orgs[number % len(orgs)], 1, f"e{number}", "open") for number in range(count)]
    return await asyncio.gather(*(caller.counters.track(one) for one in events))
