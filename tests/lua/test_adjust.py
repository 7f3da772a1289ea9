"""adjust.lua: what stops a correction leaves no trace, and what it does where the model test comes by too seldom."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import pytest

from metering.errors import (
    BelowZero,
    ClockUnsafe,
    EventConflict,
    EventNotFound,
    FeatureUnknown,
    Invalid,
    OrgCorrupt,
    OrgNotFound,
    PeriodFinal,
    PeriodNotFound,
    Problem,
    TimestampOutOfRange,
    TotalTooLarge,
)
from metering.store.correction import By, Change, Corrected, Correction, adjustment, reset, void
from metering.store.counters import LatePolicy
from metering.store.frames import day_text
from metering.store.orgs import OrgChange
from metering.store.retention import Retention
from metering.usage import Outcome, Result, UsageEvent
from plans.catalogue import Override
from plans.limits import TOTAL_MAX, OnLimit
from tests.lua.ledger import CATALOGUE, Ledger
from tests.lua.outboxes import outbox_of
from tests.lua.scenes import DAY_MS, HOUR_MS, MINUTE_MS, calm, event, lawful, move_to, next_year
from tests.support.monitor import keys_of as keys_asked
from tests.support.monitor import monitored, scripts
from tests.support.servers import StoreServer

BY: Final = By("ann", "counted twice", "req-7")
RECORD: Final = "{p00}:o:acme"

Hash = dict[str, str]


def delta(
    units: int, feature: str = "scans", name: str = "a1", *, period_ms: int | None = None, at_ms: int | None = None
) -> Correction:
    """An adjustment of acme."""
    change = Change(feature, units, place="/delta")
    return adjustment("acme", change, name, BY, minted=False, period_ms=period_ms, at_ms=at_ms)


def voided(
    event_id: str,
    *content: tuple[str, int],
    recorded: int | None = None,
    period_ms: int | None = None,
    source: str = "",
) -> Correction:
    """A void of acme's event."""
    changes = [
        Change(feature, -(quantity if recorded is None else recorded), recorded is not None, f"/features/{at}/quantity")
        for at, (feature, quantity) in enumerate(content)
    ]
    return void("acme", source, event_id, changes, content, BY, period_ms=period_ms, at_ms=None)


@asynccontextmanager
async def january(url: str, **options: Any) -> AsyncIterator[Ledger]:
    """Acme with 13 scans of 10, at half past twelve on a day of January."""
    async with calm(url, partitions=1, **options) as ledger:
        await track(ledger, 13, "e1")
        yield ledger


async def track(ledger: Ledger, units: int, event_id: str | None = None, feature: str = "scans") -> Result:
    return (await ledger.callers[0].counters.track(event("acme", units, event_id, feature))).result


async def make(ledger: Ledger, correction: Correction) -> Corrected:
    return await ledger.callers[1].corrections.make(correction)


async def hash_at(ledger: Ledger, key: str) -> Hash:
    return {name.decode(): value.decode() for name, value in (await ledger.client.hgetall(key)).items()}


async def history(ledger: Ledger, day: str, feature: str = "scans") -> dict[str, int]:
    """A day's buckets."""
    year = (await next_year(ledger, "01-01T00:00:00")) // DAY_MS
    key = ledger.keys.history("acme", feature, day_text(year)[:4] + day)
    return {name: int(value) for name, value in (await hash_at(ledger, key)).items()}


async def refused(ledger: Ledger, correction: Correction, problem: type[Problem]) -> Problem:
    """The problem; not a byte changed."""
    before = await ledger.dump()
    with pytest.raises(problem) as caught:
        await make(ledger, correction)
    assert await ledger.dump() == before
    return caught.value


async def february(ledger: Ledger) -> int:
    """Move on to February; when January began."""
    await move_to(ledger, await next_year(ledger, "02-01T10:00:00"))
    org = await ledger.callers[0].orgs.get("acme")
    assert org is not None
    return await next_year(ledger, "01-01T00:00:00")


# ── what it does ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_correction_changes_counter_overage_history_sums_and_trail_in_one_step(each_store: StoreServer) -> None:
    async with january(each_store.url) as ledger:
        made = await make(ledger, delta(-5))
        [row] = made.rows
        assert (row.before.used, row.before.overage, row.after.used, row.after.overage) == (13, 3, 8, 0)
        assert (row.delta, row.given_back, made.duplicate) == (-5, 3, False)
        record = await hash_at(ledger, RECORD)
        assert [record[f"{kind}:scans"] for kind in "uxy"] == ["8", "3", "3"]
        assert record["p:free:scans"] == "5"
        assert await history(ledger, "0110") == {"12": 8}
        totals = await hash_at(ledger, "{p00}:totals")
        assert (totals["u:free:scans"], totals["c:scans"], totals["e:usage_adjusted"]) == ("13", "5", "1")
        [(entry_id, entry)] = await ledger.client.xrevrange(ledger.keys.trail("acme"), count=1)
        assert entry_id.decode() == row.audit_id
        told = {name.decode(): value.decode() for name, value in entry.items()}
        assert told.pop("at") == record["t:scans"]
        assert told == {
            "type": "usage_adjusted", "actor": "ann", "reason": "counted twice", "id": "a1", "request_id": "req-7",
            "feature": "scans", "delta": "-5", "used_before": "13", "used_after": "8", "overage_before": "3",
            "overage_after": "0", "limit": "10", "period": str(await next_year(ledger, "01-01T00:00:00")),
        }  # fmt: skip
        await lawful(ledger)


async def test_units_put_in_count_above_any_limit_and_whatever_the_plan_does_there(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        assert await track(ledger, 9, "c1", "checks") is Result.RECORDED
        assert await track(ledger, 9, "c2", "checks") is Result.REFUSED
        [row] = (await make(ledger, delta(9, "checks"))).rows
        assert (row.after.used, row.after.overage) == (18, 8)
        assert [member async for member in members(ledger)] == ["acme|checks", "acme|scans"]
        types = [entry[b"type"] for _, entry in await ledger.client.xrange(ledger.keys.trail("acme"))]
        assert types.count(b"overage_started") == 2
        crossings = await ledger.client.xrange("{p00}:crossings")
        assert [entry[b"mark"] for _, entry in crossings if entry[b"feature"] == b"checks"] == [
            b"75",
            b"80",
            b"90",
            b"100",
        ]
        await lawful(ledger)


async def members(ledger: Ledger) -> AsyncIterator[str]:
    for member in sorted(await ledger.client.zrange("{p00}:dirty", 0, -1)):
        yield member.decode()


async def test_a_feature_that_the_plan_does_not_include_can_be_corrected(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        [row] = (await make(ledger, delta(2, "closed"))).rows
        assert row.after.used == 2
        await lawful(ledger)


async def test_a_void_takes_the_event_out_of_its_hour_and_overage_out_of_later_ones(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await track(ledger, 8, "e1")
        await move_to(ledger, await next_year(ledger, "01-10T15:10:00"))
        await track(ledger, 5, "e2")
        assert await history(ledger, "0110") == {"12": 8, "15": 5, "x15": 3}
        twelve_ms = await next_year(ledger, "01-10T12:40:00")
        await make(ledger, replace(voided("e1", ("scans", 8)), at_ms=twelve_ms))
        assert await history(ledger, "0110") == {"15": 5}
        await lawful(ledger)


async def test_no_hour_keeps_more_overage_than_units(store: StoreServer) -> None:
    """Overage of an older, lower limit stays when units go: they are taken where there is no overage."""
    async with calm(store.url, partitions=1) as ledger:
        await track(ledger, 9, "e1")
        await move_to(ledger, await next_year(ledger, "01-10T15:10:00"))
        await track(ledger, 4, "e2")
        change = OrgChange(overrides={"scans": Override(limit=100)})
        await ledger.callers[0].orgs.update("acme", change, actor="test", create=False)
        await make(ledger, delta(-6))
        assert await history(ledger, "0110") == {"12": 4, "15": 3, "x15": 3}
        await lawful(ledger)


async def test_a_correction_stays_inside_its_period_where_two_share_an_hour(store: StoreServer) -> None:
    catalogue = CATALOGUE.replace('reset = "calendar"', 'reset = "anniversary"')
    async with calm(store.url, partitions=1, catalogue=catalogue) as ledger:
        await track(ledger, 2, "e1")
        first = await ledger.callers[0].orgs.get("acme")
        assert first is not None
        await move_to(ledger, first.period.end_ms - 60_000)
        await track(ledger, 3, "e2")
        await move_to(ledger, first.period.end_ms + 60_000)
        await track(ledger, 4, "e3")
        inside = f"12+{first.period.end_ms % HOUR_MS}"
        assert await history(ledger, "0210") == {"12": 3, inside: 4}
        await make(ledger, delta(-4, name="a1", period_ms=first.period.start_ms))
        assert await history(ledger, "0210") == {inside: 4}
        await make(ledger, delta(6, name="a2", period_ms=first.period.start_ms))
        assert await history(ledger, "0210") == {"12": 6, inside: 4}
        await make(ledger, delta(1, name="a3"))
        await make(ledger, delta(-5, name="a4"))
        assert await history(ledger, "0210") == {"12": 6}
        await move_to(ledger, first.period.end_ms + 2 * HOUR_MS)
        await track(ledger, 3, "e4")
        await make(ledger, delta(-2, name="a5", at_ms=first.period.end_ms))
        assert await history(ledger, "0210") == {"12": 6, "14": 1}
        await lawful(ledger)


async def test_a_closed_period_is_corrected_in_its_archive_and_in_the_sum_of_closed_units(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        start_ms = await february(ledger)
        made = await make(ledger, delta(-4, period_ms=start_ms))
        assert made.period.start_ms == start_ms
        archive, record = await hash_at(ledger, f"{{p00}}:u:acme:{start_ms}"), await hash_at(ledger, RECORD)
        assert [archive[f"{kind}:scans"] for kind in "uxy"] == ["9", "3", "3"]
        assert (record["b:scans"], record["p:free:scans"]) == ("9", "4")
        assert "u:scans" not in record
        await make(ledger, delta(6, name="a2", period_ms=start_ms))
        assert (await hash_at(ledger, f"{{p00}}:u:acme:{start_ms}"))["x:scans"] == "8"
        assert await history(ledger, "0131") == {"23": 6, "x23": 5}
        assert [member async for member in members(ledger)] == [f"acme|scans|{start_ms}"]
        await lawful(ledger)


async def test_a_reset_keeps_the_units_that_stay_billed_unless_they_are_forgiven(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        await track(ledger, 4, "c1", "checks")
        made = await make(ledger, reset("acme", None, "r1", BY, forgive=False, minted=False))
        assert {row.feature: (row.after.used, row.after.overage) for row in made.rows} == {
            "checks": (0, 0),
            "scans": (3, 3),
        }
        assert await history(ledger, "0110") == {"12": 3, "x12": 3}
        made = await make(ledger, reset("acme", ["scans"], "r2", BY, forgive=True, minted=False))
        assert [(row.after.used, row.after.overage, row.given_back) for row in made.rows] == [(0, 0, 3)]
        assert await history(ledger, "0110") == {}
        assert await track(ledger, 13, "e1") is Result.DUPLICATE
        await lawful(ledger)


async def test_a_reset_of_nothing_is_made_once_too(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        [row] = (await make(ledger, reset("acme", ["calls"], "r1", BY, forgive=True, minted=False))).rows
        assert (row.delta, row.audit_id) == (0, None)
        assert (await make(ledger, reset("acme", ["calls"], "r1", BY, forgive=True, minted=False))).duplicate
        await lawful(ledger)


async def test_overage_that_is_sealed_and_given_back_is_netted_with_later_overage(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        outbox = outbox_of(ledger)
        name = await outbox.seal("acme|scans")
        assert name is not None
        await make(ledger, delta(-2))
        assert [member async for member in members(ledger)] == []
        await lawful(ledger)
        await make(ledger, delta(6, name="more"))
        assert [member async for member in members(ledger)] == ["acme|scans"]
        second = await outbox.seal("acme|scans")
        windows = [await outbox.window(0, name) for name in (name, second) if name]
        assert [(w.cut.from_units, w.cut.to_units) for w in windows if w] == [(0, 3), (3, 7)]
        await lawful(ledger)


# ── several features at once ─────────────────────────────────────────────────────────────────────────────


async def several(ledger: Ledger) -> tuple[tuple[str, int], ...]:
    """An event `multi` of acme that hit two features."""
    event = UsageEvent("acme", "checks", 2, "multi", also=(("scans", 3),))
    assert (await ledger.callers[0].counters.track(event)).result is Result.RECORDED
    return (("checks", 2), ("scans", 3))


async def test_an_event_that_hit_several_features_is_voided_in_all_of_them(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        content = await several(ledger)
        made = await make(ledger, voided("multi", *content))
        assert [(row.feature, row.delta) for row in made.rows] == [("checks", -2), ("scans", -3)]
        assert len({row.audit_id for row in made.rows}) == 2
        await refused(ledger, voided("multi", *reversed(content)), EventConflict)
        await lawful(ledger)


async def test_or_in_none_of_them(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        content = await several(ledger)
        await make(ledger, delta(-1, "checks"))
        problem = await refused(ledger, voided("multi", *content), BelowZero)
        assert problem.extra["errors"] == [
            {"pointer": "/features/0/quantity", "code": "below-zero", "detail": "checks stands at 1"}
        ]
        assert (problem.extra["current_usage"], problem.extra["requested"]) == (1, -2)


# ── what stops it ────────────────────────────────────────────────────────────────────────────────────────


async def test_more_than_was_counted_is_not_taken_out(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        problem = await refused(ledger, delta(-14), BelowZero)
        assert (problem.extra["current_usage"], problem.extra["requested"]) == (13, -14)


async def test_a_total_stays_exact(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        await ledger.client.hset(RECORD, "u:open", TOTAL_MAX - 5)
        await refused(ledger, delta(6, "open"), TotalTooLarge)
        assert (await make(ledger, delta(5, "open"))).rows[0].after.used == TOTAL_MAX


async def test_what_is_not_there_cannot_be_corrected(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        await refused(ledger, delta(1, "nothing"), FeatureUnknown)
        await refused(ledger, delta(1, period_ms=77), PeriodNotFound)
        await refused(ledger, replace(delta(1), org_id="nobody"), OrgNotFound)
        await refused(ledger, voided("e9", ("scans", 13)), EventNotFound)
        await refused(ledger, voided("e1", ("scans", 13), source="other"), EventNotFound)
        await refused(ledger, voided("e1", ("scans", 12)), EventConflict)
        await refused(ledger, voided("e1", ("checks", 13)), EventConflict)


async def test_an_instant_outside_the_period_is_refused_but_not_when_it_was_taken_before(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        now_ms, start_ms = await ledger.now_ms(), await next_year(ledger, "01-01T00:00:00")
        for at_ms in (start_ms - 1, now_ms + 6 * MINUTE_MS, await next_year(ledger, "02-01T00:00:00")):
            await refused(ledger, delta(1, at_ms=at_ms), TimestampOutOfRange)
        await make(ledger, delta(1, at_ms=start_ms))
        await february(ledger)
        assert (await make(ledger, delta(1, at_ms=start_ms))).duplicate


async def test_a_final_period_never_changes_but_still_answers_what_was_done(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        start_ms = await february(ledger)
        await make(ledger, delta(-1, period_ms=start_ms))
        await ledger.client.hset(f"{{p00}}:u:acme:{start_ms}", "final", 1)
        await refused(ledger, delta(-1, name="a2", period_ms=start_ms), PeriodFinal)
        again = await make(ledger, delta(-1, period_ms=start_ms))
        assert (again.duplicate, again.rows[0].after.used) == (True, 12)


async def test_an_event_of_an_earlier_period_is_not_taken_out_of_the_running_one(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        start_ms = await february(ledger)
        await track(ledger, 20, "e2")
        problem = await refused(ledger, voided("e1", ("scans", 13)), Invalid)
        assert problem.extra["errors"][0]["pointer"] == "/period"  # type: ignore[index]
        made = await make(ledger, voided("e1", ("scans", 13), period_ms=start_ms))
        assert made.rows[0].after.used == 0
        assert (await make(ledger, voided("e1", ("scans", 13)))).duplicate
        await lawful(ledger)


async def test_an_event_that_counted_late_in_its_own_period_is_taken_out_of_that_one(store: StoreServer) -> None:
    async with january(store.url, late=LatePolicy.ORIGINAL) as ledger:
        start_ms = await february(ledger)
        await track(ledger, 4, "e2")
        at_ms = await next_year(ledger, "01-20T09:30:00")
        late = UsageEvent("acme", "scans", 2, "late", timestamp_ms=at_ms)
        assert (await ledger.callers[0].counters.track(late)).used == 15
        unnamed = replace(voided("late", ("scans", 2)), at_ms=at_ms)
        await refused(ledger, unnamed, TimestampOutOfRange)
        [row] = (await make(ledger, replace(unnamed, period_ms=start_ms))).rows
        assert (row.after.used, row.given_back) == (13, 2)
        assert await history(ledger, "0120") == {}
        await lawful(ledger)


@pytest.mark.parametrize("how", ["mode", "atomic mode", "plan before"])
async def test_a_void_never_takes_out_more_than_was_recorded(store: StoreServer, how: str) -> None:
    """Whatever capped the event, and whatever the plan does by now."""
    async with january(store.url) as ledger:
        counters = ledger.callers[0].counters
        await track(ledger, 7, "k1", "checks" if how != "plan before" else "calls")
        if how == "plan before":
            assert await track(ledger, 6, "k2", "calls") is Result.CAPPED
            await ledger.callers[0].orgs.update("acme", OrgChange(plan="pro"), actor="test", create=False)
            feature = "calls"
        else:
            feature = "scans"
            await make(ledger, delta(-6))  # 7 of 10
            cut = UsageEvent("acme", feature, 6, "k2", mode=OnLimit.CAP)
            [outcome] = await counters.track_all([cut], atomic=how.startswith("atomic"))
            assert isinstance(outcome, Outcome)
            assert (outcome.result, outcome.recorded) == (Result.CAPPED, 3)
        await refused(ledger, voided("k2", (feature, 6)), Invalid)
        [row] = (await make(ledger, voided("k2", (feature, 6), recorded=3))).rows
        assert (row.before.used, row.after.used) == (10, 7)
        await lawful(ledger)


async def test_whole_events_are_voided_by_their_quantity_until_one_was_cut(store: StoreServer) -> None:
    """In the period it was cut in: that keeps it when it closes, and the next one begins without."""
    async with january(store.url) as ledger:
        start_ms = (await ledger.callers[0].orgs.get("acme")).period.start_ms  # type: ignore[union-attr]
        await track(ledger, 4, "k1", "calls")
        await track(ledger, 4, "k2", "calls")
        assert (await make(ledger, voided("k1", ("calls", 4)))).rows[0].delta == -4
        assert await track(ledger, 14, "k3", "calls") is Result.CAPPED
        await refused(ledger, voided("k2", ("calls", 4)), Invalid)
        await move_to(ledger, await next_year(ledger, "02-10T12:30:00"))
        await track(ledger, 4, "k4", "calls")
        assert (await make(ledger, voided("k4", ("calls", 4)))).rows[0].delta == -4
        closed = replace(voided("k2", ("calls", 4)), period_ms=start_ms)
        await refused(ledger, closed, Invalid)
        named = replace(voided("k2", ("calls", 4), recorded=4), period_ms=start_ms)
        assert (await make(ledger, named)).rows[0].delta == -4
        await lawful(ledger)


async def test_where_the_plan_caps_the_units_that_were_recorded_have_to_be_named(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        assert await track(ledger, 14, "k1", "calls") is Result.CAPPED
        problem = await refused(ledger, voided("k1", ("calls", 14)), Invalid)
        assert problem.extra["errors"][0]["pointer"] == "/features/0/recorded"  # type: ignore[index]
        [row] = (await make(ledger, voided("k1", ("calls", 14), recorded=10))).rows
        assert row.after.used == 0
        await lawful(ledger)


SPOILT: Final = {
    "record": ("SET", RECORD, "junk"),
    "trail": ("SET", "{p00}:a:acme", "junk"),
    "dirty": ("SET", "{p00}:dirty", "junk"),
    "totals": ("SET", "{p00}:totals", "junk"),
    "crossings": ("SET", "{p00}:crossings", "junk"),
    "history": ("SET", "<day>", "junk"),
    "ids": ("SET", "<seen>", "junk"),
    "used": ("HSET", RECORD, "u:scans", "many"),
    "accrued": ("HSET", RECORD, "x:scans", "-1"),
    "sealed": ("HSET", RECORD, "s:scans", "1.5"),
    "given back": ("HSET", RECORD, "y:scans", ""),
    "limit": ("HSET", RECORD, "l:scans", "none"),
    "moved": ("HSET", RECORD, "p:free:scans", "x"),
    "closed": ("HSET", RECORD, "b:scans", "x"),
    "period": ("HSET", RECORD, "pe", "x"),
    "bucket": ("HSET", "<day>", "12", "-3"),
    "overage of a bucket": ("HSET", "<day>", "x12", "3e2"),
    "name of a bucket": ("HSET", "<day>", "noon", "3"),
    "sum": ("HSET", "{p00}:totals", "u:free:scans", "x"),
    "units taken out": ("HSET", "{p00}:totals", "c:scans", "x"),
    "events": ("HSET", "{p00}:totals", "e:usage_adjusted", "x"),
}


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.parametrize("units", [-1, 1])
async def test_a_figure_that_no_script_wrote_stops_a_correction_before_its_first_write(
    store: StoreServer, name: str, units: int
) -> None:
    async with january(store.url) as ledger:
        day = day_text(await ledger.now_ms() // DAY_MS)
        places = {
            "<day>": ledger.keys.history("acme", "scans", day),
            "<seen>": ledger.keys.seen("acme", day[:6], "0", 0),
        }
        words = [places.get(word, word) for word in SPOILT[name]]
        if words[0] == "SET":
            await ledger.client.delete(words[1])
        await ledger.client.execute_command(*words)
        before = await ledger.dump()
        if name == "name of a bucket" and units > 0:
            await make(ledger, delta(units))  # it looks at no bucket but its own
            return
        with pytest.raises(OrgCorrupt):
            await make(ledger, delta(units))
        assert await ledger.dump() == before


# ── the claim, the clocks, the shards ────────────────────────────────────────────────────────────────────


async def call(ledger: Ledger, correction: Correction, **other: Any) -> list[Any]:
    """Run the script by hand under what is true now; `other` replaces single arguments by their place."""
    caller = ledger.callers[0]
    org = await caller.orgs.get("acme")
    assert org is not None
    target = await caller.corrections._target(org, correction)  # noqa: SLF001
    keys, args = caller.corrections._words(correction, target)  # noqa: SLF001
    for place, value in other.items():
        args[int(place[1:])] = value
    script = caller.corrections._adjust  # noqa: SLF001
    reply: list[Any] = await script(keys, args)
    return reply


async def test_what_the_caller_knew_has_to_be_true_still(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        org = await ledger.callers[0].orgs.get("acme")
        assert org is not None
        claim, caller_ms = org.claim, ledger.callers[0].time.caller_ms()
        before = await ledger.dump()
        other = replace(claim, revision=claim.revision + 1).text()
        assert await call(ledger, delta(-1), _2=other) == [7, 2]
        assert await call(ledger, delta(-1), _1=ledger.offset_ms + 1) == [7, 6]
        apart = await call(ledger, delta(-1), _0=caller_ms - 61_000)
        assert apart[0] == -1
        assert await ledger.dump() == before
        await ledger.client.hset(RECORD, "k", replace(claim, valid_until_ms=await ledger.now_ms()).text())
        assert await call_raw(ledger, delta(-1)) == [7, 3]
        await ledger.client.hset(RECORD, mapping={"k": claim.text(), "ps": await ledger.now_ms() + 60_000})
        assert await call_raw(ledger, delta(-1)) == [7, 4]
        await ledger.client.delete(RECORD)
        assert await ledger.callers[0].orgs.get("acme") is None


async def call_raw(ledger: Ledger, correction: Correction) -> list[Any]:
    """Run the script under the record as it stands, without the turn that would put it right."""
    caller = ledger.callers[0]
    org, _ = await caller.orgs._load("acme")  # noqa: SLF001
    assert org is not None
    target = await caller.corrections._target(org, correction)  # noqa: SLF001
    reply: list[Any] = await caller.corrections._adjust(*caller.corrections._words(correction, target))  # noqa: SLF001
    return reply


async def test_clocks_apart_correct_nothing(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        skewed = await ledger.add_caller(90_000)
        before = await ledger.dump()
        with pytest.raises(ClockUnsafe):
            await skewed.corrections.make(delta(-1))
        assert await ledger.dump() == before


async def test_a_full_shard_grows_and_the_correction_is_made(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        month = day_text(await ledger.now_ms() // DAY_MS)[:6]
        await ledger.client.sadd(ledger.keys.seen("acme", month, "0", 0), *range(1, 450))
        made = await make(ledger, delta(-1))
        assert not made.duplicate
        org = await ledger.callers[0].orgs.get("acme")
        assert org is not None
        assert org.claim.tiers == "04"
        assert (await make(ledger, delta(-1))).duplicate


async def test_one_correction_asked_for_by_many_at_once_is_made_once(store: StoreServer) -> None:
    async with january(store.url, callers=4) as ledger:
        asked = [caller.corrections.make(delta(-2)) for caller in ledger.callers for _ in range(5)]
        made = await asyncio.gather(*asked)
        assert sum(not one.duplicate for one in made) == 1
        assert {one.rows[0].after.used for one in made} == {11}
        await lawful(ledger)


async def test_corrections_and_events_at_once_lose_nothing(store: StoreServer) -> None:
    async with january(store.url) as ledger:
        tracks = [track(ledger, 3, f"t{n}") for n in range(40)]
        corrections = [make(ledger, delta(-2, name=f"n{n}")) for n in range(6)]
        await asyncio.gather(*tracks, *corrections)
        assert (await hash_at(ledger, RECORD))["u:scans"] == str(13 + 120 - 12)
        await lawful(ledger)


# ── minutes ──────────────────────────────────────────────────────────────────────────────────────────────


MINUTES: Final = Retention(minute_hours=48)


async def minutes(ledger: Ledger) -> Hash:
    """The minutes of noon."""
    day = day_text(await ledger.now_ms() // DAY_MS)
    return await hash_at(ledger, ledger.keys.minutes("acme", "scans", f"{day}12"))


async def test_minutes_follow_their_hours(store: StoreServer) -> None:
    async with calm(store.url, partitions=1, at="01-10T12:29:05", retention=MINUTES) as ledger:
        await track(ledger, 8, "e1")
        at_ms = await ledger.now_ms()
        await move_to(ledger, at_ms + 60_000)
        await track(ledger, 5, "e2")
        assert await minutes(ledger) == {"29": "8", "30": "5", "x30": "3"}
        await make(ledger, delta(-4, at_ms=at_ms))
        assert await minutes(ledger) == {"29": "4", "30": "5"}
        await make(ledger, delta(-2, name="a2"))
        assert await minutes(ledger) == {"29": "4", "30": "3"}
        await make(ledger, delta(5, name="a3", at_ms=at_ms))
        assert await minutes(ledger) == {"29": "9", "30": "3", "x29": "2"}
        await make(ledger, delta(-11, name="a4"))
        assert await minutes(ledger) == {"29": "1"}
        await lawful(ledger)


async def test_minutes_that_begin_after_their_hour_never_go_below_zero(store: StoreServer) -> None:
    async with january(store.url, retention=MINUTES) as ledger:
        day = day_text(await ledger.now_ms() // DAY_MS)
        key = ledger.keys.minutes("acme", "scans", f"{day}12")
        await ledger.client.hset(key, mapping={"30": 1, "x30": 1})
        await make(ledger, delta(-4))
        assert await minutes(ledger) == {}
        await lawful(ledger)


# ── where it runs ────────────────────────────────────────────────────────────────────────────────────────


async def test_it_touches_no_key_that_it_did_not_declare_and_none_of_another_slot(cluster: StoreServer) -> None:
    async with calm(cluster.url, partitions=4, one_partition=True) as ledger, monitored(cluster.address) as lines:
        await track(ledger, 13, "e1")
        await make(ledger, delta(5))
        await make(ledger, voided("e1", ("scans", 13)))
        start_ms = await february(ledger)
        await make(ledger, delta(-1, name="a2", period_ms=start_ms))
    calls = [(declared, made) for declared, made in scripts(lines) if made]
    touched = [(key, declared) for declared, made in calls for asked in made for key in keys_asked(asked)]
    assert {key for key, declared in touched if key not in declared} == set()
    assert all(len({key[: key.index("}")] for key in declared}) == 1 for declared, _ in calls)
