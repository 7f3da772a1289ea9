"""The totals of money: each order, refund and payment is in them once, whoever tells of it and in whatever order."""

import asyncio
from collections import Counter
from itertools import permutations
from typing import Any, Final

import pytest

from metering.errors import OrgCorrupt
from metering.store.effects import Decide, Decision
from metering.store.grants import Refunds
from metering.store.org import Org
from metering.store.shared import read_shared
from metering.store.totals import CREDITS, FAILED, payment_total
from plans.billing_periods import Alignment
from plans.credits import Kind
from tests.lua.crediting import ANN, credits_of, joined, order
from tests.lua.effecting import effects_of
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, lawful
from tests.support.servers import StoreServer

BOUGHT: Final[dict[str, Any]] = {
    "kind": Kind.PAID, "source": {"payment_intent": "pi_1", "amount_minor": 900, "currency": "usd"},
}  # fmt: skip


async def sales(ledger: Ledger) -> dict[tuple[str, ...], int]:
    return dict((await read_shared(ledger.client, ledger.keys, top=1)).totals.sales)


def of_refunds(begun: int, begun_minor: int, failed: int = 0, failed_minor: int = 0) -> dict[tuple[str, ...], int]:
    """The totals of refunds, but for those that are nothing."""
    names = ("refunds", "refund_value", "refunds_failed", "refund_failed_value")
    figures = zip(names, (begun, begun_minor, failed, failed_minor), strict=True)
    return {(name, "usd"): number for name, number in figures if number}


async def test_an_order_is_counted_with_its_grant_and_once(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=4) as ledger:
        await joined(ledger)
        await joined(ledger, "beta")
        books = [credits_of(ledger, caller) for caller in (0, 1, 0, 1)]
        await asyncio.gather(*(book.grant("acme", order(**BOUGHT), ANN) for book in books))
        await books[0].grant("beta", order("cg_2", **BOUGHT), ANN)
        await books[0].grant("beta", order("cg_3", amount=500, **BOUGHT), ANN)
        assert await sales(ledger) == {
            ("orders", "usd", "100"): 2, ("order_value", "usd", "100"): 1800,
            ("orders", "usd", "500"): 1, ("order_value", "usd", "500"): 900,
        }  # fmt: skip
        await lawful(ledger)


@pytest.mark.parametrize("other", [{}, {"kind": Kind.PAID}, {**BOUGHT, "kind": Kind.PROMOTIONAL}])
async def test_credits_that_nobody_paid_for_here_are_no_order(store: StoreServer, other: dict[str, Any]) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        await credits_of(ledger).grant("acme", order(**other), ANN)
        assert await sales(ledger) == {}


async def test_refunds_are_what_the_newest_reading_found_in_whatever_order_they_are_read(store: StoreServer) -> None:
    """Two refunds of 300 minor units; the first fails in the end."""
    readings = [(33, 1, Refunds("usd", 1, 300, 0, 0)), (66, 2, Refunds("usd", 2, 600, 0, 0)),
                (33, 3, Refunds("usd", 2, 600, 1, 300))]  # fmt: skip
    async with calm(store.url, partitions=1) as ledger:
        await joined(ledger)
        book, ways = credits_of(ledger), list(permutations([*readings, readings[1]]))
        before: Counter[tuple[str, ...]] = Counter()
        for number, way in enumerate(ways):
            await book.grant("acme", order(f"cg_{number}"), ANN)
            for asked, ticket, refunds in way:
                await book.take_back("acme", f"cg_{number}", asked, ANN, ticket=ticket, refunds=refunds)
                now = Counter(await sales(ledger))
                assert before <= now, "no total falls"
                before = now
            await book.revoke("acme", f"cg_{number}", ANN)  # which is no refund
        times = len(ways)
        assert await sales(ledger) == of_refunds(2 * times, 600 * times, times, 300 * times)
        await lawful(ledger)


async def test_a_reading_that_found_less_than_another_takes_nothing_away(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book = credits_of(ledger)
        await book.grant("acme", order(), ANN)
        for ticket, found in enumerate([(2, 600), (1, 300), (3, 700)]):
            await book.take_back("acme", "cg_1", 10, ANN, ticket=ticket, refunds=Refunds("usd", *found, 0, 0))
        assert await sales(ledger) == of_refunds(3, 700)


def failing(org: Org, _: int) -> Decision:
    counted = (payment_total(CREDITS, FAILED),)
    return Decision(org.plan, org.profile, Alignment(None, org.period), (("payment_intent.payment_failed",),), counted)


async def test_a_payment_that_failed_is_counted_with_its_event_and_once(each_store: StoreServer) -> None:
    decide: Decide = failing
    async with calm(each_store.url) as ledger:
        await joined(ledger)
        twice = [effects_of(ledger, caller).apply("acme", "evt_1", decide) for caller in (0, 1, 0)]
        await asyncio.gather(*twice)
        await effects_of(ledger).apply("acme", "evt_2", decide)
        assert await sales(ledger) == {("payments", "credits", "failed"): 2}


@pytest.mark.parametrize("name", ["orders:usd:100", "order_value:usd:100"])
async def test_an_order_is_not_made_where_its_total_is_no_number(store: StoreServer, name: str) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await joined(ledger)
        await ledger.client.hset(ledger.keys.shared("totals", 0), name, "junk")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await credits_of(ledger).grant("acme", order(**BOUGHT), ANN)
        assert await ledger.dump() == before


@pytest.mark.parametrize("where", ["totals", "grants"])
async def test_nothing_is_taken_back_where_a_figure_of_refunds_is_no_number(store: StoreServer, where: str) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await joined(ledger)
        await credits_of(ledger).grant("acme", order(), ANN)
        key, name = (ledger.keys.grants("acme"), "cg_1|m")
        if where == "totals":
            key, name = ledger.keys.shared("totals", 0), "refund_value:usd"
        await ledger.client.hset(key, name, "junk")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await credits_of(ledger).take_back("acme", "cg_1", 5, ANN, ticket=1, refunds=Refunds("usd", 1, 50, 0, 0))
        assert await ledger.dump() == before
