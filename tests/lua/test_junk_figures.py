"""Figures that are no numbers, where scripts are about to write: the organisation is refused, nothing of it changes."""

import pytest
from redis.exceptions import ResponseError

from metering.errors import OrgCorrupt
from metering.store.calls import CallMaker
from metering.store.frames import day_text
from metering.store.orgs import OrgChange
from metering.store.retention import Retention
from metering.store.scripts import script
from metering.usage import UsageEvent
from tests.lua.ledger import Ledger
from tests.lua.raw import frame_of, pending, words_of
from tests.support.servers import StoreServer


async def bucket(ledger: Ledger, feature: str) -> tuple[str, str]:
    """The history key of a feature today, and the field of this hour."""
    now_ms = await ledger.now_ms()
    return ledger.keys.history("acme", feature, day_text(now_ms // 86_400_000)), f"{now_ms // 3_600_000 % 24:02d}"


@pytest.mark.parametrize("alone", [True, False])
async def test_overage_bucket_that_is_no_number_leaves_no_trace_of_the_event(store: StoreServer, alone: bool) -> None:
    """History of units is written before history of overage: the second is looked at first."""
    async with Ledger(store.url, callers=1) as ledger:
        counters = ledger.callers[0].counters
        await counters.track(UsageEvent("acme", "scans", 9, "evt-1"))
        key, field = await bucket(ledger, "scans")
        await ledger.client.hset(key, f"x{field}", "junk")
        before = await ledger.dump()
        events = [UsageEvent("acme", "scans", 5, "evt-2")] + ([] if alone else [UsageEvent("acme", "open", 1, "evt-3")])
        for pending in [counters.track(event) for event in events]:
            with pytest.raises(OrgCorrupt):
                await pending
        assert await ledger.dump() == before


async def test_bucket_of_one_feature_that_is_no_number_leaves_no_trace_of_the_others(store: StoreServer) -> None:
    """A call over two features either writes both histories or none."""
    async with Ledger(store.url, callers=1) as ledger:
        caller = ledger.callers[0]
        await caller.counters.track(UsageEvent("acme", "scans", 1, "evt-1"))
        await caller.counters.track(UsageEvent("acme", "open", 1, "evt-2"))
        for feature in ("scans", "open"):
            key, field = await bucket(ledger, feature)
            was = await ledger.client.hget(key, field)
            await ledger.client.hset(key, field, "junk")
            before = await ledger.dump()
            reply = await both(ledger)
            assert reply[1] in (10, "refused"), reply
            assert await ledger.dump() == before
            await ledger.client.hset(key, field, was)


async def both(ledger: Ledger) -> list[object]:
    """One call with an event of each feature, below the batcher, which would ask again."""
    caller = ledger.callers[0]
    frame = await frame_of(ledger, caller, "acme")
    caller.time.learn(await ledger.now_ms())
    maker = CallMaker("0" * 40, ledger.keys, caller.time, Retention(history_days=1))
    events = [pending("acme", "scans", "1", 111), pending("acme", "open", "1", 333)]
    words = words_of(maker.make([(frame, events)]).payload)
    try:
        reply: list[object] = await ledger.client.execute_command("EVAL", script("track").text, *words[2:])
    except ResponseError:
        return [0, "refused"]
    return reply


@pytest.mark.parametrize("field", ["p:free:scans", "p:pro:scans", "u:scans", "b:scans"])
async def test_plan_change_over_a_figure_that_is_no_number_leaves_no_trace(store: StoreServer, field: str) -> None:
    """The units by plan are moved after the plan is written: they are looked at first."""
    async with Ledger(store.url, callers=1) as ledger:
        caller = ledger.callers[0]
        await caller.counters.track(UsageEvent("acme", "scans", 3, "evt-1"))
        await caller.orgs.update("acme", OrgChange(plan="pro"), actor="test", create=False)
        await ledger.client.hset(ledger.keys.record("acme"), field, "1.5")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await caller.orgs.update("acme", OrgChange(plan="free"), actor="test", create=False)
        assert await ledger.dump() == before
