"""pass_lane.lua: one window has a lane, and who it passes to is never in doubt."""

import asyncio

from metering.store.stripe_lanes import Holder
from metering.store.window import Window
from tests.lua.ledger import Ledger
from tests.lua.outboxes import lanes_of, sealed, window_of
from tests.lua.scenes import calm, event
from tests.support.servers import StoreServer


async def three(ledger: Ledger) -> list[Window]:
    """Windows of three organisations."""
    names = ("acme", "beta", "gamma")
    for name in names:
        await ledger.callers[0].counters.track(event(name, 13))
    return [await window_of(ledger, await sealed(ledger, f"{name}|scans"), name) for name in names]


async def test_a_lane_is_had_by_one_window_until_it_leaves(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=2) as ledger:
        lanes = lanes_of(ledger)
        one, two, _ = await three(ledger)
        lane = lanes.name("cus_1", "scans")
        assert await lanes.take(lane, one) is None
        assert await lanes.take(lane, one) is None
        assert await lanes.take(lane, two) == Holder(one.id, "acme")
        await lanes.leave(lane, two.id)
        assert await lanes.take(lane, two) == Holder(one.id, "acme")
        await lanes.leave(lane, one.id)
        assert await ledger.client.exists(ledger.keys.lane(lane)) == 0
        assert await lanes.take(lane, two) is None
        assert await lanes.take(lanes.name("cus_2", "scans"), one) is None
        assert await lanes.take(lanes.name("cus_1", "checks"), one) is None


async def test_of_two_that_would_follow_a_window_one_does(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        lanes = lanes_of(ledger)
        one, two, three_ = await three(ledger)
        lane = lanes.name("cus_1", "scans")
        assert await lanes.take(lane, one) is None
        found = await asyncio.gather(*(lanes.take(lane, window, before=one.id) for window in (two, three_)))
        assert found.count(None) == 1
        await lanes.leave(lane, one.id)
        assert await ledger.client.exists(ledger.keys.lane(lane)) == 1
