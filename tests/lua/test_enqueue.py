"""enqueue.lua: all of a call or none, within the bound, by clocks that agree."""

from typing import Any, Final

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError

from metering.store.scripts import script
from tests.lua.ledger import Ledger
from tests.support.servers import StoreServer

QUEUE: Final = "{p00}:queue"
CLOCK: Final = "{p00}:clock"

ENTRIES: Final = ("acme.x", "to-1", "box-1", "acme.x", "to-2", "box-2")


async def ask(ledger: Ledger, *entries: str, offset: str = "", most: int = 10, skew_ms: int = 0) -> list[Any]:
    """Run the script."""
    keys = [QUEUE] if offset == "" else [QUEUE, CLOCK]
    seconds, micros = await ledger.client.time()
    caller_ms = seconds * 1000 + micros // 1000 + skew_ms
    words = ["EVAL", script("enqueue").text, len(keys), *keys, caller_ms, offset, most, *entries]
    reply: list[Any] = await ledger.client.execute_command(*words)
    return reply


def plain(store: StoreServer) -> Ledger:
    return Ledger(store.url, partitions=1, callers=0, test_clock=False)


async def test_entries_stand_in_the_queue_in_their_order(each_store: StoreServer) -> None:
    async with plain(each_store) as ledger:
        now_ms = await ledger.now_ms()
        code, told_ms, length = await ask(ledger, *ENTRIES)
        assert (code, length) == (1, 2)
        assert 0 <= told_ms - now_ms < 1000
        entries = await ledger.client.xrange(QUEUE)
        assert [fields for _, fields in entries] == [
            {b"org": b"acme.x", b"to": b"to-1", b"box": b"box-1"},
            {b"org": b"acme.x", b"to": b"to-2", b"box": b"box-2"},
        ]
        assert abs(int(entries[0][0].split(b"-")[0]) - told_ms) <= 1


@pytest.mark.parametrize(("most", "code", "length"), [(2, 1, 2), (1, 0, 0), (0, 0, 0)])
async def test_a_call_that_would_pass_the_bound_appends_nothing(
    store: StoreServer, most: int, code: int, length: int
) -> None:
    async with plain(store) as ledger:
        told = await ask(ledger, *ENTRIES, most=most)
        assert (told[0], told[2], await ledger.client.xlen(QUEUE)) == (code, length, length)


async def test_a_full_queue_says_how_full(store: StoreServer) -> None:
    async with plain(store) as ledger:
        await ask(ledger, *ENTRIES, most=3)
        before = await ledger.dump()
        assert (await ask(ledger, *ENTRIES, most=3))[::2] == [0, 2]
        assert await ledger.dump() == before


@pytest.mark.parametrize("skew_ms", [61_000, -61_000])
async def test_clocks_apart_append_nothing(store: StoreServer, skew_ms: int) -> None:
    async with plain(store) as ledger:
        assert (await ask(ledger, *ENTRIES, skew_ms=skew_ms))[::2] == [-1, 0]
        assert await ledger.dump() == {}


async def test_under_a_test_clock_an_entry_carries_the_offset(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=0) as ledger:
        await ledger.jump_to(await ledger.now_ms() + 86_400_000)
        offset = str(ledger.offset_ms)
        code, now_ms, _ = await ask(ledger, *ENTRIES[:3], offset=offset)
        ((name, fields),) = await ledger.client.xrange(QUEUE)
        assert (code, fields[b"offset"]) == (1, offset.encode())
        assert abs(int(name.split(b"-")[0]) + ledger.offset_ms - now_ms) <= 1


async def test_another_test_offset_appends_nothing(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=0) as ledger:
        assert (await ask(ledger, *ENTRIES, offset="7"))[::2] == [-1, 0]
        assert await ledger.client.exists(QUEUE) == 0


async def test_a_queue_of_another_type_is_left_as_it_is(store: StoreServer) -> None:
    async with plain(store) as ledger:
        await ledger.client.set(QUEUE, "x")
        before = await ledger.dump()
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await ask(ledger, *ENTRIES)
        assert await ledger.dump() == before


async def test_a_full_store_appends_nothing(store: StoreServer) -> None:
    async with plain(store) as ledger:
        await ledger.client.config_set("maxmemory", 1)
        try:
            with pytest.raises(OutOfMemoryError):
                await ask(ledger, *ENTRIES)
            assert await ledger.client.exists(QUEUE) == 0
        finally:
            await ledger.client.config_set("maxmemory", 0)
