"""replay.lua: a dead window is sent again by somebody's word, and never twice in a way that Stripe would bill twice."""

from dataclasses import replace
from typing import Any

import pytest

from metering.billing.desk import FORGOTTEN_MS, Desk
from metering.billing.errors import Refused
from metering.billing.exporter import QUIET_MS
from metering.billing.meter_reports import MeterReport
from metering.errors import OrgCorrupt, WindowNotDead, WindowNotFound
from metering.store.outbox import KNOWN_MS
from metering.store.window import State
from metering.store.window_lists import WindowLists
from tests.lua.effecting import trail_of
from tests.lua.exporting import SOLD, exporter_of, till_of
from tests.lua.ledger import Ledger
from tests.lua.outboxes import begun, customer_of, outbox_of, sealed, window_of
from tests.lua.scenes import calm, event, lawful, move_to
from tests.support.servers import StoreServer
from tests.support.till import Till, broken, lost

REFUSED = Refused("No such customer", status=400, code="resource_missing")


def desk_of(ledger: Ledger) -> Desk:
    return Desk(outbox_of(ledger), WindowLists(ledger.client, ledger.keys), ledger.callers[0].time.now_ms)


def selling(url: str) -> Any:
    return calm(url, catalogue=SOLD, partitions=1)


async def dead(ledger: Ledger, *, nothing: bool) -> str:
    """A window of acme that is dead after an attempt."""
    await ledger.callers[0].counters.track(event("acme", 13))
    window = await begun(ledger, await sealed(ledger))
    assert await outbox_of(ledger).settle(window, State.DEAD, "400 no", attempts=1, nothing=nothing)
    return window.id


async def died(ledger: Ledger, till: Till, *faults: Any) -> str:
    """A window of acme's that the exporter gave up after these faults."""
    await customer_of(ledger)
    await ledger.callers[0].counters.track(event("acme", 13))
    till.faults = list(faults)
    for _ in faults:
        await exporter_of(ledger, till).turn()
        await after(ledger, 3_600_000)
    [window], _ = await desk_of(ledger).page({State.DEAD}, None, 10)
    return window.window.id


async def after(ledger: Ledger, ms: int) -> None:
    await move_to(ledger, await ledger.now_ms() + ms)


@pytest.mark.parametrize("nothing", [True, False])
async def test_a_replayed_window_waits_again_and_the_trail_says_who(each_store: StoreServer, nothing: bool) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        name = await dead(ledger, nothing=nothing)
        assert await outbox_of(ledger).replay(await window_of(ledger, name), "ann")
        window = await window_of(ledger, name)
        assert (window.state, window.fresh) == (State.SEALED if nothing else State.INFLIGHT, nothing)
        assert window.settled_ms is None
        [entry] = [one for one in await trail_of(ledger) if one["type"] == "overage_replayed"]
        period = str(window.cut.period.start_ms)
        said = {"window": name, "feature": "scans", "units": "3", "period": period, "actor": "ann", "request_id": ""}
        assert entry == said | {"type": "overage_replayed"}
        assert await ledger.client.hget("{p00}:totals", "e:overage_replayed") == b"1"
        await lawful(ledger)


@pytest.mark.parametrize("state", ["sealed", "inflight", "delivered", "written_off"])
async def test_only_a_dead_window_is_replayed_or_discarded(store: StoreServer, state: str) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await ledger.callers[0].counters.track(event("acme", 13))
        window = await window_of(ledger, await sealed(ledger))
        if state != "sealed":
            window = await begun(ledger, window.id)
        if state in {"delivered", "written_off"}:
            assert await outbox_of(ledger).settle(window, State(state))
        before = await ledger.dump()
        assert not await outbox_of(ledger).replay(window, "ann")
        assert not await outbox_of(ledger).discard(window, "why", "ann")
        for asked in (desk_of(ledger).replay(window.id, by="ann"), desk_of(ledger).discard(window.id, "w", by="ann")):
            with pytest.raises(WindowNotDead, match=state):
                await asked
        with pytest.raises(WindowNotFound):
            await desk_of(ledger).replay("a" * 52, by="ann")
        assert await ledger.dump() == before


@pytest.mark.parametrize("kind", ["outbox", "dead_windows", "totals"])
async def test_a_key_of_a_wrong_type_stops_a_replay_before_its_first_write(each_store: StoreServer, kind: str) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        window = await window_of(ledger, await dead(ledger, nothing=True))
        await ledger.client.set(f"{{p00}}:{kind}", "junk")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await outbox_of(ledger).replay(window, "ann")
        assert await ledger.dump() == before


async def test_what_stripe_refused_for_good_goes_to_the_customer_of_now(store: StoreServer) -> None:
    async with selling(store.url) as ledger:
        till = till_of(ledger)
        name = await died(ledger, till, REFUSED)
        await customer_of(ledger, customer="cus_right")
        await desk_of(ledger).replay(name, by="ann")
        await exporter_of(ledger, till).turn()
        assert till.sums() == {"cus_right": 3}
        assert (await window_of(ledger, name)).state is State.DELIVERED
        await lawful(ledger)


async def test_what_may_have_arrived_stays_with_its_customer_and_is_billed_once(store: StoreServer) -> None:
    """The first attempt arrived, its answer was lost, and the second was refused for another reason."""
    async with selling(store.url) as ledger:
        till = till_of(ledger)
        name = await died(ledger, till, lost(), REFUSED)
        await customer_of(ledger, customer="cus_right")
        await desk_of(ledger).replay(name, by="ann")
        await exporter_of(ledger, till).turn()
        assert till.sums() == {"cus_1": 3}
        await lawful(ledger)


@pytest.mark.parametrize("arrived", [True, False])
async def test_after_23_hours_a_replay_asks_for_the_sum_first(store: StoreServer, arrived: bool) -> None:
    async with selling(store.url) as ledger:
        till = till_of(ledger)
        name = await died(ledger, till, lost() if arrived else broken(), REFUSED)
        await after(ledger, KNOWN_MS + QUIET_MS)
        calls = len(till.calls)
        await desk_of(ledger).replay(name, by="ann")
        for _ in range(2):
            await exporter_of(ledger, till).turn()
            await after(ledger, 1_000)
        assert till.sums() == {"cus_1": 3}
        assert len(till.calls) == calls + (0 if arrived else 1)
        assert (await window_of(ledger, name)).state is State.DELIVERED
        await lawful(ledger)


async def test_a_window_that_stripe_could_not_use_waits_until_its_identifier_is_forgotten(store: StoreServer) -> None:
    async with selling(store.url) as ledger:
        till = till_of(ledger)
        await customer_of(ledger)
        await ledger.callers[0].counters.track(event("acme", 13))
        exporter = exporter_of(ledger, till)
        await exporter.turn()
        [sent] = till.taken
        till.taken.clear()
        report = MeterReport("mtr_1", {}, {sent.identifier: "meter_event_customer_not_found"}, 0, 0)
        await exporter.reported(report)
        await customer_of(ledger, customer="cus_right")
        await desk_of(ledger).replay(sent.identifier, by="ann")
        await exporter_of(ledger, till).turn()
        assert till.taken == []
        await after(ledger, FORGOTTEN_MS)
        for _ in range(2):
            await exporter_of(ledger, till).turn()
            await after(ledger, 1_000)
        assert till.taken == [replace(sent, customer="cus_right")]
        await lawful(ledger)
