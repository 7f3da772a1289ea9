"""seal.lua: overage becomes windows, each once, without a gap, and never more or less than there is."""

import asyncio
from base64 import b32encode
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import OrgCorrupt
from metering.store.correction import By, Change, adjustment
from metering.store.scripts import script
from metering.store.window import UNITS_MAX, Cut, Figures, State, seal_of
from plans.periods import Period
from tests.lua.ledger import Ledger
from tests.lua.outboxes import DATASET_ID, outbox_of, sealed, window_of
from tests.lua.scenes import calm, event, lawful, move_to, next_year
from tests.support.servers import StoreServer

BY = By("test", "because", "")


async def track(ledger: Ledger, units: int) -> None:
    await ledger.callers[0].counters.track(event("acme", units))


async def give_back(ledger: Ledger, units: int, name: str = "a1") -> None:
    change = Change("scans", -units, place="/delta")
    await ledger.callers[0].corrections.make(
        adjustment("acme", change, name, BY, minted=False, period_ms=None, at_ms=None)
    )


async def ends(ledger: Ledger, *names: str | None) -> list[tuple[int, int]]:
    windows = [await window_of(ledger, name) for name in names if name]
    return [(window.cut.from_units, window.cut.to_units) for window in windows]


# ── the law, without a store ─────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=40))
def test_windows_add_up_to_what_accrued_less_what_was_given_back_and_never_fall(
    steps: list[tuple[int, int, bool]],
) -> None:
    accrued = sealed_units = back = netted = total = 0
    for more, less, seals in steps:
        accrued += more
        back += min(less, accrued - back)
        if seals:
            seal = seal_of(Figures(accrued, sealed_units, back, netted))
            assert seal.from_units == total <= seal.to_units
            assert (seal.sealed, seal.sealed - seal.netted) == (accrued, seal.to_units)
            assert netted <= seal.netted <= back
            sealed_units, netted, total = seal.sealed, seal.netted, seal.to_units
            assert total >= accrued - back
            assert total == accrued - back or netted < back or total == sealed_units - netted


def test_what_was_given_back_is_netted_first_and_its_rest_waits() -> None:
    first = seal_of(Figures(5, 0, 2, 0))
    assert (first.from_units, first.to_units, first.netted) == (0, 3, 2)
    second = seal_of(Figures(6, 5, 5, 2))
    assert (second.from_units, second.to_units, second.sealed, second.netted) == (3, 3, 6, 3)
    third = seal_of(Figures(10, 6, 5, 3))
    assert (third.from_units, third.to_units, third.netted) == (3, 5, 5)


def test_a_window_holds_no_more_than_stripe_takes_and_the_rest_is_the_next() -> None:
    first = seal_of(Figures(UNITS_MAX + 7, 0, 2, 0))
    assert (first.to_units, first.sealed, first.netted) == (UNITS_MAX, UNITS_MAX + 2, 2)
    second = seal_of(Figures(UNITS_MAX + 7, first.sealed, 2, first.netted))
    assert (second.from_units, second.to_units) == (UNITS_MAX, UNITS_MAX + 5)


def test_an_identifier_says_all_that_is_in_a_window_and_nothing_readable() -> None:
    cut = Cut("acme", "scans", Period(1, 9), 0, 3, 5)
    others = [
        Cut("acm", "escans", Period(1, 9), 0, 3, 5), Cut("acme", "checks", Period(1, 9), 0, 3, 5),
        Cut("acme", "scans", Period(2, 9), 0, 3, 5), Cut("acme", "scans", Period(1, 9), 1, 3, 5),
        Cut("acme", "scans", Period(1, 9), 0, 4, 5), Cut("acme", "scans", Period(1, 9), 0, 3, 6),
    ]  # fmt: skip
    names = {one.identifier("ds_1") for one in (cut, *others)} | {cut.identifier("ds_2")}
    assert len(names) == 8
    assert {len(name) for name in names} == {52}
    parts = b"\0\0\0\4ds_1\0\0\0\4acme\0\0\0\5scans" + b"".join(b"\0\0\0\1" + one for one in (b"1", b"0", b"3", b"5"))
    assert cut.identifier("ds_1") == b32encode(sha256(parts).digest()).decode().rstrip("=").lower()


# ── the script ───────────────────────────────────────────────────────────────────────────────────────────


async def test_overage_becomes_one_window_with_its_place_in_the_outbox(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await track(ledger, 13)
        outcome = await ledger.callers[0].counters.track(event("acme", 2))
        name = await sealed(ledger)
        window = await window_of(ledger, name)
        assert (window.state, window.units, window.attempts, window.fresh) == (State.SEALED, 5, 0, True)
        assert window.cut.period == outcome.period
        assert window.cut.identifier(DATASET_ID) == name
        record = await ledger.client.hgetall(ledger.keys.record("acme"))
        assert window.cut.last_ms == int(record[b"t:scans"])
        assert await ledger.client.zrange("{p00}:outbox", 0, -1, withscores=True) == [(name.encode(), window.at_ms)]
        assert await ledger.client.zcard("{p00}:dirty") == 0
        await lawful(ledger)


async def test_windows_of_a_counter_follow_each_other(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        outbox, names = outbox_of(ledger), []
        for units in (13, 1, 4):
            await track(ledger, units)
            names.append(await outbox.seal("acme|scans"))
        assert await ends(ledger, *names) == [(0, 3), (3, 4), (4, 8)]
        assert await outbox.seal("acme|scans") is None
        await lawful(ledger)


async def test_what_was_given_back_before_the_seal_is_in_no_window(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await track(ledger, 15)
        await give_back(ledger, 2)
        assert await ends(ledger, await outbox_of(ledger).seal("acme|scans")) == [(0, 3)]
        await lawful(ledger)


async def test_overage_that_was_given_back_wholly_makes_no_window_and_is_dirty_no_more(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await track(ledger, 15)
        await give_back(ledger, 5)
        assert await outbox_of(ledger).seal("acme|scans") is None
        assert await ledger.client.exists("{p00}:dirty", "{p00}:outbox") == 0
        await lawful(ledger)


async def test_twenty_workers_that_seal_at_once_make_one_window(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await track(ledger, 13)
        names = await asyncio.gather(*(outbox_of(ledger, number % 2).seal("acme|scans") for number in range(20)))
        assert len([name for name in names if name]) <= 1
        assert await ledger.client.zcard("{p00}:outbox") == 1
        await lawful(ledger)


async def test_a_closed_period_is_sealed_in_its_archive_with_its_own_last_instant(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        outcome = await ledger.callers[0].counters.track(event("acme", 13))
        await move_to(ledger, await next_year(ledger, "02-01T00:00:00"))
        await track(ledger, 12)
        start_ms = outcome.period.start_ms
        names = [await sealed(ledger, f"acme|scans|{start_ms}"), await sealed(ledger)]
        windows = [await window_of(ledger, name) for name in names]
        assert [(w.units, outcome.period.contains(w.cut.last_ms)) for w in windows] == [(3, True), (2, False)]
        await lawful(ledger)


async def test_a_last_instant_outside_the_period_is_moved_into_it(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        outcome = await ledger.callers[0].counters.track(event("acme", 13))
        await ledger.client.hset(ledger.keys.record("acme"), "t:scans", outcome.period.end_ms + 5)
        window = await window_of(ledger, await sealed(ledger))
        assert window.cut.last_ms == outcome.period.end_ms - 1


async def seal_by_hand(ledger: Ledger, **other: Any) -> list[Any]:
    """Run the script on acme's scans, of which 3 are above; `other` replaces what the caller saw."""
    keys = [ledger.keys.record("acme"), ledger.keys.window("acme", "a" * 52)]
    keys += [f"{{p00}}:{kind}" for kind in ("outbox", "dirty", "clock")]
    seconds, _ = await ledger.client.time()
    start = (await ledger.client.hget(ledger.keys.record("acme"), "ps")).decode()
    args = {
        "caller_ms": seconds * 1000, "offset": ledger.offset_ms, "member": "acme|scans", "feature": "scans",
        "start": start, "sealed": 0, "back": 0, "netted": 0, "sealed_after": 3, "netted_after": 0, "id": "a" * 52,
        "org": "acme", "from": 0, "to": 3, "last": int(start) + 1,
    } | other  # fmt: skip
    reply: list[Any] = await ledger.client.execute_command(
        "EVAL", script("seal").text, len(keys), *keys, *args.values()
    )
    return reply


@pytest.mark.parametrize(
    "other",
    [
        {"sealed": 1}, {"back": 1}, {"netted": 1}, {"start": 7}, {"sealed_after": 4}, {"member": "acme|checks"},
        {"offset": 1}, {"caller_ms": 1},
    ],
    ids=str,
)  # fmt: skip
async def test_what_the_caller_saw_otherwise_writes_nothing(each_store: StoreServer, other: dict[str, Any]) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await track(ledger, 13)
        before = await ledger.dump()
        assert (await seal_by_hand(ledger, **other))[0] in {0, -1}
        assert await ledger.dump() == before


async def test_overage_that_came_meanwhile_stays_dirty(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await track(ledger, 15)
        assert (await seal_by_hand(ledger))[0] == 1
        assert await ledger.client.zrange("{p00}:dirty", 0, -1) == [b"acme|scans"]
        await lawful(ledger)


@pytest.mark.parametrize("field", ["s:scans", "y:scans", "z:scans", "x:scans"])
async def test_a_figure_that_is_no_number_stops_a_seal(store: StoreServer, field: str) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await track(ledger, 13)
        await ledger.client.hset(ledger.keys.record("acme"), field, "junk")
        before = await ledger.dump()
        assert (await seal_by_hand(ledger))[0] == -2
        with pytest.raises(OrgCorrupt):
            await outbox_of(ledger).seal("acme|scans")
        assert await ledger.dump() == before


@pytest.mark.parametrize("name", ["outbox", "window"])
async def test_a_key_of_a_wrong_type_stops_a_seal_before_its_first_write(each_store: StoreServer, name: str) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        await track(ledger, 13)
        counter = await outbox_of(ledger).counter("acme|scans")
        assert counter is not None
        own = counter.cut(seal_of(counter.figures)).identifier(DATASET_ID)
        await ledger.client.lpush("{p00}:outbox" if name == "outbox" else ledger.keys.window("acme", own), "junk")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await outbox_of(ledger).seal("acme|scans")
        assert await ledger.dump() == before
