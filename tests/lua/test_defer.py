"""defer.lua: what an attempt came to is noted by whoever made it, and nobody is put off by an older word."""

from metering.store.outbox import LEASE_MS, Begun
from metering.store.window import Sink, State
from tests.lua.outboxes import begun, outbox_of, sealed, start_of, window_of
from tests.lua.scenes import calm, event, lawful, move_to
from tests.support.servers import StoreServer


async def test_a_window_that_cannot_have_arrived_begins_afresh(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        window = await begun(ledger, await sealed(ledger), sink=Sink.METER)
        outbox = outbox_of(ledger)
        assert await outbox.defer(window, 1, 5_000, "429", nothing=True)
        told = await window_of(ledger, window.id)
        assert (told.state, told.fresh, told.attempts, told.error) == (State.SEALED, True, 1, "429")
        assert (await outbox.attempt(told, start_of(told)))[0] is Begun.LATER
        await move_to(ledger, await ledger.now_ms() + 5_000)
        assert (await outbox.attempt(told, start_of(told, "cus_2", Sink.ITEM)))[0] is Begun.YES
        assert (await window_of(ledger, window.id)).customer == "cus_2"
        await lawful(ledger)


async def test_a_window_that_may_have_arrived_stays_on_its_way(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        window = await begun(ledger, await sealed(ledger))
        assert await outbox_of(ledger).defer(window, 1, 5_000, "x" * 999, nothing=False)
        told = await window_of(ledger, window.id)
        assert (told.state, told.first_ms, len(told.error)) == (State.INFLIGHT, window.first_ms, 300)
        await lawful(ledger)


async def test_a_late_word_of_an_older_attempt_or_of_a_settled_window_changes_nothing(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        window = await begun(ledger, await sealed(ledger))
        await move_to(ledger, await ledger.now_ms() + LEASE_MS)
        await begun(ledger, window.id)
        outbox = outbox_of(ledger)
        before = await ledger.dump()
        assert not await outbox.defer(window, 1, 5_000, "500", nothing=True)
        assert await ledger.dump() == before
        assert await outbox.settle(window, State.DELIVERED)
        before = await ledger.dump()
        assert not await outbox.defer(window, 2, 5_000, "500", nothing=False)
        assert await ledger.dump() == before
