"""Who has the most units: the sketch, the rank, and the sets that every worker reads."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metering.errors import StorageUnavailable
from metering.store.connect import connect
from metering.store.keys import Keys
from metering.store.orgs import OrgChange
from metering.store.shared import read_shared
from metering.store.top import OrgUnits, Sketch, TopOrgs, units_of
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, event, move_to
from tests.support.servers import StoreServer, free_port

NOW_MS = 1_800_000_000_000

# ── the sketch ───────────────────────────────────────────────────────────────────────────────────────────

STREAMS = st.lists(st.tuples(st.integers(0, 30).map("org-{}".format), st.integers(1, 50)), max_size=300)
SKEWED = st.lists(
    st.tuples(st.one_of(st.just("big"), st.uuids().map(str)), st.sampled_from([1, 1, 2, 3, 1000])), max_size=300
)


@example([(f"org-{number}", 1) for number in range(20)], 2)
@given(st.one_of(STREAMS, SKEWED), st.integers(1, 8))
def test_the_sketch_holds_everybody_with_more_than_their_share(stream: list[tuple[str, int]], size: int) -> None:
    sketch, exact = Sketch(size), Counter[str]()
    for org_id, units in stream:
        sketch.add(org_id, units)
        exact[org_id] += units
        assert len(sketch.units) <= 4 * size
    share = exact.total() / (size + 1)
    assert {org_id for org_id, units in exact.items() if units > share} <= set(sketch.units)
    for org_id, units in sketch.units.items():
        assert exact[org_id] - share <= units <= exact[org_id]


def test_the_highest_stay_at_the_cost_of_the_next_one() -> None:
    sketch = Sketch(2)
    for units in range(1, 10):
        sketch.add(f"org-{units}", units)
    assert sketch.units == {"org-9": 2, "org-8": 1}


@given(STREAMS, st.integers(1, 8))
def test_the_highest_are_those_of_the_sketch_in_their_number(stream: list[tuple[str, int]], size: int) -> None:
    sketch = Sketch(size)
    for org_id, units in stream:
        sketch.add(org_id, units)
    highest = sketch.highest()
    assert highest.items() <= sketch.units.items()
    assert sorted(highest.values(), reverse=True) == sorted(sketch.units.values(), reverse=True)[:size]


def test_what_was_counted_again_meanwhile_is_not_settled() -> None:
    sketch = Sketch(4)
    for org_id in ("a", "b"):
        sketch.add(org_id, 3)
    seen = sketch.highest()
    sketch.add("b", 1)
    sketch.settle(seen)
    assert sketch.units == {"b": 4}


# ── the rank ─────────────────────────────────────────────────────────────────────────────────────────────


def ranked(units: int, counted_ms: int = NOW_MS, org_id: str = "acme") -> OrgUnits:
    return OrgUnits(org_id, {("scans", "free"): units}, counted_ms)


@given(st.integers(0, 2**50), st.integers(1, 2**50), st.integers(NOW_MS, 2 * NOW_MS), st.integers(0, NOW_MS))
def test_more_units_rank_higher_whenever_they_were_counted(units: int, more: int, at_ms: int, later_ms: int) -> None:
    assert ranked(units, at_ms).score < ranked(units + more, at_ms + later_ms).score


@given(st.integers(0, 1000), st.integers(NOW_MS, 2 * NOW_MS), st.integers(1, NOW_MS))
def test_as_many_units_rank_higher_when_they_were_there_first(units: int, at_ms: int, later_ms: int) -> None:
    assert ranked(units, at_ms).score > ranked(units, at_ms + later_ms).score


# ── a record ─────────────────────────────────────────────────────────────────────────────────────────────


def test_units_of_closed_periods_and_of_this_one_are_one_sum() -> None:
    record = {b"plan": b"free", b"u:scans": b"3", b"b:scans": b"40", b"b:checks": b"7", b"x:scans": b"9"}
    assert units_of("acme", record).units == {("scans", "free"): 43, ("checks", "free"): 7}


def test_units_moved_to_a_former_plan_stay_with_it() -> None:
    record = {b"plan": b"pro", b"u:scans": b"30", b"b:scans": b"100", b"p:free:scans": b"50", b"p:pro:scans": b"-50"}
    org = units_of("acme", record)
    assert org.units == {("scans", "free"): 50, ("scans", "pro"): 80}
    assert org.total == 130


def test_the_last_time_counted_is_that_of_any_feature() -> None:
    assert units_of("acme", {b"plan": b"free", b"t:scans": b"5", b"t:checks": b"9"}).counted_ms == 9


# ── the sets ─────────────────────────────────────────────────────────────────────────────────────────────


class Stage:
    """Organisations with any figures, and workers that note them. No script is needed for these."""

    def __init__(self, client: Any, *, shown: int, partitions: int = 4, workers: int = 1) -> None:
        self.client, self.keys, self.shown = client, Keys(partitions), shown
        self.workers = [TopOrgs(client, self.keys, shown) for _ in range(workers)]
        self.total: Counter[str] = Counter()
        self.clock_ms = NOW_MS

    async def use(self, org_id: str, units: int, worker: int = 0) -> None:
        """Count units as track does, and note them."""
        self.clock_ms += 1
        self.total[org_id] += units
        record = {"plan": "free", "u:scans": self.total[org_id], "t:scans": self.clock_ms}
        await self.client.hset(self.keys.record(org_id), mapping=record)
        self.workers[worker].note(org_id, units)

    async def shows(self, worker: int = 0) -> list[tuple[str, int]]:
        """What a scrape of this worker shows."""
        top = self.workers[worker]
        totals = (await read_shared(self.client, self.keys, top=top.kept)).totals
        return [(org.org_id, org.total) for org in await top.units(totals.top)]

    async def flush(self) -> None:
        for worker in self.workers:
            await worker.flush()

    async def members(self) -> int:
        """How many members the sets have together."""
        return sum([await self.client.zcard(self.keys.shared("top", p)) for p in range(self.keys.partitions)])


async def test_the_highest_of_all_partitions_are_shown_in_order(store: StoreServer) -> None:
    async with connect(store.url) as client:
        stage = Stage(client, shown=3)
        for number in range(10):
            await stage.use(f"org-{number}", 10 * number + 1)
        await stage.flush()
        assert await stage.shows() == [("org-9", 91), ("org-8", 81), ("org-7", 71)]


async def test_figures_are_read_live(store: StoreServer) -> None:
    async with connect(store.url) as client:
        stage = Stage(client, shown=2)
        await stage.use("acme", 5)
        await stage.flush()
        await stage.use("acme", 2)
        assert await stage.shows() == [("acme", 7)]


async def test_workers_that_saw_different_organisations_show_the_same(store: StoreServer) -> None:
    async with connect(store.url) as client:
        stage = Stage(client, shown=3, workers=2)
        for number in range(8):
            await stage.use(f"org-{number}", 10 + number, worker=number % 2)
        await stage.flush()
        assert await stage.shows(0) == await stage.shows(1) == [("org-7", 17), ("org-6", 16), ("org-5", 15)]


@given(data=st.data())
def test_an_organisation_leaves_only_when_as_many_as_are_shown_stand_above_it(
    data: st.DataObject, store_session: StoreServer
) -> None:
    shown = data.draw(st.integers(1, 3))
    events = st.tuples(st.integers(0, 9).map("org-{}".format), st.sampled_from([1, 1, 2, 5]), st.integers(0, 1))
    turns = data.draw(st.lists(st.lists(events, max_size=4), max_size=12))

    async def play() -> None:
        async with connect(store_session.url) as client:
            await client.flushall()
            stage = Stage(client, shown=shown, workers=2, partitions=2)
            pages = []
            for turn in turns:
                for org_id, units, worker in turn:
                    await stage.use(org_id, units, worker)
                await stage.flush()
                pages.append((dict(await stage.shows()), stage.total.copy()))
            for (before, _), (after, total) in pairwise(pages):
                for gone in before.keys() - after.keys():
                    above = [org_id for org_id in after if total[org_id] >= total[gone]]
                    assert len(above) == shown, f"{gone} left {before} for {after}"

    asyncio.run(play())


async def test_equals_that_come_later_do_not_push_anybody_out(store: StoreServer) -> None:
    async with connect(store.url) as client:
        stage = Stage(client, shown=3)
        for name in ("m", "z", "a"):
            await stage.use(name, 1)
        await stage.flush()
        for number in range(40):
            await stage.use(f"late-{number}", 1)
            await stage.flush()
        assert await stage.shows() == [("m", 1), ("z", 1), ("a", 1)]


async def test_the_sets_stay_short_however_many_organisations_there_are(store: StoreServer) -> None:
    async with connect(store.url) as client:
        stage = Stage(client, shown=2)
        for number in range(200):
            await stage.use(f"org-{number}", number + 1)
            await stage.flush()
        assert await stage.members() <= 4 * 2 * 2
        assert await stage.shows() == [("org-199", 200), ("org-198", 199)]


async def test_a_score_that_lags_is_put_right_by_the_next_flush_of_who_showed_it(store: StoreServer) -> None:
    async with connect(store.url) as client:
        stage = Stage(client, shown=1, workers=2, partitions=1)
        await stage.use("acme", 5)
        await stage.flush()
        await client.hset(stage.keys.record("acme"), "u:scans", 500)  # counted by a worker that is gone
        assert await stage.shows(1) == [("acme", 500)]
        await stage.workers[1].flush()
        assert (await client.zscore("{p00}:top", "acme") or 0) > 500


class Slow:
    """A client whose second pipeline says that it was `asked` for and waits for its `turn`."""

    def __init__(self, client: Any) -> None:
        self.client, self.pipes = client, 0
        self.asked, self.turn = asyncio.Event(), asyncio.Event()

    def pipeline(self, **options: Any) -> Any:
        self.pipes += 1
        pipe = self.client.pipeline(**options)
        if self.pipes == 2:
            execute = pipe.execute

            async def late(**how: Any) -> Any:
                self.asked.set()
                await self.turn.wait()
                return await execute(**how)

            pipe.execute = late
        return pipe


async def test_a_worker_that_writes_late_does_not_undo_what_another_wrote(store: StoreServer) -> None:
    async with connect(store.url) as client:
        stage, slow = Stage(client, shown=1, partitions=1, workers=2), Slow(client)
        stage.workers[0] = TopOrgs(slow, stage.keys, 1)  # type: ignore[arg-type]
        await stage.use("acme", 5, 0)
        late = asyncio.create_task(stage.workers[0].flush())
        await slow.asked.wait()  # the total is read, not yet written
        await stage.use("acme", 5, 1)
        await stage.workers[1].flush()
        slow.turn.set()
        await late
        assert (await client.zscore("{p00}:top", "acme") or 0) > 10


async def test_an_organisation_without_a_record_is_dropped(store: StoreServer) -> None:
    async with connect(store.url) as client:
        stage = Stage(client, shown=2)
        for name in ("acme", "erased"):
            await stage.use(name, 5)
        await stage.flush()
        await client.delete(stage.keys.record("erased"))
        assert await stage.shows() == [("acme", 5)]
        await stage.flush()
        assert await stage.members() == 1


@pytest.mark.parametrize("spoil", ["type", "number", "plan"])
async def test_a_corrupt_record_hides_only_its_own_organisation(store: StoreServer, spoil: str) -> None:
    async with connect(store.url) as client:
        stage = Stage(client, shown=2)
        for name in ("acme", "bad"):
            await stage.use(name, 5)
        await stage.flush()
        key = stage.keys.record("bad")
        if spoil == "type":
            await client.delete(key)
            await client.set(key, "x")
        elif spoil == "number":
            await client.hset(key, "u:scans", "many")
        else:
            await client.hdel(key, "plan")
        assert await stage.shows() == [("acme", 5)]


async def test_where_none_are_shown_nothing_is_asked_or_written(store: StoreServer) -> None:
    async with connect(store.url) as client:
        stage = Stage(client, shown=0)
        for number in range(10):
            await stage.use(f"org-{number}", 1)
        await stage.flush()
        assert await stage.members() == 0
        assert await stage.shows() == []


async def test_a_flush_that_fails_is_made_up_for_by_the_next(store: StoreServer) -> None:
    async with connect(store.url) as client:
        stage = Stage(client, shown=2)
        await stage.use("acme", 5)
        store.stop()
        with pytest.raises(StorageUnavailable):
            await stage.flush()
        store.start()
        await stage.flush()
        assert await stage.shows() == [("acme", 5)]


async def test_a_store_that_is_away_is_told(store: StoreServer) -> None:
    async with connect(f"redis://127.0.0.1:{free_port()}") as client:
        with pytest.raises(StorageUnavailable):
            await TopOrgs(client, Keys(4), 2).units({"acme": 1.0})


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["scans", "checks"]), st.integers(1, 6)),
        st.sampled_from(["free", "pro", "next period"]),
    ),
    max_size=12,
)


@given(STEPS)
@settings(max_examples=40)
def test_a_plan_change_takes_nothing_from_what_was_used_before_it(
    store_session: StoreServer, steps: list[tuple[str, int] | str]
) -> None:
    async def play() -> None:
        async with connect(store_session.url) as client:
            await client.flushall()
        async with calm(store_session.url, partitions=1, callers=1) as ledger:
            before: Mapping[tuple[str, str], int] = {}
            for step in [("scans", 1), *steps]:
                await advance(ledger, step)
                record = await ledger.client.hgetall(ledger.keys.record("acme"))
                after = units_of("acme", record).units
                assert all(after[place] >= units for place, units in before.items())
                before = after
            totals = (await read_shared(ledger.client, ledger.keys, top=1)).totals
            assert +Counter(before) == Counter({(f, plan): units for (plan, f), units in totals.units.items()})

    asyncio.run(play())


async def advance(ledger: Ledger, step: tuple[str, int] | str) -> None:
    """Use a feature, change to a plan, or let the period end."""
    caller = ledger.callers[0]
    if isinstance(step, tuple):
        await caller.counters.track(event("acme", step[1], feature=step[0]))
    elif step == "next period":
        org = await caller.orgs.get("acme")
        assert org is not None
        await move_to(ledger, org.period.end_ms + 1)
        await caller.orgs.get("acme")
    else:
        await caller.orgs.update("acme", OrgChange(plan=step), actor="test", create=False)


async def test_lifetime_units_go_on_when_a_period_ends(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        shown = [await counted(ledger, 4), await counted(ledger, 3)]
        org = await ledger.callers[0].orgs.get("acme")
        assert org is not None
        await move_to(ledger, org.period.end_ms + 1)
        shown.append(await counted(ledger, 2))
        assert shown == [4, 7, 9]


async def counted(ledger: Ledger, units: int) -> int:
    """Count scans of acme; the total that a scrape then shows."""
    top = TopOrgs(ledger.client, ledger.keys, 2)
    await ledger.callers[0].counters.track(event("acme", units))
    top.note("acme", units)
    await top.flush()
    totals = (await read_shared(ledger.client, ledger.keys, top=top.kept)).totals
    (org,) = await top.units(totals.top)
    return org.total
