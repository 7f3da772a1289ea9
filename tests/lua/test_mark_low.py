"""mark_low.lua: the mark below which credits are low, and who may want more."""

import pytest

from metering.errors import OrgNotFound
from tests.lua.crediting import ANN, credits_of, joined, order
from tests.lua.effecting import trail_of
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, lawful
from tests.support.servers import StoreServer


async def wanting(ledger: Ledger) -> list[bytes]:
    found: list[bytes] = await ledger.client.zrange(ledger.keys.shared("topups", ledger.keys.partition("acme")), 0, -1)
    return found


async def test_a_mark_above_the_balance_puts_the_organisation_on_the_list_until_it_has_more(
    each_store: StoreServer,
) -> None:
    async with calm(each_store.url) as ledger:
        await joined(ledger)
        book = credits_of(ledger)
        assert await book.mark_low("acme", 50, ANN) == 0
        assert await wanting(ledger) == [b"acme"]
        await book.grant("acme", order(amount=49), ANN)
        assert await wanting(ledger) == [b"acme"]
        await book.grant("acme", order("cg_2", 1), ANN)
        assert await wanting(ledger) == []
        assert not (await book.balance("acme")).low
        await lawful(ledger)


async def test_without_a_mark_nothing_is_low(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book = credits_of(ledger)
        await book.mark_low("acme", 50, ANN)
        before = await ledger.dump()
        await book.mark_low("acme", 50, ANN)
        assert await ledger.dump() == before
        await book.mark_low("acme", None, ANN)
        told = await book.balance("acme")
        assert (told.low_mark, told.low, await wanting(ledger)) == (None, False, [])
        assert [entry["low"] for entry in await trail_of(ledger) if entry["type"] == "credits_mark_set"] == ["50", ""]


async def test_the_mark_of_nobody_is_refused(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        with pytest.raises(OrgNotFound):
            await credits_of(ledger).mark_low("nobody", 1, ANN)
