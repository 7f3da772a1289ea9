"""The feed hands out every entry at least once, and tells what retention took before."""

from typing import Final

import pytest

from metering.errors import InternalError, StorageUnavailable
from metering.store.keys import Keys
from metering.store.raw_feed import Feed, Item
from tests.lua.ledger import Ledger
from tests.support.servers import StoreServer

KEYS: Final = ("{p00}:events", "{p01}:events")


def feed_of(ledger: Ledger, group: str = "sink", reader: str = "one") -> Feed:
    return Feed(ledger.client, Keys(2), group, reader)


def plain(store: StoreServer) -> Ledger:
    return Ledger(store.url, callers=0, test_clock=False)


async def add(ledger: Ledger, *numbers: int, partition: int = 0) -> None:
    for number in numbers:
        await ledger.client.xadd(KEYS[partition], {"n": number})


def told(items: list[Item]) -> list[int | None]:
    return [None if item.fields is None else int(item.fields[b"n"]) for item in items]


async def test_a_new_group_begins_with_what_is_kept(each_store: StoreServer) -> None:
    async with plain(each_store) as ledger:
        await add(ledger, 1, 2)
        await add(ledger, 3, partition=1)
        feed = feed_of(ledger)
        await feed.open()
        items = await feed.unread(None)
        assert (told(items), [item.partition for item in items]) == ([1, 2, 3], [0, 0, 1])
        assert await feed.unread(None) == []
        assert await feed.missed() == {}


async def test_opening_again_changes_nothing(store: StoreServer) -> None:
    async with plain(store) as ledger:
        feed = feed_of(ledger)
        await feed.open()
        await add(ledger, 1)
        await feed.unread(None)
        await feed_of(ledger).open()
        assert await feed.unread(None) == []


async def test_what_was_not_acknowledged_comes_again_to_the_same_reader_first(store: StoreServer) -> None:
    async with plain(store) as ledger:
        feed = feed_of(ledger)
        await feed.open()
        await add(ledger, 1, 2, 3)
        first, *others = await feed.unread(None)
        await feed.acknowledge([first])
        again = feed_of(ledger)
        assert told(await again.mine()) == [2, 3]
        await again.acknowledge(others)
        assert await again.mine() == []


async def test_each_group_gets_everything(store: StoreServer) -> None:
    async with plain(store) as ledger:
        await add(ledger, 1)
        for group in ("a", "b"):
            feed = feed_of(ledger, group)
            await feed.open()
            assert told(await feed.unread(None)) == [1]


async def test_readers_of_a_group_share_it_and_take_over_after_a_while(store: StoreServer) -> None:
    async with plain(store) as ledger:
        one, two = feed_of(ledger), feed_of(ledger, reader="two")
        await one.open()
        await add(ledger, 1)
        (item,) = await one.unread(None)
        assert (await two.unread(None), await two.mine(), await two.left()) == ([], [], [])
        await ledger.client.xclaim(KEYS[0], "sink", "one", 0, [item.name], idle=61_000, justid=True)
        assert told(await two.left()) == [1]
        assert told(await two.mine()) == [1]


async def test_what_retention_ended_after_it_was_handed_out_comes_empty(store: StoreServer) -> None:
    async with plain(store) as ledger:
        one, two = feed_of(ledger), feed_of(ledger, reader="two")
        await one.open()
        await add(ledger, 1, 2)
        await one.unread(None)
        await ledger.client.xtrim(KEYS[0], maxlen=0, approximate=False)
        assert told(await one.mine()) == [None, None]
        assert told(await two.left()) == [None, None]  # gone from everybody's hands
        assert await one.mine() == []


@pytest.mark.parametrize(
    ("read", "kept", "missed"), [(3, 4, 3), (3, 0, 7), (3, 7, 0), (3, 9, 0), (0, 4, 6), (10, 0, 0)]
)
async def test_what_retention_ended_unread_is_told_once(
    each_store: StoreServer, read: int, kept: int, missed: int
) -> None:
    async with plain(each_store) as ledger:
        await add(ledger, -2, -1)
        await ledger.client.xtrim(KEYS[0], maxlen=0, approximate=False)  # before the group there was one: not its loss
        feed = feed_of(ledger)
        await feed.open()
        await add(ledger, *range(read))
        await feed.acknowledge(await feed.unread(None) or [Item(0, "1-1", None)])
        await add(ledger, *range(read, 10))
        await ledger.client.xtrim(KEYS[0], maxlen=kept, approximate=False)
        assert await feed.missed() == ({0: missed} if missed else {})
        assert await feed.missed() == {}
        unread = min(kept, 10 - read)
        assert told(await feed.unread(None)) == list(range(10 - unread, 10))
        assert await feed.missed() == {}


async def test_a_feed_whose_group_is_gone_says_so_and_can_be_opened_again(store: StoreServer) -> None:
    async with plain(store) as ledger:
        feed = feed_of(ledger)
        await feed.open()
        await ledger.client.flushdb()
        with pytest.raises(InternalError):
            await feed.unread(None)
        await feed.open()
        assert await feed.unread(None) == []


async def test_a_store_that_is_away_is_told() -> None:
    with StoreServer() as server:
        async with plain(server) as ledger:
            feed = feed_of(ledger)
            await feed.open()
            server.kill()
            for call in (feed.open(), feed.mine(), feed.left(), feed.missed()):
                with pytest.raises(StorageUnavailable):
                    await call
