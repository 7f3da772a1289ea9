"""journal.lua: what Stripe took stands there once, by hour and customer and meter, for a hundred days."""

from dataclasses import replace

from metering.store.stripe_lanes import JOURNAL_KEEP_S
from tests.lua.outboxes import begun, lanes_of, sealed
from tests.lua.scenes import DAY_MS, HOUR_MS, calm, event
from tests.support.servers import StoreServer


async def test_a_window_stands_in_its_hour_once_until_it_is_taken_back(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=2) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        window, lanes = await begun(ledger, await sealed(ledger)), lanes_of(ledger)
        lane, at_ms = lanes.name("cus_1", "scans"), window.stamp_ms
        for _ in range(2):
            await lanes.note(lane, window)
        assert await lanes.hour(lane, at_ms) == {window.id: 3}
        assert await lanes.hour(lane, at_ms - HOUR_MS) == await lanes.hour(lane, at_ms + DAY_MS) == {}
        assert await lanes.hour(lanes.name("cus_2", "scans"), at_ms) == {}
        later = replace(window, id="b" * 52, stamp_ms=at_ms + HOUR_MS)
        await lanes.note(lane, later)
        assert await lanes.hour(lane, at_ms + HOUR_MS) == {"b" * 52: 3}
        [key] = [key async for key in ledger.client.scan_iter(match="*:q:*")]
        assert JOURNAL_KEEP_S - 60 < await ledger.client.ttl(key) <= JOURNAL_KEEP_S
        await lanes.strike(lane, window)
        assert await lanes.hour(lane, at_ms) == {}
        report = await ledger.walk()
        assert not report.violations
