"""set_aside.lua: an event is in the inbox or among the dead, never in both and never in neither."""

import asyncio
from typing import Any, Final

import pytest
from redis.exceptions import ResponseError

from metering.store.boxes import Unreadable
from metering.store.inbox import GROUP, Letter
from metering.store.scripts import script
from tests.lua.letters import KEYS, client_of, entries, ids, inbox_of, stripe_event
from tests.support.servers import StoreServer

INBOX: Final = "{p00}:inbox"
DEAD: Final = "{p00}:dead_inbox"
FIELDS: Final = {b"event": b"evt_1", b"type": b"invoice.paid", b"box": b"box"}


async def ask(client: Any, source: str, target: str, name: str, why: str = "", most: int = 0) -> int:
    """Run the script."""
    words = ["EVAL", script("set_aside").text, 2, source, target, GROUP, name, most, why]
    reply: int = await client.execute_command(*words)
    return reply


async def put(client: Any) -> str:
    """An entry that was handed to a reader; its name."""
    name: bytes = await client.xadd(INBOX, FIELDS)
    await client.xgroup_create(INBOX, GROUP, id="0")
    await client.xreadgroup(GROUP, "worker", {INBOX: ">"})
    return name.decode()


async def test_there_and_back_an_event_is_what_it_was(each_store: StoreServer) -> None:
    async with client_of(each_store) as client:
        assert await ask(client, INBOX, DEAD, await put(client), "not-there", 10) == 1
        assert await client.xlen(INBOX) == 0
        assert (await client.xpending(INBOX, GROUP))["pending"] == 0
        ((name, fields),) = await client.xrange(DEAD)
        assert fields == FIELDS | {b"why": b"not-there"}
        assert await ask(client, DEAD, INBOX, name.decode()) == 1
        assert [fields for _, fields in await client.xrange(INBOX)] == [FIELDS]
        assert await client.xlen(DEAD) == 0


async def test_an_event_that_is_gone_is_not_moved(client: Any) -> None:
    name = await put(client)
    assert [await ask(client, INBOX, DEAD, name, "x", 10) for _ in range(3)] == [1, 0, 0]
    assert await client.xlen(DEAD) == 1


@pytest.mark.parametrize("key", [INBOX, DEAD])
async def test_keys_of_another_type_are_left_as_they_are(client: Any, key: str) -> None:
    name = await put(client)
    await client.set(key, "x")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await ask(client, INBOX, DEAD, name, "x", 10)
    assert key == INBOX or await client.xlen(INBOX) == 1


async def buried(client: Any, number: int, why: str = "not-there") -> Letter:
    """An event that could not take effect."""
    inbox = inbox_of(client)
    await inbox.receive(stripe_event(number))
    letter = await inbox.unread(KEYS.event_partition(f"evt_{number}"))
    assert letter is not None
    await inbox.bury(letter, why)
    return letter


async def test_the_dead_are_told_with_the_reason_and_can_be_tried_again(client: Any) -> None:
    for number in range(3):
        await buried(client, number, f"why-{number}")
    inbox = inbox_of(client)
    dead = await inbox.dead()
    assert [(letter.event_id, letter.why) for letter in dead] == [(f"evt_{n}", f"why-{n}") for n in range(3)]
    assert [inbox.event(letter) for letter in dead] == [stripe_event(n) for n in range(3)]
    inbox.woken.clear()
    assert await inbox.revive(dead[1])
    assert inbox.woken.is_set()
    assert (await ids(client), await ids(client, "dead_inbox")) == (["evt_1"], ["evt_0", "evt_2"])


async def test_an_event_revived_by_many_is_tried_once(client: Any) -> None:
    await buried(client, 1)
    inbox = inbox_of(client)
    (letter,) = await inbox.dead()
    assert sum(await asyncio.gather(*(inbox.revive(letter) for _ in range(10)))) == 1
    assert len(await entries(client)) == 1


async def test_a_revived_event_has_all_its_tries_again(client: Any) -> None:
    await buried(client, 1)
    inbox = inbox_of(client)
    (letter,) = await inbox.dead()
    await inbox.revive(letter)
    again = await inbox.unread(letter.partition)
    assert again is not None
    assert await inbox.tries(again) == 1


async def test_what_is_no_fault_of_an_event_is_no_try_of_it(client: Any) -> None:
    inbox = inbox_of(client)
    await inbox.receive(stripe_event(1))
    letter = await inbox.unread(KEYS.event_partition("evt_1"))
    assert letter is not None
    for _ in range(3):
        assert await inbox.tries(letter) == 1
        await inbox.hand_back(letter, tries=0)
        assert await inbox.left(letter.partition, idle_ms=0) == letter
    await inbox.dismiss(letter)
    assert await inbox.tries(letter) == 0


async def test_an_entry_of_somebody_else_is_shown_as_far_as_it_can_be(client: Any) -> None:
    name = await client.xadd(DEAD, {"x": "1"})
    inbox = inbox_of(client)
    (letter,) = await inbox.dead()
    assert (letter.name, letter.event_id, letter.type, letter.box) == (name.decode(), "", "", b"")
    with pytest.raises(Unreadable):
        inbox.event(letter)
