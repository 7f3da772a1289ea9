"""end_topup.lua: an attempt ends once, paid or not; what stopped it is told until the rule is set again."""

from metering.store.topups import Stop
from tests.lua.crediting import ANN
from tests.lua.effecting import trail_of
from tests.lua.scenes import DAY_MS, calm, move_to
from tests.lua.topping import PRICE, RULE, attempt, low
from tests.support.servers import StoreServer


async def test_an_attempt_ends_once(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        book = await low(ledger)
        await book.begin("acme", attempt(), ANN)
        await book.end("acme", "tu_1", ANN)
        before = await ledger.dump()
        await book.end("acme", "tu_1", ANN)
        await book.end("acme", "tu_1", ANN, stop=Stop.DECLINED, detail="late")
        await book.end("acme", "tu_other", ANN)
        assert await ledger.dump() == before
        kept = await book.find("acme")
        assert kept is not None
        assert (kept.attempt, kept.stopped) == (None, None)
        assert kept.used(await ledger.now_ms()) == (1, PRICE)


async def test_what_stopped_it_stays_until_the_rule_is_set_again(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        book = await low(ledger)
        await book.begin("acme", attempt(), ANN)
        await book.end("acme", "tu_1", ANN, stop=Stop.DECLINED, detail="card_declined")
        kept = await book.find("acme")
        assert kept is not None
        assert kept.stopped is not None
        assert (kept.stopped.why, kept.stopped.detail) == ("declined", "card_declined")
        assert kept.used(await ledger.now_ms()) == (1, 0)
        await move_to(ledger, await ledger.now_ms() + DAY_MS)
        assert await book.ready("acme", 500, PRICE) == "stopped"
        assert await book.wanting(await ledger.now_ms()) == []
        await book.set("acme", RULE, "cus_1", ANN)
        assert await book.wanting(await ledger.now_ms()) == ["acme"]
        assert await book.ready("acme", 500, PRICE) == ""
        (told,) = [entry for entry in await trail_of(ledger) if entry["type"] == "topup_stopped"]
        assert (told["why"], told["detail"], told["attempt"]) == ("declined", "card_declined", "tu_1")


async def test_it_stops_without_an_attempt_as_well_and_once(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        book = await low(ledger)
        await book.end("acme", "", ANN, stop=Stop.NO_METHOD)
        before = await ledger.dump()
        await book.end("acme", "", ANN, stop=Stop.DISPUTED)
        assert await ledger.dump() == before
        kept = await book.find("acme")
        assert kept is not None
        assert kept.stopped is not None
        assert kept.stopped.why == "no-payment-method"


async def test_an_attempt_under_way_is_looked_at_again_after_a_while(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        book = await low(ledger)
        await book.begin("acme", attempt(), ANN)
        now_ms = await ledger.now_ms()
        assert await book.under_way(now_ms) == []
        assert await book.under_way(now_ms + 150_000) == ["acme"]
        await book.look_later("acme", now_ms + 150_000)
        assert await book.under_way(now_ms + 200_000) == []
        await book.end("acme", "tu_1", ANN)
        assert await book.under_way(now_ms + DAY_MS) == []
        await book.look_later("acme", now_ms)
        assert await book.under_way(now_ms + DAY_MS) == []
