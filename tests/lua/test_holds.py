"""Reservations and leases where it is narrow: in one tick, after a clock went back or an outage, under each policy."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from metering.errors import HoldConflict, HoldNotFound, OrgCorrupt
from metering.store.admission import AdmitRow, HoldAsk, Verb
from metering.store.frames import bulk, integer
from metering.store.holds import Holds
from metering.store.orgs import OrgChange
from metering.store.retention import Retention
from metering.usage import Result
from plans.catalogue import Override
from tests.lua.ledger import Caller, Ledger
from tests.lua.scenes import calm, event, lawful, move_to
from tests.support.servers import StoreServer

TTL_MS = 60_000


async def figures(ledger: Ledger, feature: str = "checks") -> tuple[int, int]:
    """Units used and units held."""
    used, held = await ledger.client.hmget(ledger.keys.record("acme"), f"u:{feature}", f"h:{feature}")
    return int(used or 0), int(held or 0)


async def reserved(caller: Caller, hold_id: str = "r1", quantity: int = 4) -> None:
    hold, _ = await caller.holds.place("acme", hold_id, "checks", quantity, TTL_MS)
    assert hold is not None


# ── at the same time ─────────────────────────────────────────────────────────────────────────────────────


async def test_the_same_reservation_many_times_in_one_tick_is_held_once(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        found = await asyncio.gather(
            *(caller.holds.place("acme", "r1", "checks", 4, TTL_MS) for caller in ledger.callers for _ in range(5))
        )
        assert sorted(outcome.result for _, outcome in found) == [Result.DUPLICATE] * 9 + [Result.RECORDED]
        assert len({hold for hold, _ in found}) == 1
        assert await figures(ledger) == (0, 4)
        await lawful(ledger)


async def test_of_two_reservations_with_one_name_in_one_tick_the_second_is_in_conflict(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        holds = ledger.callers[0].holds
        found = await asyncio.gather(
            *(holds.place("acme", "r1", "checks", units, TTL_MS) for units in (4, 3)),
            return_exceptions=True,
        )
        assert isinstance(found[1], HoldConflict)
        assert await figures(ledger) == (0, 4)
        await lawful(ledger)


async def test_a_reservation_may_be_made_and_committed_in_one_tick(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await reserved(caller)  # so that the organisation is known, and what follows shares a call
        await caller.holds.place("acme", "r2", "checks", 3, TTL_MS)
        commits = [caller.holds.settle("acme", name, units) for name, units in (("r1", 2), ("r2", 3), ("r1", 4))]
        first, second, third = await asyncio.gather(*commits)
        assert [outcome.result for _, _, outcome in (first, second)] == [Result.RECORDED] * 2
        assert third[2].result is Result.CONFLICT
        assert await figures(ledger) == (5, 0)
        await lawful(ledger)


# ── a reservation is no lease ────────────────────────────────────────────────────────────────────────────


async def test_a_name_stands_for_a_reservation_or_for_a_lease(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        holds = ledger.callers[0].holds
        await reserved(ledger.callers[0])
        for charged in (True, False):
            with pytest.raises(HoldConflict):
                await holds.place("acme", "r1", "checks", 4, TTL_MS, lease=True, charged=charged)
        with pytest.raises(HoldNotFound):
            await holds.settle("acme", "r1", 4, lease=True)
        await holds.place("acme", "l1", "checks", 2, TTL_MS, lease=True, charged=True)
        with pytest.raises(HoldNotFound):
            await holds.settle("acme", "l1", 2, lease=False)
        again, outcome = await holds.place("acme", "l1", "checks", 2, TTL_MS, lease=True, charged=False)
        assert outcome.result is Result.DUPLICATE  # the catalogue's policy may change, the lease stays what it was
        assert again is not None
        assert again.charged
        assert await figures(ledger) == (0, 6)


# ── what a lease gets ────────────────────────────────────────────────────────────────────────────────────

WINDOWED = """
version = 1
currency = "usd"
default_plan = "free"
default_feature = "scans"
[features]
scans = { title = "Scans", unit = "scan" }
checks = { title = "Checks", unit = "check" }
calls = { title = "Calls", unit = "call" }
open = { title = "Open", unit = "call" }
[plans.free]
title = "Free"
reset = "calendar"
price_minor = 0
on_limit = "block"
[plans.free.features]
scans = { limit = 10, on_limit = "overage" }
checks = { limit = 10 }
calls = { limit = 10, on_limit = "cap" }
open = { limit = "unlimited", windows = [{ limit = 6, per = "hour" }] }
"""


@pytest.mark.parametrize(
    ("feature", "used", "granted"),
    [
        ("checks", 0, 10), ("checks", 7, 3), ("checks", 10, 0), ("calls", 7, 3),
        ("scans", 7, 12), ("scans", 10, 12),  # the plan counts on above its limit, and so does a lease
        ("open", 2, 4), ("open", 6, 0),
    ],
)  # fmt: skip
async def test_a_lease_keeps_what_fits_of_twelve_units(
    store: StoreServer, feature: str, used: int, granted: int
) -> None:
    async with calm(store.url, catalogue=WINDOWED) as ledger:
        caller = ledger.callers[0]
        if used:
            await caller.counters.track(event("acme", used, None, feature))
        hold, outcome = await caller.holds.place("acme", "l1", feature, 12, TTL_MS, lease=True)
        assert (0 if hold is None else hold.quantity) == outcome.recorded == granted
        assert outcome.result is ((Result.RECORDED if granted == 12 else Result.CAPPED) if granted else Result.REFUSED)
        assert await figures(ledger, feature) == (used, granted)
        await lawful(ledger)


@pytest.mark.parametrize(("feature", "held"), [("checks", 0), ("calls", 3), ("scans", 12)])
async def test_a_reservation_is_decided_as_the_plan_says(store: StoreServer, feature: str, held: int) -> None:
    async with calm(store.url, catalogue=WINDOWED) as ledger:
        caller = ledger.callers[0]
        await caller.counters.track(event("acme", 7, None, feature))
        hold, _ = await caller.holds.place("acme", "r1", feature, 12, TTL_MS)
        assert (0 if hold is None else hold.quantity) == held


# ── what is held counts, whatever happens meanwhile ──────────────────────────────────────────────────────


async def test_what_was_held_is_committed_after_the_feature_was_taken_out_of_the_plan(store: StoreServer) -> None:
    """No more than that: the rest is refused as any event."""
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await reserved(caller)
        await caller.orgs.update(
            "acme", OrgChange(overrides={"checks": Override(enabled=False)}), actor="ann", create=False
        )
        assert (await caller.holds.settle("acme", "r1", 5))[2].result is Result.DISABLED
        assert await figures(ledger) == (0, 4)
        assert (await caller.holds.settle("acme", "r1", 4))[2].result is Result.RECORDED
        assert await figures(ledger) == (4, 0)
        await lawful(ledger)


async def test_what_is_capped_at_what_was_held_tells_its_overage(store: StoreServer) -> None:
    """Units that were held fit though the limit was lowered since; those above it are overage, in the answer too."""
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await caller.counters.track(event("acme", 3, None, "calls"))
        await caller.holds.place("acme", "r1", "calls", 4, TTL_MS)
        await caller.orgs.update("acme", OrgChange(overrides={"calls": Override(limit=2)}), actor="ann", create=False)
        outcome = (await caller.holds.settle("acme", "r1", 6))[2]
        assert (outcome.result, outcome.recorded, outcome.used, outcome.overage) == (Result.CAPPED, 4, 7, 4)
        assert await ledger.client.hget(ledger.keys.record("acme"), "x:calls") == b"4"
        await lawful(ledger)


async def test_a_clock_that_goes_back_does_not_open_what_ended_again(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await reserved(caller)
        ended = await ledger.now_ms() + TTL_MS
        await move_to(ledger, ended)
        await caller.counters.track(event("acme", 1, None, "checks"))
        assert await figures(ledger) == (1, 0)
        await set_back(ledger, TTL_MS // 2)
        assert not await caller.holds.release("acme", "r1")
        assert await caller.holds.extend("acme", "r1", TTL_MS) is None
        assert (await caller.holds.settle("acme", "r1", 4))[2].result is Result.HOLD_GONE
        assert await figures(ledger) == (1, 0)
        await lawful(ledger)


async def set_back(ledger: Ledger, ms: int) -> None:
    """Turn the store's clock back, which only a fault does."""
    ledger.offset_ms -= ms
    for partition in range(ledger.keys.partitions):
        await ledger.client.set(ledger.keys.shared("clock", partition), ledger.offset_ms)
    for caller in ledger.callers:
        caller.time.test_offset_ms = ledger.offset_ms
        caller.time.learn(await ledger.now_ms())


async def test_a_lease_that_ended_while_nothing_ran_is_charged_however_late(store: StoreServer) -> None:
    """What is told of it is gone by then; that it has to be charged is not."""
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        hold, _ = await caller.holds.place("acme", "l1", "checks", 8, TTL_MS, lease=True, charged=True)
        assert hold is not None
        await move_to(ledger, hold.expires_ms + 3 * 86_400_000)
        await ledger.client.delete(ledger.keys.hold("acme", "l1"))  # as its time to live does
        assert await figures(ledger) == (0, 8)
        for worker in ledger.callers * 2:
            await worker.holds.expire()
        assert await figures(ledger) == (8, 0)
        assert await caller.holds.find("acme", "l1") is None
        await lawful(ledger)


@pytest.mark.parametrize("looked_by", ["an event", "the job"])
async def test_a_lease_that_is_not_charged_is_free_again_at_its_end(store: StoreServer, looked_by: str) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        hold, _ = await caller.holds.place("acme", "l1", "checks", 10, TTL_MS, lease=True)
        assert hold is not None
        await move_to(ledger, hold.expires_ms)
        assert await caller.holds.ended_units("acme") == {"checks": 10}
        if looked_by == "the job":
            await caller.holds.expire()
            assert await figures(ledger) == (0, 0)
        assert (await caller.counters.track(event("acme", 10, None, "checks"))).result is Result.RECORDED
        assert await figures(ledger) == (10, 0)
        await lawful(ledger)


async def test_a_lease_that_was_forgotten_is_not_charged_by_who_comes_late(store: StoreServer) -> None:
    """A worker that saw it waiting asks for it after another one, with another catalogue, has forgotten it."""
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await caller.holds.place("acme", "l1", "checks", 8, TTL_MS, lease=True, charged=True)
        await move_to(ledger, await ledger.now_ms() + TTL_MS)
        await caller.holds._forget("acme", {"checks"})  # noqa: SLF001 - what such a worker does
        tail = bulk(b"checks") + integer(8) + bulk(b"") + bulk(b"")
        row = AdmitRow("checks", None, tail, verb=Verb.CHARGE, hold=HoldAsk("l1", charged=True, lease=True))
        outcome = await caller.counters.decide(event("acme", 8, None, "checks"), row)
        assert outcome.result is Result.HOLD_GONE
        assert await figures(ledger) == (0, 0)
        await lawful(ledger)


async def test_one_organisation_that_cannot_be_charged_does_not_hold_up_the_others(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        caller = ledger.callers[0]
        for org_id in ("acme", "zeta"):
            await caller.holds.place(org_id, "l1", "checks", 8, TTL_MS, lease=True, charged=True)
        await ledger.client.hset(ledger.keys.record("acme"), "u:checks", "junk")
        await move_to(ledger, await ledger.now_ms() + TTL_MS)
        await caller.holds.expire()
        assert await ledger.client.hget(ledger.keys.record("zeta"), "u:checks") == b"8"


# ── figures that no script wrote ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", ["many", "3", ""])
@pytest.mark.parametrize("by", ["release", "extend", "commit", "event", "the job", "event after", "other event after"])
async def test_where_units_held_cannot_be_nothing_is_written(store: StoreServer, by: str, value: str) -> None:
    """Four are held, and the record says something else, or fewer."""
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await reserved(caller)
        if by == "the job" or by.endswith("after"):
            await move_to(ledger, await ledger.now_ms() + TTL_MS)
        await ledger.client.hset(ledger.keys.record("acme"), "h:checks", value)
        before, holds = await ledger.dump(), caller.holds
        asked: dict[str, Callable[[], Awaitable[object]]] = {
            "release": lambda: holds.release("acme", "r1"),
            "extend": lambda: holds.extend("acme", "r1", TTL_MS),
            "commit": lambda: holds.settle("acme", "r1", 4),
            "event": lambda: caller.counters.track(event("acme", 1, "e1", "checks")),
            "event after": lambda: caller.counters.track(event("acme", 1, "e1", "checks")),
            "other event after": lambda: caller.counters.track(event("acme", 1, "e1")),
            "the job": holds.expire,
        }
        told = await asyncio.gather(asked[by](), return_exceptions=True)
        if by == "event" and value == "3":
            return  # it has nothing to do with the hold, and cannot know
        assert isinstance(told[0], OrgCorrupt) or by == "the job"
        assert await ledger.dump() == before


@pytest.mark.parametrize("field", ["feature", "quantity", "kind", "expires"])
async def test_a_hold_of_another_shape_is_told_and_left_alone(store: StoreServer, field: str) -> None:
    async with calm(store.url) as ledger:
        holds = ledger.callers[0].holds
        await reserved(ledger.callers[0])
        await ledger.client.hdel(ledger.keys.hold("acme", "r1"), field)
        before = await ledger.dump()
        for asked in (holds.find("acme", "r1"), holds.release("acme", "r1"), holds.settle("acme", "r1", 1)):
            with pytest.raises(OrgCorrupt):
                await asked
        assert await ledger.dump() == before


# ── what is told of it elsewhere ─────────────────────────────────────────────────────────────────────────


async def test_what_is_committed_and_charged_is_in_the_log_of_raw_events(store: StoreServer) -> None:
    retention = Retention(events_ms=86_400_000)
    async with calm(store.url, retention=retention) as ledger:
        holds = ledger.callers[0].holds
        await reserved(ledger.callers[0])
        await holds.settle("acme", "r1", 3)
        await holds.settle("acme", "r1", 3)
        await holds.place("acme", "l1", "checks", 2, TTL_MS, lease=True, charged=True)
        await move_to(ledger, await ledger.now_ms() + TTL_MS)
        await holds.expire()
        key = ledger.keys.shared("events", ledger.keys.partition("acme"))
        entries = [fields for _, fields in await ledger.client.xrange(key)]
        assert [(fields[b"feature"], fields[b"n"]) for fields in entries] == [(b"checks", b"3"), (b"checks", b"2")]


async def test_units_are_noted_when_they_count_and_not_when_they_are_held(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller, noted = ledger.callers[0], list[tuple[str, int]]()
        holds = Holds(
            ledger.client, ledger.keys, caller.time, caller.orgs, caller.counters, fake=False,
            counted=lambda org_id, units: noted.append((org_id, units)),
        )  # fmt: skip
        await holds.place("acme", "r1", "checks", 4, TTL_MS)
        assert noted == []
        for _ in range(2):
            await holds.settle("acme", "r1", 3)
        await holds.place("acme", "l1", "checks", 2, TTL_MS, lease=True, charged=True)
        await move_to(ledger, await ledger.now_ms() + TTL_MS)
        for _ in range(2):
            await holds.expire()
        assert noted == [("acme", 3), ("acme", 2)]
