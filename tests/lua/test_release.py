"""release.lua: a hold is let go of, or lives longer, once, and only while it is open."""

import pytest

from metering.store.holds import HoldState
from metering.store.scripts import script
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, lawful, move_to
from tests.support.servers import StoreServer

TTL_MS = 60_000
DAY_S = 86_400


async def placed(ledger: Ledger, quantity: int = 4) -> None:
    """Acme holds some checks, of which its plan has ten."""
    hold, _ = await ledger.callers[0].holds.place("acme", "r1", "checks", quantity, TTL_MS)
    assert hold is not None


async def held(ledger: Ledger) -> int:
    return int(await ledger.client.hget(ledger.keys.record("acme"), "h:checks") or 0)


async def test_what_is_let_go_of_is_free_again_at_once(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await placed(ledger)
        assert await held(ledger) == 4
        holds = ledger.callers[1].holds
        assert await holds.release("acme", "r1")
        assert await held(ledger) == 0
        assert not await holds.release("acme", "r1")
        assert await held(ledger) == 0
        found = await holds.find("acme", "r1")
        assert found is not None
        assert found.state is HoldState.RELEASED
        await lawful(ledger)


async def test_a_longer_life_counts_from_now_and_only_while_the_hold_is_open(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await placed(ledger)
        holds = ledger.callers[0].holds
        await move_to(ledger, await ledger.now_ms() + TTL_MS - 5_000)
        found = await holds.extend("acme", "r1", TTL_MS)
        assert found is not None
        await move_to(ledger, await ledger.now_ms() + TTL_MS - 5_000)
        assert (await holds.find("acme", "r1")) == found
        await move_to(ledger, found.expires_ms)
        assert await holds.extend("acme", "r1", TTL_MS) is None
        assert not await holds.release("acme", "r1")
        assert await holds.extend("acme", "nobody", TTL_MS) is None


async def test_what_is_known_of_a_hold_outlives_it_by_a_day_however_long_that_becomes(store: StoreServer) -> None:
    """Without that a hold that was extended could not be settled any more."""
    async with calm(store.url) as ledger:
        await placed(ledger)
        key = ledger.keys.hold("acme", "r1")
        assert DAY_S < await ledger.client.ttl(key) <= DAY_S + TTL_MS // 1000
        await ledger.callers[0].holds.extend("acme", "r1", DAY_S * 1000)
        assert 2 * DAY_S - 60 < await ledger.client.ttl(key) <= 2 * DAY_S


async def test_clocks_apart_write_nothing(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await placed(ledger)
        before, keys = await ledger.dump(), ledger.keys
        partition = keys.partition("acme")
        names = [keys.record("acme"), keys.holds("acme"), keys.hold("acme", "r1"), keys.shared("expiring", partition)]
        for caller_ms, offset in ((0, ledger.offset_ms), (ledger.callers[0].clock.now_ms(), ledger.offset_ms + 1)):
            arguments = [caller_ms, offset, "r1", ""]
            reply = await ledger.client.execute_command(
                "EVAL", script("release").text, 5, *names, keys.shared("clock", partition), *arguments
            )
            assert reply[0] == -1
        assert await ledger.dump() == before


@pytest.mark.parametrize("name", ["record", "holds"])
async def test_a_key_of_another_type_leaves_the_others_alone(store: StoreServer, name: str) -> None:
    async with calm(store.url) as ledger:
        await placed(ledger)
        key = ledger.keys.record("acme") if name == "record" else ledger.keys.holds("acme")
        await ledger.client.set(key, "junk")
        before = await ledger.dump()
        with pytest.raises(Exception, match=r"(?i)shape"):
            await ledger.callers[0].holds.release("acme", "r1")
        assert await ledger.dump() == before
