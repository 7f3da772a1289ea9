"""Queued events are counted once each, whatever crashes between; what cannot be counted stands aside."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import pytest

from metering.errors import (
    ClockUnsafe,
    InternalError,
    LedgerFull,
    OrgCorrupt,
    OrgNotFound,
    Overloaded,
    Problem,
    StorageUnavailable,
    TimestampOutOfRange,
)
from metering.store.consumer import ENTRIES_MAX, TRIES_MAX
from metering.store.counters import LatePolicy
from metering.store.queue_dead import retry_dead
from metering.usage import UsageEvent
from tests.lua.ledger import CATALOGUE, Ledger
from tests.lua.lines import dead, line_of, once, queued, used
from tests.lua.scenes import calm, event, lawful, move_to, next_year
from tests.support.servers import StoreServer
from tests.support.wait import await_until

QUEUE: Final = "{p00}:queue"


async def test_what_was_accepted_is_counted_and_gone(each_store: StoreServer) -> None:
    async with Ledger(each_store.url, callers=1) as ledger:
        line = line_of(ledger)
        await line.accept(event("acme", 3, "e1"), event("beta", 2, "e2"), event("acme", 4))
        await line.consumer.turn()
        assert (await used(ledger, "acme"), await used(ledger, "beta"), await queued(ledger)) == (7, 2, 0)
        assert line.consumer.stats.counted == 3
        await lawful(ledger)


async def test_an_id_counts_once_however_often_and_in_whatever_way_it_comes(store: StoreServer) -> None:
    async with Ledger(store.url, callers=1) as ledger:
        line = line_of(ledger)
        await line.accept(event("acme", 3, "e1"), event("acme", 3, "e1"))
        await ledger.callers[0].counters.track(event("acme", 3, "e1"))
        await line.consumer.turn()
        await line.accept(event("acme", 3, "e1"))
        await line.consumer.turn()
        assert (await used(ledger, "acme"), await queued(ledger)) == (3, 0)
        assert (line.consumer.stats.counted, line.consumer.stats.duplicates) == (0, 3)


async def test_a_thousand_events_over_both_partitions_are_counted_by_two_workers_once(store: StoreServer) -> None:
    async with Ledger(store.url, callers=2) as ledger:
        lines = [line_of(ledger, caller, most=5000) for caller in ledger.callers]
        await lines[0].accept(*(event(f"org-{n % 7}", 1, f"e{n}", "open") for n in range(4 * ENTRIES_MAX)))
        await asyncio.gather(*(line.consumer.turn() for line in lines))
        assert sum([await used(ledger, f"org-{n}", "open") for n in range(7)]) == 4 * ENTRIES_MAX
        assert await queued(ledger) == 0
        assert sum(line.consumer.stats.counted for line in lines) == 4 * ENTRIES_MAX


async def test_an_event_lies_in_history_where_it_was_accepted(store: StoreServer) -> None:
    async with calm(store.url, partitions=1, callers=1) as ledger:
        line = line_of(ledger)
        await line.accept(event("acme", 3, "e1"))
        await move_to(ledger, await next_year(ledger, "01-10T14:30:00"))
        await line.accept(event("acme", 2, "e2", timestamp_ms=await next_year(ledger, "01-10T11:00:00")))
        await line.consumer.turn()
        day = (await ledger.client.keys("*:h:acme:scans:*"))[0]
        assert await ledger.client.hgetall(day) == {b"12": b"3", b"11": b"2"}


@pytest.mark.parametrize("late", LatePolicy)
async def test_an_event_counts_in_the_period_it_was_accepted_in_however_late_it_is_counted(
    store: StoreServer, late: LatePolicy
) -> None:
    """What was accepted in time is not late because it waited: no policy loses it."""
    async with calm(store.url, partitions=1, callers=1, late=late) as ledger:
        line = line_of(ledger)
        await move_to(ledger, await next_year(ledger, "01-31T23:59:50"))
        await ledger.callers[0].counters.track(event("acme", 1, "e0"))
        await line.accept(event("acme", 3, "e1"), event("acme", 12, "e2"))
        january = await ledger.callers[0].orgs.get("acme")
        assert january is not None
        end_ms = january.period.end_ms
        await move_to(ledger, await next_year(ledger, "02-01T00:00:05"))
        await ledger.callers[0].counters.track(event("acme", 1, "e3"))
        assert not await line.queue.drained_past("acme", end_ms)
        await line.consumer.turn()
        assert await line.queue.drained_past("acme", end_ms)
        archive = await ledger.client.hgetall(ledger.keys.archive("acme", january.period.start_ms))
        assert (archive[b"u:scans"], archive[b"x:scans"]) == (b"16", b"6")
        assert (await used(ledger, "acme"), line.consumer.stats.counted) == (1, 2)
        await lawful(ledger)


async def test_what_was_late_when_it_was_accepted_is_refused_where_the_policy_says_so(store: StoreServer) -> None:
    """Also where the period it was accepted in has closed meanwhile; what was in time then is not."""
    async with calm(store.url, partitions=1, callers=1, late=LatePolicy.REJECT) as ledger:
        line = line_of(ledger)
        await move_to(ledger, await next_year(ledger, "02-01T00:00:05"))
        await ledger.callers[0].counters.track(event("acme", 1, "e0"))
        january = await next_year(ledger, "01-31T23:00:00")
        await line.accept(event("acme", 2, "e1", timestamp_ms=january))
        await line.consumer.turn()
        await line.accept(event("acme", 3, "e2", timestamp_ms=january))
        await line.accept(event("acme", 4, "e3", timestamp_ms=await next_year(ledger, "02-01T00:00:01")))
        await move_to(ledger, await next_year(ledger, "03-01T00:00:05"))
        await line.consumer.turn()
        start_ms = await next_year(ledger, "02-01T00:00:00")
        february = await ledger.client.hget(ledger.keys.archive("acme", start_ms), "u:scans")
        assert (february, await used(ledger, "acme"), line.consumer.stats.refused) == (b"5", 0, 2)
        await lawful(ledger)


async def test_the_first_events_of_an_organisation_count_in_the_period_they_were_accepted_in_too(
    store: StoreServer,
) -> None:
    """Nothing was used in January when it closed, so nothing of it would have been kept."""
    async with calm(store.url, partitions=1, callers=1) as ledger:
        line = line_of(ledger)
        await move_to(ledger, await next_year(ledger, "01-31T23:59:50"))
        await line.accept(event("acme", 3, "e1"), event("acme", 12, "e2"))
        january = await ledger.callers[0].orgs.get("acme")
        assert january is not None
        await move_to(ledger, await next_year(ledger, "02-01T00:00:05"))
        await ledger.callers[0].counters.track(event("acme", 1, "e3"))
        await line.consumer.turn()
        archive = await ledger.client.hgetall(ledger.keys.archive("acme", january.period.start_ms))
        assert (archive[b"u:scans"], archive[b"x:scans"], await used(ledger, "acme")) == (b"15", b"5", 1)
        await lawful(ledger)


async def test_where_nothing_waits_a_period_without_usage_leaves_nothing_behind(store: StoreServer) -> None:
    async with calm(store.url, partitions=1, callers=1) as ledger:
        await line_of(ledger).owners.sender("acme", "test")
        await move_to(ledger, await next_year(ledger, "02-01T00:00:05"))
        assert await ledger.callers[0].orgs.get("acme") is not None
        assert await ledger.client.keys("*:u:acme:*") == []


async def test_all_features_of_an_event_are_counted_or_none(store: StoreServer) -> None:
    async with Ledger(store.url, callers=1) as ledger:
        line = line_of(ledger)
        both = UsageEvent("acme", "scans", 2, "e1", also=(("checks", 4),))
        await line.accept(both, UsageEvent("acme", "scans", 2, "e2", also=(("checks", 9),)))
        await line.consumer.turn()
        assert (await used(ledger, "acme"), await used(ledger, "acme", "checks")) == (2, 4)
        assert (line.consumer.stats.counted, line.consumer.stats.refused) == (1, 1)


async def test_what_is_too_fast_for_its_rate_waits_a_while_and_is_then_refused(store: StoreServer) -> None:
    rated = CATALOGUE.replace(
        "[plans.free.features]", '[plans.free.rate_limit]\nevents = 1\nper = "hour"\nburst = 2\n\n[plans.free.features]'
    )
    async with Ledger(store.url, partitions=1, callers=1, catalogue=rated) as ledger:
        line = line_of(ledger, idle_ms=0)
        await line.accept(*(event("acme", 1, f"e{n}") for n in range(3)))
        await line.consumer.turn()
        assert (await used(ledger, "acme"), await queued(ledger)) == (2, 1)
        for _ in range(TRIES_MAX - 1):
            await line.consumer.turn()
        assert (await used(ledger, "acme"), await queued(ledger), await dead(ledger)) == (2, 0, [])
        assert (line.consumer.stats.counted, line.consumer.stats.refused) == (2, 1)


@pytest.mark.parametrize(
    ("feature", "quantity"), [("checks", 11), ("closed", 1), ("nothing", 1)], ids=["blocked", "disabled", "unknown"]
)
async def test_a_refusal_is_final(store: StoreServer, feature: str, quantity: int) -> None:
    async with Ledger(store.url, callers=1) as ledger:
        line = line_of(ledger)
        await line.accept(event("acme", quantity, "e1", feature), event("acme", 1, "e2"))
        await line.consumer.turn()
        assert (await used(ledger, "acme"), await queued(ledger), await dead(ledger)) == (1, 0, [])
        assert (line.consumer.stats.counted, line.consumer.stats.refused) == (1, 1)


async def test_another_content_under_the_same_id_is_a_refusal(store: StoreServer) -> None:
    async with Ledger(store.url, callers=1) as ledger:
        line = line_of(ledger)
        await line.accept(event("acme", 1, "e1"), event("acme", 2, "e1"))
        await line.consumer.turn()
        assert (await used(ledger, "acme"), line.consumer.stats.refused) == (1, 1)


async def test_events_of_an_organisation_that_is_gone_are_dropped(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        await line_of(ledger).accept(event("acme"), event("beta"))
        await ledger.client.delete("{p00}:o:acme", "{p00}:p:acme")
        line = line_of(ledger)
        await line.consumer.turn()
        assert (await used(ledger, "beta"), await queued(ledger), await dead(ledger)) == (1, 0, [])
        assert line.consumer.stats.refused == 1
        assert await ledger.callers[0].orgs.get("acme") is None


# ── crashes ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_that_dies_before_counting_leaves_its_entries_to_another(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1) as ledger:
        first, second = line_of(ledger), line_of(ledger, ledger.callers[1], idle_ms=0)
        await first.accept(event("acme", 3, "e1"), event("acme", 4))
        assert len(await first.reader.unread(0, most=10)) == 2  # handed out, and never heard of again
        await second.consumer.turn()
        assert (await used(ledger, "acme"), await queued(ledger)) == (7, 0)


async def test_a_worker_that_dies_after_counting_counts_nothing_twice(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1) as ledger:
        track_all = once(ledger.callers[0].counters.track_all, StorageUnavailable())
        first = line_of(ledger, track_all=track_all)
        second = line_of(ledger, ledger.callers[1], idle_ms=0)
        await first.accept(event("acme", 3, "e1"), event("acme", 4))
        with pytest.raises(StorageUnavailable):
            await first.consumer.turn()
        assert (await used(ledger, "acme"), await queued(ledger)) == (7, 2)
        await second.consumer.turn()
        assert (await used(ledger, "acme"), await queued(ledger)) == (7, 0)
        assert (second.consumer.stats.counted, second.consumer.stats.duplicates) == (0, 2)


async def test_an_entry_of_a_worker_that_lives_is_let_be(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1) as ledger:
        line = line_of(ledger, idle_ms=60_000)
        await line.accept(event("acme"))
        await line.reader.unread(0, most=10)
        await line.consumer.turn()
        assert (await used(ledger, "acme"), await queued(ledger)) == (0, 1)


async def test_a_taking_out_that_was_cut_in_half_leaves_nothing_behind(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        line = line_of(ledger, idle_ms=0)
        await line.accept(event("acme"))
        (entry,) = await line.reader.unread(0, most=10)
        await ledger.client.xdel(QUEUE, entry.name)
        await line.accept(event("acme"))
        await line.consumer.turn()
        assert (await ledger.client.xpending(QUEUE, "counters"))["pending"] == 0
        assert (await used(ledger, "acme"), await queued(ledger)) == (1, 0)


async def test_the_store_killed_in_the_middle_loses_and_doubles_nothing(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=2, callers=1) as ledger:
        line = line_of(ledger, most=5000, idle_ms=0)
        await line.accept(*(event(f"org-{n % 5}", 1, f"e{n}", "open") for n in range(1500)))
        counting = asyncio.create_task(line.consumer.turn())
        await await_until(lambda: line.consumer.stats.counted > 200, timeout_s=10, what="some counted")
        store.kill()
        await asyncio.gather(counting, return_exceptions=True)
        store.start()
        await await_until(lambda: _turned(ledger, idle_ms=0), timeout_s=20, what="the queue is empty")
        assert sum([await used(ledger, f"org-{n}", "open") for n in range(5)]) == 1500
        await lawful(ledger)


async def _turned(ledger: Ledger, idle_ms: int) -> bool:
    """A turn of a worker that knows nothing of the one before; whether nothing is left."""
    try:
        await line_of(ledger, idle_ms=idle_ms).consumer.turn()
        return await queued(ledger) == 0
    except Problem:
        return False


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────


def failing(ledger: Ledger, org_id: str, problem: Problem) -> Any:
    """Counts, but for one organisation's events."""

    async def track_all(events: Sequence[UsageEvent]) -> list[Any]:
        told = await ledger.callers[0].counters.track_all([one for one in events if one.org_id != org_id])
        others = iter(told)
        return [problem if one.org_id == org_id else next(others) for one in events]

    return track_all


@pytest.mark.parametrize("problem", [StorageUnavailable, Overloaded, LedgerFull, ClockUnsafe])
async def test_what_the_store_cannot_answer_waits_as_long_as_it_takes(
    store: StoreServer, problem: type[Problem]
) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        sick = line_of(ledger, idle_ms=0, track_all=failing(ledger, "acme", problem()))
        await sick.accept(event("acme"), event("beta"))
        for _ in range(TRIES_MAX + 2):
            await sick.consumer.turn()
        assert (await queued(ledger), await dead(ledger), await used(ledger, "beta")) == (1, [], 1)
        await line_of(ledger, idle_ms=0).consumer.turn()
        assert (await queued(ledger), await used(ledger, "acme")) == (0, 1)


@pytest.mark.parametrize("problem", [OrgNotFound, TimestampOutOfRange])
async def test_what_will_never_be_counted_is_taken_out(store: StoreServer, problem: type[Problem]) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        line = line_of(ledger, track_all=failing(ledger, "acme", problem()))
        await line.accept(event("acme"), event("beta"))
        await line.consumer.turn()
        assert (await queued(ledger), await dead(ledger), line.consumer.stats.refused) == (0, [], 1)


@pytest.mark.parametrize("problem", [InternalError, OrgCorrupt])
async def test_an_entry_that_fails_by_itself_is_given_up_after_some_tries_and_stops_nobody(
    store: StoreServer, problem: type[Problem]
) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        line = line_of(ledger, idle_ms=0, track_all=failing(ledger, "acme", problem()))
        await line.accept(event("acme", 1, "e1"), event("beta"))
        for turn in range(1, TRIES_MAX + 1):
            assert await dead(ledger) == []
            await line.consumer.turn()
            assert await used(ledger, "beta") == 1, turn
        (buried,) = await dead(ledger)
        assert buried[b"why"] == problem.code.encode()
        assert buried.keys() == {b"org", b"to", b"box", b"offset", b"entry", b"why"}
        assert (await queued(ledger), line.consumer.stats.given_up) == (0, 1)


@pytest.mark.parametrize(
    "spoilt",
    [{"box": "AAAA"}, {"to": "AAAA"}, {"box": None}, {"to": None}],
    ids=["box", "to", "no box", "no to"],
)
async def test_an_entry_that_cannot_be_read_is_given_up_at_once(store: StoreServer, spoilt: dict[str, Any]) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        line = line_of(ledger)
        await line.accept(event("acme"))
        ((name, fields),) = await ledger.client.xrange(QUEUE)
        await ledger.client.xdel(QUEUE, name)
        changed = fields | {key.encode(): value for key, value in spoilt.items()}
        await ledger.client.xadd(QUEUE, {key: value for key, value in changed.items() if value is not None})
        await line.accept(event("beta"))
        await line.consumer.turn()
        assert (await queued(ledger), len(await dead(ledger)), await used(ledger, "beta")) == (0, 1, 1)


async def test_what_was_given_up_can_be_tried_again_once_it_is_repaired(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        await line_of(ledger).accept(event("acme", 3, "e1"), event("acme", 4, "e2"))
        key = await ledger.client.hget("{p00}:p:acme", "key")
        await ledger.client.hset("{p00}:p:acme", "key", "nonsense")
        for _ in range(TRIES_MAX):
            await line_of(ledger, idle_ms=0).consumer.turn()
        await ledger.client.xadd("{p00}:dead", {"x": 1})
        await ledger.client.hset("{p00}:p:acme", "key", key)
        assert await retry_dead(ledger.client, ledger.keys) == 2
        assert await dead(ledger) == []
        await line_of(ledger).consumer.turn()
        assert (await used(ledger, "acme"), await queued(ledger)) == (7, 0)


async def test_an_organisation_that_cannot_be_read_is_given_up_after_some_tries(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        await line_of(ledger).accept(event("acme"), event("beta"))
        await ledger.client.hset("{p00}:p:acme", "key", "nonsense")
        for _ in range(TRIES_MAX):
            await line_of(ledger, idle_ms=0).consumer.turn()
        assert [fields[b"why"] for fields in await dead(ledger)] == [b"org-corrupt"]
        assert (await queued(ledger), await used(ledger, "beta")) == (0, 1)


async def test_a_queue_of_another_type_holds_up_no_other(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=2, callers=1) as ledger:
        await ledger.client.set(QUEUE, "x")
        line = line_of(ledger)
        assert ledger.keys.partition("a") == 1
        await line.accept(event("a"))
        await line.consumer.turn()
        assert await used(ledger, "a") == 1


async def test_where_nothing_waits_nothing_is_written(store: StoreServer) -> None:
    async with Ledger(store.url, callers=1) as ledger:
        line = line_of(ledger)
        await line.accept(event("acme"))
        await line.consumer.turn()
        before = await ledger.dump()
        await line.consumer.turn()
        assert await ledger.dump() == before
