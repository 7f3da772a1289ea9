"""attempt.lua: a window is sent by one worker at a time, what that worker needs is noted first, and doubt stops it."""

import asyncio

import pytest

from metering.store.outbox import KNOWN_MS, LEASE_MS, Begun
from metering.store.window import Sink, State
from tests.lua.ledger import Ledger
from tests.lua.outboxes import begun, outbox_of, sealed, start_of, window_of
from tests.lua.scenes import calm, event, lawful, move_to, next_year
from tests.support.servers import StoreServer


async def one(ledger: Ledger) -> str:
    await ledger.callers[0].counters.track(event("acme", 13))
    return await sealed(ledger)


async def try_again(ledger: Ledger, name: str, after_ms: int, **start: str) -> Begun:
    await move_to(ledger, await ledger.now_ms() + after_ms)
    window = await window_of(ledger, name)
    return (await outbox_of(ledger).attempt(window, start_of(window, **start)))[0]  # type: ignore[arg-type]


async def test_an_attempt_is_noted_with_all_it_was_made_with(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        name = await one(ledger)
        window = await begun(ledger, name, stamp_ms=77, amount_minor=5, sink=Sink.ITEM)
        told = (window.state, window.attempts, window.customer, window.stamp_ms, window.amount_minor, window.sink)
        assert told == (State.INFLIGHT, 1, "cus_1", 77, 5, Sink.ITEM)
        assert window.first_ms == window.tried_ms
        assert not window.fresh
        [(_, due)] = await ledger.client.zrange("{p00}:outbox", 0, -1, withscores=True)
        assert window.tried_ms is not None
        assert due == window.tried_ms + LEASE_MS
        await lawful(ledger)


async def test_of_twenty_workers_one_begins(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        window = await window_of(ledger, await one(ledger))
        found = await asyncio.gather(*(outbox_of(ledger).attempt(window, start_of(window)) for _ in range(20)))
        assert sorted(code for code, _ in found) == [Begun.YES] + [Begun.LATER] * 19


async def test_a_later_attempt_keeps_what_the_first_was_made_with(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        name = await one(ledger)
        first = await begun(ledger, name, stamp_ms=77)
        assert await try_again(ledger, name, LEASE_MS - 5_000) is Begun.LATER
        assert await try_again(ledger, name, 6_000) is Begun.YES
        later = await window_of(ledger, name)
        assert (later.attempts, later.stamp_ms, later.first_ms) == (2, 77, first.first_ms)


@pytest.mark.parametrize(("after_ms", "code"), [(KNOWN_MS - 5_000, Begun.YES), (KNOWN_MS, Begun.DOUBTFUL)])
async def test_what_stripe_may_have_forgotten_is_not_sent_again(store: StoreServer, after_ms: int, code: Begun) -> None:
    async with calm(store.url, partitions=1) as ledger:
        name = await one(ledger)
        await begun(ledger, name)
        assert await try_again(ledger, name, after_ms) is code


async def test_an_item_of_an_invoice_is_looked_for_instead_and_may_be_tried_for_ever(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        name = await one(ledger)
        await begun(ledger, name, sink=Sink.ITEM)
        assert await try_again(ledger, name, KNOWN_MS) is Begun.YES


async def test_a_period_that_was_invoiced_meanwhile_is_looked_at_again_and_then_doubtful(
    each_store: StoreServer,
) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        name = await one(ledger)
        window = await window_of(ledger, name)
        await move_to(ledger, await next_year(ledger, "02-01T00:00:05"))
        await ledger.callers[0].orgs.get("acme")
        key = ledger.keys.archive("acme", window.cut.period.start_ms)
        await ledger.client.hset(key, "iv", 99)
        outbox = outbox_of(ledger)
        assert await outbox.invoiced("acme", window.cut.period.start_ms) == "99"
        before = await ledger.dump()
        assert (await outbox.attempt(window, start_of(window)))[0] is Begun.STALE
        assert await ledger.dump() == before
        await ledger.client.hdel(key, "iv")
        await begun(ledger, name)
        await ledger.client.hset(key, "iv", 99)
        assert await try_again(ledger, name, LEASE_MS, invoiced="99") is Begun.DOUBTFUL


async def test_another_customer_than_the_one_it_may_have_arrived_for_is_not_taken(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        name = await one(ledger)
        await begun(ledger, name)
        assert await try_again(ledger, name, LEASE_MS, customer="cus_2") is Begun.STALE


async def test_a_window_that_is_settled_or_not_there_is_gone(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        window = await window_of(ledger, await one(ledger))
        assert await outbox_of(ledger).settle(window, State.DELIVERED)
        before = await ledger.dump()
        assert (await outbox_of(ledger).attempt(window, start_of(window)))[0] is Begun.GONE
        assert await ledger.dump() == before
