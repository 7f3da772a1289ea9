"""prune.lua: settled windows of a final period go from the front of their chain, and the counter keeps how far."""

from typing import Final

import pytest

from metering.errors import OrgCorrupt
from metering.store.outbox import Begun
from metering.store.window import State, Window
from tests.lua.ledger import Ledger
from tests.lua.outboxes import begun, outbox_of, sealed, start_of
from tests.lua.scenes import DAY_MS, calm, commands, event, inside_scripts, lawful, move_to, next_year
from tests.support.servers import StoreServer

KEEP_MS: Final = 40 * DAY_MS
SIZES: Final = (3, 2, 4)
"""Units of three windows of acme's January: (0, 3], (3, 5] and (5, 9]."""


async def chain(ledger: Ledger, *states: State, final: bool = True) -> list[Window]:
    """Three windows of a January that is invoiced by now, in these states (delivered where none is told)."""
    made: list[Window] = []
    for units, state in zip(SIZES, (*states, *[State.DELIVERED] * len(SIZES)), strict=False):
        await ledger.callers[0].counters.track(event("acme", units if made else 10 + units))
        window = await begun(ledger, await sealed(ledger))
        assert await outbox_of(ledger).settle(window, state)
        made.append(window)
    await move_to(ledger, await next_year(ledger, "02-01T00:00:05"))
    await ledger.callers[0].orgs.get("acme")
    if final:
        await ledger.client.hset(archive_of(ledger, made), "iv", 7)
        await outbox_of(ledger).finalize("acme", made[0].cut.period.start_ms, 9)
    return made


def archive_of(ledger: Ledger, windows: list[Window]) -> str:
    return ledger.keys.archive("acme", windows[0].cut.period.start_ms)


async def later(ledger: Ledger) -> None:
    """All of them are old enough."""
    await move_to(ledger, await next_year(ledger, "03-05T00:00:00"))


async def kept(ledger: Ledger, windows: list[Window]) -> list[int]:
    """Where the windows begin that are still there, by their rows and by the list alike."""
    there = [one for one in windows if await ledger.client.exists(ledger.keys.window("acme", one.id))]
    listed = {name.decode() for name in await ledger.client.zrange("{p00}:settled", 0, -1)}
    dead = {name.decode() for name in await ledger.client.zrange("{p00}:dead_windows", 0, -1)}
    assert {one.id for one in there} == listed | dead
    return [one.cut.from_units for one in there]


async def test_what_is_old_goes_and_the_counter_keeps_how_far_and_its_sums(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        windows = await chain(ledger, State.DELIVERED, State.WRITTEN_OFF)
        await later(ledger)
        key, sums = archive_of(ledger, windows), ["s:scans", "z:scans", "d:scans", "q:scans"]
        before = await ledger.client.hmget(key, sums)
        assert await outbox_of(ledger).prune(windows[:2], KEEP_MS) == 2
        assert await kept(ledger, windows) == [5]
        assert await ledger.client.hget(key, "g:scans") == b"5"
        await lawful(ledger)
        assert await outbox_of(ledger, 1).prune(windows[2:], KEEP_MS) == 1
        assert await kept(ledger, windows) == []
        assert await ledger.client.hget(key, "g:scans") == b"9"
        assert await ledger.client.hmget(key, sums) == before == [b"9", b"0", b"7", b"2"]
        await lawful(ledger)


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("state", [State.DEAD, State.SEALED, State.INFLIGHT])
async def test_a_window_that_waits_for_something_stays_with_all_behind_it(
    store: StoreServer, state: State, at: int
) -> None:
    """A final period has such a window where Stripe took one back since, and somebody let it be sent again."""
    async with calm(store.url, partitions=1) as ledger:
        windows = await chain(ledger)
        outbox = outbox_of(ledger)
        assert await outbox.settle(windows[at], State.DEAD, "reported: no_meter", revoked=True, nothing=True)
        if state is not State.DEAD:
            assert await outbox.replay(windows[at], "ann")
        if state is State.INFLIGHT:
            assert (await outbox.attempt(windows[at], start_of(windows[at], invoiced="7")))[0] is Begun.YES
        await later(ledger)
        assert await outbox.prune(windows, KEEP_MS) == at
        assert await outbox.prune(windows[at:], KEEP_MS) == 0
        assert await outbox.prune(windows[at + 1 :] or windows, KEEP_MS) == 0
        assert len(await outbox_rows(ledger, windows)) == 3 - at
        await lawful(ledger)


async def outbox_rows(ledger: Ledger, windows: list[Window]) -> list[Window]:
    """Those that are there, in whatever list."""
    return [one for one in windows if await outbox_of(ledger).window_of("acme", one.id) is not None]


@pytest.mark.parametrize("order", [(1, 2), (2, 1, 0), (1,), (2,)])
async def test_nothing_goes_that_is_not_next(store: StoreServer, order: tuple[int, ...]) -> None:
    async with calm(store.url, partitions=1) as ledger:
        windows = await chain(ledger)
        await later(ledger)
        before = await ledger.dump()
        assert await outbox_of(ledger).prune([windows[at] for at in order], KEEP_MS) == 0
        assert await ledger.dump() == before


async def test_the_age_is_that_of_the_end_of_its_way_to_the_millisecond(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        windows = await chain(ledger)
        outbox, key = outbox_of(ledger), ledger.keys.window("acme", windows[0].id)
        ended_ms = int(await ledger.client.hget(key, "settled"))
        age_ms = await ledger.now_ms() - ended_ms
        assert await outbox.prune(windows[:1], age_ms + DAY_MS) == 0
        assert await outbox.prune(windows[:1], age_ms) == 1


@pytest.mark.parametrize("word", ["not invoiced", "running", "another period"])
async def test_a_period_that_is_not_final_keeps_its_windows(store: StoreServer, word: str) -> None:
    async with calm(store.url, partitions=1) as ledger:
        windows = await chain(ledger, final=word != "not invoiced")
        key = archive_of(ledger, windows)
        if word == "running":
            await ledger.client.delete(key)
        if word == "another period":
            await ledger.client.hset(key, "ps", 7)
        await later(ledger)
        before = await ledger.dump()
        assert await outbox_of(ledger).prune(windows, KEEP_MS) is None
        assert await ledger.dump() == before


@pytest.mark.parametrize(("field", "value"), [("org", "beta"), ("feature", "calls"), ("start", "7")])
async def test_a_window_of_another_counter_is_left_alone(store: StoreServer, field: str, value: str) -> None:
    async with calm(store.url, partitions=1) as ledger:
        windows = await chain(ledger)
        await later(ledger)
        await ledger.client.hset(ledger.keys.window("acme", windows[1].id), field, value)
        assert await outbox_of(ledger).prune(windows, KEEP_MS) == 1
        assert len(await outbox_rows(ledger, windows)) == 2


async def test_nobody_can_do_anything_to_a_window_that_went(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        windows = await chain(ledger)
        await later(ledger)
        outbox, window = outbox_of(ledger), windows[0]
        assert await outbox.prune(windows, KEEP_MS) == 3
        before = await ledger.dump()
        assert await outbox.find(window.id) is None
        assert await outbox.prune(windows, KEEP_MS) == 0
        assert not await outbox.settle(window, State.DEAD, revoked=True)
        assert not await outbox.settle(window, State.DELIVERED)
        assert not await outbox.replay(window, "ann")
        assert not await outbox.discard(window, "a gift", "ann")
        assert not await outbox.defer(window, 1, 0, "lost", nothing=True)
        assert (await outbox.attempt(window, start_of(window)))[0] is Begun.GONE
        await outbox.postpone(window, 7)
        assert await ledger.dump() == before


FIGURES: Final = ("g:scans many", "s:scans -1", "d:scans 1.5", "q:scans x", "s:scans 8", "d:scans 8", "z:scans 1")


@pytest.mark.parametrize("spoilt", FIGURES)
async def test_figures_that_cannot_be_stop_it_before_its_first_write(each_store: StoreServer, spoilt: str) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        windows = await chain(ledger)
        await later(ledger)
        await ledger.client.hset(archive_of(ledger, windows), *spoilt.split(" "))
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await outbox_of(ledger).prune(windows, KEEP_MS)
        assert await ledger.dump() == before


@pytest.mark.parametrize("field", ["from", "to", "settled"])
async def test_a_row_that_cannot_be_read_stops_it_before_its_first_write(store: StoreServer, field: str) -> None:
    async with calm(store.url, partitions=1) as ledger:
        windows = await chain(ledger)
        await later(ledger)
        await ledger.client.hset(ledger.keys.window("acme", windows[1].id), field, "many")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await outbox_of(ledger).prune(windows, KEEP_MS)
        assert await ledger.dump() == before


async def test_a_list_of_a_wrong_type_stops_it_before_its_first_write(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        windows = await chain(ledger)
        await later(ledger)
        await ledger.client.set("{p00}:settled", "junk")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await outbox_of(ledger).prune(windows, KEEP_MS)
        assert await ledger.dump() == before


async def test_what_it_asks_of_the_store_grows_with_the_windows_alone(store: StoreServer) -> None:
    """One read for each window and the same four calls besides: no walk through the list, whatever its length."""
    async with calm(store.url, partitions=1) as ledger:
        windows = await chain(ledger)
        await later(ledger)
        await outbox_of(ledger).prune(windows[:1], KEEP_MS)  # the script is loaded
        await ledger.client.config_resetstat()
        assert await outbox_of(ledger).prune(windows[1:], KEEP_MS) == 2
        counts = await commands(ledger)
        assert inside_scripts(counts) == 2 + len(("TIME", "GET", "HMGET", "ZCARD", "HSET", "UNLINK", "ZREM"))
