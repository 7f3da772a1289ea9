"""ticket.lua: every reading has its number, and a later one a higher one."""

import asyncio

from tests.lua.effecting import effects_of
from tests.lua.scenes import calm, event, lawful
from tests.support.servers import StoreServer


async def test_tickets_are_numbered_from_one(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await ledger.callers[0].counters.track(event("acme", 3))
        assert [await effects_of(ledger, number % 2).ticket("acme") for number in range(3)] == [1, 2, 3]
        await lawful(ledger)


async def test_twenty_readings_at_once_have_twenty_numbers(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await ledger.callers[0].counters.track(event("acme", 3))
        found = await asyncio.gather(*(effects_of(ledger).ticket("acme") for _ in range(20)))
        assert sorted(found) == list(range(1, 21))


async def test_an_organisation_that_is_not_there_has_no_ticket_and_is_not_made(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        before = await ledger.dump()
        assert await effects_of(ledger).ticket("acme") == 0
        assert await ledger.dump() == before
