"""What workers count of their work: by name, in buckets, and as one sum that outlives them."""

import re
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from metering.families import JOBS, NAMED, OTHER
from metering.metrics import Build, Counted, Metrics
from metering.settings import Settings
from metering.store.batch_stats import BatchStats
from metering.store.keys import Keys
from metering.tallies import Spread, Tallies
from metering.usage import Result
from metering.workers import look_at_lag
from tests.house.repo import files
from tests.lua.scenes import calm, event
from tests.service.exposition import Page, faults
from tests.support.fixtures import client, store, store_session
from tests.support.servers import StoreServer

__all__ = ["client", "store", "store_session"]

BUILD: Final = Build("1.2.3", (), lossy=False, embedded=True)


async def page_of(client: Any, folder: Path, tallies: Tallies, stats: BatchStats | None = None) -> Page:
    with Metrics(Settings(metrics_dir=folder), client, Keys(2), stats or BatchStats(), BUILD, None, tallies) as shown:
        text, _ = await shown.exposition("")
    assert faults(text.decode()) == []
    return Page(text.decode())


async def test_every_name_has_its_series_from_the_start_and_others_share_one(client: Redis, tmp_path: Path) -> None:
    tallies = Tallies()
    tallies.refusals.update({"quota-exceeded": 3, "of-no-code": 2})
    tallies.stripe_calls.update(("ok", "ok", "rate_limited"))
    page = await page_of(client, tmp_path, tallies)
    for named in NAMED.values():
        shown = page.by(f"{named.metric}_total", named.label)
        assert set(shown) == {(name,) for name in (*named.names, OTHER)}
    refusals = {code: units for (code,), units in page.by("metering_refusals_total", "code").items() if units}
    assert refusals == {"quota-exceeded": 3, OTHER: 2}
    assert page["metering_stripe_calls_total", ("outcome", "ok")] == 2
    assert page["metering_embedded_store"] == 1


async def test_what_a_worker_that_ended_counted_stays_in_the_sums(client: Redis, tmp_path: Path) -> None:
    tallies = Tallies()
    tallies.webhooks["forged"] = 1
    tallies.lag_us.add(3_000)
    await page_of(client, tmp_path, tallies)
    page = await page_of(client, tmp_path, tallies)
    assert page["metering_webhooks_total", ("outcome", "forged")] == 2
    assert (page["metering_loop_lag_seconds_count"], page["metering_loop_lag_seconds_sum"]) == (2, 0.006)
    buckets = page.by("metering_loop_lag_seconds_bucket", "le")
    assert (buckets["0.0025",], buckets["0.005",], buckets["+Inf",]) == (0, 2, 2)


async def test_calls_of_the_store_show_their_time_and_their_size(store: StoreServer, tmp_path: Path) -> None:
    tallies = Tallies()
    async with calm(store.url, callers=1) as ledger:
        counters = ledger.callers[0].counters
        counted = Counted(counters, lambda *_: None, tallies)
        await counted.track_all([event("acme", 1, f"e{number}") for number in range(5)])
        page = await page_of(ledger.client, tmp_path, tallies, counters.stats)
    calls = page["metering_batch_calls_total"]
    assert page["metering_store_call_seconds_count"] == page["metering_batch_size_events_count"] == calls
    assert page["metering_batch_size_events_sum"] == 5 * calls  # the first call learns that nobody knows acme
    assert page["metering_store_call_seconds_sum"] > 0


async def test_events_are_counted_by_what_became_of_them(store: StoreServer) -> None:
    tallies = Tallies()
    async with calm(store.url, callers=1) as ledger:
        counted = Counted(ledger.callers[0].counters, lambda *_: None, tallies)
        await counted.track(event("acme", 4, "e1"))
        await counted.track(event("acme", 4, "e1"))
        await counted.track(event("acme", 5, "e1"))
        await counted.track(event("acme", 11, "e2", "checks"))
        await counted.track_all([event("acme", 13, "e3", "calls"), event("acme", 4, "e1")])
    assert tallies.events == {
        Result.RECORDED: 1, Result.DUPLICATE: 2, Result.CONFLICT: 1, Result.REFUSED: 1, Result.CAPPED: 1,
    }  # fmt: skip


async def test_a_look_at_the_loop_is_one_value() -> None:
    spread = Spread((10_000_000,))
    await look_at_lag(spread)
    assert spread.cells()[:2] == [1, 0]


def test_every_job_has_a_name_among_those_that_are_counted() -> None:
    calls = [
        re.findall(r"\b(?:Loop|Job)\(\s*\"([^\"]+)\"", path.read_text()) for path in files("metering", suffix=".py")
    ]
    found = {name for names in calls for name in names}
    assert len(found) > 15
    assert not found - set(JOBS), "add it to metering.families.JOBS"
