"""lapse.lua and the job around it: what expired is written down, once, whoever looks first."""

from tests.lua.crediting import ANN, credits_of, joined, lines_of, order
from tests.lua.ledger import Ledger
from tests.lua.scenes import DAY_MS, calm, lawful, move_to
from tests.support.servers import StoreServer


async def due(ledger: Ledger) -> list[tuple[bytes, float]]:
    key = ledger.keys.shared("lapsing", ledger.keys.partition("acme"))
    found: list[tuple[bytes, float]] = await ledger.client.zrange(key, 0, -1, withscores=True)
    return found


async def test_what_is_left_at_the_expiry_rolls_over_once_and_then_expires(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await joined(ledger)
        book, start_ms = credits_of(ledger), await ledger.now_ms()
        ends = start_ms + DAY_MS
        await book.grant("acme", order(effective_ms=start_ms, expires_ms=ends, rollover=30), ANN)
        assert await due(ledger) == [(b"acme", ends)]
        await move_to(ledger, ends - 60_000)
        await book.lapse()
        assert len(await lines_of(ledger)) == 1
        await move_to(ledger, ends)
        assert (await book.balance("acme")).balance == 30
        await book.lapse()
        assert (await lines_of(ledger))[1:] == [("expired", "cg_1", 70, 30), ("rolled_over", "cg_1", 30, 30)]
        assert await due(ledger) == [(b"acme", ends + DAY_MS)]
        await lawful(ledger)
        await move_to(ledger, ends + DAY_MS)
        for _ in range(2):
            await book.lapse()
        assert (await lines_of(ledger))[3:] == [("expired", "cg_1", 30, 0)]
        assert await due(ledger) == []
        grant = await book.find("acme", "cg_1")
        assert (grant.left, grant.expired, grant.burned) == (0, 100, 0)
        await lawful(ledger)


async def test_a_reader_sees_an_expiry_that_nobody_wrote_down(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book, ends = credits_of(ledger), await ledger.now_ms() + DAY_MS
        await book.grant("acme", order(expires_ms=ends), ANN)
        await move_to(ledger, ends)
        grant = await book.find("acme", "cg_1")
        assert (grant.left, grant.expired, (await book.balance("acme")).balance) == (0, 100, 0)


async def test_an_expiry_that_takes_the_balance_below_its_mark_is_told_once(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book, ends = credits_of(ledger, low=20), await ledger.now_ms() + DAY_MS
        await book.grant("acme", order(expires_ms=ends), ANN)
        await move_to(ledger, ends)
        for _ in range(2):
            await book.lapse()
        assert [line[0] for line in await lines_of(ledger)] == ["granted", "expired", "low"]


async def test_an_organisation_whose_credits_cannot_be_read_is_passed_over(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        book, ends = credits_of(ledger), await ledger.now_ms() + DAY_MS
        for name in ("acme", "bolt"):
            await joined(ledger, name)
            await book.grant(name, order(expires_ms=ends), ANN)
        await ledger.client.hset(ledger.keys.pool("acme"), "cg_0", "junk")
        await move_to(ledger, ends)
        await book.lapse()
        assert [line[0] for line in await lines_of(ledger, "bolt")] == ["granted", "expired"]
