"""read_credits.lua: an organisation's credits at one instant, also where the store takes no writes."""

import pytest

from metering.errors import ClockUnsafe, OrgCorrupt, OrgNotFound
from tests.lua.crediting import ANN, credits_of, joined, order
from tests.lua.scenes import calm
from tests.support.servers import StoreServer


async def test_whoever_has_no_credits_has_none(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book = credits_of(ledger)
        told = await book.balance("acme")
        assert (told.balance, told.reserved, told.owed, told.low, told.grants) == (0, 0, 0, False, [])
        assert await book.grants("acme") == []
        with pytest.raises(OrgNotFound):
            await book.balance("nobody")


async def test_grants_are_told_in_burn_order(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book, now_ms = credits_of(ledger), await ledger.now_ms()
        await book.grant("acme", order("cg_never"), ANN)
        await book.grant("acme", order("cg_soon", expires_ms=now_ms + 90_000), ANN)
        await book.grant("acme", order("cg_first", priority=1), ANN)
        assert [one.grant_id for one in (await book.balance("acme")).grants] == ["cg_first", "cg_soon", "cg_never"]
        assert [one.grant_id for one in await book.grants("acme")] == ["cg_first", "cg_soon", "cg_never"]


async def test_credits_are_told_where_the_store_is_full(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book = credits_of(ledger)
        await book.grant("acme", order(), ANN)
        await book.balance("acme")
        await ledger.client.config_set("maxmemory", 1)
        try:
            assert (await book.balance("acme")).balance == 100
        finally:
            await ledger.client.config_set("maxmemory", 0)


async def test_a_clock_that_does_not_fit_and_a_pool_that_is_none_are_told(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book = credits_of(ledger)
        await ledger.client.hset(ledger.keys.pool("acme"), "cg_1", "junk")
        with pytest.raises(OrgCorrupt):
            await book.balance("acme")
        ledger.callers[0].clock.skew_ms = 3_600_000
        with pytest.raises(ClockUnsafe):
            await book.balance("acme")
