"""Late events that belong to the period that closed last: counted there while it is not final, and now otherwise."""

from datetime import UTC, datetime
from typing import Any

import pytest

from metering.store.counters import LatePolicy
from metering.usage import Outcome, Result, UsageEvent
from tests.lua.ledger import Ledger
from tests.lua.scenes import DAY_MS, HOUR_MS, calm, event, instant, lawful, move_to, next_year
from tests.support.servers import StoreServer


async def into_february(ledger: Ledger, *first: UsageEvent) -> int:
    """January's events, then the second of February; returns the end of January in ms."""
    for one in first:
        await ledger.callers[0].counters.track(one)
    border = await next_year(ledger, "02-01T00:00:00")
    await move_to(ledger, border + DAY_MS)
    return border


async def archive(ledger: Ledger, border: int) -> dict[str, int]:
    """The figures of January as its archive holds them."""
    start = instant(f"{await year(ledger)}-01-01T00:00:00")
    assert start < border
    found = await ledger.client.hgetall(ledger.keys.archive("acme", start))
    return {name.decode(): int(value) for name, value in found.items() if name[1:2] == b":" and name[:1] in b"uxsb"}


async def year(ledger: Ledger) -> int:
    return datetime.fromtimestamp((await ledger.now_ms()) / 1000, UTC).year


async def late(ledger: Ledger, at_ms: int, quantity: int = 1, feature: str = "scans", **more: Any) -> Outcome:
    sent = UsageEvent("acme", feature, quantity, f"late-{at_ms}-{quantity}-{feature}", timestamp_ms=at_ms, **more)
    return await ledger.callers[0].counters.track(sent)


async def test_a_late_event_counts_in_its_period_and_against_its_limits(each_store: StoreServer) -> None:
    async with calm(each_store.url, late=LatePolicy.ORIGINAL) as ledger:
        border = await into_february(ledger, event("acme", 8), event("acme", 9, feature="checks"))
        await ledger.callers[0].counters.track(event("acme", 2))
        found = await late(ledger, border - HOUR_MS, 5)
        assert (found.result, found.used, found.overage, found.late) == (Result.RECORDED, 13, 3, True)
        assert found.period.end_ms == border  # a void names it
        assert found.marks == ()  # nobody is to be told about a month that is over
        assert (await late(ledger, border - HOUR_MS, 2, "checks")).result is Result.REFUSED
        assert (await late(ledger, border - HOUR_MS, 1, "checks")).used == 10
        assert await archive(ledger, border) == {"u:scans": 13, "x:scans": 3, "u:checks": 10}
        org = await ledger.callers[1].orgs.get("acme")
        assert org is not None
        assert (org.features["scans"].used, org.features["scans"].closed) == (2, 13)
        await lawful(ledger)


async def test_a_late_event_counts_once(store: StoreServer) -> None:
    async with calm(store.url, late=LatePolicy.ORIGINAL) as ledger:
        border = await into_february(ledger, event("acme", 8))
        await late(ledger, border - HOUR_MS)
        again = await late(ledger, border - HOUR_MS)
        assert (again.result, again.used, again.period.end_ms) == (Result.DUPLICATE, 9, border)
        await lawful(ledger)


@pytest.mark.parametrize("policy", [LatePolicy.CURRENT, LatePolicy.ORIGINAL])
async def test_of_events_that_count_together_only_the_late_ones_are_called_late(
    store: StoreServer, policy: LatePolicy
) -> None:
    async with calm(store.url, late=policy) as ledger:
        border = await into_february(ledger, event("acme", 8))
        sent = [event("acme", 1, "e1"), event("acme", 1, "e2", timestamp_ms=border - HOUR_MS), event("acme", 1, "e3")]
        found = [o for o in await ledger.callers[0].counters.track_all(sent, atomic=True) if isinstance(o, Outcome)]
        assert [outcome.late for outcome in found] == [False, True, False]
        own = policy is LatePolicy.ORIGINAL
        assert [outcome.period.end_ms == border for outcome in found] == [False, own, False]
        await lawful(ledger)


async def test_what_is_older_than_the_period_that_closed_last_counts_now(store: StoreServer) -> None:
    async with calm(store.url, at="02-20T12:30:05", late=LatePolicy.ORIGINAL) as ledger:
        counters = ledger.callers[0].counters
        await counters.track(event("acme", 8))
        found = await late(ledger, await next_year(ledger, "01-25T00:00:00"))
        assert (found.used, found.late) == (9, True)
        await lawful(ledger)


async def test_a_final_period_takes_nothing_more(store: StoreServer) -> None:
    async with calm(store.url, late=LatePolicy.ORIGINAL) as ledger:
        border = await into_february(ledger, event("acme", 8))
        await ledger.callers[0].orgs.get("acme")
        start = instant(f"{await year(ledger)}-01-01T00:00:00")
        await ledger.client.hset(ledger.keys.archive("acme", start), "final", 1)
        before = await archive(ledger, border)
        found = await late(ledger, border - HOUR_MS, 5)
        assert (found.used, found.late) == (5, True)
        assert await archive(ledger, border) == before
        await lawful(ledger)


async def test_what_was_accepted_before_the_end_counts_before_it_whatever_the_policy(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        border = await into_february(ledger, event("acme", 8))
        counters = ledger.callers[0].counters
        found = await counters.track(UsageEvent("acme", "scans", 4, "a1", accepted_ms=border - 1))
        assert (found.used, found.overage) == (12, 2)
        now = await counters.track(UsageEvent("acme", "scans", 4, "a2", accepted_ms=border))
        assert (now.used, now.overage) == (4, 0)
        assert await archive(ledger, border) == {"u:scans": 12, "x:scans": 2}
        await lawful(ledger)
