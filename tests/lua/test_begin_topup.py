"""begin_topup.lua: one attempt a trigger, within the caps, written down before Stripe hears of it."""

import asyncio
from dataclasses import replace

import pytest

from metering.errors import OrgCorrupt
from metering.store.topups import MONTH_MS, Rule
from tests.lua.crediting import ANN, credits_of, order
from tests.lua.effecting import trail_of
from tests.lua.scenes import DAY_MS, HOUR_MS, calm, lawful, move_to
from tests.lua.topping import MARK, PRICE, RULE, attempt, low, topups_of
from tests.support.servers import StoreServer


async def test_an_attempt_is_written_down_with_all_that_its_call_says(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        book = await low(ledger)
        now_ms = await ledger.now_ms()
        assert await book.wanting(now_ms) == ["acme"]
        assert await book.begin("acme", attempt(), ANN)
        kept = await book.find("acme")
        assert kept is not None
        assert kept.attempt is not None
        assert now_ms <= kept.attempt.at_ms
        assert replace(kept.attempt, at_ms=0) == attempt()
        assert kept.used(kept.attempt.at_ms) == (1, PRICE)
        assert [entry["attempt"] for entry in await trail_of(ledger) if entry["type"] == "topup_begun"] == ["tu_1"]
        await lawful(ledger)


async def test_of_many_workers_one_begins(store: StoreServer) -> None:
    async with calm(store.url, callers=4) as ledger:
        await low(ledger)
        books = [topups_of(ledger, number) for number in range(4)]
        begun = await asyncio.gather(
            *(book.begin("acme", attempt(f"tu_{n}{turn}"), ANN) for n, book in enumerate(books) for turn in range(5))
        )
        assert sum(begun) == 1


async def test_only_whoever_is_low_and_wants_it_is_topped_up(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        book = await low(ledger, replace(RULE, enabled=False))
        assert await book.wanting(await ledger.now_ms()) == []
        assert await book.ready("acme", 500, PRICE) == "off"
        await book.set("acme", RULE, "cus_1", ANN)
        assert await book.ready("acme", 100, 1000) == "changed"
        assert await book.ready("acme", 500, PRICE) == ""
        before = await ledger.dump()
        assert await book.ready("acme", 500, PRICE) == ""
        assert await ledger.dump() == before  # to ask begins nothing
        await credits_of(ledger).grant("acme", order("cg_2", MARK), ANN)
        assert await book.ready("acme", 500, PRICE) == "enough"
        assert await book.wanting(await ledger.now_ms()) == []


async def test_while_a_payment_is_disputed_none_is_made(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        book = await low(ledger)
        await credits_of(ledger).freeze("acme", "cg_1", ANN, ticket=1)
        assert await book.ready("acme", 500, PRICE) == "held"


async def test_the_cooldown_lies_between_two_attempts(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        book = await low(ledger)
        await book.begin("acme", attempt(), ANN)
        assert await book.ready("acme", 500, PRICE) == "begun"
        await book.end("acme", "tu_1", ANN)
        assert await book.ready("acme", 500, PRICE) == "cooling"
        assert await book.wanting(await ledger.now_ms()) == []
        await move_to(ledger, await ledger.now_ms() + RULE.cooldown_ms)
        assert await book.wanting(await ledger.now_ms()) == ["acme"]
        assert await book.begin("acme", attempt("tu_2"), ANN)


async def test_no_24_hours_have_more_attempts_than_may_be(store: StoreServer) -> None:
    rule = Rule(True, 500, 2, 10**9, 60_000)
    async with calm(store.url) as ledger:
        book = await low(ledger, rule)
        first_ms = await ledger.now_ms()
        for number in range(2):
            await move_to(ledger, first_ms + number * 20 * HOUR_MS)
            assert await book.begin("acme", attempt(f"tu_{number}"), ANN)
            await book.end("acme", f"tu_{number}", ANN)
        await move_to(ledger, first_ms + 23 * HOUR_MS)
        assert await book.ready("acme", 500, PRICE) == "day"
        assert await book.wanting(await ledger.now_ms()) == []
        await move_to(ledger, first_ms + DAY_MS + 60_000)
        assert await book.wanting(await ledger.now_ms()) == ["acme"]
        assert await book.begin("acme", attempt("tu_2"), ANN)
        await book.end("acme", "tu_2", ANN)
        await move_to(ledger, first_ms + DAY_MS + 180_000)
        assert await book.ready("acme", 500, PRICE) == "day"


async def test_no_31_days_cost_more_than_may_be_and_what_was_not_paid_costs_nothing(store: StoreServer) -> None:
    rule = Rule(True, 500, 24, 2 * PRICE, 60_000)
    async with calm(store.url) as ledger:
        book = await low(ledger, rule)
        first_ms = await ledger.now_ms()
        for number, paid in enumerate((True, False, True)):
            await move_to(ledger, first_ms + number * HOUR_MS)
            assert await book.begin("acme", attempt(f"tu_{number}"), ANN)
            await (book.end if paid else book.forget)("acme", f"tu_{number}", ANN)
        await move_to(ledger, first_ms + 30 * DAY_MS)
        assert await book.ready("acme", 500, PRICE) == "month"
        await move_to(ledger, first_ms + MONTH_MS + 1000)
        assert await book.begin("acme", attempt("tu_3"), ANN)
        await book.end("acme", "tu_3", ANN)
        kept = await book.find("acme")
        assert kept is not None
        assert [amount for _, amount in kept.tries] == [0, PRICE, PRICE]  # the first one is past, and gone
        await move_to(ledger, first_ms + MONTH_MS + 180_000)
        assert await book.ready("acme", 500, PRICE) == "month"


@pytest.mark.parametrize(("name", "text"), [("per_day", "x"), ("t|tu_0", "1"), ("cooldown", "-1")])
async def test_a_figure_that_is_none_begins_nothing(store: StoreServer, name: str, text: str) -> None:
    async with calm(store.url) as ledger:
        book = await low(ledger)
        await ledger.client.hset(ledger.keys.topup("acme"), name, text)
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await book.begin("acme", attempt(), ANN)
        assert await ledger.dump() == before
