"""The walk that the service makes by itself: it visits all, finds what does not hold, and frees what holds again."""

from collections import Counter
from typing import Final

from metering.store.watch import BROKEN, HELD, SAMPLE, Watch
from tests.lua.exporting import SOLD, exporter_of, till_of
from tests.lua.ledger import Ledger
from tests.lua.outboxes import customer_of, outbox_of
from tests.lua.scenes import HOUR_MS, calm, event, move_to
from tests.support.fixtures import store, store_session
from tests.support.servers import StoreServer

__all__ = ["store", "store_session"]

RECORD: Final = "{p00}:o:acme"
FROZEN: Final = "{p00}:frozen"


def watch_of(ledger: Ledger, seen: Counter[str] | None = None) -> Watch:
    features = tuple(ledger.catalogue.features)
    return Watch(ledger.client, ledger.keys, features, Counter() if seen is None else seen, history_days=400)


async def use(ledger: Ledger, *org_ids: str) -> None:
    for org_id in org_ids:
        await ledger.callers[0].counters.track(event(org_id, 12))


async def test_turn_after_turn_every_organisation_is_looked_at(store: StoreServer) -> None:
    async with calm(store.url, partitions=4, callers=1) as ledger:
        names = [f"org-{number}" for number in range(2 * SAMPLE + 5)]
        await use(ledger, *names)
        seen = Counter[str]()
        watch = watch_of(ledger, seen)
        for name in names:
            await ledger.client.hincrby(ledger.keys.record(name), "u:scans", 1)
        for _ in range(4):
            await watch.turn()
        frozen = [await ledger.client.zrange(ledger.keys.shared("frozen", n), 0, -1) for n in range(4)]
        assert sorted(name.decode() for some in frozen for name in some) == sorted(names)
        assert seen[HELD] == 0


async def test_what_does_not_hold_is_frozen_until_it_holds_again(store: StoreServer) -> None:
    async with calm(store.url, partitions=1, callers=1) as ledger:
        await use(ledger, "acme", "beta")
        seen = Counter[str]()
        watch = watch_of(ledger, seen)
        await watch.turn()
        assert (await ledger.client.zcard(FROZEN), seen) == (0, {HELD: 2})
        await ledger.client.hincrby(RECORD, "u:scans", 3)
        await watch.turn()
        assert await ledger.client.zrange(FROZEN, 0, -1) == [b"acme"]
        assert seen[BROKEN] == 1
        await ledger.client.hincrby(RECORD, "u:scans", -3)
        await watch.look("acme")
        assert await ledger.client.zcard(FROZEN) == 0


async def test_figures_that_are_none_and_keys_of_another_type_do_not_hold(store: StoreServer) -> None:
    async with calm(store.url, partitions=1, callers=1) as ledger:
        await use(ledger, "acme", "beta")
        watch = watch_of(ledger)
        await ledger.client.hset(RECORD, "u:scans", "many")
        await ledger.client.set("{p00}:o:beta", "no hash")
        await watch.turn()
        assert await ledger.client.zrange(FROZEN, 0, -1) == [b"acme", b"beta"]


async def test_an_organisation_that_is_gone_is_not_held_up(store: StoreServer) -> None:
    async with calm(store.url, partitions=1, callers=1) as ledger:
        await ledger.client.zadd(FROZEN, {"gone": 1})
        await watch_of(ledger).turn()
        assert await ledger.client.zcard(FROZEN) == 0


async def test_nothing_of_a_frozen_organisation_is_sealed_or_sent_and_all_of_it_once_it_is_free(
    store: StoreServer,
) -> None:
    async with calm(store.url, catalogue=SOLD, partitions=1, callers=1) as ledger:
        await customer_of(ledger)
        till = till_of(ledger)
        await use(ledger, "acme")
        await outbox_of(ledger).seal("acme|scans")  # two units on their way
        await use(ledger, "acme")
        await ledger.client.zadd(FROZEN, {"acme": 1})
        await exporter_of(ledger, till).turn()
        assert (till.taken, await ledger.client.zcard("{p00}:dirty")) == ([], 1)
        await ledger.client.delete(FROZEN)
        await move_to(ledger, await ledger.now_ms() + HOUR_MS)
        await exporter_of(ledger, till).turn()
        assert sum(sent.units for sent in till.taken) == 14
