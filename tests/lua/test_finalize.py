"""finalize.lua: a period is final when it is invoiced and all its overage has found its place; then nothing moves."""

import pytest

from metering.errors import PeriodFinal
from metering.store.correction import By, Change, adjustment
from metering.store.window import State
from tests.lua.ledger import Ledger
from tests.lua.outboxes import begun, outbox_of, sealed
from tests.lua.scenes import calm, event, lawful, move_to, next_year
from tests.support.servers import StoreServer


async def closed(ledger: Ledger) -> int:
    """The start of a period that closed with overage."""
    outcome = await ledger.callers[0].counters.track(event("acme", 13))
    await move_to(ledger, await next_year(ledger, "02-01T00:00:05"))
    await ledger.callers[0].orgs.get("acme")
    return outcome.period.start_ms


@pytest.mark.parametrize("state", [State.DELIVERED, State.WRITTEN_OFF])
async def test_a_period_is_final_once_all_has_its_place(each_store: StoreServer, state: State) -> None:
    async with calm(each_store.url, partitions=1) as ledger:
        start_ms = await closed(ledger)
        outbox, key = outbox_of(ledger), ledger.keys.archive("acme", start_ms)
        assert not await outbox.finalize("acme", start_ms, 99)
        await ledger.client.hset(key, "iv", 7)
        assert not await outbox.finalize("acme", start_ms, 99)
        window = await begun(ledger, await sealed(ledger, f"acme|scans|{start_ms}"), invoiced="7")
        assert not await outbox.finalize("acme", start_ms, 99)
        assert await outbox.settle(window, State.DEAD)
        assert not await outbox.finalize("acme", start_ms, 99)
        assert await outbox.settle(window, state)
        assert await outbox.finalize("acme", start_ms, 99)
        assert not await outbox.finalize("acme", start_ms, 100)
        assert await ledger.client.hget(key, "final") == b"99"
        change = Change("scans", -1, place="/delta")
        by = By("test", "because", "")
        with pytest.raises(PeriodFinal):
            await ledger.callers[0].corrections.make(
                adjustment("acme", change, "a1", by, minted=False, period_ms=start_ms, at_ms=None)
            )
        await lawful(ledger)


async def test_a_period_without_overage_is_final_as_it_is_invoiced(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        outcome = await ledger.callers[0].counters.track(event("acme", 3))
        await move_to(ledger, await next_year(ledger, "02-01T00:00:05"))
        await ledger.callers[0].orgs.get("acme")
        start_ms = outcome.period.start_ms
        await ledger.client.hset(ledger.keys.archive("acme", start_ms), "iv", 7)
        assert await outbox_of(ledger).finalize("acme", start_ms, 99)
        assert not await outbox_of(ledger).finalize("acme", start_ms + 1, 99)
