"""Repair: only what Stripe's sum proves is done, the plan shows it first, and nothing is billed twice."""

import pytest

from metering.billing.errors import Refused
from metering.billing.repair import LAG_MS, Proof, Repairer
from metering.billing.sending import Sender
from metering.store.outbox import KNOWN_MS
from metering.store.window import State
from tests.lua.effecting import trail_of
from tests.lua.exporting import exporter_of, till_of
from tests.lua.ledger import Ledger
from tests.lua.outboxes import lanes_of, window_of
from tests.lua.scenes import HOUR_MS, lawful
from tests.lua.test_replay import after, desk_of, died, selling
from tests.support.servers import StoreServer
from tests.support.till import Till, broken, lost

REFUSED = Refused("No such customer", status=400, code="resource_missing")


def repairer_of(ledger: Ledger, till: Till) -> Repairer:
    features = ledger.catalogue.features
    meters = {name: feature.stripe_meter_event for name, feature in features.items()}
    return Repairer(desk_of(ledger), lanes_of(ledger), Sender(till, ledger.catalogue.currency), meters)


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize("late_ms", [0, KNOWN_MS + HOUR_MS])
async def test_what_is_proved_is_repaired_and_billed_once(store: StoreServer, arrived: bool, late_ms: int) -> None:
    async with selling(store.url) as ledger:
        till = till_of(ledger)
        name = await died(ledger, till, lost() if arrived else broken(), REFUSED)
        await after(ledger, LAG_MS + late_ms)
        before = await ledger.dump()
        [step] = await repairer_of(ledger, till).plan()
        assert (step.window.id, step.proof) == (name, Proof.HAS if arrived else Proof.LACKS)
        assert await ledger.dump() == before
        await repairer_of(ledger, till).apply(by="ann")
        for _ in range(2):
            await exporter_of(ledger, till).turn()
            await after(ledger, 1_000)
        assert till.sums() == {"cus_1": 3}
        assert (await window_of(ledger, name)).state is State.DELIVERED
        [entry] = [one for one in await trail_of(ledger) if one["type"] == "overage_replayed"]
        assert entry["actor"] == "ann"
        await lawful(ledger)


async def test_what_is_not_proved_or_too_young_is_left_alone(store: StoreServer) -> None:
    async with selling(store.url) as ledger:
        till = till_of(ledger)
        name = await died(ledger, till, lost(), REFUSED)
        till.taken.append(till.taken[0])
        await after(ledger, LAG_MS)
        [step] = await repairer_of(ledger, till).apply(by="ann")
        assert (step.proof, (await window_of(ledger, name)).state) == (Proof.NEITHER, State.DEAD)


async def test_what_stripe_refused_for_good_waits_for_somebody(store: StoreServer) -> None:
    async with selling(store.url) as ledger:
        till = till_of(ledger)
        await died(ledger, till, REFUSED)
        await after(ledger, LAG_MS)
        assert await repairer_of(ledger, till).apply(by="ann") == []
