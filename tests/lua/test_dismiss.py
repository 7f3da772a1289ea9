"""dismiss.lua: an event leaves the inbox once, and is counted with that."""

import asyncio
from typing import Any, Final

import pytest
from redis.exceptions import ResponseError

from metering.store.inbox import GROUP
from metering.store.scripts import script
from tests.lua.letters import client_of, counted, entries, inbox_of, stripe_event
from tests.support.servers import StoreServer

INBOX: Final = "{p00}:inbox"
TOTALS: Final = "{p00}:totals"


async def ask(client: Any, name: str, kind: str = "") -> int:
    """Run the script."""
    words = ["EVAL", script("dismiss").text, 2, INBOX, TOTALS, GROUP, name, kind]
    reply: int = await client.execute_command(*words)
    return reply


async def put(client: Any) -> str:
    """An entry that was handed to a reader; its name."""
    name: bytes = await client.xadd(INBOX, {"event": "evt_1"})
    await client.xgroup_create(INBOX, GROUP, id="0")
    await client.xreadgroup(GROUP, "worker", {INBOX: ">"})
    return name.decode()


@pytest.mark.parametrize(("kind", "told"), [("invoice.paid", {"invoice.paid": 1}), ("", {})])
async def test_what_is_taken_out_is_gone_from_the_group_too(
    each_store: StoreServer, kind: str, told: dict[str, int]
) -> None:
    async with client_of(each_store) as client:
        name = await put(client)
        assert await ask(client, name, kind) == 1
        assert await client.xlen(INBOX) == 0
        assert (await client.xpending(INBOX, GROUP))["pending"] == 0
        assert await counted(client) == told


async def test_what_is_gone_counts_nothing(client: Any) -> None:
    name = await put(client)
    assert [await ask(client, name, "invoice.paid") for _ in range(3)] == [1, 0, 0]
    assert await counted(client) == {"invoice.paid": 1}


@pytest.mark.parametrize(("key", "error"), [(INBOX, "WRONGTYPE"), (TOTALS, "WRONGTYPE")])
async def test_keys_of_another_type_are_left_as_they_are(client: Any, key: str, error: str) -> None:
    name = await put(client)
    await client.set(key, "x")
    with pytest.raises(ResponseError, match=error):
        await ask(client, name, "invoice.paid")
    assert await client.exists(INBOX, TOTALS) == (2 if key == TOTALS else 1)
    assert key == INBOX or await client.xlen(INBOX) == 1


async def test_a_total_that_is_no_number_keeps_the_entry(client: Any) -> None:
    name = await put(client)
    await client.hset(TOTALS, "e:invoice.paid", "many")
    with pytest.raises(ResponseError, match="not an integer"):
        await ask(client, name, "invoice.paid")
    assert await client.xlen(INBOX) == 1


async def test_workers_that_take_out_the_same_event_count_it_once(client: Any) -> None:
    inbox = inbox_of(client)
    event = stripe_event()
    await inbox.receive(event)
    ((partition, _),) = (await inbox.waiting()).items()
    letter = await inbox.unread(partition)
    assert letter is not None
    assert inbox.event(letter) == event
    await asyncio.gather(*(inbox.dismiss(letter, count=event.type) for _ in range(10)))
    assert (await entries(client), await counted(client)) == ([], {event.type: 1})
