"""deny.lua and those who look at what it did: a withdrawn id is refused by every worker that looked."""

import asyncio
from typing import Any

import pytest

from metering.errors import StorageUnavailable
from metering.jwts import LEEWAY_S
from metering.store import withdrawn
from metering.store.connect import connect
from tests.lua.scenes import commands, lawful
from tests.lua.vault import WRITER, Worker, run, vault
from tests.service.running import token
from tests.support.servers import StoreServer, free_port

FOR_EVER = None
HOUR_MS = 3_600_000


async def test_a_denied_id_is_refused_here_at_once_and_elsewhere_at_the_next_look(each_store: StoreServer) -> None:
    async with vault(each_store.url, workers=2) as (ledger, [here, there]):
        until = here.clock.now_ms() + HOUR_MS
        assert await here.withdrawn.deny("one", until) == until
        assert await here.withdrawn.deny("two", FOR_EVER) is None
        assert [here.withdrawn.denies(jti) for jti in ("one", "two", "three")] == [True, True, False]
        assert not there.withdrawn.denies("one")
        await there.withdrawn.look()
        assert [there.withdrawn.denies(jti) for jti in ("one", "two", "three")] == [True, True, False]
        await lawful(ledger)


async def test_whom_a_worker_knew_is_forgotten_when_something_was_withdrawn(store: StoreServer) -> None:
    async with vault(store.url, workers=2) as (_, [here, there]):
        kept, text = await here.keys.create(WRITER, actor="ann")
        gone, other = await here.keys.create(WRITER, actor="ann")
        assert [await there.caller(one) is not None for one in (text, other)] == [True, True]
        await here.keys.delete(gone.key_id, actor="ann")
        assert await there.caller(other) is not None
        await there.withdrawn.look()
        assert await there.caller(other) is None
        known = await there.caller(text)
        assert known is not None
        assert known.subject == f"key:{kept.key_id}"


async def test_a_look_at_nothing_new_forgets_nobody_and_is_one_command(store: StoreServer) -> None:
    async with vault(store.url) as (ledger, [worker]):
        _, text = await worker.keys.create(WRITER, actor="ann")
        header = f"Bearer {text}".encode()
        await worker.auth.identify(header)
        await ledger.client.config_resetstat()
        await worker.withdrawn.look()
        assert (await commands(ledger))["hmget"] == 1
        assert set(await commands(ledger)) <= {"hmget", "config|resetstat", "info"}
        assert worker.auth.remembered(header, worker.clock.monotonic()) is not None


async def test_the_later_end_counts_and_what_has_ended_is_dropped(store: StoreServer) -> None:
    async with vault(store.url) as (ledger, [worker]):
        now = worker.clock.now_ms()
        assert await worker.withdrawn.deny("a", now + 2 * HOUR_MS) == now + 2 * HOUR_MS
        assert await worker.withdrawn.deny("a", now + HOUR_MS) == now + 2 * HOUR_MS
        assert await worker.withdrawn.deny("a", FOR_EVER) is None
        assert await worker.withdrawn.deny("a", now + HOUR_MS) is None
        names = [ledger.keys.shared("epoch", 0), ledger.keys.shared("denied", 0)]
        await ledger.client.zadd(names[1], {"old": now - 1, "new": now + HOUR_MS})
        await worker.withdrawn.deny("b", now + HOUR_MS)
        assert {one.decode() for one in await ledger.client.zrange(names[1], 0, -1)} == {"a", "b", "new"}


async def test_a_clock_that_is_ahead_does_not_end_a_denial(store: StoreServer) -> None:
    """What has ended is dropped by the clock that is behind: the store's or the worker's."""
    async with vault(store.url) as (ledger, [worker]):
        now = worker.clock.now_ms()
        names = [ledger.keys.shared("epoch", 0), ledger.keys.shared("denied", 0)]
        await run(ledger, "deny", names, now, "a", now + HOUR_MS)
        await run(ledger, "deny", names, now + 24 * HOUR_MS, "b", now + HOUR_MS)
        assert await ledger.client.zcard(names[1]) == 2
        await ledger.client.zadd(names[1], {"c": now - HOUR_MS})
        await run(ledger, "deny", names, now - 24 * HOUR_MS, "b", now + HOUR_MS)
        assert await ledger.client.zcard(names[1]) == 3


async def test_a_token_is_denied_for_as_long_as_it_could_be_taken(store: StoreServer) -> None:
    """A token is taken for some seconds after its `exp`, and machines' clocks differ: a denial lasts longer."""
    async with vault(store.url) as (ledger, [worker]):
        until = worker.clock.now_ms() + HOUR_MS
        await worker.withdrawn.deny("a", until)
        later = Worker(ledger)
        later.clock.ahead_ms = HOUR_MS + LEEWAY_S * 1000
        await later.withdrawn.open()
        assert later.withdrawn.denies("a")


async def test_more_ids_than_one_reading_gives_are_all_read(store: StoreServer) -> None:
    async with vault(store.url, workers=0) as (ledger, _):
        many = 2 * withdrawn.PAGE + 7
        now = Worker(ledger).clock.now_ms()
        pairs = {f"id-{number}": now + HOUR_MS + number % 3 for number in range(many)}
        await ledger.client.zadd(ledger.keys.shared("denied", 0), pairs)
        worker = Worker(ledger)
        await worker.withdrawn.open()
        assert all(worker.withdrawn.denies(jti) for jti in pairs)


async def test_a_worker_that_starts_knows_what_was_denied_before(store: StoreServer) -> None:
    async with vault(store.url) as (ledger, [worker]):
        await worker.withdrawn.deny("a", FOR_EVER)
        later = Worker(ledger)
        await later.withdrawn.open()
        assert later.withdrawn.denies("a")


class Failing:
    """A client whose named command fails as often as it is told to."""

    def __init__(self, client: Any, command: str) -> None:
        self._client, self._command, self.failures = client, command, 0

    def __getattr__(self, name: str) -> Any:
        return self._fail if name == self._command and self.failures else getattr(self._client, name)

    async def _fail(self, *_: object, **__: object) -> None:
        self.failures -= 1
        raise ConnectionError("lost")


@pytest.mark.parametrize("command", ["hmget", "zrangebyscore"])
async def test_a_look_that_fails_is_made_up_for_by_the_next(store: StoreServer, command: str) -> None:
    async with vault(store.url) as (ledger, [here]):
        client = Failing(ledger.client, command)
        there = Worker(ledger, client=client)
        await there.withdrawn.open()
        client.failures = 2
        await here.withdrawn.deny("a", FOR_EVER)
        seen = []
        for _ in range(4):
            await there.withdrawn.look()
            seen.append(there.withdrawn.denies("a"))
        assert seen == [False, False, True, True]


async def test_a_key_that_was_being_looked_up_while_it_ended_is_not_remembered(store: StoreServer) -> None:
    """The reading began before the end and its answer is late; the look that tells of the end comes in between."""
    async with vault(store.url, workers=2) as (ledger, [here, _]):
        key, text = await here.keys.create(WRITER, actor="ann")
        gate = Gate(ledger.client)
        there = Worker(ledger, client=gate)
        await there.withdrawn.open()
        asked = asyncio.create_task(there.caller(text))
        await gate.reached.wait()
        await here.keys.delete(key.key_id, actor="ann")
        await there.withdrawn.look()
        joined = asyncio.create_task(there.caller(text))
        gate.go.set()
        assert await asked is not None  # it began before the end
        assert await joined is None
        assert await there.caller(text) is None


class Gate:
    """A client whose first call of one command has its answer held back."""

    def __init__(self, client: Any, command: str = "hgetall") -> None:
        self._client, self._command = client, command
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        self.armed = True

    def __getattr__(self, name: str) -> Any:
        return self._held if name == self._command and self.armed else getattr(self._client, name)

    async def _held(self, *words: Any, **more: Any) -> Any:
        self.armed = False
        found = await getattr(self._client, self._command)(*words, **more)
        self.reached.set()
        await self.go.wait()
        return found


async def test_a_token_that_was_let_in_while_the_denied_ids_were_read_is_not_remembered(store: StoreServer) -> None:
    async with vault(store.url) as (ledger, [here]):
        gate = Gate(ledger.client, "zrangebyscore")
        gate.armed = False
        there = Worker(ledger, client=gate)
        await there.withdrawn.open()
        leaked = token("acme", jti="leaked")
        await here.withdrawn.deny("leaked", FOR_EVER)
        gate.armed = True
        looking = asyncio.create_task(there.withdrawn.look())
        await gate.reached.wait()
        assert await there.caller(leaked) is not None
        gate.go.set()
        await looking
        assert await there.caller(leaked) is None


async def test_while_the_store_is_away_nothing_is_withdrawn_and_those_known_stay_known(store: StoreServer) -> None:
    async with vault(store.url) as (ledger, [worker]):
        _, text = await worker.keys.create(WRITER, actor="ann")
        async with connect(f"redis://127.0.0.1:{free_port()}") as nobody:
            away = Worker(ledger, client=nobody)
            for act in (away.withdrawn.open, away.withdrawn.withdrew):
                with pytest.raises(StorageUnavailable):
                    await act()
            with pytest.raises(StorageUnavailable):
                await away.withdrawn.deny("a", FOR_EVER)
            with pytest.raises(StorageUnavailable):
                await away.caller(text)
            await away.withdrawn.look()
            assert not away.withdrawn.denies("a")
