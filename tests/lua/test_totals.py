"""The sums that the scripts keep for the metrics, read as the metrics read them."""

from collections import Counter

import pytest

from metering.errors import InternalError, OrgCorrupt, StorageUnavailable
from metering.store.connect import connect
from metering.store.keys import Keys
from metering.store.orgs import OrgChange
from metering.store.shared import read_shared
from metering.store.totals import Totals
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, commands, event, move_to
from tests.support.servers import StoreServer, free_port


async def totals_of(ledger: Ledger) -> Totals:
    return (await read_shared(ledger.client, ledger.keys, top=1)).totals


async def test_units_add_up_over_partitions_by_the_plan_they_were_counted_under(store: StoreServer) -> None:
    async with calm(store.url, partitions=4) as ledger:
        caller = ledger.callers[0]
        for number in range(8):
            await caller.counters.track(event(f"org-{number}", 10 + number))
        await caller.orgs.update("org-0", OrgChange(plan="pro"), actor="test", create=False)
        await caller.counters.track(event("org-0", 5))
        await caller.counters.track(event("org-0", 2, feature="checks"))
        assert (await totals_of(ledger)).units == {
            ("free", "scans"): sum(range(10, 18)),
            ("pro", "scans"): 5,
            ("pro", "checks"): 2,
        }


async def test_what_counts_nothing_adds_nothing(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        counters = ledger.callers[0].counters
        await counters.track(event("acme", 4, "e1"))
        before = (await totals_of(ledger)).units
        for again in (event("acme", 4, "e1"), event("acme", 5, "e1"), event("acme", 11, "e2", "checks")):
            await counters.track(again)
        assert (await totals_of(ledger)).units == before == {("free", "scans"): 4}


async def test_a_period_that_ends_takes_nothing_away(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await caller.counters.track(event("acme", 4))
        org = await caller.orgs.get("acme")
        assert org is not None
        await move_to(ledger, org.period.end_ms + 1)
        await caller.counters.track(event("acme", 3))
        assert (await totals_of(ledger)).units == {("free", "scans"): 7}


async def test_billing_events_are_counted_by_type(store: StoreServer) -> None:
    async with calm(store.url, partitions=4) as ledger:
        caller = ledger.callers[0]
        for number in range(5):
            await caller.counters.track(event(f"org-{number}", 9 + number))
        await caller.orgs.update("org-0", OrgChange(plan="pro"), actor="test", create=False)
        events = (await totals_of(ledger)).events
        assert events == {"org_created": 5, "overage_started": 3, "plan_changed": 1}


async def test_organisations_are_counted_and_told_apart_by_plan(store: StoreServer) -> None:
    async with calm(store.url, partitions=4) as ledger:
        caller = ledger.callers[0]
        for number in range(5):
            await caller.counters.track(event(f"org-{number}"))
        for name in ("org-0", "org-1", "new"):
            await caller.orgs.update(name, OrgChange(plan="pro"), actor="test", create=True)
        found = await totals_of(ledger)
        assert (found.orgs, found.plans) == (6, {"free": 3, "pro": 3})


async def test_a_plan_that_lost_its_last_organisation_is_still_there_with_none(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await caller.counters.track(event("acme"))
        await caller.orgs.update("acme", OrgChange(plan="pro"), actor="test", create=False)
        assert dict((await totals_of(ledger)).plans) == {"free": 0, "pro": 1}


async def test_the_price_does_not_depend_on_the_number_of_organisations(store: StoreServer) -> None:
    async with calm(store.url, partitions=4) as ledger:
        prices = []
        for number in range(60):
            await ledger.callers[0].counters.track(event(f"org-{number}"))
            if number in {0, 59}:
                await ledger.client.config_resetstat()
                await totals_of(ledger)
                prices.append(await commands(ledger) - Counter(["config|resetstat"]))
        once = {"script|exists", "script|load"}
        first, last = ({name: n for name, n in price.items() if name not in once} for price in prices)
        assert first == last
        assert first["evalsha"] == 4


async def test_an_empty_store_has_empty_totals(store: StoreServer) -> None:
    async with connect(store.url) as client:
        assert (await read_shared(client, Keys(4), top=1)).totals == Totals()


async def test_a_store_that_is_away_is_told(store: StoreServer) -> None:
    async with connect(f"redis://127.0.0.1:{free_port()}") as client:
        with pytest.raises(StorageUnavailable):
            await read_shared(client, Keys(4), top=1)


async def test_totals_of_the_wrong_type_are_told(store: StoreServer) -> None:
    async with connect(store.url) as client:
        await client.set("{p02}:totals", "7")
        with pytest.raises(OrgCorrupt):
            await read_shared(client, Keys(4), top=1)


async def test_totals_that_are_no_numbers_are_told(store: StoreServer) -> None:
    async with connect(store.url) as client:
        await client.hset("{p02}:totals", "u:free:scans", "many")
        with pytest.raises(InternalError):
            await read_shared(client, Keys(4), top=1)
