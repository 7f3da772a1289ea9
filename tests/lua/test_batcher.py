"""Events of one tick in one call: in order, bounded, and each answered whatever becomes of its request."""

import asyncio
from contextlib import nullcontext
from typing import Any, Final

import pytest

from metering.errors import ClockUnsafe, Overloaded, Problem, StorageUnavailable, TimestampOutOfRange
from metering.store.counters import LatePolicy
from metering.usage import Outcome, Result
from plans.periods import AHEAD_MAX_MS, BEHIND_MAX_MS
from tests.lua.ledger import Caller, Ledger
from tests.lua.scenes import DAY_MS, HOUR_MS, calm, commands, event, lawful, move_to, next_year
from tests.support.servers import StoreServer
from tests.support.wait import await_until

WAIT_S: Final = 10.0


async def used(ledger: Ledger, org_id: str = "acme", feature: str = "scans") -> int:
    """The counter as the store holds it."""
    return int(await ledger.client.hget(ledger.keys.record(org_id), f"u:{feature}") or 0)


async def warm(caller: Caller, *orgs: str) -> None:
    """Let the caller know the organisations: one scan each, twice."""
    for _ in range(2):
        await asyncio.gather(*(caller.counters.track(event(org_id)) for org_id in orgs))


# ── one tick, one call ───────────────────────────────────────────────────────────────────────────────────


async def test_events_of_one_organisation_are_counted_in_the_order_they_came(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller, tasks = ledger.callers[0], []
        await warm(caller, "acme")
        for number in range(1_000):
            tasks.append(asyncio.create_task(caller.counters.track(event("acme", 1, None, "open"))))
            if number % 97 == 0:
                await asyncio.sleep(0)
        assert [outcome.used for outcome in await asyncio.gather(*tasks)] == list(range(1, 1_001))
        await lawful(ledger)


async def test_a_call_holds_at_most_250_events(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await warm(caller, "acme", "beta")
        await ledger.client.config_resetstat()
        events = [event(("acme", "beta")[number % 2], 1, None, "open") for number in range(1000)]
        outcomes = await caller.counters.track_all(events)
        assert {getattr(outcome, "recorded", None) for outcome in outcomes} == {1}
        assert (await commands(ledger))["evalsha"] == 4
        await lawful(ledger)


async def test_a_call_holds_at_most_64_organisations(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        names = [f"org-{number}" for number in range(128)]
        await warm(caller, *names)
        await ledger.client.config_resetstat()
        await caller.counters.track_all([event(name) for name in names])
        assert (await commands(ledger))["evalsha"] == 2
        await lawful(ledger)


async def test_many_events_that_cannot_wait_are_all_refused(store: StoreServer) -> None:
    async with calm(store.url, pending_max=9) as ledger:
        caller = ledger.callers[0]
        with pytest.raises(Overloaded):
            await caller.counters.track_all([event("acme")] * 10)
        assert caller.counters.stats.shed == 10
        assert len(await caller.counters.track_all([event("acme")] * 9)) == 9


async def test_each_of_many_events_is_answered_for_itself(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        sent = [event("acme"), event("acme", timestamp_ms=1), event("acme", feature="unknown"), event("acme")]
        first, late, unknown, last = await ledger.callers[0].counters.track_all(sent)
        assert isinstance(late, TimestampOutOfRange)
        assert [getattr(found, "result", None) for found in (first, unknown, last)] == [
            Result.RECORDED, Result.FEATURE_UNKNOWN, Result.RECORDED,
        ]  # fmt: skip


async def test_the_batcher_tells_what_it_did(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await warm(caller, "acme")
        before = caller.counters.stats.calls, caller.counters.stats.events
        await asyncio.gather(*(caller.counters.track(event("acme")) for _ in range(10)))
        after = caller.counters.stats.calls, caller.counters.stats.events
        assert (after[0] - before[0], after[1] - before[1]) == (1, 10)


# ── requests that end early ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("ticks", [1, 2, 3, 5])
async def test_a_request_that_is_cancelled_after_it_was_taken_is_counted_all_the_same(
    store: StoreServer, known: bool, ticks: int
) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        if known:
            await warm(caller, "acme")
        before = await used(ledger)
        task = asyncio.create_task(caller.counters.track(event("acme", 5, "e1")))
        for _ in range(ticks):
            await asyncio.sleep(0)
        answered = not task.cancel()  # a store that is quick enough, on a machine that is not
        with nullcontext() if answered else pytest.raises(asyncio.CancelledError):
            await task

        async def counted() -> bool:
            return await used(ledger) == before + 5

        await await_until(counted, timeout_s=WAIT_S, what="the event is counted")
        again = await ledger.callers[1].counters.track(event("acme", 5, "e1"))
        assert (again.result, again.used) == (Result.DUPLICATE, before + 5)


async def test_a_cancelled_request_disturbs_none_of_its_call(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await warm(caller, "acme")
        tasks = [asyncio.create_task(caller.counters.track(event("acme", 1, f"e{n}", "open"))) for n in range(60)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [outcome.used for outcome in outcomes if isinstance(outcome, Outcome)] == list(range(2, 61, 2))
        assert await used(ledger, feature="open") == 60
        await lawful(ledger)


# ── too much ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_event_more_than_may_wait_is_refused_at_once(store: StoreServer) -> None:
    async with calm(store.url, pending_max=3) as ledger:
        counters = ledger.callers[0].counters
        tasks = [asyncio.create_task(counters.track(event("acme"))) for _ in range(3)]
        await asyncio.sleep(0)
        refused = asyncio.create_task(counters.track(event("acme")))
        await asyncio.sleep(0)
        assert refused.done()
        assert isinstance(refused.exception(), Overloaded)
        assert [outcome.used for outcome in await asyncio.gather(*tasks)] == [1, 2, 3]
        assert counters.stats.shed == 1
        assert (await counters.track(event("acme"))).used == 4


async def test_events_that_wait_in_vain_make_room_again() -> None:
    with StoreServer() as server:
        async with calm(server.url, pending_max=2) as ledger:
            counters = ledger.callers[0].counters
            await counters.track(event("acme"))
            server.say("REPLICAOF", "127.0.0.1", "1")
            failed = await asyncio.gather(*(counters.track(event("acme")) for _ in range(2)), return_exceptions=True)
            assert [type(problem) for problem in failed] == [StorageUnavailable] * 2
            server.say("REPLICAOF", "NO", "ONE")
            outcomes = await asyncio.gather(*(counters.track(event("acme")) for _ in range(2)))
            assert [outcome.used for outcome in outcomes] == [2, 3]


# ── late and early ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_late_event_counts_now_and_says_so(store: StoreServer) -> None:
    async with calm(store.url, at="02-02T10:00:00") as ledger:
        late_ms = await next_year(ledger, "01-31T23:59:59")
        outcome = await ledger.callers[0].counters.track(event("acme", 5, "e1", timestamp_ms=late_ms))
        assert (outcome.used, outcome.recorded, outcome.late) == (5, 5, True)
        await lawful(ledger)


async def test_a_late_event_is_refused_where_that_is_the_policy_and_counts_nothing(store: StoreServer) -> None:
    async with calm(store.url, at="02-02T10:00:00", late=LatePolicy.REJECT) as ledger:
        caller, border_ms = ledger.callers[0], await next_year(ledger, "02-01T00:00:00")
        with pytest.raises(TimestampOutOfRange):
            await caller.counters.track(event("acme", 5, "e1", timestamp_ms=border_ms - 1))
        assert await used(ledger) == 0
        outcome = await caller.counters.track(event("acme", 5, "e1", timestamp_ms=border_ms))
        assert (outcome.used, outcome.late) == (5, False)


@pytest.mark.parametrize(
    ("at", "oldest"),
    [("03-20T10:00:00", "02-13T10:00:00"), ("03-01T00:00:00", "02-01T00:05:00"), ("03-31T12:00:00", "02-24T12:00:00")],
)
async def test_a_timestamp_is_taken_as_long_as_its_repeat_can_be_recognised(
    store: StoreServer, at: str, oldest: str
) -> None:
    """The last 35 days, and never before the previous UTC month has begun (and five minutes)."""
    async with calm(store.url, at=at) as ledger:
        track, oldest_ms = ledger.callers[0].counters.track, await next_year(ledger, oldest)
        with pytest.raises(TimestampOutOfRange) as refusal:
            await track(event("acme", 1, "e1", timestamp_ms=oldest_ms - 1))
        assert 0 <= int(str(refusal.value.extra["oldest_ms"])) - oldest_ms < 5_000
        assert (await track(event("acme", 1, "e1", timestamp_ms=oldest_ms + 5_000))).late


@pytest.mark.parametrize(
    ("ahead_ms", "taken"), [(AHEAD_MAX_MS - 5_000, True), (AHEAD_MAX_MS + 5_000, False), (HOUR_MS, False)]
)
async def test_a_timestamp_up_to_five_minutes_ahead_is_taken(store: StoreServer, ahead_ms: int, taken: bool) -> None:
    async with calm(store.url) as ledger:
        one = event("acme", 1, "e1", timestamp_ms=await ledger.now_ms() + ahead_ms)
        if taken:
            assert (await ledger.callers[0].counters.track(one)).used == 1
        else:
            with pytest.raises(TimestampOutOfRange):
                await ledger.callers[0].counters.track(one)
            assert await used(ledger) == 0


async def test_a_timestamp_much_too_old_is_refused(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        for age_ms in (BEHIND_MAX_MS + 5_000, 400 * DAY_MS):
            with pytest.raises(TimestampOutOfRange):
                await ledger.callers[0].counters.track(event("acme", timestamp_ms=await ledger.now_ms() - age_ms))


@pytest.mark.parametrize("skew_ms", [-61_000, 61_000])
async def test_nothing_is_counted_while_the_clocks_differ_by_more_than_a_minute(
    store: StoreServer, skew_ms: int
) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await warm(caller, "acme")
        before = await ledger.dump()
        caller.clock.skew_ms = skew_ms
        for org_id in ("acme", "unknown"):
            with pytest.raises(ClockUnsafe):
                await caller.counters.track(event(org_id, 1, "e1"))
        assert await ledger.dump() == before
        caller.clock.skew_ms = 0
        assert (await caller.counters.track(event("acme", 1, "e1"))).used == 3


# ── refusals that are nobody's data ──────────────────────────────────────────────────────────────────────


async def test_a_call_over_several_slots_of_a_cluster_parks_no_organisation(cluster: StoreServer) -> None:
    """A wrong setting (a node's call on a cluster) is the operator's fault, and shows as the store's."""
    async with calm(cluster.url, one_partition=False) as ledger:
        caller = await ledger.add_caller()
        orgs = ["org-a", "a"]
        assert len({ledger.keys.partition(org_id) for org_id in orgs}) == 2
        for org_id in orgs * 2:
            await caller.counters.track(event(org_id))
        tasks = [asyncio.create_task(caller.counters.track(event(org_id))) for org_id in orgs]
        await await_until(lambda: caller.counters.stats.retries > 4, timeout_s=WAIT_S, what="it is asked again")
        await caller.counters.abort()
        assert [type(outcome) for outcome in await ended(tasks)] == [StorageUnavailable] * 2
        assert caller.counters.stats.parked == 0
        assert (await ledger.callers[0].counters.track(event("org-a"))).used == 3


async def test_a_right_that_was_taken_away_for_a_moment_parks_no_organisation_and_fails_nothing() -> None:
    with StoreServer() as server:
        server.say("ACL", "SETUSER", "meter", "on", ">s3cret", "~*", "+@all")
        async with calm(server.url.replace("://", "://meter:s3cret@")) as ledger:
            caller = ledger.callers[0]
            await warm(caller, "acme")
            server.say("ACL", "SETUSER", "meter", "-evalsha")
            asyncio.get_running_loop().call_later(0.5, server.say, "ACL", "SETUSER", "meter", "+evalsha")
            assert (await caller.counters.track(event("acme", 1, "e1"))).used == 3
            assert (caller.counters.stats.parked, caller.counters.stats.retries > 4) == (0, True)


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────


async def ended(tasks: list[asyncio.Task[Outcome]]) -> list[Any]:
    """What became of each, now that all are answered."""
    await asyncio.wait(tasks, timeout=0.5)
    assert all(task.done() for task in tasks)
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_closing_lets_what_waits_finish(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = await ledger.add_caller()
        tasks = [asyncio.create_task(caller.counters.track(event(f"org-{n % 5}", 1, f"e{n}"))) for n in range(300)]
        await asyncio.sleep(0)
        await caller.counters.close()
        assert {outcome.result for outcome in await ended(tasks)} == {Result.RECORDED}
        assert not caller.counters.ready


async def test_closing_at_once_answers_everybody(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = await ledger.add_caller()
        await warm(caller, "acme")
        tasks = [asyncio.create_task(caller.counters.track(event(o, 1, "e1"))) for o in ("acme", "unknown")]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await caller.counters.abort()
        assert all(isinstance(outcome, Outcome | StorageUnavailable) for outcome in await ended(tasks))
        for org_id, count in (("acme", 3), ("unknown", 1)):
            assert (await ledger.callers[0].counters.track(event(org_id, 1, "e1"))).used == count
        await lawful(ledger)


async def test_closing_while_the_store_asks_for_patience_answers_everybody() -> None:
    with StoreServer() as server:
        async with calm(server.url) as ledger:
            caller = await ledger.add_caller()
            await warm(caller, "acme")
            server.say("REPLICAOF", "127.0.0.1", "1")
            task = asyncio.create_task(caller.counters.track(event("acme", 1, "e1")))
            await await_until(lambda: caller.counters.stats.retries, timeout_s=WAIT_S, what="it is asked again")
            await caller.counters.abort()
            assert isinstance((await ended([task]))[0], Problem)


# ── scripts that the server forgot ───────────────────────────────────────────────────────────────────────


async def test_a_server_that_forgets_its_scripts_in_the_middle_is_taught_them_again(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=4) as ledger:
        orgs = [f"org-{number}" for number in range(10)]
        tasks = []
        for number in range(600):
            caller = ledger.callers[number % 2]
            one = event(orgs[number % 10], 1, f"e{number}", "open")
            tasks.append(asyncio.create_task(caller.counters.track(one)))
            if number % 60 == 0:
                await ledger.client.script_flush()
        outcomes = await asyncio.gather(*tasks)
        assert {outcome.result for outcome in outcomes} == {Result.RECORDED}
        assert sum([await used(ledger, org_id, "open") for org_id in orgs]) == 600
        assert sum(caller.counters.stats.retries for caller in ledger.callers) > 0
        await lawful(ledger)


async def test_organisations_roll_over_with_scripts_that_the_server_forgot(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await warm(ledger.callers[0], "acme")
        await move_to(ledger, await next_year(ledger, "02-01T00:00:00"))
        await ledger.client.script_flush()
        assert (await ledger.callers[0].counters.track(event("acme", 4))).used == 4
        await lawful(ledger)
