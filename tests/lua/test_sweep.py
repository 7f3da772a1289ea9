"""The sweep closes the periods of organisations that send nothing any more."""

from metering.usage import UsageEvent
from tests.lua.ledger import Ledger
from tests.support.servers import StoreServer


async def test_sweep_archives_the_period_of_an_idle_organisation(store: StoreServer) -> None:
    """After its period's end a sweep, without any event, leaves the figures in the archive and a period that runs."""
    async with Ledger(store.url) as ledger:
        caller = ledger.callers[0]
        await caller.counters.track(UsageEvent("idle", "scans", 12, "evt-1"))
        before = await caller.orgs.get("idle")
        assert before is not None
        await ledger.jump_to(before.period.end_ms + 1)
        await caller.orgs.sweep()
        archive = await ledger.client.hgetall(ledger.keys.archive("idle", before.period.start_ms))
        assert (archive[b"u:scans"], archive[b"x:scans"]) == (b"12", b"2")
        assert int(await ledger.client.hget(ledger.keys.record("idle"), "ps")) == before.period.end_ms
        assert (await ledger.walk()).violations == []


async def test_sweep_leaves_organisations_alone_whose_claim_still_holds(store: StoreServer) -> None:
    """A sweep inside the period writes nothing."""
    async with Ledger(store.url) as ledger:
        caller = ledger.callers[0]
        await caller.counters.track(UsageEvent("busy", "scans", 3, "evt-1"))
        before = await ledger.dump()
        await caller.orgs.sweep()
        assert await ledger.dump() == before


async def test_sweep_and_list_pass_over_organisations_that_cannot_be_read(store: StoreServer) -> None:
    """Corrupt organisations, more than one page of a sweep holds, keep nobody else from being rolled or listed."""
    async with Ledger(store.url, partitions=1) as ledger:
        caller, names = ledger.callers[0], [f"bad-{number}" for number in range(3)]
        for name in (*names, "good"):
            await caller.counters.track(UsageEvent(name, "scans", 3, "evt-1"))
        good = await caller.orgs.get("good")
        assert good is not None
        for number, name in enumerate(names):
            await ledger.client.hset(ledger.keys.record(name), "ps", "junk")
            await ledger.client.zadd(ledger.keys.shared("due", 0), {name: number})  # due before the good one
        await ledger.jump_to(good.period.end_ms + 1)
        await caller.orgs.sweep(page=2)
        assert await ledger.client.exists(ledger.keys.archive("good", good.period.start_ms))
        listed, _ = await caller.orgs.page(None, 10)
        assert [org.org_id for org in listed] == ["good"]
