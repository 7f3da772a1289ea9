"""The bounds of what admit keeps: open holds, names of settled ones, the log of raw events, how long a group stays."""

from typing import Final

import pytest

from metering.errors import HoldConflict
from metering.store.frames import DAY_MS, day_text
from metering.store.retention import Retention
from metering.usage import Result, UsageEvent
from tests.lua.ledger import Ledger
from tests.lua.scenes import HOUR_MS, calm, event, lawful
from tests.lua.test_admit_model import CATALOGUE
from tests.support.servers import StoreServer

HOLDS_MAX: Final = 1000
OLD: Final = 1000


async def held(ledger: Ledger, holds: int) -> None:
    """Acme with so many open reservations of a unit each, all but the first written as the script would."""
    await ledger.callers[0].holds.place("acme", "r0", "open", 1, HOUR_MS)
    ends_ms = await ledger.now_ms() + HOUR_MS
    members = {f"r{n}|open|1|r": ends_ms for n in range(1, holds)}
    await ledger.client.zadd(ledger.keys.holds("acme"), members)
    await ledger.client.hincrby(ledger.keys.record("acme"), "h:open", len(members))


async def test_an_organisation_has_a_thousand_open_holds_at_most(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await held(ledger, HOLDS_MAX - 1)
        holds = ledger.callers[0].holds
        hold, _ = await holds.place("acme", "last", "open", 1, HOUR_MS)
        assert hold is not None
        hold, outcome = await holds.place("acme", "more", "open", 1, HOUR_MS)
        assert (hold, outcome.result) == (None, Result.TOO_MANY_HOLDS)
        again, outcome = await holds.place("acme", "last", "open", 1, HOUR_MS)
        assert (again is not None, outcome.result) == (True, Result.DUPLICATE)


async def test_a_hold_that_ended_makes_room_for_another(store: StoreServer) -> None:
    """Before any job has looked at it."""
    async with calm(store.url, partitions=1) as ledger:
        await held(ledger, HOLDS_MAX)
        await ledger.client.zadd(ledger.keys.holds("acme"), {"r7|open|1|r": await ledger.now_ms()})
        hold, _ = await ledger.callers[0].holds.place("acme", "more", "open", 1, HOUR_MS)
        assert hold is not None
        assert await ledger.client.zcard(ledger.keys.holds("acme")) == HOLDS_MAX


async def test_the_name_of_a_settled_hold_that_is_forgotten_makes_no_new_one(store: StoreServer) -> None:
    """A client that repeats its reservation a day later would hold units that it has used already."""
    async with calm(store.url, partitions=1) as ledger:
        holds = ledger.callers[0].holds
        await holds.place("acme", "r1", "checks", 2, HOUR_MS)
        await holds.settle("acme", "r1", None)
        await ledger.client.delete(ledger.keys.hold("acme", "r1"))
        with pytest.raises(HoldConflict):
            await holds.place("acme", "r1", "checks", 2, HOUR_MS)
        await lawful(ledger)


async def test_the_script_ends_raw_events_that_are_older_than_they_are_kept(store: StoreServer) -> None:
    async with calm(store.url, partitions=1, retention=Retention(events_ms=HOUR_MS)) as ledger:
        log = ledger.keys.shared("events", 0)
        for number in range(OLD):
            await ledger.client.xadd(log, {"old": "1"}, id=f"{number + 1}-0")
        await ledger.callers[0].counters.track(event("acme", 1, "e1"))
        assert await ledger.client.xlen(log) < OLD / 2  # whole nodes of the stream go at once
        assert len(await ledger.client.xrevrange(log, count=1)) == 1


async def test_groups_stay_as_long_as_history(store: StoreServer) -> None:
    kept = Retention(minute_hours=1)
    async with calm(store.url, catalogue=CATALOGUE, partitions=1, retention=kept) as ledger:
        await ledger.callers[0].counters.track(UsageEvent("acme", "checks", 1, "e1", dimensions={"actor": "ann"}))
        day = day_text(await ledger.now_ms() // DAY_MS)
        groups = await ledger.client.ttl(ledger.keys.groups("acme", "checks", "actor", day))
        history = await ledger.client.ttl(ledger.keys.history("acme", "checks", day))
        assert kept.history_s - 60 < groups <= kept.history_s
        assert abs(groups - history) <= 1
