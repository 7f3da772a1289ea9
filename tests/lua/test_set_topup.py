"""set_topup.lua: when credits are bought by themselves, and within which bounds."""

from dataclasses import replace

from tests.lua.crediting import ANN, joined
from tests.lua.effecting import trail_of
from tests.lua.scenes import calm, lawful
from tests.lua.topping import RULE, attempt, low, topups_of
from tests.support.servers import StoreServer


async def test_what_is_set_is_kept_and_told(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await joined(ledger)
        book = topups_of(ledger)
        assert await book.find("acme") is None
        await book.set("acme", RULE, "cus_1", ANN)
        kept = await book.find("acme")
        assert kept is not None
        assert (kept.rule, kept.customer, kept.attempt, kept.stopped, kept.tries) == (RULE, "cus_1", None, None, ())
        (told,) = [entry for entry in await trail_of(ledger) if entry["type"] == "topup_set"]
        assert (told["actor"], told["package"], told["per_day"]) == ("ann", "500", "3")
        await lawful(ledger)


async def test_what_is_under_way_goes_on_and_its_bounds_stay(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        book = await low(ledger)
        await book.begin("acme", attempt(), ANN)
        await book.set("acme", replace(RULE, enabled=False), "cus_2", ANN)
        kept = await book.find("acme")
        assert kept is not None
        assert kept.attempt is not None
        assert (kept.attempt.customer, kept.customer, len(kept.tries)) == ("cus_1", "cus_2", 1)
        await book.end("acme", "tu_1", ANN)
        assert await book.wanting(await ledger.now_ms() + 10**9) == []
