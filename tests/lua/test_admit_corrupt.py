"""Data that no script wrote, met by admit: its organisation is refused and left as it is, all others count."""

import asyncio
from typing import Final

import pytest

from metering.errors import OrgCorrupt
from metering.store.frames import day_text
from metering.store.retention import Retention
from metering.usage import Result, UsageEvent
from plans.limits import OnLimit
from tests.lua.ledger import Ledger
from tests.lua.scenes import DAY_MS, MINUTE_MS, calm, event, lawful
from tests.lua.test_admit_model import CATALOGUE
from tests.support.servers import StoreServer

HELD: Final = UsageEvent("bad", "scans", 1, "e1", dimensions={"actor": "ann"})

KEYS: Final = (
    "record",
    "holds",
    "windows",
    "hold",
    "minutes",
    "groups",
    "values",
    "history",
    "seen",
    "events",
    "expiring",
)


async def spoil(ledger: Ledger, name: str) -> None:
    """Put a string where another type belongs."""
    keys, now_ms = ledger.keys, await ledger.now_ms()
    day = day_text(now_ms // DAY_MS)
    key = {
        "record": keys.record("bad"),
        "holds": keys.holds("bad"),
        "windows": keys.windows("bad"),
        "hold": keys.hold("bad", "r2"),
        "minutes": keys.minutes("bad", "scans", f"{day}{now_ms // (60 * MINUTE_MS) % 24:02d}"),
        "groups": keys.groups("bad", "scans", "actor", day),
        "values": keys.values("bad", "actor", day[:6]),
        "history": keys.history("bad", "scans", day),
        "seen": keys.seen("bad", day[:6], "0", 0),
    }.get(name) or keys.shared(name, keys.partition("bad"))
    await ledger.client.set(key, "junk")


async def known(ledger: Ledger) -> None:
    """Organisations with holds and sub-windows, which both callers know."""
    for caller in ledger.callers:
        for org_id in ("good", "bad"):
            await caller.counters.track(event(org_id))
            await caller.holds.place(org_id, "r1", "checks", 2, 3_600_000, charged=False)
            await caller.counters.track(event(org_id))


@pytest.mark.parametrize("name", KEYS)
async def test_a_key_of_another_type_leaves_no_trace_and_the_others_alone(store: StoreServer, name: str) -> None:
    everything = Retention(minute_hours=48, events_ms=3_600_000)
    async with calm(store.url, catalogue=CATALOGUE, retention=everything, partitions=1) as ledger:
        await known(ledger)
        await spoil(ledger, name)
        before = await ledger.dump()
        caller = ledger.callers[0]
        asked = [caller.counters.track(HELD), caller.holds.place("bad", "r2", "scans", 1, 60_000, charged=False)]
        bad = await asyncio.gather(*asked, return_exceptions=True)
        refused = [isinstance(found, OrgCorrupt) for found in bad]
        assert any(refused), f"nothing met the spoilt {name}: {bad}"
        if all(refused):
            assert await ledger.dump() == before
        if name not in {"events", "expiring"}:
            good = await caller.counters.track(UsageEvent("good", "scans", 1, "e1", dimensions={"actor": "ann"}))
            assert good.result is Result.RECORDED


@pytest.mark.parametrize(
    ("field", "value"), [("h:scans", "many"), ("rate", "junk"), ("u:scans", "many"), ("w:scans", "junk")]
)
async def test_a_figure_that_is_no_number_is_refused_or_read_as_none(
    store: StoreServer, field: str, value: str
) -> None:
    async with calm(store.url, catalogue=CATALOGUE, partitions=1) as ledger:
        await known(ledger)
        await ledger.client.hset(ledger.keys.record("bad"), field, value)
        before = await ledger.dump()
        try:
            await ledger.callers[0].counters.track(UsageEvent("bad", "scans", 1, "e1", mode=OnLimit.CAP))
        except OrgCorrupt:
            assert await ledger.dump() == before
        good = await ledger.callers[0].counters.track(event("good"))
        assert good.result is Result.RECORDED


@pytest.mark.parametrize("place", ["minute", "group", "state"])
async def test_junk_in_a_bucket_leaves_no_trace_of_the_event(store: StoreServer, place: str) -> None:
    async with calm(store.url, catalogue=CATALOGUE, retention=Retention(minute_hours=48), partitions=1) as ledger:
        await known(ledger)
        now_ms, keys = await ledger.now_ms(), ledger.keys
        day = day_text(now_ms // DAY_MS)
        hour = f"{now_ms // (60 * MINUTE_MS) % 24:02d}"
        key, field = {
            "minute": (keys.minutes("bad", "scans", day + hour), f"{now_ms // MINUTE_MS % 60:02d}"),
            "group": (keys.groups("bad", "scans", "actor", day), f"{hour}|ann"),
            "state": (keys.windows("bad"), "rate"),
        }[place]
        if place == "state":
            await ledger.client.hset(keys.record("bad"), "rate", "1000:5:60:hour")
        await ledger.client.hset(key, field, "junk")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await ledger.callers[0].counters.track(HELD)
        assert await ledger.dump() == before


async def test_what_was_kept_by_minute_and_dimension_adds_up(store: StoreServer) -> None:
    async with calm(store.url, catalogue=CATALOGUE, retention=Retention(minute_hours=48), partitions=1) as ledger:
        counters = ledger.callers[0].counters
        for number, actor in enumerate("abcda"):
            await counters.track(UsageEvent("acme", "checks", number + 1, f"e{number}", dimensions={"actor": actor}))
        day = day_text(await ledger.now_ms() // DAY_MS)
        groups = await ledger.client.hgetall(ledger.keys.groups("acme", "checks", "actor", day))
        by_value = {name.decode().partition("|")[2]: int(units) for name, units in groups.items()}
        assert by_value == {"a": 6, "b": 2, "c": 3, "other": 4}
        hour = f"{await ledger.now_ms() // (60 * MINUTE_MS) % 24:02d}"
        minutes = await ledger.client.hgetall(ledger.keys.minutes("acme", "checks", day + hour))
        assert sum(map(int, minutes.values())) == 15
        await lawful(ledger)
