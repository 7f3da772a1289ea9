"""roll.lua with a period that closes before its end: where nothing was counted after it, and never elsewhere."""

from dataclasses import replace

import pytest

from metering.store.fields import FieldCodec
from metering.store.org import Org
from metering.store.org_scripts import OrgScripts
from metering.store.rolling import early_roll
from plans.periods import Period
from tests.lua.ledger import Ledger
from tests.lua.scenes import DAY_MS, HOUR_MS, calm, event, lawful, move_to, next_year
from tests.support.servers import StoreServer


async def acme(ledger: Ledger) -> Org:
    """Acme as it stands."""
    org = await ledger.callers[0].orgs.get("acme")
    assert org is not None
    return org


async def close(ledger: Ledger, org: Org, at_ms: int) -> None:
    """Close the running period at an instant; the next one lasts 30 days."""
    scripts = OrgScripts(ledger.client, ledger.keys, ledger.callers[0].time, FieldCodec(), fake=False)
    roll = early_roll(org, Period(at_ms, at_ms + 30 * DAY_MS))
    await scripts.roll(org, roll)


async def test_what_was_counted_stays_in_the_closed_period_and_the_next_begins_at_zero(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        org = await acme(ledger)
        border_ms = await ledger.now_ms() + 60_000
        await move_to(ledger, border_ms + 60_000)
        await close(ledger, org, border_ms)
        after = await acme(ledger)
        assert after.period == Period(border_ms, border_ms + 30 * DAY_MS)
        assert after.before == Period(org.period.start_ms, border_ms)
        assert (after.features["scans"].used, after.features["scans"].closed) == (0, 13)
        archive = await ledger.client.hgetall(ledger.keys.archive("acme", org.period.start_ms))
        assert (archive[b"u:scans"], int(archive[b"pe"])) == (b"13", border_ms)
        await ledger.callers[1].counters.track(event("acme", 2))
        await lawful(ledger)
        [told] = [e for _, e in await ledger.client.xrange(ledger.keys.trail("acme")) if e[b"type"] == b"period_closed"]
        assert int(told[b"until"]) == border_ms


async def test_both_sides_of_a_border_inside_an_hour_keep_their_history(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        org = await acme(ledger)
        border_ms = await ledger.now_ms() + 1_000
        await move_to(ledger, border_ms)
        await close(ledger, org, border_ms)
        await ledger.callers[0].counters.track(event("acme", 4))
        await lawful(ledger)


@pytest.mark.parametrize("case", ["counted since", "stamped into the next hour", "before the period", "to come"])
async def test_a_border_that_does_not_fit_closes_nothing(each_store: StoreServer, case: str) -> None:
    async with calm(each_store.url) as ledger:
        now_ms = await ledger.now_ms()
        if case == "stamped into the next hour":
            border_hour_ms = (now_ms // HOUR_MS + 1) * HOUR_MS
            await move_to(ledger, border_hour_ms - 120_000)
            await ledger.callers[0].counters.track(event("acme", 13, None, "scans", border_hour_ms + 60_000))
        else:
            await ledger.callers[0].counters.track(event("acme", 13))
        org = await acme(ledger)
        usage = org.features["scans"].last_updated_ms or 0
        at_ms = {
            "counted since": usage,
            "stamped into the next hour": usage + 1_000,
            "before the period": org.period.start_ms,
            "to come": await ledger.now_ms() + 60_000,
        }[case]
        if case == "stamped into the next hour":
            await move_to(ledger, usage + 2_000)
        before = await ledger.dump()
        if case == "before the period":
            org = replace(org, claim=replace(org.claim, revision=org.claim.revision))
            roll = early_roll(org, Period(at_ms - 1, at_ms + 30 * DAY_MS))
            await OrgScripts(ledger.client, ledger.keys, ledger.callers[0].time, FieldCodec(), fake=False).roll(
                org, roll
            )
        else:
            await close(ledger, org, at_ms)
        assert await ledger.dump() == before
        await lawful(ledger)


async def test_an_early_border_at_the_end_is_an_ordinary_roll(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        org = await acme(ledger)
        await move_to(ledger, await next_year(ledger, "02-01T00:00:00"))
        await close(ledger, org, org.period.end_ms)
        assert (await acme(ledger)).before == org.period
        await lawful(ledger)
