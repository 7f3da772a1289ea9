"""Overage found after its invoice was finalised: on the next invoice or let go, never sent where nobody bills it."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import pytest

from metering.billing.errors import Refused
from metering.billing.late import METER_AGE_MAX_MS, Late, Way
from metering.billing.sending import WINDOW_TAG
from metering.store.fields import FieldCodec
from metering.store.org import Subscription, profile_fields
from metering.store.orgs import OrgChange
from metering.store.outbox import LEASE_MS
from metering.store.window import Cut, Sink, State
from plans.catalogue import Override, parse
from plans.periods import Period
from plans.tiers import PriceModel, Pricing, Tier
from tests.lua.exporting import SOLD, exporter_of, till_of
from tests.lua.ledger import Ledger
from tests.lua.outboxes import CUSTOMER, customer_of, outbox_of
from tests.lua.scenes import DAY_MS, HOUR_MS, calm, event, lawful, move_to, next_year
from tests.lua.test_exporter import LONG_MS, after, states, windows
from tests.support.servers import StoreServer
from tests.support.till import Fault, Till, broken, busy, lost

TIERED = SOLD.replace(
    "overage_price_minor = 25",
    'overage_model = "graduated", overage_tiers = [{ up_to = 2, price_minor = 10 }, { price_minor = 3 }]',
)


@asynccontextmanager
async def closed(url: str, *, invoiced: bool = True, units: int = 13) -> AsyncIterator[tuple[Ledger, Till]]:
    """Acme with a customer; its January closed with overage that was not sent, and is invoiced."""
    async with calm(url, catalogue=SOLD, partitions=1) as ledger:
        await customer_of(ledger)
        outcome = await ledger.callers[0].counters.track(event("acme", units))
        await move_to(ledger, await next_year(ledger, "02-01T02:00:00"))
        await ledger.callers[0].orgs.get("acme")
        if invoiced:
            key = ledger.keys.archive("acme", outcome.period.start_ms)
            await ledger.client.hset(key, "iv", await ledger.now_ms())
        yield ledger, till_of(ledger)


OWN: Final = Override(pricing=Pricing(PriceModel.FLAT, (Tier(None, 2),)))


def way(cut: Cut, now_ms: int, sold: Subscription | None = None, *, invoiced: bool = False, off: bool = False) -> Way:
    return Late(parse(TIERED, "test.toml"), writes_off=off).way_of(cut, now_ms, sold, invoiced=invoiced)


def sold_from(since_ms: int) -> Subscription:
    return Subscription("sub_1", "active", "pro", since_ms, since_ms, Period(since_ms, since_ms + 30 * DAY_MS))


def ended_at(end_ms: int) -> Subscription:
    return Subscription("sub_1", "canceled", "pro", 0, 0, Period(-30 * DAY_MS, end_ms))


CUT = Cut("acme", "scans", Period(0, 30 * DAY_MS), 1, 5, 20 * DAY_MS)


def test_usage_goes_to_its_meter_while_an_invoice_is_to_come() -> None:
    assert way(CUT, 31 * DAY_MS) == Way(Sink.METER)
    assert way(CUT, 31 * DAY_MS, sold_from(CUT.last_ms)) == Way(Sink.METER)
    assert way(CUT, 31 * DAY_MS, ended_at(CUT.period.start_ms + 1)) == Way(Sink.METER)
    assert way(CUT, 20 * DAY_MS + METER_AGE_MAX_MS) == Way(Sink.METER)


def test_late_usage_costs_what_the_invoice_would_have_said() -> None:
    late = Way(Sink.ITEM, 10 + 3 * 3)
    assert way(CUT, 31 * DAY_MS, invoiced=True) == late
    assert way(CUT, 31 * DAY_MS, sold_from(CUT.last_ms + 1)) == late
    assert way(CUT, 31 * DAY_MS, ended_at(CUT.period.start_ms)) == late
    assert way(CUT, 20 * DAY_MS + METER_AGE_MAX_MS + 1) == late


def test_late_usage_costs_what_was_agreed_with_the_organisation() -> None:
    late = Late(parse(TIERED, "test.toml"))
    assert late.way_of(CUT, 31 * DAY_MS, None, invoiced=True, own={"scans": OWN}) == Way(Sink.ITEM, 4 * 2)
    assert late.way_of(CUT, 31 * DAY_MS, None, invoiced=True, own={"calls": OWN}) == Way(Sink.ITEM, 10 + 3 * 3)


async def test_an_item_is_made_at_the_price_that_was_agreed(store: StoreServer) -> None:
    async with closed(store.url) as (ledger, till):
        await ledger.callers[0].orgs.update("acme", OrgChange(overrides={"scans": OWN}), actor="ann", create=False)
        for _ in range(3):
            await exporter_of(ledger, till).turn()
            await after(ledger, LONG_MS)
        assert [item["amount"] for item in till.items] == [3 * 2]


def test_late_usage_is_let_go_where_it_shall_be_or_has_no_price() -> None:
    assert way(CUT, 31 * DAY_MS, invoiced=True, off=True) == Way(Sink.NONE, why="its invoice was finalised")
    free = Cut("acme", "open", CUT.period, 0, 5, 20 * DAY_MS)
    assert way(free, 31 * DAY_MS, invoiced=True).why == "its invoice was finalised, and it has no price"


@pytest.mark.parametrize("currency", ["isk", "ugx"])
def test_stripe_counts_hundredths_of_some_currencies_without(currency: str) -> None:
    catalogue = parse(TIERED.replace('"usd"', f'"{currency}"'), "test.toml")
    assert Late(catalogue).way_of(CUT, 31 * DAY_MS, None, invoiced=True) == Way(Sink.ITEM, 1900)


async def test_row_10_usage_of_an_invoiced_period_becomes_an_item_of_the_next_invoice_and_the_period_final(
    each_store: StoreServer,
) -> None:
    async with closed(each_store.url) as (ledger, till):
        for _ in range(3):
            await exporter_of(ledger, till).turn()
            await after(ledger, LONG_MS)
        assert till.taken == []
        [window], [item] = await windows(ledger), till.items
        assert (window.state, window.sink) == (State.DELIVERED, Sink.ITEM)
        told = {name: item[name] for name in ("customer", "amount", "currency", "metadata")}
        assert told == {
            "customer": CUSTOMER, "amount": 75, "currency": "usd", "metadata": {WINDOW_TAG: window.id},
        }  # fmt: skip
        archive = ledger.keys.archive("acme", window.cut.period.start_ms)
        assert await ledger.client.hexists(archive, "final")
        await lawful(ledger)


@pytest.mark.parametrize("invoiced", [False, True])
async def test_row_29_what_stripe_is_told_of_a_window_names_its_customer_and_no_organisation(
    store: StoreServer, invoiced: bool
) -> None:
    """It outlives the organisation there: what stays may be a digest, and Stripe's own id of who pays."""
    async with closed(store.url, invoiced=invoiced) as (ledger, till):
        await exporter_of(ledger, till).turn()
        told = till.items if invoiced else till.taken
        [name] = [one["metadata"][WINDOW_TAG] for one in till.items] or [one.identifier for one in till.taken]
        assert re.fullmatch(r"[a-z2-7]{52}", name)
        assert "acme" not in repr(told)


FAULTS: dict[str, list[Fault | None]] = {
    "lost": [lost()], "broken": [broken()], "busy": [busy(), lost()], "both": [broken(), lost()],
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
async def test_an_item_is_there_once_also_after_its_key_is_forgotten(store: StoreServer, name: str) -> None:
    async with closed(store.url) as (ledger, till):
        till.faults = FAULTS[name]
        for _ in range(5):
            await exporter_of(ledger, till).turn()
            till.keys.clear()
            await after(ledger, 25 * HOUR_MS)
        assert [item["amount"] for item in till.items] == [75]
        assert await states(ledger) == [State.DELIVERED]
        await lawful(ledger)


async def test_an_item_that_was_refused_goes_to_another_customer_the_same_day(store: StoreServer) -> None:
    async with closed(store.url) as (ledger, till):
        till.faults = [Refused("No such customer", status=400, code="resource_missing")]
        await exporter_of(ledger, till).turn()
        [dead] = await windows(ledger)
        assert dead.state is State.DEAD
        await customer_of(ledger, "acme", "cus_2")
        await outbox_of(ledger).replay(dead, "ann")
        await exporter_of(ledger, till).turn()
        assert [(item["customer"], item["amount"]) for item in till.items] == [("cus_2", 75)]
        assert await states(ledger) == [State.DELIVERED]
        await lawful(ledger)


async def test_the_amount_is_that_of_the_first_attempt_whatever_prices_do(store: StoreServer) -> None:
    async with closed(store.url) as (ledger, till):
        till.faults = [broken()]
        await exporter_of(ledger, till).turn()
        await after(ledger, LONG_MS)
        dear = Late(parse(SOLD.replace("overage_price_minor = 25", "overage_price_minor = 99"), "test.toml"))
        await exporter_of(ledger, till, late=dear).turn()
        assert [item["amount"] for item in till.items] == [75]


async def test_row_10_usage_that_is_let_go_is_in_the_trail_and_the_period_final(store: StoreServer) -> None:
    async with closed(store.url) as (ledger, till):
        await exporter_of(ledger, till, writes_off=True).turn()
        [window] = await windows(ledger)
        assert (window.state, window.sink, window.attempts) == (State.WRITTEN_OFF, Sink.NONE, 0)
        assert (till.calls, till.items) == ([], [])
        entries = await ledger.client.xrange(ledger.keys.trail("acme"))
        reasons = [entry[b"reason"] for _, entry in entries if entry[b"type"] == b"overage_written_off"]
        assert reasons == [b"its invoice was finalised"]
        assert await ledger.client.hexists(ledger.keys.archive("acme", window.cut.period.start_ms), "final")
        await lawful(ledger)


@pytest.mark.parametrize("arrived", [True, False])
async def test_an_invoice_that_is_final_before_it_is_known_whether_a_window_arrived(
    store: StoreServer, arrived: bool
) -> None:
    """Sent again it would be billed nowhere: Stripe's sum says whether it is on the invoice or still to be billed."""
    async with closed(store.url, invoiced=False) as (ledger, till):
        till.faults = [lost() if arrived else broken()]
        await exporter_of(ledger, till).turn()
        [window] = await windows(ledger)
        key = ledger.keys.archive("acme", window.cut.period.start_ms)
        await ledger.client.hset(key, "iv", await ledger.now_ms())
        for _ in range(4):
            await after(ledger, LONG_MS)
            await exporter_of(ledger, till).turn()
        assert len(till.calls) == 1
        assert [item["amount"] for item in till.items] == ([] if arrived else [75])
        assert (await states(ledger), till.sums()) == ([State.DELIVERED], {CUSTOMER: 3} if arrived else {})
        assert await ledger.client.hexists(key, "final")
        await lawful(ledger)


async def test_row_10_an_invoice_that_is_final_between_a_look_and_the_attempt_is_seen(store: StoreServer) -> None:
    async with closed(store.url, invoiced=False) as (ledger, till):
        exporter = exporter_of(ledger, till)
        await exporter.flush("acme", 0)
        [window] = await windows(ledger)
        key = ledger.keys.archive("acme", window.cut.period.start_ms)

        async def pause(_: float) -> None:
            await ledger.client.hset(key, "iv", await ledger.now_ms())

        seconds, _ = await ledger.client.time()  # somebody's burst: the attempt waits for its turn
        await ledger.client.hset("{p00}:stripe", "pace_us", (seconds + 2) * 1_000_000)
        await exporter_of(ledger, till, pause=pause).turn()
        assert till.taken == []
        await after(ledger, LEASE_MS)
        await exporter_of(ledger, till).turn()
        assert [item["amount"] for item in till.items] == [75]
        await lawful(ledger)


async def test_usage_from_before_the_subscription_is_an_item(store: StoreServer) -> None:
    async with closed(store.url, invoiced=False) as (ledger, till):
        org = await ledger.callers[0].orgs.get("acme")
        assert org is not None
        fields = profile_fields("acme", org.profile, FieldCodec())
        sold = sold_from(org.period.start_ms)
        fields |= profile_fields("acme", replace(org.profile, subscription=sold), FieldCodec())
        await ledger.client.hset(ledger.keys.profile("acme"), mapping=fields)
        await exporter_of(ledger, till).turn()
        assert ([item["amount"] for item in till.items], till.taken) == ([75], [])


async def test_a_period_is_not_final_while_something_of_it_waits_to_be_counted(store: StoreServer) -> None:
    async with closed(store.url) as (ledger, till):
        waiting = True

        async def drained(org_id: str, at_ms: int) -> bool:
            return not waiting

        exporter = exporter_of(ledger, till, drained=drained)
        await exporter.turn()
        [window] = await windows(ledger)
        archive = ledger.keys.archive("acme", window.cut.period.start_ms)
        assert not await ledger.client.hexists(archive, "final")
        waiting = False
        await exporter.closing.turn()
        assert await ledger.client.hexists(archive, "final")


async def test_a_period_that_is_not_invoiced_is_not_final(store: StoreServer) -> None:
    async with closed(store.url, invoiced=False) as (ledger, till):
        exporter = exporter_of(ledger, till)
        await exporter.turn()
        await exporter.closing.turn()
        [window] = await windows(ledger)
        assert window.state is State.DELIVERED
        assert not await ledger.client.hexists(ledger.keys.archive("acme", window.cut.period.start_ms), "final")
