"""Reconciliation: what Stripe lacks or has too much is seen, what is only late is not, sharing is no trouble."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from metering.api.reconciliation import csv_of
from metering.billing.errors import GatewayError, Unknown
from metering.billing.reconcile import Books, Line, Reconciler, Verdict
from metering.store.drift import DriftBook
from metering.store.pace import StorePace
from metering.store.window_lists import WindowLists
from tests.lua.exporting import SOLD, exporter_of, no_pause, till_of
from tests.lua.ledger import Ledger
from tests.lua.outboxes import customer_of, lanes_of, outbox_of
from tests.lua.scenes import HOUR_MS, calm, event, move_to, next_year
from tests.support.servers import StoreServer
from tests.support.till import Till, lost


def reconciler_of(ledger: Ledger, till: Any) -> Reconciler:
    client, keys = ledger.client, ledger.keys
    books = Books(
        ledger.callers[0].orgs, outbox_of(ledger), lanes_of(ledger), WindowLists(client, keys), DriftBook(client, keys),
        ledger.catalogue, StorePace(client, keys, 1000), no_pause,
    )  # fmt: skip
    return Reconciler(books, till)


@asynccontextmanager
async def selling(url: str, **options: Any) -> AsyncIterator[tuple[Ledger, Till]]:
    """A ledger whose acme has a customer and three scans above the limit, all of them at Stripe."""
    async with calm(url, catalogue=SOLD, **{"partitions": 2, **options}) as ledger:
        till = till_of(ledger)
        await customer_of(ledger)
        await ledger.callers[0].counters.track(event("acme", 13))
        await exporter_of(ledger, till).turn()
        yield ledger, till


async def lines(ledger: Ledger, till: Any, start_ms: int | None = None) -> list[Line]:
    return [line async for line in reconciler_of(ledger, till).lines(start_ms)]


async def after(ledger: Ledger, ms: int) -> None:
    await move_to(ledger, await ledger.now_ms() + ms)


async def test_books_that_agree_are_even(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        [line] = await lines(ledger, till)
        figures = (line.overage, line.sealed, line.delivered, line.written_off, line.journal, line.stripe, line.drift)
        assert figures == (3, 3, 3, 0, 3, 3, 0)
        assert (line.verdict, line.customer) == (Verdict.EVEN, "cus_1")


async def test_what_stripe_lacks_is_settling_for_an_hour_and_then_drift(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        till.lag.add(till.taken[0].identifier)
        assert [(line.drift, line.verdict) for line in await lines(ledger, till)] == [(3, Verdict.SETTLING)]
        await after(ledger, HOUR_MS + 1_000)
        assert [(line.drift, line.verdict) for line in await lines(ledger, till)] == [(3, Verdict.DRIFT)]
        till.lag.clear()
        assert [line.verdict for line in await lines(ledger, till)] == [Verdict.EVEN]


async def test_what_stripe_has_too_much_is_drift_below_zero(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        till.taken.append(till.taken[0])
        await after(ledger, HOUR_MS + 1_000)
        assert [(line.drift, line.verdict) for line in await lines(ledger, till)] == [(-3, Verdict.DRIFT)]


async def test_a_window_whose_answer_is_lost_is_no_drift(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        await ledger.callers[0].counters.track(event("acme", 2))
        till.faults = [lost()]
        await exporter_of(ledger, till).turn()
        await after(ledger, 2 * HOUR_MS)
        assert [(line.drift, line.verdict) for line in await lines(ledger, till)] == [(-2, Verdict.SETTLING)]


async def test_two_organisations_of_one_customer_are_compared_together(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        await customer_of(ledger, "beta")
        await ledger.callers[0].counters.track(event("beta", 15))
        await exporter_of(ledger, till).turn()
        await after(ledger, HOUR_MS + 1_000)
        found = await lines(ledger, till)
        assert [(one.overage, one.journal, one.stripe, one.verdict) for one in found] == [
            (overage, 8, 8, Verdict.EVEN) for overage in (one.overage for one in found)
        ]
        assert sorted(one.overage for one in found) == [3, 5]
        till.taken.pop()
        await reconciler_of(ledger, till).turn()
        drift = await DriftBook(ledger.client, ledger.keys).read()
        assert drift.lanes == 1


async def test_the_period_before_is_compared_too_and_each_by_itself(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        start_ms = (await lines(ledger, till))[0].period.start_ms
        await move_to(ledger, await next_year(ledger, "02-03T00:00:05"))
        await ledger.callers[0].counters.track(event("acme", 14))
        await exporter_of(ledger, till).turn()
        found = {line.period.start_ms: line for line in await lines(ledger, till)}
        assert sorted((one.journal, one.stripe) for one in found.values()) == [(3, 3), (4, 4)]
        [closed] = await lines(ledger, till, start_ms)
        assert closed == found[start_ms]


async def test_nobody_to_bill_and_no_answer_are_said_as_such(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, _):
        await ledger.callers[0].counters.track(event("beta", 12))

        class Away(Till):
            async def meter_usage(self, meter_id: str, customer: str, start_s: int, end_s: int) -> int:
                fault: GatewayError = Unknown("away")
                raise fault

        found = {line.org_id: line for line in await lines(ledger, Away(ledger.now_ms))}
        assert (found["acme"].verdict, found["acme"].stripe, found["acme"].drift) == (Verdict.UNKNOWN, None, None)
        assert (found["beta"].verdict, found["beta"].journal, found["beta"].overage) == (Verdict.UNBILLED, None, 2)


async def test_a_look_notes_what_differs_and_is_not_made_twice_an_hour_unless_asked_for(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        book = DriftBook(ledger.client, ledger.keys)
        await after(ledger, HOUR_MS + 1_000)
        await reconciler_of(ledger, till).turn()
        assert ((await book.read()).units, (await book.read()).at_ms > 0) == (0, True)
        till.taken.clear()
        reconciler = reconciler_of(ledger, till)
        await reconciler.turn()
        assert (await book.read()).units == 0
        reconciler.run()
        assert reconciler.woken.is_set()
        await reconciler.turn()
        assert ((await book.read()).units, (await book.read()).lanes) == (3, 1)
        assert (await ledger.walk()).violations == []


async def test_the_sheet_runs_no_formula(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        [line] = await lines(ledger, till)
        text = csv_of([line]).decode()
        assert text.splitlines()[1].startswith("acme,scans,")
        assert text.splitlines()[1].endswith(",cus_1,3,3,3,0,3,3,0,even")
