"""The exporter: every unit of overage reaches Stripe once, whatever Stripe says; one trouble holds up no other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from metering.billing.breaker import BACKOFF_MAX_MS, FAILURES, Breaker, delay_ms
from metering.billing.errors import Barred, NotThere, Refused
from metering.billing.exporter import QUIET_MS
from metering.billing.gateway import MeterEvent
from metering.billing.meter_reports import MeterReport
from metering.clock import HandClock
from metering.store.outbox import KNOWN_MS, LEASE_MS
from metering.store.shared import read_shared
from metering.store.window import State, Window
from tests.lua.exporting import SOLD, exporter_of, till_of
from tests.lua.ledger import Ledger
from tests.lua.outboxes import CUSTOMER, customer_of, lanes_of, outbox_of
from tests.lua.scenes import HOUR_MS, calm, event, lawful, move_to, next_year
from tests.support.servers import StoreServer
from tests.support.till import Fault, Till, broken, busy, lost

LONG_MS = 2 * BACKOFF_MAX_MS


@asynccontextmanager
async def selling(url: str, **options: Any) -> AsyncIterator[tuple[Ledger, Till]]:
    """A ledger whose acme has a customer and three scans above the limit, and a Stripe."""
    async with calm(url, catalogue=SOLD, **{"partitions": 1, **options}) as ledger:
        await customer_of(ledger)
        await track(ledger, 13)
        yield ledger, till_of(ledger)


async def track(ledger: Ledger, units: int, org_id: str = "acme", feature: str = "scans") -> None:
    await ledger.callers[0].counters.track(event(org_id, units, feature=feature))


async def after(ledger: Ledger, ms: int) -> None:
    await move_to(ledger, await ledger.now_ms() + ms)


async def windows(ledger: Ledger) -> list[Window]:
    """Every window, oldest first."""
    names = [key.decode().rpartition(":")[2] async for key in ledger.client.scan_iter(match="*:b:*")]
    found = [await outbox_of(ledger).find(name) for name in names]
    return sorted((one for one in found if one), key=lambda one: (one.at_ms, one.cut.org_id, one.cut.from_units))


async def states(ledger: Ledger) -> list[State]:
    return [window.state for window in await windows(ledger)]


async def billed(ledger: Ledger) -> int:
    """Units of acme's scans that its view shows as billed."""
    org = await ledger.callers[0].orgs.get("acme")
    assert org is not None
    return org.features["scans"].billed


async def test_overage_reaches_stripe_once_with_its_own_time(each_store: StoreServer) -> None:
    async with selling(each_store.url) as (ledger, till):
        for _ in range(3):
            await exporter_of(ledger, till).turn()
        [sent], [window] = till.taken, await windows(ledger)
        assert sent == MeterEvent("scans_over", CUSTOMER, 3, window.cut.last_ms // 1000, window.id)
        assert (window.state, window.attempts) == (State.DELIVERED, 1)
        assert [key async for key in ledger.client.scan_iter(match="*:l:*")] == []
        assert await billed(ledger) == 3
        await lawful(ledger)


async def test_windows_of_many_organisations_and_features_all_arrive(store: StoreServer) -> None:
    async with selling(store.url, partitions=2) as (ledger, till):
        for number in range(30):
            await customer_of(ledger, f"org-{number}", f"cus_{number % 10}")
            await track(ledger, 11 + number, f"org-{number}")
        await ledger.callers[0].orgs.get("acme")
        exporter = exporter_of(ledger, till)
        for _ in range(6):
            await exporter.turn()
            await after(ledger, 61_000)
        expected = {f"cus_{n}": sum(1 + m for m in range(30) if m % 10 == n) for n in range(10)}
        expected[CUSTOMER] += 3
        assert till.sums() == expected
        await lawful(ledger)


async def test_row_30_a_customer_and_meter_have_one_call_at_a_time_on_three_workers(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        for name in ("beta", "gamma"):
            await customer_of(ledger, name)
            await track(ledger, 12, name)
        going: set[str] = set()

        async def on_call(sent: MeterEvent) -> None:
            assert not going, "two at once"
            going.add(sent.identifier)
            for _ in range(20):  # long enough for the others to come as far
                await ledger.client.ping()
            going.discard(sent.identifier)

        till.on_call = on_call
        for _ in range(4):
            await asyncio.gather(*(exporter_of(ledger, till).turn() for _ in range(3)))
            await after(ledger, LEASE_MS + 1_000)
        assert till.sums() == {CUSTOMER: 7}
        assert len(till.calls) == 3
        await lawful(ledger)


FAULTS: dict[str, tuple[list[Fault | None], int]] = {
    "a reply that is lost": ([lost()], 3),
    "a call that breaks": ([broken()], 3),
    "both, again and again": ([broken(), lost(), lost(), broken()], 3),
    "too many": ([busy(), busy(5.0)], 3),
    "too many, then lost": ([busy(), lost()], 3),
    "the key barred for a while": ([Barred("no", status=401)], 3),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_whatever_stripe_says_first_it_counts_once(store: StoreServer, name: str) -> None:
    async with selling(store.url) as (ledger, till):
        faults, units = FAULTS[name]
        till.faults = list(faults)
        for _ in range(8):
            await exporter_of(ledger, till).turn()
            await lawful(ledger)
            await after(ledger, LONG_MS)
        assert till.sums() == {CUSTOMER: units}
        assert await states(ledger) == [State.DELIVERED]


async def test_an_identifier_that_stripe_has_already_is_delivered_and_asked_once(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        till.faults = [lost()]
        for _ in range(4):
            await exporter_of(ledger, till).turn()
            await after(ledger, LONG_MS)
        assert [attempt for _, attempt in till.calls] == [1, 2]
        assert await states(ledger) == [State.DELIVERED]
        await track(ledger, 2)
        await exporter_of(ledger, till).turn()
        totals = (await read_shared(ledger.client, ledger.keys, top=1)).totals
        assert totals.delivered == {"known": 1, "new": 1}


@pytest.mark.parametrize("error", [Refused("No such customer", status=400), NotThere("gone", status=404)], ids=str)
async def test_row_5_a_refused_window_is_dead_after_one_attempt_and_others_flow_on(
    store: StoreServer, error: Refused
) -> None:
    async with selling(store.url) as (ledger, till):
        await customer_of(ledger, "beta", "cus_2")
        await track(ledger, 12, "beta")
        till.faults = [error]
        for _ in range(3):
            await exporter_of(ledger, till, at_once=1).turn()
            await after(ledger, LONG_MS)
        assert sorted(await states(ledger)) == [State.DEAD, State.DELIVERED]
        assert len(till.calls) == 2
        [dead] = [window for window in await windows(ledger) if window.state is State.DEAD]
        assert dead.error.endswith(error.message)
        entries = await ledger.client.xrange(ledger.keys.trail(dead.cut.org_id))
        assert [entry[b"window"] for _, entry in entries if entry[b"type"] == b"overage_refused"] == [dead.id.encode()]
        await lawful(ledger)


async def test_stripe_is_left_alone_as_long_as_it_asks(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        till.faults = [busy(120.0)]
        await exporter_of(ledger, till).turn()
        await after(ledger, 115_000)
        await exporter_of(ledger, till).turn()
        assert len(till.calls) == 1
        await after(ledger, 10_000)
        await exporter_of(ledger, till).turn()
        assert len(till.calls) == 2


async def test_an_outage_stops_the_calls_and_not_the_sealing(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        for number in range(20):
            await customer_of(ledger, f"org-{number}", f"cus_{number}")
            await track(ledger, 11, f"org-{number}")
        till.always = broken()
        clock = HandClock(0)
        exporter = exporter_of(ledger, till, at_once=1, breaker=Breaker(clock.monotonic))
        for _ in range(3):
            await exporter.turn()
        assert len(till.calls) == 5
        assert await ledger.client.zcard("{p00}:dirty") == 0
        clock.advance(16_000)
        await exporter.turn()
        assert len(till.calls) == 6
        clock.advance(16_000)
        await exporter.turn()
        assert len(till.calls) == 6
        till.always = None
        for _ in range(3):
            clock.advance(400_000)
            await after(ledger, LONG_MS)
            await exporter.turn()
        assert sum(till.sums().values()) == 23
        await lawful(ledger)


def test_pauses_grow_with_the_attempts_and_never_end() -> None:
    spans = [[delay_ms(attempt) for _ in range(200)] for attempt in range(1, 30)]
    for attempt, span in enumerate(spans, 1):
        most = min(BACKOFF_MAX_MS, 2_000 * 2**attempt)
        assert 0 <= min(span) <= most * 0.2
        assert most * 0.8 <= max(span) <= most
    assert delay_ms(1, 90.0) >= 90_000


# ── doubt ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("arrived", [True, False])
async def test_row_3_after_30_hours_without_stripe_its_own_sum_decides_what_is_sent_again(
    store: StoreServer, arrived: bool
) -> None:
    async with selling(store.url) as (ledger, till):
        till.faults = [lost() if arrived else broken()]
        await exporter_of(ledger, till).turn()
        await after(ledger, 30 * HOUR_MS)
        for _ in range(3):
            await exporter_of(ledger, till).turn()
            await after(ledger, LONG_MS)
        assert till.sums() == {CUSTOMER: 3}
        assert len(till.calls) == (1 if arrived else 2)
        assert len({name for name, _ in till.calls}) == 1
        assert await states(ledger) == [State.DELIVERED]
        await lawful(ledger)


async def test_the_sum_is_believed_only_after_a_quarter_of_an_hour_without_an_attempt(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        till.faults = [broken()]
        await exporter_of(ledger, till).turn()
        await after(ledger, KNOWN_MS - 60_000)
        till.faults = [lost()]
        await exporter_of(ledger, till).turn()
        till.lag = set(till.known)
        await after(ledger, QUIET_MS - 60_000)
        await exporter_of(ledger, till).turn()
        assert await states(ledger) == [State.INFLIGHT]
        till.lag = set()
        await after(ledger, 120_000)
        await exporter_of(ledger, till).turn()
        assert (await states(ledger), till.sums(), len(till.calls)) == ([State.DELIVERED], {CUSTOMER: 3}, 2)


async def test_a_sum_that_fits_neither_is_told_and_nothing_is_guessed(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        till.faults = [broken()]
        await exporter_of(ledger, till).turn()
        [window] = await windows(ledger)
        till.taken.append(MeterEvent("scans_over", CUSTOMER, 1, window.stamp_ms // 1000, "somebody's"))
        await after(ledger, KNOWN_MS)
        await exporter_of(ledger, till).turn()
        [dead] = await windows(ledger)
        assert (dead.state, len(till.calls)) == (State.DEAD, 1)
        assert dead.error == "of that hour Stripe has 1 units, the journal 0, the window 3"
        await lawful(ledger)


class Strict(Till):
    """A Stripe that tells no sum of a customer it does not know."""

    async def meter_usage(self, meter_id: str, customer: str, start_s: int, end_s: int) -> int:
        raise NotThere(f"No such customer: '{customer}'", status=404, code="resource_missing")


async def test_a_sum_that_stripe_refuses_to_tell_decides_nothing_and_holds_up_nobody(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, _):
        till = Strict(ledger.now_ms)
        for number in range(FAILURES):
            await customer_of(ledger, f"org-{number}", f"cus_{number}")
            await track(ledger, 11, f"org-{number}")
        till.always = broken()
        for _ in range(3):
            await exporter_of(ledger, till).turn()
        till.always = None
        await after(ledger, KNOWN_MS)
        await customer_of(ledger, "beta", "cus_beta")
        await track(ledger, 12, "beta")
        await exporter_of(ledger, till).turn()
        await exporter_of(ledger, till).turn()
        doubted = [one for one in await windows(ledger) if one.cut.org_id != "beta"]
        assert {one.state for one in doubted if one.first_ms} == {State.DEAD}
        assert {one.error for one in doubted if one.customer == CUSTOMER} == {
            f"404 resource_missing No such customer: '{CUSTOMER}'"
        }
        assert till.sums()["cus_beta"] == 2
        await lawful(ledger)


async def test_the_journal_tells_what_was_taken_before_anybody_settled_it(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        exporter = exporter_of(ledger, till)
        till.faults = [lost()]
        await exporter.turn()
        [window] = await windows(ledger)
        lanes = lanes_of(ledger)
        await lanes.note(lanes.name(CUSTOMER, "scans_over"), window)
        await after(ledger, KNOWN_MS)
        await exporter.turn()
        assert (await states(ledger), len(till.calls)) == ([State.DELIVERED], 1)


# ── who pays ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("told", [True, False])
async def test_overage_of_nobody_waits_and_goes_out_when_somebody_pays(store: StoreServer, told: bool) -> None:
    async with selling(store.url) as (ledger, till):
        await track(ledger, 15, "beta")
        exporter = exporter_of(ledger, till)
        await exporter.turn()
        assert await outbox_of(ledger).unbilled(0) == ["beta|scans"]
        await track(ledger, 2, "beta")
        await exporter.turn()
        await exporter.relink()
        assert await outbox_of(ledger).unbilled(0) == ["beta|scans"]
        if told:
            await customer_of(ledger, "beta", "cus_2")
            assert await outbox_of(ledger).unbilled(0) == []
        else:
            await ledger.client.hset(ledger.keys.profile("beta"), "stripe_customer", "p.cus_2")
            await exporter.relink()
            assert exporter.woken.is_set()
        await exporter.turn()
        assert till.sums() == {CUSTOMER: 3, "cus_2": 7}
        await lawful(ledger)


async def test_a_feature_without_a_meter_waits_until_the_catalogue_names_one(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await customer_of(ledger)
        await track(ledger, 13)
        till = till_of(ledger)
        await exporter_of(ledger, till).turn()
        await exporter_of(ledger, till).relink()
        assert await outbox_of(ledger).unbilled(0) == ["acme|scans"]
        assert till.calls == []
        await lawful(ledger)


async def test_a_window_nothing_was_sent_of_goes_to_the_customer_that_is(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        till.faults = [busy()]
        await exporter_of(ledger, till).turn()
        await customer_of(ledger, "acme", "cus_2")
        await after(ledger, LONG_MS)
        await exporter_of(ledger, till).turn()
        assert till.sums() == {"cus_2": 3}
        await customer_of(ledger, "beta")
        await track(ledger, 11, "beta")
        await exporter_of(ledger, till).turn()
        assert till.sums() == {"cus_2": 3, CUSTOMER: 1}


async def test_a_window_that_may_have_arrived_keeps_its_customer(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        till.faults = [lost()]
        await exporter_of(ledger, till).turn()
        await customer_of(ledger, "acme", "cus_2")
        await after(ledger, LONG_MS)
        await exporter_of(ledger, till).turn()
        assert (till.sums(), await states(ledger)) == ({CUSTOMER: 3}, [State.DELIVERED])


async def test_usage_that_stripe_could_not_use_is_dead_and_out_of_the_journal(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        exporter = exporter_of(ledger, till)
        await exporter.turn()
        [window] = await windows(ledger)
        report = MeterReport("mtr_1", {"no_meter": 1}, {window.id: "no_meter", "b" * 52: "no_meter"}, 0, 0)
        for _ in range(2):
            await exporter.reported(report)
        [dead] = await windows(ledger)
        assert (dead.state, dead.error) == (State.DEAD, "reported: no_meter")
        lanes = lanes_of(ledger)
        assert await lanes.hour(lanes.name(CUSTOMER, "scans_over"), window.stamp_ms) == {}
        assert await billed(ledger) == 0
        await lawful(ledger)


async def test_what_is_sealed_is_billed_only_once_stripe_has_it(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        till.faults = [broken()]
        await exporter_of(ledger, till).turn()
        assert (await states(ledger), await billed(ledger)) == ([State.INFLIGHT], 0)
        await after(ledger, LONG_MS)
        await exporter_of(ledger, till).turn()
        assert await billed(ledger) == 3


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_row_8_usage_of_the_last_second_pushed_after_midnight_lies_in_its_own_period(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        await move_to(ledger, await next_year(ledger, "01-31T23:59:50"))
        await track(ledger, 1)
        await move_to(ledger, await next_year(ledger, "02-01T00:00:30"))
        await track(ledger, 11)
        for _ in range(2):
            await exporter_of(ledger, till).turn()
            await after(ledger, 61_000)
        border = await next_year(ledger, "02-01T00:00:00") // 1000
        assert sorted((sent.timestamp_s < border, sent.units) for sent in till.taken) == [(False, 1), (True, 4)]
        await lawful(ledger)


async def test_a_clock_ahead_of_stripe_s_costs_nothing(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        now_ms = await ledger.now_ms()
        till.clock_ms = now_ms - 600_000
        exporter = exporter_of(ledger, till, stripe_ms=lambda: None)
        await exporter.turn()
        [window] = await windows(ledger)
        assert (window.state, window.fresh) == (State.SEALED, True)
        await after(ledger, LONG_MS)
        await exporter_of(ledger, till).turn()
        [sent] = till.taken
        assert sent.timestamp_s == till.clock_ms // 1000
        assert await states(ledger) == [State.DELIVERED]


async def test_row_30_every_call_waits_for_its_place_in_the_row_of_all_workers(store: StoreServer) -> None:
    """Where too many are due at once, as at the end of a period."""

    class Row:
        """Lets a call go after every wait; `places` counts those that were given."""

        places, waits = 0, 0

        async def wait_s(self) -> float:
            if self.waits == self.places:
                return 1.5
            self.places += 1
            return 0.0

        async def pause(self, seconds: float) -> None:
            self.waits += 1

    async with selling(store.url) as (ledger, till):
        row = Row()
        for number in range(5):
            await customer_of(ledger, f"org-{number}", f"cus_{number}x")
            await track(ledger, 12, f"org-{number}")

        async def on_call(sent: MeterEvent) -> None:
            assert len(till.calls) <= row.places, "a call that asked for no place"

        till.on_call = on_call
        await asyncio.gather(*(exporter_of(ledger, till, pace=row, pause=row.pause).turn() for _ in range(2)))
        assert (len(till.calls), sum(till.sums().values())) == (6, 13)


async def test_row_12_a_flush_seals_at_once_and_wakes_the_exporter(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        exporter = exporter_of(ledger, till)
        await exporter.flush("acme", 0)
        assert exporter.woken.is_set()
        assert await states(ledger) == [State.SEALED]


async def test_row_5_a_corrupt_organisation_does_not_hold_up_the_others(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        await customer_of(ledger, "beta", "cus_2")
        await track(ledger, 12, "beta")
        await ledger.client.hset(ledger.keys.record("acme"), "y:scans", "junk")
        await exporter_of(ledger, till).turn()
        assert till.sums() == {"cus_2": 2}


async def test_row_5_a_fault_of_ours_with_one_window_does_not_hold_up_the_others(store: StoreServer) -> None:
    async with selling(store.url) as (ledger, till):
        await customer_of(ledger, "beta", "cus_2")
        await track(ledger, 12, "beta")

        async def odd(sent: MeterEvent) -> None:
            if sent.customer == CUSTOMER:
                raise TypeError("an answer that nobody thought of")

        till.on_call = odd
        await exporter_of(ledger, till, at_once=1).turn()
        assert till.sums() == {"cus_2": 2}
        till.on_call = None
        await after(ledger, LONG_MS)
        await exporter_of(ledger, till).turn()
        assert till.sums() == {CUSTOMER: 3, "cus_2": 2}
        await lawful(ledger)
