"""The store fails in every way it can: no event is lost, doubled or halved, and nobody waits for ever."""

import asyncio
import os
import random
import resource
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from metering.errors import LedgerFull, StorageUnavailable
from metering.store.connect import connect
from metering.store.orgs import OrgChange
from metering.store.scripts import script
from metering.usage import Outcome, Result
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, event, lawful
from tests.support.proxy import Proxy
from tests.support.servers import StoreServer
from tests.support.soak import SEED
from tests.support.wait import await_until

ORGS: Final = tuple(f"org-{number}" for number in range(10))
WAIT_S: Final = 10.0


async def used(ledger: Ledger, *orgs: str, feature: str = "scans") -> int:
    """The counters of the organisations as the store holds them, added up."""
    records = [await ledger.client.hget(ledger.keys.record(org_id), f"u:{feature}") for org_id in orgs or ("acme",)]
    return sum(int(units or 0) for units in records)


async def warm(ledger: Ledger, *orgs: str) -> None:
    """Let the first caller know the organisations: one scan each, twice."""
    for _ in range(2):
        await asyncio.gather(*(ledger.callers[0].counters.track(event(org_id)) for org_id in orgs or ("acme",)))


async def timed(work: Coroutine[Any, Any, Any]) -> tuple[Any, float]:
    """What the work gave or raised, and the seconds it took."""
    loop = asyncio.get_running_loop()
    since = loop.time()
    found = await asyncio.gather(work, return_exceptions=True)
    return found[0], loop.time() - since


@asynccontextmanager
async def through_proxy(server: StoreServer) -> AsyncIterator[tuple[Ledger, Proxy]]:
    """A ledger whose callers reach the server through a proxy; acme is known and has 2 scans."""
    async with Proxy(server.address) as proxy, calm(proxy.url) as ledger:
        await warm(ledger)
        yield ledger, proxy


# ── the network ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("times", [1, 2, 5, 10])
async def test_an_event_whose_reply_is_lost_is_counted_once_however_often(store: StoreServer, times: int) -> None:
    async with through_proxy(store) as (ledger, proxy):
        proxy.lose_replies = times
        outcome = await ledger.callers[0].counters.track(event("acme", 5, "e1"))
        assert (proxy.lose_replies, outcome.used) == (0, 7)
        assert await used(ledger) == 7
        await lawful(ledger)


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_an_event_without_an_id_whose_reply_is_lost_gets_its_first_answer(store: StoreServer, times: int) -> None:
    async with through_proxy(store) as (ledger, proxy):
        proxy.lose_replies = times
        outcome = await ledger.callers[0].counters.track(event("acme", 11))
        assert (outcome.result, outcome.used, outcome.overage) == (Result.RECORDED, 13, 3)
        assert outcome.marks == (75, 80, 90, 100)
        await lawful(ledger)


async def test_an_organisation_whose_creation_is_answered_into_the_void_is_created_once(store: StoreServer) -> None:
    async with through_proxy(store) as (ledger, proxy):
        proxy.lose_replies = 3
        outcome = await ledger.callers[0].counters.track(event("beta", 5, "e1"))
        assert outcome.used == 5
        assert await ledger.client.zcard(ledger.keys.shared("orgs", ledger.keys.partition("beta"))) >= 1
        await lawful(ledger)


async def test_a_request_cut_at_any_byte_is_carried_out_wholly_or_not_at_all(store: StoreServer) -> None:
    """The server sees the beginning of a call only; the service sends it again, and it counts once."""
    drawn = random.Random(SEED)
    async with through_proxy(store) as (ledger, proxy):
        for number, at in enumerate((0, 1, 4, 5, *sorted(drawn.sample(range(6, 700), 50)))):
            proxy.cut_at = at
            outcome = await ledger.callers[0].counters.track(event("acme", 1, f"e{number}", "open"))
            assert outcome.used == number + 1, f"cut at {at}"
        assert proxy.connections > 50
        await lawful(ledger)


async def test_a_half_open_connection_is_given_up_and_the_event_counted_once(store: StoreServer) -> None:
    async with through_proxy(store) as (ledger, proxy):
        proxy.mute = True
        asyncio.get_running_loop().call_later(1.2, setattr, proxy, "mute", False)
        outcome, took_s = await timed(ledger.callers[0].counters.track(event("acme", 5, "e1")))
        assert outcome.used == 7
        assert took_s < 3
        await lawful(ledger)


async def test_a_slow_network_delays_every_event_once(store: StoreServer) -> None:
    """Replies come 0.2 s late: 200 events in flight share calls instead of waiting for each other."""
    async with through_proxy(store) as (ledger, proxy):
        proxy.delay_s = 0.2
        tracks = asyncio.gather(*(ledger.callers[0].counters.track(event("acme", 1, None, "open")) for _ in range(200)))
        outcomes, took_s = await timed(asyncio.wait_for(tracks, WAIT_S))
        assert len(outcomes) == 200
        assert took_s < 2
        assert await used(ledger, feature="open") == 200


async def test_connections_cut_again_and_again_under_load_lose_and_double_nothing(store: StoreServer) -> None:
    async with through_proxy(store) as (ledger, proxy):
        tasks = []
        for number in range(1_000):
            caller = ledger.callers[number % 2]
            one = event(ORGS[number % 10], 1, f"e{number}" if number % 3 else None, "open")
            tasks.append(asyncio.create_task(caller.counters.track(one)))
            if number % 100 == 0:
                proxy.cut()
            if number % 10 == 0:
                await asyncio.sleep(0)
        assert all(isinstance(outcome, Outcome) for outcome in await asyncio.gather(*tasks))
        assert await used(ledger, *ORGS, feature="open") == 1_000
        await lawful(ledger)


async def test_an_organisation_that_changes_while_it_is_read_is_read_again(store: StoreServer) -> None:
    """Its record is from before the change and its profile from after it: the two do not belong together."""
    async with through_proxy(store) as (ledger, proxy):
        record = ledger.keys.record("acme").encode()
        proxy.hold_after = b"$%d\r\n%b\r\n" % (len(record), record)
        reading = asyncio.create_task(ledger.callers[0].orgs.get("acme"))
        await await_until(lambda: proxy.held, timeout_s=WAIT_S, what="the record is read, the profile not yet")
        change = OrgChange(plan="pro", timezone="Europe/Paris")
        changed, _ = await ledger.callers[1].orgs.update("acme", change, actor="test", create=False)
        proxy.release()
        assert await reading == changed


# ── the server dies, or stands still ─────────────────────────────────────────────────────────────────────


async def test_a_restart_within_two_seconds_under_500_events_at_once_fails_none() -> None:
    """SIGKILL with calls under way; the server is back 1.5 s later, and every id is counted exactly once."""
    with StoreServer() as server:
        async with calm(server.url, partitions=4) as ledger:
            await warm(ledger, *ORGS)
            tasks = [
                asyncio.create_task(ledger.callers[n % 2].counters.track(event(ORGS[n % 10], 1, f"e{n}", "open")))
                for n in range(500)
            ]
            for _ in range(4):
                await asyncio.sleep(0)
            server.kill()
            asyncio.get_running_loop().call_later(1.5, server.start)
            outcomes, took_s = await timed(asyncio.wait_for(asyncio.gather(*tasks), WAIT_S))
            assert len(outcomes) == 500
            assert 1.5 < took_s < 4
            assert await used(ledger, *ORGS, feature="open") == 500
            await lawful(ledger)


async def test_without_a_store_an_event_is_answered_within_its_budget_and_is_not_doubled_later() -> None:
    with StoreServer() as server:
        async with calm(server.url) as ledger:
            await warm(ledger)
            server.kill()
            sent = [event("acme", 5, "e1"), event("unknown", 5, "e1")]
            found = await asyncio.gather(*(timed(ledger.callers[0].counters.track(one)) for one in sent))
            for problem, took_s in found:
                assert isinstance(problem, StorageUnavailable)
                assert 2.5 < took_s < 4
                assert problem.headers["Retry-After"] == "1"
            server.start()
            for one, total in zip(sent, (7, 5), strict=True):
                assert (await ledger.callers[0].counters.track(one)).used == total
                assert (await ledger.callers[1].counters.track(one)).used == total
            await lawful(ledger)


async def test_an_event_whose_fate_was_unknown_is_counted_once_when_its_client_sends_it_again(
    store: StoreServer,
) -> None:
    """The script ran, but no reply came before the budget ran out."""
    async with through_proxy(store) as (ledger, proxy):
        proxy.mute = True
        problem, took_s = await timed(ledger.callers[0].counters.track(event("acme", 5, "e1")))
        assert isinstance(problem, StorageUnavailable)
        assert took_s < 4.5
        proxy.mute = False
        outcome = await ledger.callers[0].counters.track(event("acme", 5, "e1"))
        assert (outcome.result, outcome.used) == (Result.DUPLICATE, 7)
        await lawful(ledger)


async def test_a_server_that_stands_still_for_a_moment_fails_nothing() -> None:
    """SIGSTOP for 1.5 s: what lay in its sockets is carried out afterwards, and so is the repeat, once."""
    with StoreServer() as server:
        async with calm(server.url) as ledger:
            await warm(ledger, *ORGS)
            os.kill(server.pid, signal.SIGSTOP)
            asyncio.get_running_loop().call_later(1.5, os.kill, server.pid, signal.SIGCONT)
            events = [event(ORGS[n % 10], 1, f"e{n}" if n % 2 else None, "open") for n in range(200)]
            events += [event("unknown", 1, f"u{n}", "open") for n in range(20)]
            outcomes = await asyncio.gather(*(ledger.callers[0].counters.track(one) for one in events))
            assert len(outcomes) == 220
            assert await used(ledger, *ORGS, "unknown", feature="open") == 220
            await lawful(ledger)


async def test_a_frozen_server_keeps_nobody_longer_than_the_budget() -> None:
    with StoreServer() as server:
        async with calm(server.url) as ledger:
            await warm(ledger)
            os.kill(server.pid, signal.SIGSTOP)
            sent = [event("acme", 5, "e1"), event("unknown", 5, "e1")]
            found = await asyncio.gather(*(timed(ledger.callers[0].counters.track(one)) for one in sent))
            os.kill(server.pid, signal.SIGCONT)
            assert [type(problem) for problem, _ in found] == [StorageUnavailable] * 2
            assert max(took_s for _, took_s in found) < 4.2
            assert (await ledger.callers[1].counters.track(sent[0])).used == 7
            await lawful(ledger)


# ── the server refuses ───────────────────────────────────────────────────────────────────────────────────


async def test_a_full_store_takes_nothing_and_reads_go_on(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await warm(ledger)
        try:
            await ledger.client.config_set("maxmemory", "1mb")
            before = await ledger.dump()
            for org_id in ("acme", "unknown"):
                with pytest.raises(LedgerFull) as refusal:
                    await ledger.callers[0].counters.track(event(org_id, 5, "e1"))
            assert int(refusal.value.headers["Retry-After"]) > 0
            assert await ledger.dump() == before
            org = await ledger.callers[0].orgs.get("acme")
            assert org is not None
            assert org.features["scans"].used == 2
        finally:
            await ledger.client.config_set("maxmemory", "0")
        assert (await ledger.callers[0].counters.track(event("acme", 5, "e1"))).used == 7
        await lawful(ledger)


async def test_too_few_replicas_take_nothing(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await warm(ledger)
        try:
            await ledger.client.config_set("min-replicas-to-write", "1")
            before = await ledger.dump()
            with pytest.raises(LedgerFull):
                await ledger.callers[0].counters.track(event("acme", 5, "e1"))
            assert await ledger.dump() == before
        finally:
            await ledger.client.config_set("min-replicas-to-write", "0")
        assert (await ledger.callers[0].counters.track(event("acme", 5, "e1"))).used == 7


async def test_a_store_demoted_for_a_moment_fails_nothing() -> None:
    """READONLY passes when the role comes back."""
    with StoreServer() as server:
        async with calm(server.url) as ledger:
            await warm(ledger)
            server.say("REPLICAOF", "127.0.0.1", "1")
            asyncio.get_running_loop().call_later(1.5, server.say, "REPLICAOF", "NO", "ONE")
            outcomes = await asyncio.gather(*(ledger.callers[0].counters.track(event("acme")) for _ in range(50)))
            assert max(outcome.used for outcome in outcomes) == 52
            await lawful(ledger)


async def run_for_ever(client: Any) -> None:
    """Keep the store busy until somebody kills the script."""
    await client.execute_command("EVAL", "while true do end", "0")


@pytest.mark.parametrize("org_id", ["acme", "unknown"])
async def test_a_busy_store_is_waited_for(each_store: StoreServer, org_id: str) -> None:
    """Somebody's endless script: every command is refused with BUSY until it is ended."""
    async with calm(each_store.url) as ledger, connect(each_store.url, reply_timeout_s=None) as other:
        await warm(ledger)
        await ledger.client.config_set("busy-reply-threshold", "50")
        endless = asyncio.create_task(run_for_ever(other))
        await await_until(
            lambda: each_store.say("PING").startswith("-BUSY"), timeout_s=WAIT_S, what="the store is busy"
        )
        task = asyncio.create_task(ledger.callers[0].counters.track(event(org_id, 5, "e1")))
        asyncio.get_running_loop().call_later(1.2, each_store.say, "SCRIPT", "KILL")
        assert (await task).recorded == 5
        assert isinstance((await asyncio.gather(endless, return_exceptions=True))[0], Exception)
        assert ledger.callers[0].counters.stats.retries > 16
        await lawful(ledger)


async def test_a_store_that_loads_its_data_is_waited_for_and_taught_its_scripts_again() -> None:
    """Every command is refused with LOADING for a second and more, then with NOSCRIPT."""
    with StoreServer(settings=("key-load-delay 500", 'enable-debug-command "no"')) as server:
        async with calm(server.url) as ledger:
            await warm(ledger)
            for at in range(0, 1_000, 50):
                pipe = ledger.client.pipeline(transaction=False)
                for number in range(at, at + 50):
                    pipe.hset(ledger.keys.profile("filler"), f"f{number}", "1")
                await pipe.execute()
            await ledger.client.delete(ledger.keys.profile("filler"))
            server.kill()
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            await await_until(
                lambda: server.say("PING").startswith("-LOADING"), timeout_s=WAIT_S, what="the store loads"
            )
            sent = [event("acme", 5, "e1"), event("unknown", 5, "e1")]
            outcomes = await asyncio.gather(*(ledger.callers[0].counters.track(one) for one in sent))
            await starting
            assert [outcome.used for outcome in outcomes] == [7, 5]
            await lawful(ledger)


async def test_a_disk_that_fills_up_loses_nothing_that_was_acknowledged() -> None:
    """The server ends when it cannot write its log; with room again it starts with every acknowledged event."""
    with StoreServer() as server:
        async with calm(server.url) as ledger:
            await warm(ledger)
            size = max(path.stat().st_size for path in (server.folder / "appendonlydir").iterdir())
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size + 3_000, size + 3_000))
            tasks: list[asyncio.Task[Outcome]] = []
            while server.running():
                tasks.append(
                    asyncio.create_task(ledger.callers[0].counters.track(event("acme", 1, f"e{len(tasks)}", "open")))
                )
                await asyncio.wait(tasks[-1:], timeout=0.05)
            acknowledged = sum(task.done() for task in tasks)
            server.start()
            assert await used(ledger, feature="open") >= acknowledged > 0
            assert len(await asyncio.gather(*tasks)) == len(tasks)
            assert await used(ledger, feature="open") == len(tasks)
            await lawful(ledger)


async def test_nothing_of_a_call_that_the_server_refuses_is_written(each_store: StoreServer) -> None:
    """The first line `#!lua` makes the server refuse a script as a whole when memory is short, also one that began."""
    assert script("track").text.startswith("#!lua\n")
    async with calm(each_store.url) as ledger:
        await warm(ledger, *ORGS)
        try:
            await ledger.client.config_set("maxmemory", "1mb")
            before = await ledger.dump()
            events = [event(ORGS[n % 10], 20, f"e{n}") for n in range(64)]
            found = await asyncio.gather(
                *(ledger.callers[0].counters.track(one) for one in events), return_exceptions=True
            )
            assert {type(problem) for problem in found} == {LedgerFull}
            assert await ledger.dump() == before
        finally:
            await ledger.client.config_set("maxmemory", "0")
