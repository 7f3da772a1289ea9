"""The job that unlinks ids of months past: it removes what nobody looks up, when two clocks agree, and no more."""

import pytest

from metering.store.spent import SpentIds
from metering.store.timing import SKEW_MAX_MS
from metering.usage import Result, UsageEvent
from plans.periods import month_span_utc
from tests.lua.ledger import Ledger
from tests.support.servers import StoreServer


async def seen_keys(ledger: Ledger) -> set[str]:
    """The months of ids that are still stored."""
    return {key.decode().split(":")[3] async for key in ledger.client.scan_iter(match="*:d:*", count=1000)}


async def next_month(ledger: Ledger) -> str:
    """Go on to the next UTC month and count one event there; the month as `yyyymm`."""
    now_ms = await ledger.now_ms()
    await ledger.jump_to(month_span_utc(now_ms).end_ms + 1)
    await ledger.callers[0].counters.track(UsageEvent("acme", "scans", 1, f"evt-{now_ms}"))
    org = await ledger.callers[0].orgs.get("acme")
    assert org is not None
    return org.claim.month


async def test_job_removes_ids_two_months_old_and_keeps_this_and_the_last_month(store: StoreServer) -> None:
    """After two month ends the first month's ids are gone; a repeat from the last month is still recognised."""
    async with Ledger(store.url, callers=1) as ledger:
        caller = ledger.callers[0]
        job = SpentIds(ledger.client, ledger.keys, caller.time)
        months = [await next_month(ledger)]
        months.append(await next_month(ledger))
        last = UsageEvent("acme", "scans", 1, "evt-last")
        await caller.counters.track(last)
        await job.unlink()
        assert await seen_keys(ledger) == set(months)
        months.append(await next_month(ledger))
        await job.unlink()
        assert await seen_keys(ledger) == set(months[1:])
        assert (await caller.counters.track(last)).result is Result.DUPLICATE
        assert (await ledger.walk()).violations == []


async def test_job_removes_all_months_of_an_organisation_that_was_idle_for_half_a_year(store: StoreServer) -> None:
    """Months that a roll skipped are noted as well."""
    async with Ledger(store.url, callers=1) as ledger:
        await next_month(ledger)
        await next_month(ledger)
        await ledger.jump_to(await ledger.now_ms() + 180 * 86_400_000)
        month = await next_month(ledger)
        await SpentIds(ledger.client, ledger.keys, ledger.callers[0].time).unlink()
        assert await seen_keys(ledger) == {month}


@pytest.mark.parametrize("skew_ms", [-SKEW_MAX_MS - 1_000, SKEW_MAX_MS + 1_000])
async def test_job_removes_nothing_while_the_clocks_differ(store: StoreServer, skew_ms: int) -> None:
    """One clock that says that a month is over is not enough."""
    async with Ledger(store.url, callers=1) as ledger:
        for _ in range(3):
            await next_month(ledger)
        before = await ledger.dump()
        doubtful = await ledger.add_caller(skew_ms)
        await SpentIds(ledger.client, ledger.keys, doubtful.time).unlink()
        assert await ledger.dump() == before
