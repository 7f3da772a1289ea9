"""The page of metrics: what it says, in which format, and what becomes of it when the store is away."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from metering.metrics import BATCHES, DEADLINE_S, QUEUED, Build, Counted, Metrics
from metering.settings import Settings
from metering.store.batch_stats import BatchStats, QueueStats
from metering.store.connect import connect
from metering.store.correction import By, Change, adjustment
from metering.store.gate import GateRefusedError
from metering.store.keys import Keys
from metering.store.orgs import OrgChange
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, event
from tests.service.exposition import Page, backwards, faults, open_metrics, own_faults
from tests.support.fixtures import client, store, store_session
from tests.support.servers import StoreServer, free_port

__all__ = ["client", "store", "store_session"]

ENDPOINTS: Final = (("POST", "/usage/track"), ("GET", "/metrics"))
BUILD: Final = Build("1.2.3", ENDPOINTS, lossy=False, packages=(("usd", "100"),))
OPEN_METRICS: Final = "application/openmetrics-text;version=1.0.0"

BUSINESS: Final = {
    "scorpius_usage": ("org_id", "feature", "plan"),
    "scorpius_org_usage": ("org_id",),
    "scorpius_feature_usage": ("feature", "plan"),
    "scorpius_feature_usage_taken_out": ("feature",),
    "scorpius_billing_events": ("event_type",),
    "scorpius_total_organizations": (),
    "scorpius_plan_distribution": ("plan",),
    "metering_payments": ("kind", "outcome"),
    "metering_order_value_minor": ("currency", "package"),
    "metering_refund_value_minor": ("currency",),
    "metering_refund_failed_value_minor": ("currency",),
}
"""Names and labels as they have been promised; the histogram is the service's own."""


def metrics(folder: Path, client: Any, keys: Keys, *, stats: BatchStats | None = None, **settings: Any) -> Metrics:
    return Metrics(Settings(metrics_dir=folder, **settings), client, keys, stats or BatchStats(), BUILD)


async def page_of(shown: Metrics) -> Page:
    text, _ = await shown.exposition("")
    return Page(text.decode())


class Scene:
    """A ledger of four partitions and the metrics of the worker that counts in it."""

    def __init__(self, ledger: Ledger, shown: Metrics) -> None:
        self.ledger, self.metrics = ledger, shown
        self.counters = Counted(ledger.callers[0].counters, shown.counted)

    async def track(self, org_id: str, quantity: int = 1, feature: str = "scans", event_id: str | None = None) -> None:
        await self.counters.track(event(org_id, quantity, event_id, feature))

    async def take_out(self, org_id: str, units: int) -> None:
        change, by = Change("scans", -units), By("test", "because", "")
        correction = adjustment(org_id, change, f"a{units}", by, minted=False, period_ms=None, at_ms=None)
        await self.ledger.callers[0].corrections.make(correction)

    async def plan(self, org_id: str, plan: str) -> None:
        await self.ledger.callers[0].orgs.update(org_id, OrgChange(plan=plan), actor="test", create=True)

    async def page(self) -> Page:
        """What a scrape shows after a flush."""
        await self.metrics.flush()
        return await page_of(self.metrics)


@asynccontextmanager
async def scene(store: StoreServer, folder: Path, **settings: Any) -> AsyncIterator[Scene]:
    async with calm(store.url, partitions=4, callers=1) as ledger:
        stats = ledger.callers[0].counters.stats
        with metrics(folder, ledger.client, ledger.keys, stats=stats, **settings) as shown:
            yield Scene(ledger, shown)


# ── what it says ─────────────────────────────────────────────────────────────────────────────────────────


async def test_the_promised_names_have_the_promised_labels(store: StoreServer, tmp_path: Path) -> None:
    async with scene(store, tmp_path) as play:
        await play.track("acme", 11)
        await play.take_out("acme", 1)
        play.metrics.observe("POST", "/usage/track", 200, 0.003)
        found = {family.name: family.samples for family in (await play.page()).families}
        assert BUSINESS.keys() <= found.keys()
        for name, labels in BUSINESS.items():
            assert {tuple(sample.labels) for sample in found[name]} == {tuple(sorted(labels))}
        duration = found["scorpius_usage_api_duration_seconds"]
        assert {frozenset(s.labels) - {"le"} for s in duration} == {frozenset(("method", "endpoint", "status"))}


async def test_units_that_are_taken_out_stay_in_their_series_and_have_one_of_their_own(
    store: StoreServer, tmp_path: Path
) -> None:
    async with scene(store, tmp_path) as play:
        await play.track("acme", 11)
        before = await play.page()
        await play.take_out("acme", 4)
        after = await play.page()
        for name in ("scorpius_usage_total", "scorpius_org_usage_total"):
            assert after.by(name, "org_id") == before.by(name, "org_id") == {("acme",): 11}
        assert after.by("scorpius_feature_usage_total", "feature") == {("scans",): 11}
        assert after.by("scorpius_feature_usage_taken_out_total", "feature") == {("scans",): 4}


async def test_figures_of_the_business_are_those_of_the_store(store: StoreServer, tmp_path: Path) -> None:
    async with scene(store, tmp_path) as play:
        for number in range(5):
            await play.track(f"org-{number}", 8 + number)
            await play.track(f"org-{number}", 2, "calls")
        await play.plan("org-9", "pro")
        page = await play.page()
        assert page.by("scorpius_org_usage_total", "org_id") == {(f"org-{n}",): 10 + n for n in range(5)}
        assert page.by("scorpius_usage_total", "org_id") == page.by("scorpius_org_usage_total", "org_id")
        features = page.by("scorpius_feature_usage_total", "feature", "plan")
        assert features == page.by("scorpius_usage_total", "feature", "plan")
        assert features == {("scans", "free"): 50, ("calls", "free"): 10}
        assert page.by("scorpius_plan_distribution", "plan") == {("free",): 5, ("pro",): 1}
        assert page["scorpius_total_organizations"] == 6
        events = {
            kind: number for kind, number in page.by("scorpius_billing_events_total", "event_type").items() if number
        }
        assert events == {("org_created",): 6, ("overage_started",): 2}


async def test_sales_are_shown_by_package_and_what_is_sold_has_series_before(client: Redis, tmp_path: Path) -> None:
    keys, name = Keys(2), "metering_order_value_minor"
    with metrics(tmp_path, client, keys) as shown:
        empty = await page_of(shown)
        for partition, field, number in (
            (0, "orders:usd:500", 2), (0, "order_value:usd:500", 9000), (1, "orders:usd:500", 1),
            (1, "order_value:usd:500", 4500), (1, "payments:credits:failed", 4), (0, "payments:invoice:succeeded", 5),
            (0, "refunds:usd", 2), (0, "refund_value:usd", 900), (0, "refunds_failed:usd", 1),
            (0, "refund_failed_value:usd", 400),
        ):  # fmt: skip
            await client.hset(keys.shared("totals", partition), field, number)
        page = await page_of(shown)
    assert empty.by(f"{name}_count", "currency", "package") == {("usd", "100"): 0}
    assert set(empty.by("metering_payments_total", "kind", "outcome").values()) == {0}
    assert page.by(f"{name}_count", "currency", "package") == {("usd", "100"): 0, ("usd", "500"): 3}
    assert page.by(f"{name}_sum", "package") == {("100",): 0, ("500",): 13_500}
    assert page.by("metering_payments_total", "kind", "outcome") == {
        ("credits", "succeeded"): 3, ("credits", "failed"): 4, ("invoice", "succeeded"): 5, ("invoice", "failed"): 0,
    }  # fmt: skip
    for refunds, count, total in (("refund", 2, 900), ("refund_failed", 1, 400)):
        assert page.by(f"metering_{refunds}_value_minor_count", "currency") == {("usd",): count}
        assert page.by(f"metering_{refunds}_value_minor_sum", "currency") == {("usd",): total}


async def test_only_what_counted_is_noted(store: StoreServer, tmp_path: Path) -> None:
    async with scene(store, tmp_path) as play:
        noted: list[tuple[str, int]] = []
        counted = Counted(play.ledger.callers[0].counters, lambda org_id, units: noted.append((org_id, units)))
        await counted.track(event("acme", 4, "e1"))
        await counted.track(event("acme", 4, "e1"))  # a duplicate
        await counted.track(event("acme", 5, "e1"))  # a conflict
        await counted.track(event("acme", 11, "e2", "checks"))  # refused
        await counted.track(event("acme", 13, "e3", "calls"))  # capped
        assert noted == [("acme", 4), ("acme", 10)]


async def test_an_event_turned_away_for_want_of_room_is_shed(store: StoreServer) -> None:
    async with calm(store.url, pending_max=3) as ledger:
        counters = ledger.callers[0].counters
        counted = Counted(counters, lambda *_: None)
        assert (counted.room(), counters.stats.shed) == (True, 0)
        waiting = [asyncio.create_task(counters.track(event("acme"))) for _ in range(3)]
        await asyncio.sleep(0)
        assert (counted.room(), counters.stats.shed) == (False, 1)
        await asyncio.gather(*waiting)
        assert (counted.room(), counters.stats.shed) == (True, 1)


async def test_the_number_of_series_does_not_depend_on_the_number_of_organisations(
    store: StoreServer, tmp_path: Path
) -> None:
    async with scene(store, tmp_path, metrics_top_orgs=5) as play:
        sizes = []
        for first, last in ((0, 10), (10, 250)):
            for low in range(first, last, 20):  # more newcomers at once a slow machine does not make in time
                await asyncio.gather(*(play.track(f"org-{number}", 11) for number in range(low, min(last, low + 20))))
            sizes.append(len((await play.page()).samples))
        assert sizes[0] == sizes[1]
        assert len((await play.page()).by("scorpius_org_usage_total", "org_id")) == 5


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "a{b}", "é", "scorpius_total 1\n#"])
async def test_any_name_in_the_store_is_one_label(client: Redis, tmp_path: Path, name: str) -> None:
    keys = Keys(2)
    key = keys.record(name)
    await client.hset(key, mapping={"plan": name, "u:scans": 7})
    await client.zadd(keys.shared("top", keys.partition(name)), {name: 7.5})
    with metrics(tmp_path, client, keys) as shown:
        page = await page_of(shown)
        assert page.by("scorpius_usage_total", "org_id", "plan") == {(name, name): 7}
        open_page, _ = await shown.exposition(OPEN_METRICS)
        (family,) = [f for f in open_metrics(open_page.decode()) if f.name == "scorpius_usage"]
        assert [sample.labels["org_id"] for sample in family.samples] == [name]


async def test_durations_are_cumulative_in_seconds(client: Redis, tmp_path: Path) -> None:
    with metrics(tmp_path, client, Keys(2)) as shown:
        for seconds in (0.0004, 0.004, 0.3, 9.0):
            shown.observe("POST", "/usage/track", 200, seconds)
        page = await page_of(shown)
        name = "scorpius_usage_api_duration_seconds"
        assert page.by(f"{name}_count", "method", "endpoint", "status") == {("POST", "/usage/track", "2xx"): 4}
        assert page.total(f"{name}_sum") == pytest.approx(9.3044)
        buckets = page.by(f"{name}_bucket", "le")
        assert [buckets[le,] for le in ("0.001", "0.0025", "0.005", "0.25", "0.5", "2.5", "+Inf")] == [
            1, 1, 2, 2, 3, 3, 4,
        ]  # fmt: skip


@pytest.mark.parametrize("lossy", [False, True])
async def test_the_release_and_the_stores_durability_are_shown(client: Redis, tmp_path: Path, lossy: bool) -> None:
    build = Build("1.2.3", ENDPOINTS, lossy=lossy)
    with Metrics(Settings(metrics_dir=tmp_path), client, Keys(2), BatchStats(), build) as shown:
        page = await page_of(shown)
        assert page["metering_build_info", ("version", "1.2.3")] == 1
        assert page["metering_lossy_ledger"] == lossy
        assert page["metering_store_up"] == 1


# ── workers together ─────────────────────────────────────────────────────────────────────────────────────


async def test_what_workers_counted_is_one_sum_that_outlives_them(client: Redis, tmp_path: Path) -> None:
    assert set(BATCHES) == set(BatchStats.__dataclass_fields__) - {"replies_us", "sizes"}  # which are spreads
    stats = [BatchStats(*range(number, number + len(BATCHES))) for number in (10, 20, 40)]
    with metrics(tmp_path, client, Keys(2), stats=stats[0]) as one:
        one.observe("GET", "/metrics", 200, 0.1)
        with metrics(tmp_path, client, Keys(2), stats=stats[1]) as two:
            two.observe("GET", "/metrics", 200, 0.1)
            await one.flush()
            both = await page_of(two)
        with metrics(tmp_path, client, Keys(2), stats=stats[2]) as three:
            three.observe("GET", "/metrics", 200, 0.1)
            after = await page_of(three)
    assert [both[f"metering_batch_{name}_total"] for name in BATCHES] == [30 + 2 * n for n in range(len(BATCHES))]
    assert [after[f"metering_batch_{name}_total"] for name in BATCHES] == [70 + 3 * n for n in range(len(BATCHES))]
    assert after.total("scorpius_usage_api_duration_seconds_count") == 3
    assert backwards(both, after) == []


async def test_what_became_of_queued_events_is_one_sum_too(client: Redis, tmp_path: Path) -> None:
    assert set(QUEUED) == set(QueueStats.__dataclass_fields__)
    stats = [QueueStats(*range(number, number + len(QUEUED))) for number in (10, 20)]
    opened = [Metrics(Settings(metrics_dir=tmp_path), client, Keys(2), BatchStats(), BUILD, one) for one in stats]
    with opened[0], opened[1] as shown:
        await opened[0].flush()
        page = await page_of(shown)
    assert [page[f"metering_queue_{name}_total"] for name in QUEUED] == [30 + 2 * n for n in range(len(QUEUED))]


@pytest.mark.parametrize(
    ("name", "kind", "dead"), [("metering_queue", "queue", "dead"), ("metering_stripe_inbox", "inbox", "dead_inbox")]
)
async def test_queues_show_what_waits_since_when_and_what_was_given_up(
    client: Redis, tmp_path: Path, name: str, kind: str, dead: str
) -> None:
    with metrics(tmp_path, client, Keys(2)) as shown:
        empty = await page_of(shown)
        seconds, _ = await client.time()
        await client.xadd(f"{{p00}}:{kind}", {"x": 1}, id=f"{(seconds - 60) * 1000}-0")
        await client.xadd(f"{{p01}}:{kind}", {"x": 1})
        await client.xadd(f"{{p01}}:{dead}", {"x": 1})
        page = await page_of(shown)
    names = (f"{name}_entries", f"{name}_dead", f"{name}_oldest_seconds")
    assert [empty[each] for each in names] == [0, 0, 0]
    assert [page[each] for each in names[:2]] == [2, 1]
    assert 59 <= page[names[2]] < 65


async def test_overage_shows_where_it_stands_and_since_when(client: Redis, tmp_path: Path) -> None:
    with metrics(tmp_path, client, Keys(2)) as shown:
        empty = await page_of(shown)
        seconds, _ = await client.time()
        await client.zadd("{p00}:dirty", {"acme|scans": (seconds - 60) * 1000, "beta|scans": seconds * 1000})
        await client.zadd("{p01}:outbox", {"a" * 52: seconds * 1000 + 600_000})
        await client.hset("{p01}:b:" + "a" * 52, "at", str((seconds - 120) * 1000))
        await client.zadd("{p01}:dead_windows", {"b" * 52: 1})
        await client.zadd("{p01}:unbilled", {"gamma|scans": 0})
        await client.hset("{p00}:totals", mapping={"w:new": 4, "w:known": 1})
        await client.hset("{p01}:totals", "w:new", 2)
        page = await page_of(shown)
    states = ("unsealed", "on_its_way", "dead", "unbilled")
    names = [("metering_overage_entries", ("state", state)) for state in states]
    assert [page[name] for name in names] == [2, 1, 1, 1]
    assert [empty[name] for name in names] == [0, 0, 0, 0]
    assert empty["metering_overage_oldest_seconds"] == 0
    assert 119 <= page["metering_overage_oldest_seconds"] < 125
    assert page["metering_overage_delivered_total", ("how", "new")] == 6
    assert page["metering_overage_delivered_total", ("how", "known")] == 1


async def test_without_a_folder_named_the_figures_are_kept_all_the_same(
    client: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Metrics(Settings(), client, Keys(2), BatchStats(calls=7), BUILD) as shown:
        assert (await page_of(shown))["metering_batch_calls_total"] >= 7


async def test_a_folder_that_cannot_be_used_is_a_refusal_with_its_cure(client: Redis, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(GateRefusedError, match="METRICS_DIR"), metrics(tmp_path / "x", client, Keys(2)):
        pass


# ── formats ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("state", ["empty", "used", "away"])
async def test_the_page_has_no_fault_in_any_state(store: StoreServer, tmp_path: Path, state: str) -> None:
    async with scene(store, tmp_path) as play:
        if state == "used":
            await play.track("acme", 11)
            play.metrics.observe("POST", "/usage/track", 200, 0.003)
            play.metrics.observe("PATCH", "/nowhere", 404, 0.003)
        if state == "away":
            store.stop()
        text, _ = await play.metrics.exposition("")
        assert faults(text.decode()) == []


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("# TYPE a_total gauge\n# HELP a_total x\na_total 1", "a_total: ends like a counter"),
        ("# TYPE a gauge\na 1", "a: no HELP"),
        ("# HELP a x\na 1", "a: no TYPE"),
        ("# TYPE a_ms gauge\n# HELP a_ms x\na_ms 1", "a_ms: not a name in base units"),
        ("# TYPE a gauge\n# HELP a x\na 1\na 2", "stands twice: a"),
        ("# TYPE a_total counter\n# HELP a_total x\na_total 1\na_created 1", "a_created"),
    ],
)
def test_a_fault_of_a_page_is_seen(line: str, fault: str) -> None:
    assert any(fault in found for found in own_faults(line + "\n"))


TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html", TEXT),
        (OPEN_METRICS, "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4", "appl"),
        ("application/openmetrics-text;version=x.y", TEXT),
        ("text/plain;version=one", TEXT),
        (";;==,,", TEXT),
    ],
)
async def test_the_format_is_the_one_that_is_asked_for(client: Redis, tmp_path: Path, accept: str, kind: str) -> None:
    with metrics(tmp_path, client, Keys(2)) as shown:
        text, found = await shown.exposition(accept)
        assert found.startswith(kind)
        assert text.endswith(b"# EOF\n") == found.startswith("application/openmetrics-text")


async def test_a_traced_request_is_an_exemplar_of_its_bucket_where_openmetrics_is_asked_for(
    client: Redis, tmp_path: Path
) -> None:
    with metrics(tmp_path, client, Keys(2)) as shown:
        shown.observe("POST", "/usage/track", 200, 0.03)
        shown.exemplar("POST", "/usage/track", 200, 0.03, "ab" * 16)
        found, _ = await shown.exposition(OPEN_METRICS)
        text, _ = await shown.exposition("")
    [line] = [line for line in found.decode().splitlines() if "# {" in line]
    labels = 'endpoint="/usage/track",le="0.05",method="POST",status="2xx"'
    bucket = f"scorpius_usage_api_duration_seconds_bucket{{{labels}}} 1.0"
    assert line.startswith(f'{bucket} # {{trace_id="{"ab" * 16}"}} 0.03 ')
    assert b"trace_id" not in text


async def test_both_formats_say_the_same(store: StoreServer, tmp_path: Path) -> None:
    async with scene(store, tmp_path) as play:
        await play.track("acme", 11)
        play.metrics.observe("POST", "/usage/track", 200, 0.003)
        plain = await play.page()
        text, _ = await play.metrics.exposition(OPEN_METRICS)
        samples = [sample for family in open_metrics(text.decode()) for sample in family.samples]
        assert {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples} == plain.samples


# ── without the store ────────────────────────────────────────────────────────────────────────────────────


def told_of_the_service_alone(page: Page) -> bool:
    """Whether the page shows the service's own figures and, rather than zeros, none of the business."""
    names = {family.name for family in page.families}
    return page["metering_store_up"] == 0 and not names & BUSINESS.keys() and "metering_batch_calls" in names


async def test_a_store_that_is_away_hides_the_business_and_nothing_else(tmp_path: Path) -> None:
    async with connect(f"redis://127.0.0.1:{free_port()}") as client:
        with metrics(tmp_path, client, Keys(2)) as shown:
            shown.observe("GET", "/metrics", 503, 0.1)
            page = await page_of(shown)
            assert told_of_the_service_alone(page)
            assert page.total("scorpius_usage_api_duration_seconds_count") == 1


async def test_a_store_that_hangs_is_waited_for_no_longer_than_the_deadline(store: StoreServer, tmp_path: Path) -> None:
    async with connect(store.url, reply_timeout_s=None) as patient:
        await patient.hset("{p00}:totals", "u:free:scans", 7)
        with metrics(tmp_path, patient, Keys(2)) as shown:
            assert (await page_of(shown)).total("scorpius_feature_usage_total") == 7
            os.kill(store.pid, signal.SIGSTOP)
            try:
                async with asyncio.timeout(DEADLINE_S + 2):
                    assert told_of_the_service_alone(await page_of(shown))
            finally:
                os.kill(store.pid, signal.SIGCONT)
            page = await page_of(shown)
            assert page.total("scorpius_feature_usage_total") == 7
            assert page["metering_store_up"] == 1


async def test_totals_out_of_shape_hide_the_business_and_nothing_else(client: Redis, tmp_path: Path) -> None:
    await client.set("{p00}:totals", "x")
    with metrics(tmp_path, client, Keys(2)) as shown:
        assert told_of_the_service_alone(await page_of(shown))
