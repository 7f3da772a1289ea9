"""park.lua: overage that nobody pays for is put by, and stays so until somebody does."""

from tests.lua.outboxes import customer_of, outbox_of
from tests.lua.scenes import calm, event, lawful
from tests.support.servers import StoreServer


async def test_overage_without_a_customer_is_put_by_and_grows_there(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        assert await outbox_of(ledger).park("acme|scans", "")
        assert not await outbox_of(ledger, 1).park("acme|scans", "")
        await ledger.callers[0].counters.track(event("acme", 2))
        assert await ledger.client.exists("{p00}:dirty") == 0
        assert await outbox_of(ledger).unbilled(0) == ["acme|scans"]
        await lawful(ledger)


async def test_overage_whose_customer_came_meanwhile_is_not_put_by(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        await customer_of(ledger)
        before = await ledger.dump()
        assert not await outbox_of(ledger).park("acme|scans", "")
        assert await ledger.dump() == before


async def test_a_counter_without_anything_unsealed_is_not_put_by(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("acme", 3))
        assert not await outbox_of(ledger).park("acme|scans", "")
        assert await ledger.client.exists("{p00}:unbilled") == 0
