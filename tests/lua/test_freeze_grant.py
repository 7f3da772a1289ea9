"""freeze_grant.lua: a dispute keeps a grant from being used, and the newest reading of it holds."""

import pytest

from metering.errors import GrantNotFound
from tests.lua.crediting import ANN, credits_of, joined, lines_of, order
from tests.lua.scenes import calm, lawful
from tests.support.servers import StoreServer


async def test_a_frozen_grant_is_no_balance_until_it_is_thawed(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await joined(ledger)
        book = credits_of(ledger)
        for name in ("cg_1", "cg_2"):
            await book.grant("acme", order(name), ANN)
        assert await book.freeze("acme", "cg_1", ANN, ticket=3, ref="dp_1") == 100
        told = await book.balance("acme")
        assert ([one.grant_id for one in told.grants], [one.grant_id for one in told.later]) == (["cg_2"], ["cg_1"])
        assert await book.thaw("acme", "cg_1", ANN, ticket=2) == 100  # an older reading
        assert await book.thaw("acme", "cg_1", ANN, ticket=4) == 200
        lines = [line[0] for line in await lines_of(ledger)]
        assert lines == ["granted", "granted", "frozen", "thawed"]
        await lawful(ledger)


async def test_freezing_again_writes_nothing_more(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book = credits_of(ledger)
        await book.grant("acme", order(), ANN)
        await book.freeze("acme", "cg_1", ANN, ticket=3)
        before = await ledger.dump()
        await book.freeze("acme", "cg_1", ANN, ticket=3)
        assert await ledger.dump() == before


async def test_credits_that_come_back_into_a_frozen_grant_are_frozen(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book = credits_of(ledger)
        await book.grant("acme", order(), ANN)
        await book.take_back("acme", "cg_1", 100, ANN, ticket=1)
        await book.freeze("acme", "cg_1", ANN, ticket=1)
        assert (await book.take_back("acme", "cg_1", 0, ANN, ticket=2)).balance == 0
        assert await book.thaw("acme", "cg_1", ANN, ticket=2) == 100
        await lawful(ledger)


async def test_freezing_what_is_not_there_is_told(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        with pytest.raises(GrantNotFound):
            await credits_of(ledger).freeze("acme", "cg_1", ANN, ticket=1)
