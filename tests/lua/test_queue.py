"""What is accepted stands in a queue, whole and sealed; what is not says why; and when a queue is drained."""

from dataclasses import fields
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import OrgNotFound, Overloaded, StorageUnavailable, TimestampOutOfRange
from metering.store.boxes import Unreadable
from metering.store.queue import APPEND_MAX
from metering.store.queue_state import QueueState
from metering.store.queued import Entry, entry_of, event_of, text_of
from metering.store.shared import read_shared
from metering.usage import UsageEvent
from plans.limits import OnLimit
from tests.lua.ledger import Ledger
from tests.lua.lines import line_of, queued
from tests.lua.scenes import calm, event, lawful, move_to, next_year
from tests.support.servers import StoreServer
from tests.support.wait import await_until

DAY_MS: Final = 86_400_000

texts = st.text(min_size=1, max_size=20)
events = st.builds(
    UsageEvent,
    org_id=st.just("acme"),
    feature=st.sampled_from(["scans", "checks"]),
    quantity=st.integers(1, 10**12),
    event_id=st.none() | texts,
    source=st.just("") | texts,
    timestamp_ms=st.none() | st.integers(1, 2**43),
    mode=st.none() | st.sampled_from(OnLimit),
    also=st.lists(st.tuples(st.sampled_from(["calls", "open"]), st.integers(1, 9)), max_size=2).map(tuple),
    dimensions=st.none() | st.dictionaries(texts, texts, max_size=2),
    details=st.none() | st.sampled_from([b'{"actor":"ann","metadata":{"k":"\\u00e9"}}', '{"actor":"é"}'.encode()]),
)


@given(events)
def test_an_event_comes_out_as_it_went_in(one: UsageEvent) -> None:
    assert event_of("acme", text_of(one)) == one


def test_every_field_of_an_event_is_carried_or_known_not_to_be() -> None:
    """A field that is new has to be carried, and to come out as it went in: add it to `events` above."""
    generated = {"feature", "quantity", "event_id", "source", "timestamp_ms", "mode", "also", "dimensions", "details"}
    elsewhere = {"org_id", "dry_run", "accepted_ms", "hold_id"}  # its owner, refused, the entry's name, refused
    assert generated | elsewhere == {field.name for field in fields(UsageEvent)}


def test_what_has_its_default_takes_no_room() -> None:
    assert text_of(UsageEvent("acme", "scans")) == b'{"feature":"scans"}'


def test_an_entry_was_accepted_when_its_name_says_and_by_its_test_clock() -> None:
    assert entry_of(b"1700000000000-3", {}) == Entry("1700000000000-3", 1_700_000_000_000, {})
    assert entry_of(b"1700000000000-3", {b"offset": b"86400000"}).accepted_ms == 1_700_086_400_000


async def the_only_entry(ledger: Ledger) -> Entry:
    ((name, fields),) = await ledger.client.xrange("{p00}:queue")
    return entry_of(name, fields)


async def test_an_accepted_event_can_be_read_again(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        line = line_of(ledger)
        one = UsageEvent(
            "acme", "scans", 5, "e1", "svc", mode=OnLimit.BLOCK, also=(("open", 2),), details=b'{"actor":"a"}'
        )
        await line.accept(one)
        assert await line.reader.event(await the_only_entry(ledger)) == one


async def test_an_event_without_an_id_gets_one_when_it_is_accepted(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        line = line_of(ledger)
        await line.accept(event("acme"))
        read = await line.reader.event(await the_only_entry(ledger))
        assert read is not None
        assert read.event_id is not None
        assert len(read.event_id) == len("evt_") + 26


async def test_a_queue_holds_nothing_that_names_anybody(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        details = b'{"actor":"ann.smith","metadata":{"wallet":"0xfeed"}}'
        await line_of(ledger).accept(
            UsageEvent("acme-industries", "scans", 5, "evt-secret", "svc-secret", details=details)
        )
        dumped = await ledger.client.dump("{p00}:queue")
        entry = await the_only_entry(ledger)
        for word in (b"acme-industries", b"evt-secret", b"svc-secret", b"ann.smith", b"wallet", b"0xfeed", b"scans"):
            assert word not in dumped
            assert not any(word in value for value in entry.fields.values())


async def test_without_its_organisations_key_an_entry_cannot_be_read(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        await line_of(ledger).accept(event("acme"))
        entry = await the_only_entry(ledger)
        await ledger.client.delete("{p00}:o:acme", "{p00}:p:acme")
        assert await line_of(ledger).reader.event(entry) is None
        await ledger.callers[0].counters.track(event("acme"))  # it begins again, with another key
        with pytest.raises(Unreadable):
            await line_of(ledger).reader.event(entry)


async def test_an_unknown_organisation_is_made_when_its_first_event_is_accepted(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        await line_of(ledger).accept(event("acme"), event("acme"), event("beta"))
        assert await ledger.callers[0].orgs.get("acme") is not None
        assert await queued(ledger) == 3
        await lawful(ledger)


async def test_where_organisations_are_not_made_by_themselves_a_strangers_event_is_refused_alone(
    store: StoreServer,
) -> None:
    async with Ledger(store.url, callers=1) as ledger:
        await ledger.callers[0].counters.track(event("acme"))
        line = line_of(ledger, auto_create=False)
        told = await line.queue.accept([event("acme"), event("beta"), event("acme")], actor="test")
        assert [type(one) for one in told] == [type(None), OrgNotFound, type(None)]
        assert await queued(ledger) == 2


@pytest.mark.parametrize("ago_ms", [36 * DAY_MS, -6 * 60_000])
async def test_a_timestamp_that_cannot_be_counted_is_told_at_once(store: StoreServer, ago_ms: int) -> None:
    async with Ledger(store.url, callers=1) as ledger:
        line = line_of(ledger)
        now_ms = await ledger.now_ms()
        told = await line.queue.accept([event("acme", timestamp_ms=now_ms - ago_ms), event("acme")], actor="test")
        assert [type(one) for one in told] == [TimestampOutOfRange, type(None)]


async def test_a_full_queue_refuses_the_events_of_its_partition_alone(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=2, callers=1) as ledger:
        line = line_of(ledger, most=2)
        names = {0: "acme", 1: "a"}
        await line.accept(event(names[0]), event(names[0]))
        told = await line.queue.accept([event(names[0]), event(names[1])], actor="test")
        assert [type(one) for one in told] == [Overloaded, type(None)]
        assert told[0] is not None
        assert "Retry-After" in told[0].headers


async def test_a_large_batch_goes_in_calls_of_a_bounded_size_and_keeps_its_order(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=1, callers=1) as ledger:
        line = line_of(ledger, most=10_000)
        many = [event("acme", 1, f"e{number}") for number in range(3 * APPEND_MAX + 1)]
        await line.accept(*many)
        entries = [entry_of(*pair) for pair in await ledger.client.xrange("{p00}:queue")]
        read = [await line.reader.event(entry) for entry in entries]
        assert [one and one.event_id for one in read] == [one.event_id for one in many]


async def test_accepting_wakes_who_counts(store: StoreServer) -> None:
    async with Ledger(store.url, callers=1) as ledger:
        line = line_of(ledger)
        await line.queue.accept([event("acme", timestamp_ms=0)], actor="test")
        assert not line.queue.woken.is_set()
        await line.accept(event("acme"))
        assert line.queue.woken.is_set()


async def test_nothing_asked_is_nothing_done(store: StoreServer) -> None:
    async with Ledger(store.url, callers=1, test_clock=False) as ledger:
        assert await line_of(ledger).queue.accept([], actor="test") == []
        assert await ledger.dump() == {}


async def test_a_store_that_lost_its_scripts_is_taught_again(store: StoreServer) -> None:
    async with Ledger(store.url, callers=1) as ledger:
        line = line_of(ledger)
        await line.accept(event("acme"))
        await ledger.client.script_flush()
        await line.accept(event("acme"))
        assert await queued(ledger) == 2


async def test_a_store_that_is_away_accepts_nothing() -> None:
    with StoreServer() as server:
        async with Ledger(server.url, callers=1) as ledger:
            line = line_of(ledger)
            await line.accept(event("acme"))
            server.kill()
            told = await line.queue.accept([event("acme"), event("beta")], actor="test")
            assert [type(one) for one in told] == [StorageUnavailable, StorageUnavailable]


# ── drained ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_queue_that_was_never_used_is_drained_past_now_and_not_past_what_comes(store: StoreServer) -> None:
    async with calm(store.url, partitions=1, callers=1) as ledger:
        queue = line_of(ledger).queue
        now_ms = await ledger.now_ms()
        assert await queue.drained_past("acme", now_ms)
        assert await queue.drained_past(0, now_ms - DAY_MS)
        assert not await queue.drained_past(0, now_ms + 60_000)


async def test_an_entry_keeps_its_queue_from_being_drained_past_its_acceptance(store: StoreServer) -> None:
    async with calm(store.url, partitions=1, callers=1) as ledger:
        line = line_of(ledger)
        await line.accept(event("acme"))
        at_ms = (await the_only_entry(ledger)).accepted_ms
        await move_to(ledger, await next_year(ledger, "02-01T00:00:05"))
        end_ms = await next_year(ledger, "02-01T00:00:00")
        assert await line.queue.drained_past("acme", at_ms)
        assert not await line.queue.drained_past("acme", at_ms + 1)
        assert not await line.queue.drained_past("acme", end_ms)
        await line.reader.unread(0, most=10)  # handed out is not decided
        assert not await line.queue.drained_past("acme", end_ms)
        await line.reader.take_out(0, [await the_only_entry(ledger)])
        assert await line.queue.drained_past("acme", end_ms)


async def test_a_younger_entry_does_not_matter(store: StoreServer) -> None:
    async with calm(store.url, partitions=1, callers=1) as ledger:
        line = line_of(ledger)
        end_ms = await next_year(ledger, "02-01T00:00:00")
        await move_to(ledger, end_ms + 1000)
        await line.accept(event("acme"))
        assert await line.queue.drained_past("acme", end_ms)


async def test_each_partition_is_drained_by_itself(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=2, callers=1) as ledger:
        line = line_of(ledger)
        await line.accept(event("acme"))
        at_ms = (await the_only_entry(ledger)).accepted_ms + 1
        await await_until(lambda: _passed(ledger, at_ms), timeout_s=5, what="the next millisecond")
        assert ledger.keys.partition("acme") == 0
        assert not await line.queue.drained_past("acme", at_ms)
        assert await line.queue.drained_past(1, at_ms)


async def _passed(ledger: Ledger, at_ms: int) -> bool:
    return await ledger.now_ms() >= at_ms


async def test_the_state_tells_length_age_and_the_dead(store: StoreServer) -> None:
    async with Ledger(store.url, partitions=2, callers=1) as ledger:
        line = line_of(ledger)
        assert (await read_shared(ledger.client, ledger.keys, top=1)).queue == QueueState(0, 0, 0)
        await line.accept(event("acme"), event("a"))
        await ledger.client.xadd("{p01}:dead", {"x": 1})
        await ledger.jump_to(await ledger.now_ms() + 5000)
        state = (await read_shared(ledger.client, ledger.keys, top=1)).queue
        assert (state.length, state.dead) == (2, 1)
        assert 5000 <= state.age_ms < 6000


@pytest.mark.parametrize("call", ["drained_past", "state"])
async def test_a_store_that_is_away_is_told(call: str) -> None:
    with StoreServer() as server:
        async with Ledger(server.url, callers=1) as ledger:
            queue = line_of(ledger).queue
            server.kill()
            asked: Any = read_shared(ledger.client, ledger.keys, top=1) if call == "state" else queue.drained_past(0, 0)
            with pytest.raises(StorageUnavailable):
                await asked
