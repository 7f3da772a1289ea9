"""take_back.lua: what is taken back of a grant is a total, whoever says it, how often and in which order."""

import itertools
from typing import Any

import pytest

from metering.errors import GrantNotFound
from metering.store.credits import TakenBack
from metering.store.grants import Causes
from tests.lua.crediting import ANN, credits_of, history_of, joined, lines_of, order, spend, texts_of
from tests.lua.effecting import trail_of
from tests.lua.ledger import Ledger
from tests.lua.scenes import DAY_MS, calm, lawful, move_to
from tests.support.servers import StoreServer


def figures(told: TakenBack) -> tuple[int, int, int, int]:
    return told.asked, told.taken, told.owed, told.balance


async def take(ledger: Ledger, asked: int, ticket: int, **other: Any) -> tuple[int, int, int, int]:
    return figures(await credits_of(ledger).take_back("acme", "cg_1", asked, ANN, ticket=ticket, **other))


async def granted(ledger: Ledger, **other: Any) -> None:
    await joined(ledger)
    await credits_of(ledger).grant("acme", order(**other), ANN)


async def test_a_refund_takes_what_was_not_spent_and_tells_the_rest(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await granted(ledger)
        await spend(ledger, 30)
        assert await take(ledger, 50, 1, causes=Causes("re_1")) == (50, 50, 0, 20)
        told = await credits_of(ledger).take_back("acme", "cg_1", 100, ANN, ticket=2)
        assert (figures(told), told.spent) == ((100, 70, 0, 0), 30)
        assert [line[:3] for line in await lines_of(ledger)][1:] == [
            ("refunded", "cg_1", 50),
            ("refunded", "cg_1", 20),
        ]
        assert (await trail_of(ledger))[-1]["type"] == "credits_taken_back"
        grant = await credits_of(ledger).find("acme", "cg_1")
        assert (grant.left, grant.burned, grant.taken) == (0, 30, 70)
        await lawful(ledger)


async def test_readings_in_any_order_and_twice_end_with_the_newest(store: StoreServer) -> None:
    """Two refunds of 30, of which the first fails in the end: the newest reading says 30."""
    readings = [(30, 1), (60, 2), (30, 3)]
    async with calm(store.url, partitions=1) as ledger:
        await joined(ledger)
        book = credits_of(ledger)
        for number, path in enumerate(itertools.permutations([*readings, (60, 2)])):
            await book.grant("acme", order(f"cg_{number}"), ANN)
            for asked, ticket in path:
                last = await book.take_back("acme", f"cg_{number}", asked, ANN, ticket=ticket)
            assert (last.asked, last.taken) == (30, 30), path
        await lawful(ledger)


async def test_a_reading_that_is_repeated_writes_nothing_more(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await granted(ledger)
        await take(ledger, 40, 5)
        before = await ledger.dump()
        assert await take(ledger, 40, 5) == (40, 40, 0, 60)
        assert await take(ledger, 90, 4) == (40, 40, 0, 60)
        assert await ledger.dump() == before


async def test_a_refund_that_failed_gives_its_credits_back_into_the_grant(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await granted(ledger, expires_ms=await ledger_end(ledger), priority=7)
        await take(ledger, 100, 1)
        assert "cg_1" not in await texts_of(ledger, ledger.keys.pool("acme"))
        assert await take(ledger, 0, 2) == (0, 0, 0, 100)
        [grant] = (await credits_of(ledger).balance("acme")).grants
        assert (grant.left, grant.priority, grant.expires_ms) == (100, 7, await ledger_end(ledger))
        assert [line[0] for line in await lines_of(ledger)] == ["granted", "refunded", "restored"]
        await lawful(ledger)


async def ledger_end(ledger: Ledger) -> int:
    """The end of the next day."""
    return (await ledger.now_ms() // DAY_MS + 2) * DAY_MS


async def test_credits_that_come_back_after_their_expiry_have_expired(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        ends = await ledger_end(ledger)
        await granted(ledger, expires_ms=ends, effective_ms=ends - 2 * DAY_MS, rollover=10)
        await take(ledger, 100, 1)
        await move_to(ledger, ends)
        assert await take(ledger, 60, 2) == (60, 60, 0, 10)
        grant = await credits_of(ledger).find("acme", "cg_1")
        assert (grant.left, grant.expired, grant.expires_ms) == (10, 30, ends + 2 * DAY_MS)
        await lawful(ledger)


async def test_spent_credits_become_a_debt_only_where_that_is_allowed(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await granted(ledger)
        await spend(ledger, 80)
        assert await take(ledger, 50, 1) == (50, 20, 0, 0)
        assert await take(ledger, 50, 2, owable=[(0, 50)]) == (50, 20, 30, -30)
        assert (await credits_of(ledger).balance("acme")).owed == 30
        assert await take(ledger, 30, 3, owable=[(0, 30)]) == (30, 20, 10, -10)
        assert await take(ledger, 10, 4) == (10, 10, 0, 10)
        await lawful(ledger)


async def test_a_revocation_takes_all_that_is_left_and_no_reading_undoes_it(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await granted(ledger)
        await spend(ledger, 10)
        await take(ledger, 20, 1)
        book = credits_of(ledger)
        assert figures(await book.revoke("acme", "cg_1", ANN)) == (20, 90, 0, 0)
        before = await ledger.dump()
        assert figures(await book.revoke("acme", "cg_1", ANN)) == (20, 90, 0, 0)
        assert await ledger.dump() == before
        assert await take(ledger, 0, 2) == (0, 90, 0, 0)
        assert (await lines_of(ledger))[2][:3] == ("revoked", "cg_1", 70)
        assert (await book.find("acme", "cg_1")).revoked
        await lawful(ledger)


async def test_a_grant_that_is_not_there_is_told_and_nothing_written(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await granted(ledger)
        before = await ledger.dump()
        for name in ("cg_2", "cg_1|a"):
            with pytest.raises(GrantNotFound):
                await credits_of(ledger).take_back("acme", name, 1, ANN, ticket=1)
        assert await ledger.dump() == before


async def test_what_lacks_falls_on_the_newest_refund_and_is_owed_where_that_one_says_so(store: StoreServer) -> None:
    """100 credits, 80 spent; a refund of 30 that lets spent ones go, then one of 40 that does not, and the reverse."""
    for owable, owed in (([(0, 30)], 10), ([(30, 70)], 40), ([(0, 70)], 50), ([(25, 40), (60, 70)], 25)):
        store.say("FLUSHALL", "SYNC")
        async with calm(store.url) as ledger:
            await granted(ledger)
            await spend(ledger, 80)
            assert await take(ledger, 70, 1, owable=owable) == (70, 20, owed, -owed)
            await credits_of(ledger).revoke("acme", "cg_1", ANN)  # which changes nothing of what is owed
            assert (await credits_of(ledger).balance("acme")).owed == owed
            await lawful(ledger)


async def test_statement_and_history_name_what_took_credits_and_what_gave_them_back(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await granted(ledger)
        book = credits_of(ledger)
        await take(ledger, 30, 1, causes=Causes(taken="re_1"))
        await take(ledger, 30, 2, causes=Causes(taken="re_9", restored="re_9"))  # which changes nothing
        await take(ledger, 10, 3, causes=Causes(taken="re_9", restored="re_2"))
        await take(ledger, 100, 4, causes=Causes(taken="du_1", restored="re_2"))
        lines, _ = await book.transactions("acme", 10)
        told = [(line.kind, line.credits, line.ref) for line in reversed(lines)]
        assert told[1:] == [("refunded", -30, "re_1"), ("restored", 20, "re_2"), ("refunded", -90, "du_1")]
        steps = [step for step in await history_of(ledger) if step.entry.kind == "credits_taken_back"]
        assert [step.refund for step in reversed(steps)] == ["re_1", "re_2", None]
