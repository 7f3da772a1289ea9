"""One connection to the store: replies in order, each once, and a new connection whenever the old one breaks."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import pytest
from hiredis import ReplyError
from redis.exceptions import ConnectionError as StoreConnectionError

from metering.store.connect import REPLY_TIMEOUT_S, connect
from metering.store.frames import bulk
from metering.store.lane import Lane
from tests.support.proxy import Proxy
from tests.support.servers import StoreServer
from tests.support.wait import await_until

WAIT_S: Final = 10.0


def command(*words: str) -> bytes:
    """One command as it goes over the wire."""
    return b"*%d\r\n%b" % (len(words), b"".join(bulk(word.encode()) for word in words))


class Asker:
    """A lane and everything that was answered on it."""

    def __init__(self) -> None:
        self.greetings = 0
        self.replies: list[tuple[Any, Any]] = []
        self.lane: Lane

    def greet(self) -> None:
        """A connection came up."""
        self.greetings += 1

    def send(self, tag: object, *words: str) -> None:
        """Ask; the reply is kept with its tag."""
        self.lane.call(command(*words), lambda reply: self.replies.append((tag, reply)))

    async def ask(self, *words: str) -> Any:
        """Ask and wait for the reply."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.lane.call(command(*words), future.set_result)
        return await future

    async def ready(self, greetings: int = 1) -> None:
        """Wait for the so-manieth connection."""
        await await_until(
            lambda: self.lane.ready and self.greetings >= greetings, timeout_s=WAIT_S, what="the lane is up"
        )


@asynccontextmanager
async def asking(url: str, *, ready: bool = True) -> AsyncIterator[Asker]:
    """A lane to `url`."""
    asker = Asker()
    async with connect(url) as client:
        asker.lane = Lane(client, on_ready=asker.greet)
        if ready:
            await asker.ready()
        yield asker
        await asker.lane.close()


# ── what is taken over from the driver ───────────────────────────────────────────────────────────────────


@contextmanager
def server_at(kind: str) -> Iterator[tuple[StoreServer, str]]:
    """A server of its own, and the URL that the case is about."""
    with StoreServer(tcp=kind.startswith("tcp")) as server:
        url = server.url
        if kind.endswith("password"):
            server.say("CONFIG", "SET", "requirepass", "s3cret")
            url = url.replace("://", "://:s3cret@")
        if kind.endswith("database"):
            url += "?db=3" if kind.startswith("unix") else "/3"
        yield server, url


@pytest.mark.parametrize("kind", ["unix", "tcp", "unix password", "tcp password", "unix database", "tcp database"])
async def test_a_connection_that_the_driver_opened_is_driven_from_here(kind: str) -> None:
    """Pins the driver's private `_writer`: socket, credentials and database are all as the driver set them."""
    with server_at(kind) as (_, url):
        async with asking(url) as asker:
            assert await asker.ask("PING") == b"PONG"
            found = (await asker.ask("CLIENT", "INFO")).decode()
            assert f" db={3 if kind.endswith('database') else 0} " in found
            assert " name=usage-metering " in found


@pytest.mark.parametrize("tcp", [False, True])
async def test_the_driver_keeps_its_socket_where_the_lane_looks_for_it(tcp: bool) -> None:
    with StoreServer(tcp=tcp) as server:
        async with connect(server.url) as client:
            pool: Any = client.connection_pool
            connection = pool.make_connection()
            await connection.connect()
            writer = connection._writer  # noqa: SLF001 - the very attribute that this test pins
            assert isinstance(writer, asyncio.StreamWriter)
            assert isinstance(writer.transport, asyncio.Transport)
            assert not writer.transport.is_closing()
            await connection.disconnect(nowait=True)


async def test_a_wrong_password_never_makes_a_lane_ready_and_a_right_one_later_does() -> None:
    with StoreServer() as server:
        server.say("CONFIG", "SET", "requirepass", "s3cret")
        async with asking(server.url.replace("://", "://:wrong@"), ready=False) as asker:
            async with connect(server.url.replace("://", "://:s3cret@")) as client:
                await await_until(lambda: rejected(client), timeout_s=WAIT_S, what="the lane tried several times")
                assert not asker.lane.ready
                await client.config_set("requirepass", "wrong")
            await asker.ready()
            assert await asker.ask("PING") == b"PONG"


async def rejected(client: Any) -> bool:
    """Whether the server has refused at least two connections by now."""
    info = await client.info("errorstats")
    refused: int = sum(figures["count"] for name, figures in info.items() if "WRONGPASS" in name)
    return refused >= 2


# ── replies ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_replies_are_matched_to_calls_in_order(store: StoreServer) -> None:
    async with asking(store.url) as asker:
        for number in range(2_000):
            asker.send(number, "ECHO", str(number))
        await asker.ask("PING")
        assert asker.replies == [(number, str(number).encode()) for number in range(2_000)]


async def test_a_reply_that_comes_in_pieces_is_one_reply(store: StoreServer) -> None:
    async with asking(store.url) as asker:
        long = "x" * 3_000_000
        assert await asker.ask("ECHO", long) == long.encode()
        assert await asker.ask("PING") == b"PONG"


async def test_a_refusal_is_the_reply_of_its_own_call_alone(store: StoreServer) -> None:
    async with asking(store.url) as asker:
        asker.send("good", "ECHO", "1")
        asker.send("bad", "NOSUCH")
        assert await asker.ask("PING") == b"PONG"
        (_, first), (_, refusal) = asker.replies
        assert first == b"1"
        assert isinstance(refusal, ReplyError)
        assert asker.greetings == 1


# ── breaks ───────────────────────────────────────────────────────────────────────────────────────────────


def fates(asker: Asker) -> list[Any]:
    """Per answered call its tag, and whether its fate is unknown."""
    return [(tag, isinstance(reply, StoreConnectionError)) for tag, reply in asker.replies]


async def test_a_cut_connection_tells_every_waiting_call_once_and_comes_up_again(store: StoreServer) -> None:
    async with asking(store.url) as asker:
        for number in range(5):
            asker.send(number, "BLPOP", "nothing", "0")
        asker.lane.drop()
        await asker.ready(greetings=2)
        assert fates(asker) == [(number, True) for number in range(5)]
        assert await asker.ask("PING") == b"PONG"


async def test_a_killed_server_is_met_again_when_it_is_back() -> None:
    with StoreServer() as server:
        async with asking(server.url) as asker:
            asker.send("lost", "BLPOP", "nothing", "0")
            server.kill()
            await await_until(lambda: not asker.lane.ready, timeout_s=WAIT_S, what="the lane saw it")
            server.start()
            await asker.ready(greetings=2)
            assert fates(asker) == [("lost", True)]
            assert await asker.ask("PING") == b"PONG"


async def test_a_peer_that_is_silent_for_a_second_is_given_up(store: StoreServer) -> None:
    async with Proxy(store.address) as proxy, asking(proxy.url) as asker:
        loop = asyncio.get_running_loop()
        proxy.mute, since = True, loop.time()
        asker.send("lost", "PING")
        await await_until(lambda: asker.replies, timeout_s=WAIT_S, what="the call is told")
        waited_s = loop.time() - since
        assert REPLY_TIMEOUT_S <= waited_s < REPLY_TIMEOUT_S + 0.5
        assert fates(asker) == [("lost", True)]
        proxy.mute = False
        await asker.ready(greetings=2)
        assert await asker.ask("PING") == b"PONG"


async def test_an_idle_connection_is_not_given_up(store: StoreServer) -> None:
    async with asking(store.url) as asker:
        assert await asker.ask("PING") == b"PONG"
        assert await asker.ask("BLPOP", "nothing", "0.9") is None
        assert await asker.ask("BLPOP", "nothing", "0.9") is None
        assert asker.greetings == 1


@pytest.mark.parametrize("noise", [b"+PONG\r\n", b"?what\r\n", b":1\r\n:2\r\n"])
async def test_a_connection_out_of_step_is_dropped(store: StoreServer, noise: bytes) -> None:
    """A reply nobody waits for, or bytes that are no reply: nothing that follows could be trusted."""
    faults: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    async with Proxy(store.address) as proxy, asking(proxy.url) as asker:
        proxy.say(noise)
        await asker.ready(greetings=2)
        assert await asker.ask("PING") == b"PONG"
    assert faults == []


async def test_a_frozen_server_is_met_again_when_it_thaws() -> None:
    with StoreServer() as server:
        async with asking(server.url) as asker:
            os.kill(server.pid, signal.SIGSTOP)
            asyncio.get_running_loop().call_later(1.2, os.kill, server.pid, signal.SIGCONT)
            asker.send("frozen", "PING")
            await asker.ready(greetings=2)
            assert fates(asker) == [("frozen", True)]
            assert await asker.ask("PING") == b"PONG"


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_closed_lane_tells_what_waits_and_makes_no_new_connection(store: StoreServer) -> None:
    async with Proxy(store.address) as proxy:
        async with asking(proxy.url) as asker:
            asker.send("waits", "BLPOP", "nothing", "0")
        await await_until(lambda: asker.replies, timeout_s=WAIT_S, what="the call is told")
        assert fates(asker) == [("waits", True)]
        assert not asker.lane.ready
        assert proxy.connections == 1
        assert [task for task in asyncio.all_tasks() if "Lane" in repr(task)] == []


async def test_a_lane_that_never_came_up_closes_at_once(store: StoreServer) -> None:
    async with asking("unix:///nowhere/at/all", ready=False) as asker:
        await asyncio.sleep(0)
        assert not asker.lane.ready
    assert asker.greetings == 0
