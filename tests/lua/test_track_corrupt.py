"""Data that no script wrote: its organisation is refused and left as it is, all others count."""

import asyncio
from typing import Final

import pytest

from metering.errors import OrgCorrupt
from metering.store.frames import day_text
from metering.usage import Outcome, UsageEvent
from tests.lua.ledger import Ledger
from tests.lua.scenes import DAY_MS, MINUTE_MS, calm, commands, event, keys_of, lawful
from tests.support.servers import StoreServer

WARM: Final = ("record", "seen", "minted", "history", "other_history")
COLD: Final = ("record", "profile")


async def spoil(ledger: Ledger, name: str) -> str:
    """Put a string where another type belongs; returns the key."""
    keys, now_ms = ledger.keys, await ledger.now_ms()
    day = day_text(now_ms // DAY_MS)
    key = {
        "record": keys.record("bad"),
        "profile": keys.profile("bad"),
        "trail": keys.trail("bad"),
        "seen": keys.seen("bad", day[:6], "0", 0),
        "minted": keys.minted("bad", now_ms // MINUTE_MS),
        "history": keys.history("bad", "scans", day),
        "other_history": keys.history("bad", "open", day),
    }.get(name) or keys.shared(name, keys.partition("bad"))
    await ledger.client.set(key, "junk")
    return key


async def known(ledger: Ledger) -> None:
    """Three organisations that both callers know."""
    for caller in ledger.callers:
        for _ in range(2):
            await asyncio.gather(*(caller.counters.track(event(org_id)) for org_id in ("good-1", "bad", "good-2")))


async def burst(ledger: Ledger, *bad: UsageEvent) -> list[Outcome | BaseException]:
    """One call: an event of each good organisation around those of the bad one."""
    events = [event("good-1", 2, "g1"), *bad, event("good-2", 3, "g2")]
    track = ledger.callers[0].counters.track
    return await asyncio.gather(*(track(one) for one in events), return_exceptions=True)


def the_good_ones_counted(outcomes: list[Outcome | BaseException]) -> bool:
    """Whether both good organisations stand where they should; one asked twice calls itself a repeat."""
    first, last = outcomes[0], outcomes[-1]
    return isinstance(first, Outcome) and isinstance(last, Outcome) and (first.used, last.used) == (6, 7)


@pytest.mark.parametrize("name", WARM)
async def test_a_key_of_a_wrong_type_costs_its_own_organisation_alone(each_store: StoreServer, name: str) -> None:
    """Its events are refused as corrupt, nothing of it is written, and the others of the same call count."""
    async with calm(each_store.url, partitions=1) as ledger:
        await known(ledger)
        await spoil(ledger, name)
        before = await keys_of(ledger, "bad")
        bad = [event("bad"), event("bad", 1, "e1"), event("bad", 1, "e2", "open")]
        outcomes = await burst(ledger, *bad)
        assert [type(outcome) for outcome in outcomes[1:-1]] == [OrgCorrupt] * 3
        assert the_good_ones_counted(outcomes)
        assert await keys_of(ledger, "bad") == before


@pytest.mark.parametrize("name", COLD)
async def test_a_worker_that_does_not_know_the_organisation_finds_it_corrupt_too(
    each_store: StoreServer, name: str
) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await known(ledger)
        await spoil(ledger, name)
        ledger.callers[0].counters.forget("bad")
        before = await keys_of(ledger, "bad")
        outcomes = await burst(ledger, event("bad"))
        assert type(outcomes[1]) is OrgCorrupt
        assert the_good_ones_counted(outcomes)
        assert await keys_of(ledger, "bad") == before
        assert ledger.callers[0].counters.stats.parked == 1


@pytest.mark.parametrize("field", ["u:scans", "l:scans", "t:scans", "x:scans", "s:scans"])
async def test_a_figure_that_is_no_number_is_corrupt(store: StoreServer, field: str) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await known(ledger)
        await ledger.client.hset(ledger.keys.record("bad"), field, "many")
        before = await keys_of(ledger, "bad")
        outcomes = await burst(ledger, event("bad", 20, "e1"))
        assert type(outcomes[1]) is OrgCorrupt
        assert the_good_ones_counted(outcomes)
        assert await keys_of(ledger, "bad") == before


@pytest.mark.parametrize("name", ["trail", "dirty", "crossings"])
async def test_what_is_written_with_the_first_overage_is_looked_at_before_the_first_write(
    each_store: StoreServer, name: str
) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await known(ledger)
        await spoil(ledger, name)
        before = await keys_of(ledger, "bad")
        outcomes = await burst(ledger, event("bad", 20, "e1"))
        assert type(outcomes[1]) is OrgCorrupt
        assert the_good_ones_counted(outcomes)
        assert await keys_of(ledger, "bad") == before


@pytest.mark.parametrize("name", ["profile", "trail", "orgs", "plans", "due"])
async def test_what_is_written_with_a_creation_is_looked_at_before_the_first_write(
    each_store: StoreServer, name: str
) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("good-1"))
        await spoil(ledger, name)
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await ledger.callers[0].counters.track(event("bad", 1, "e1"))
        assert await ledger.dump() == before


async def test_spoilt_totals_refuse_their_partition_and_leave_every_organisation_lawful(
    each_store: StoreServer,
) -> None:
    """They are written last, once a call: what was counted stands, and is a repeat when it comes again."""
    async with calm(each_store.url, partitions=1) as ledger:
        await known(ledger)
        key = await spoil(ledger, "totals")
        with pytest.raises(OrgCorrupt):
            await ledger.callers[0].counters.track(event("bad", 1, "e1"))
        assert (await ledger.callers[1].counters.track(event("bad", 1, "e1"))).used == 5
        found = (await ledger.walk()).violations
        assert {violation.key for violation in found} == {key}


async def test_a_corrupt_organisation_is_parked_so_that_the_store_is_not_asked_for_each_event(
    store: StoreServer,
) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await known(ledger)
        await spoil(ledger, "record")
        caller = ledger.callers[0]
        with pytest.raises(OrgCorrupt):
            await caller.counters.track(event("bad"))
        await ledger.client.config_resetstat()
        for _ in range(5):
            with pytest.raises(OrgCorrupt) as refusal:
                await caller.counters.track(event("bad"))
        assert int(refusal.value.headers["Retry-After"]) > 0
        assert (await commands(ledger))["evalsha"] == 0
        assert caller.counters.stats.parked == 1


async def test_a_good_organisation_counts_on_while_another_is_parked(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await known(ledger)
        await spoil(ledger, "history")
        for turn in range(3):
            outcomes = await asyncio.gather(
                *(ledger.callers[0].counters.track(event(org_id)) for org_id in ("bad", "good-1")),
                return_exceptions=True,
            )
            assert type(outcomes[0]) is OrgCorrupt
            assert isinstance(outcomes[1], Outcome)
            assert outcomes[1].used == 5 + turn


async def test_a_healthy_data_set_has_no_corrupt_organisation(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await known(ledger)
        outcomes = await burst(ledger, event("bad", 20, "e1"))
        assert the_good_ones_counted(outcomes)
        await lawful(ledger)
