"""Which events are known again: for how long, across which borders, and what an id costs."""

import asyncio
from typing import Final

import pytest

from metering.usage import Outcome, Result, UsageEvent
from tests.lua.ledger import Caller, Ledger
from tests.lua.raw import frame_of
from tests.lua.scenes import MINUTE_MS, ask, calm, event, lawful, move_to, next_year, send, waiting, words
from tests.support.servers import StoreServer

IDS: Final = 10_000
BYTES_PER_ID_MAX: Final = 24

# ── ids that the service minted ──────────────────────────────────────────────────────────────────────────


async def counted(ledger: Ledger, caller: Caller, used: int) -> None:
    """Acme, with so many scans."""
    await caller.counters.track(event("acme", used))


async def test_the_services_own_retry_of_an_event_without_an_id_gets_the_first_answer(each_store: StoreServer) -> None:
    """Byte for byte, with its overage and its marks; and nothing is written again."""
    async with calm(each_store.url) as ledger:
        caller = ledger.callers[0]
        await counted(ledger, caller, 8)
        call = words(ledger, caller, (await frame_of(ledger, caller, "acme"), [waiting("acme", "5", name="m1")]))
        first = await send(ledger, call)
        assert first[1:] == [1 + 16 * (4 + 8), 13, 3]
        written = await ledger.dump()
        await counted(ledger, ledger.callers[1], 1)
        assert (await send(ledger, call))[1:] == first[1:]
        await lawful(ledger)
        assert await ledger.client.hget(ledger.keys.record("acme"), "u:scans") == b"14"
        assert len(await ledger.dump()) == len(written)


async def test_a_capped_event_without_an_id_gets_its_first_answer_again(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await counted(ledger, caller, 1)
        one = waiting("acme", "12", name="m1", feature="calls")
        call = words(ledger, caller, (await frame_of(ledger, caller, "acme"), [one]))
        first = await send(ledger, call)
        assert first[1:] == [5 + 16 * 15, 10, 10]
        assert (await send(ledger, call))[1:] == first[1:]


async def test_an_event_without_an_id_that_stands_twice_in_one_call_is_counted_once(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await counted(ledger, caller, 1)
        twice = [waiting("acme", "2", name="m1"), waiting("acme", "2", name="m1"), waiting("acme", "2", name="m2")]
        reply = await ask(ledger, caller, (await frame_of(ledger, caller, "acme"), twice))
        assert reply[1:] == [1, 3, 0, 1, 3, 0, 1, 5, 0]
        await lawful(ledger)


@pytest.mark.parametrize(("minutes", "used"), [(0, 3), (1, 3), (2, 5)])
async def test_an_event_without_an_id_is_known_again_in_its_minute_and_the_next(
    store: StoreServer, minutes: int, used: int
) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await counted(ledger, caller, 1)
        frame, one = await frame_of(ledger, caller, "acme"), waiting("acme", "2", name="m1")
        assert (await ask(ledger, caller, (frame, [one])))[1:] == [1, 3, 0]
        await move_to(ledger, await ledger.now_ms() + minutes * MINUTE_MS)
        assert (await ask(ledger, caller, (frame, [one])))[1:] == [1, used, 0]


async def test_answers_to_events_without_an_id_expire_within_three_minutes(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await counted(ledger, ledger.callers[0], 1)
        await counted(ledger, ledger.callers[1], 1)
        [key] = [key async for key in ledger.client.scan_iter(match="*:m:acme:*")]
        assert 120 < await ledger.client.ttl(key) <= 180
        assert await ledger.client.hlen(key) == 2


async def test_two_events_without_an_id_are_two_events(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        same = [event("acme", 2) for _ in range(6)]
        outcomes = await asyncio.gather(*(ledger.callers[n % 2].counters.track(e) for n, e in enumerate(same)))
        assert sorted(outcome.used for outcome in outcomes) == [2, 4, 6, 8, 10, 12]


# ── ids that clients gave ────────────────────────────────────────────────────────────────────────────────


async def track(caller: Caller, *events: UsageEvent) -> list[tuple[Result, int]]:
    """What became of events sent at once, and the counter after each."""
    outcomes: list[Outcome] = await asyncio.gather(*(caller.counters.track(one) for one in events))
    return [(outcome.result, outcome.used) for outcome in outcomes]


async def test_an_id_means_one_event_of_one_source_in_one_organisation(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        assert await track(
            caller,
            event("acme", 2, "e1"),
            UsageEvent("acme", "scans", 2, "e1", "other-source"),
            event("beta", 2, "e1"),
            event("acme", 2, "e1"),
        ) == [(Result.RECORDED, 2), (Result.RECORDED, 4), (Result.RECORDED, 2), (Result.DUPLICATE, 4)]


async def test_no_pair_of_organisation_source_and_id_runs_into_another(store: StoreServer) -> None:
    """Their texts joined are the same; the lengths in front of each keep them apart."""
    async with calm(store.url) as ledger:
        alike = [UsageEvent("acme", "scans", 1, "bc", "a"), UsageEvent("acme", "scans", 1, "c", "ab")]
        alike += [UsageEvent("acme", "scans", 1, "1:c", "ab"), UsageEvent("acme", "scans", 1, "c", "ab1:")]
        assert [used for _, used in await track(ledger.callers[0], *alike)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "other", [event("acme", 3, "e1"), event("acme", 2, "e1", "checks"), event("acme", 22, "e1", "open")]
)
async def test_an_id_sent_with_another_content_is_a_conflict_each_time(store: StoreServer, other: UsageEvent) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        first = event("acme", 2, "e1")
        assert await track(caller, first) == [(Result.RECORDED, 2)]
        for _ in range(2):
            assert [result for result, _ in await track(caller, other)] == [Result.CONFLICT]
        assert await track(caller, first) == [(Result.DUPLICATE, 2)]
        assert [result for result, _ in await track(ledger.callers[1], other, first, other)] == [
            Result.CONFLICT, Result.DUPLICATE, Result.CONFLICT,
        ]  # fmt: skip


async def test_an_id_that_was_refused_may_be_sent_again_and_counts_when_there_is_room(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        tries = [event("acme", quantity, f"e{quantity}", "checks") for quantity in (8, 5, 2)]
        found = await track(caller, *tries, tries[1], event("acme", 1, "e5", "checks"))
        assert found == [
            (Result.RECORDED, 8), (Result.REFUSED, 8), (Result.RECORDED, 10), (Result.REFUSED, 10),
            (Result.REFUSED, 10),
        ]  # fmt: skip


# ── borders ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("then", "result"),
    [
        ("01-31T23:59:00", Result.DUPLICATE),
        ("02-01T00:00:00", Result.DUPLICATE),
        ("02-28T23:59:50", Result.DUPLICATE),
        ("03-01T00:00:00", Result.RECORDED),
    ],
)
async def test_an_id_is_known_in_its_month_and_the_next(each_store: StoreServer, then: str, result: Result) -> None:
    async with calm(each_store.url) as ledger:
        caller = ledger.callers[0]
        await track(caller, event("acme", 2, "e1"))
        await move_to(ledger, await next_year(ledger, then))
        [(found, _)] = await track(caller, event("acme", 2, "e1"))
        assert found is result
        await lawful(ledger)


async def test_an_id_counted_again_two_months_later_is_known_from_then_on(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        found = []
        for month in ("01", "02", "03", "04", "06"):
            await move_to(ledger, await next_year(ledger, f"{month}-15T00:00:00"))
            found += [result for result, _ in await track(caller, event("acme", 2, "e1"))]
        again, known = Result.RECORDED, Result.DUPLICATE
        assert found == [again, known, again, known, again]


async def test_an_event_repeated_after_its_period_ended_is_not_counted_in_the_new_one(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await track(caller, event("acme", 7, "e1"), event("acme", 2, "e2"))
        await move_to(ledger, await next_year(ledger, "02-01T00:00:00"))
        found = await track(caller, event("acme", 7, "e1"), event("acme", 3, "e2"), event("acme", 1, "e3"))
        assert found == [(Result.DUPLICATE, 0), (Result.CONFLICT, 0), (Result.RECORDED, 1)]
        await lawful(ledger)


# ── growth ───────────────────────────────────────────────────────────────────────────────────────────────


async def fill(ledger: Ledger, count: int, start: int = 0) -> None:
    """Count ids `start`... through both callers, as fast as they take them."""
    for at in range(start, start + count, 500):
        events = [event("acme", 1, f"e{n}", "open") for n in range(at, min(at + 500, start + count))]
        outcomes = [await asyncio.gather(*(ledger.callers[at // 500 % 2].counters.track(e) for e in events))]
        assert all(outcome.result is Result.RECORDED for outcome in outcomes[0])


async def tiers(ledger: Ledger) -> tuple[str, str]:
    org = await ledger.callers[0].orgs.get("acme")
    assert org is not None
    return org.claim.tiers, org.claim.tiers_before


async def test_more_than_200_ids_grow_to_16_shards_and_the_old_ones_are_still_known(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await fill(ledger, 190)
        assert await tiers(ledger) == ("0", "")
        await fill(ledger, 110, start=190)
        assert await tiers(ledger) == ("04", "")
        for caller in ledger.callers:
            again = await track(caller, *(event("acme", 1, f"e{n}", "open") for n in range(300)))
            assert again == [(Result.DUPLICATE, 300)] * 300
        await lawful(ledger)


async def test_the_shards_of_a_month_are_known_in_the_next_which_begins_with_as_many(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await fill(ledger, 600)
        await move_to(ledger, await next_year(ledger, "02-01T00:00:00"))
        again = await track(ledger.callers[0], *(event("acme", 1, f"e{n}", "open") for n in range(600)))
        assert again == [(Result.DUPLICATE, 0)] * 600
        assert await tiers(ledger) == ("4", "4")
        await fill(ledger, 100, start=600)
        await lawful(ledger)


async def test_an_id_costs_at_most_24_bytes_at_ten_thousand_a_month(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await fill(ledger, IDS)
        assert await tiers(ledger) == ("48", "")
        keys = [key async for key in ledger.client.scan_iter(match="*:d:acme:*", count=1000)]
        integers = size = 0
        for key in keys:
            integers += await ledger.client.scard(key)
            size += await ledger.client.memory_usage(key, samples=0)
        assert integers == 2 * IDS
        assert size / IDS <= BYTES_PER_ID_MAX, f"{size / IDS:.1f} bytes an id"
        assert {await ledger.client.object("ENCODING", key) for key in keys} == {b"intset"}


async def test_an_unknown_organisation_whose_first_call_overfills_a_shard_begins_with_more(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        found = await track(ledger.callers[0], *(event("acme", 1, f"e{n}", "open") for n in range(250)))
        assert found == [(Result.RECORDED, n) for n in range(1, 251)]
        assert await tiers(ledger) == ("4", "")
        await lawful(ledger)


async def test_a_burst_larger_than_what_a_shard_holds_is_counted_wholly(store: StoreServer) -> None:
    """All of an organisation's events wait while its tiers grow, so that limits are decided in order."""
    async with calm(store.url) as ledger:
        events = [event("acme", 1, f"e{n}", "open") for n in range(1500)]
        outcomes = await asyncio.gather(*(ledger.callers[0].counters.track(one) for one in events))
        assert sorted(outcome.used for outcome in outcomes) == list(range(1, 1501))
        await lawful(ledger)
