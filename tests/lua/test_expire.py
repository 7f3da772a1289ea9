"""expire.lua and the job around it: what ended is forgotten or charged, whenever somebody looks."""

from metering.store.holds import HoldState
from metering.usage import Result
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, event, lawful, move_to
from tests.support.servers import StoreServer

TTL_MS = 60_000


async def field(ledger: Ledger, name: str) -> int:
    return int(await ledger.client.hget(ledger.keys.record("acme"), name) or 0)


async def after_its_end(ledger: Ledger) -> None:
    await move_to(ledger, await ledger.now_ms() + TTL_MS)


async def test_a_reservation_counts_for_nothing_from_its_end_on_with_no_job_run(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        caller = ledger.callers[0]
        hold, _ = await caller.holds.place("acme", "r1", "checks", 10, TTL_MS)
        assert hold is not None
        assert (await caller.counters.track(event("acme", 1, None, "checks"))).result is Result.REFUSED
        await move_to(ledger, hold.expires_ms - 3_000)
        assert (await caller.counters.track(event("acme", 1, None, "checks"))).result is Result.REFUSED
        await move_to(ledger, hold.expires_ms)
        outcome = await caller.counters.track(event("acme", 10, None, "checks"))
        assert (outcome.result, outcome.used) == (Result.RECORDED, 10)
        assert await field(ledger, "h:checks") == 0
        await lawful(ledger)


async def test_the_job_forgets_what_ended_and_notes_the_next_end(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        holds, partition = ledger.callers[0].holds, ledger.keys.partition("acme")
        await holds.place("acme", "r1", "checks", 3, TTL_MS)
        later, _ = await holds.place("acme", "r2", "checks", 4, 3 * TTL_MS)
        assert later is not None
        await after_its_end(ledger)
        assert await holds.ended_units("acme") == {"checks": 3}
        for caller in ledger.callers:
            await caller.holds.expire()
        assert await field(ledger, "h:checks") == 4
        due = ledger.keys.shared("expiring", partition)
        assert await ledger.client.zrange(due, 0, -1, withscores=True) == [(b"acme", float(later.expires_ms))]
        await move_to(ledger, later.expires_ms)
        await holds.expire()
        assert await ledger.client.zcard(due) == 0
        await lawful(ledger)


async def test_a_lease_that_ended_unsettled_is_charged_once_and_bounds_the_spending_meanwhile(
    store: StoreServer,
) -> None:
    async with calm(store.url) as ledger:
        caller, other = ledger.callers
        await caller.holds.place("acme", "l1", "checks", 8, TTL_MS, lease=True, charged=True)
        await after_its_end(ledger)
        refused = await other.counters.track(event("acme", 3, None, "checks"))
        assert refused.result is Result.REFUSED
        await caller.holds.expire()
        await other.holds.expire()
        assert (await field(ledger, "u:checks"), await field(ledger, "h:checks")) == (8, 0)
        found = await caller.holds.find("acme", "l1")
        assert found is not None
        assert (found.state, found.committed) == (HoldState.CHARGED, 8)
        assert (await caller.holds.settle("acme", "l1", 2))[2].result is Result.HOLD_GONE
        assert await field(ledger, "u:checks") == 8
        await lawful(ledger)


async def test_the_holds_of_a_feature_that_is_gone_are_forgotten(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await caller.holds.place("acme", "l1", "checks", 8, TTL_MS, lease=True, charged=True)
        await ledger.client.hdel(ledger.keys.record("acme"), "l:checks", "m:checks")
        await after_its_end(ledger)
        await caller.holds.expire()
        assert await field(ledger, "h:checks") == 0
        assert await ledger.client.zcard(ledger.keys.holds("acme")) == 0
