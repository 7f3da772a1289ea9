"""discard.lua: a dead window is let go by somebody's word, with the counter's sum and the trail in one step."""

import pytest

from metering.errors import OrgCorrupt
from metering.store.window import State
from tests.lua.effecting import trail_of
from tests.lua.outboxes import outbox_of, window_of
from tests.lua.scenes import calm, event, lawful, move_to, next_year
from tests.lua.test_replay import dead, desk_of
from tests.support.servers import StoreServer


@pytest.mark.parametrize("closed", [False, True])
async def test_what_is_let_go_is_written_off_and_the_trail_says_who_and_why(
    each_store: StoreServer, closed: bool
) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        name = await dead(ledger, nothing=True)
        window, key = await window_of(ledger, name), ledger.keys.record("acme")
        if closed:
            await move_to(ledger, await next_year(ledger, "02-01T00:00:05"))
            await ledger.callers[0].counters.track(event("acme", 12))
            key = ledger.keys.archive("acme", window.cut.period.start_ms)
        after = await desk_of(ledger).discard(name, "a gift", by="ann")
        assert (after.state, after.error) == (State.WRITTEN_OFF, "a gift")
        assert await ledger.client.hget(key, "q:scans") == b"3"
        [entry] = [one for one in await trail_of(ledger) if one["type"] == "overage_written_off"]
        assert (entry["window"], entry["units"], entry["reason"], entry["actor"]) == (name, "3", "a gift", "ann")
        assert await ledger.client.hget("{p00}:totals", "e:overage_written_off") == b"1"
        await lawful(ledger)


async def test_it_is_let_go_once(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        window = await window_of(ledger, await dead(ledger, nothing=True))
        assert await outbox_of(ledger).discard(window, "a gift", "ann")
        before = await ledger.dump()
        assert not await outbox_of(ledger, 1).discard(window, "again", "bob")
        assert not await outbox_of(ledger, 1).replay(window, "bob")
        assert await ledger.dump() == before


@pytest.mark.parametrize("kind", ["dead_windows", "settled", "totals"])
async def test_a_key_of_a_wrong_type_stops_it_before_its_first_write(each_store: StoreServer, kind: str) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        window = await window_of(ledger, await dead(ledger, nothing=True))
        await ledger.client.set(f"{{p00}}:{kind}", "junk")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await outbox_of(ledger).discard(window, "a gift", "ann")
        assert await ledger.dump() == before


async def test_a_window_without_a_counter_is_corrupt(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        window = await window_of(ledger, await dead(ledger, nothing=True))
        await ledger.client.hset(ledger.keys.record("acme"), "ps", 7)
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await outbox_of(ledger).discard(window, "a gift", "ann")
        assert await ledger.dump() == before
