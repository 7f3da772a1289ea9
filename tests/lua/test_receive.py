"""receive.lua: an event is in the inbox once, with its mark, however often and however many at once it comes."""

import asyncio
from typing import Any, Final

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError

from metering.errors import LedgerFull, Overloaded
from metering.store.inbox import MARK_MS
from metering.store.scripts import script
from tests.lua.letters import KEYS, client_of, entries, ids, inbox_of, stripe_event
from tests.support.monitor import keys_of, monitored, scripts
from tests.support.servers import StoreServer

MARK: Final = "{p00}:n:evt_1"
INBOX: Final = "{p00}:inbox"


async def ask(client: Any, *, most: int = 10, event: str = "evt_1", mark: str = MARK) -> list[int]:
    """Run the script."""
    words = ["EVAL", script("receive").text, 2, mark, INBOX, MARK_MS, most, event, "invoice.paid", "box"]
    reply: list[int] = await client.execute_command(*words)
    return reply


async def test_an_event_is_kept_with_its_mark(each_store: StoreServer) -> None:
    async with client_of(each_store) as client:
        assert await ask(client) == [1, 1]
        ((_, fields),) = await client.xrange(INBOX)
        assert fields == {b"event": b"evt_1", b"type": b"invoice.paid", b"box": b"box"}
        assert MARK_MS - 60_000 < await client.pttl(MARK) <= MARK_MS


async def test_an_event_that_came_in_before_changes_nothing(each_store: StoreServer) -> None:
    async with client_of(each_store) as client:
        await ask(client)
        before = await client.dump(INBOX), await client.expiretime(MARK)
        assert await ask(client) == [0, 1]
        assert (await client.dump(INBOX), await client.expiretime(MARK)) == before


async def test_an_event_that_has_been_taken_out_does_not_come_back(store: StoreServer, client: Any) -> None:
    await ask(client)
    ((name, _),) = await client.xrange(INBOX)
    await client.xdel(INBOX, name)
    assert await ask(client) == [0, 0]
    assert await client.xlen(INBOX) == 0


@pytest.mark.parametrize(("most", "reply"), [(1, [1, 1]), (0, [-1, 0])])
async def test_a_full_inbox_keeps_nothing_and_marks_nothing(client: Any, most: int, reply: list[int]) -> None:
    assert await ask(client, most=most) == reply
    assert await client.exists(MARK) == await client.xlen(INBOX) == max(0, reply[0])


async def test_what_came_in_before_is_known_in_a_full_inbox_too(client: Any) -> None:
    await ask(client)
    assert await ask(client, most=0) == [0, 1]


async def test_an_inbox_of_another_type_leaves_no_mark(client: Any) -> None:
    await client.set(INBOX, "x")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await ask(client)
    assert await client.exists(MARK) == 0


async def test_a_store_without_room_takes_neither(client: Any) -> None:
    await client.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            await ask(client)
        assert await client.exists(MARK, INBOX) == 0
        with pytest.raises(LedgerFull):
            await inbox_of(client).receive(stripe_event())
    finally:
        await client.config_set("maxmemory", 0)


async def test_of_many_deliveries_at_once_one_is_kept(each_store: StoreServer) -> None:
    async with client_of(each_store) as client:
        inbox = inbox_of(client)
        told = await asyncio.gather(*(inbox.receive(stripe_event(n % 5)) for n in range(30)))
        assert sum(told) == 5
        assert await ids(client) == [f"evt_{n}" for n in range(5)]


async def test_both_kinds_of_one_event_are_one(client: Any) -> None:
    inbox = inbox_of(client)
    thin = stripe_event(1, event_id="evt_thin", customer="", thin=True)
    assert [await inbox.receive(stripe_event(1)), await inbox.receive(thin)] == [True, False]


async def test_a_full_inbox_is_told_as_a_problem(client: Any) -> None:
    inbox = inbox_of(client, most=1)
    numbers = [n for n in range(20) if KEYS.event_partition(f"evt_{n}") == 0][:2]
    assert await inbox.receive(stripe_event(numbers[0]))
    with pytest.raises(Overloaded):
        await inbox.receive(stripe_event(numbers[1]))
    assert not await inbox.receive(stripe_event(numbers[0]))


async def test_the_inbox_tells_nobody_who_the_customer_is(client: Any) -> None:
    await inbox_of(client).receive(stripe_event(7))
    (fields,) = await entries(client)
    assert fields.keys() == {b"event", b"type", b"box"}
    assert not any(word in fields[b"box"] for word in (b"cus_7", b"sub_7"))


async def test_only_declared_keys_are_touched_on_a_cluster(cluster: StoreServer) -> None:
    async with client_of(cluster) as client:
        async with monitored(cluster.address) as lines:
            assert await ask(client) == [1, 1]
        *_, (declared, asked) = scripts(lines)
        assert {key for one in asked for key in keys_of(one)} == declared == {MARK, INBOX}
