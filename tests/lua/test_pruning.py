"""The job that prunes: a bounded piece a turn, past what must stay, and its period is final by then where it may be."""

from typing import Any, Final

import pytest

from metering.billing.meter_reports import MeterReport
from metering.billing.pruning import READ, Pruner
from metering.errors import StorageUnavailable
from metering.store.connect import connect
from metering.store.window import State
from metering.store.window_lists import WindowLists
from tests.lua.exporting import SOLD, exporter_of, till_of
from tests.lua.ledger import Ledger
from tests.lua.outboxes import customer_of, outbox_of
from tests.lua.scenes import DAY_MS, calm, commands, event, lawful, move_to, next_year
from tests.support.servers import StoreServer

KEEP_MS: Final = 90 * DAY_MS


def pruner_of(ledger: Ledger, *, read: int = READ, client: Any = None, **bounds: Any) -> Pruner:
    """The job over the ledger, which makes periods final as the service does."""
    lists = WindowLists(client or ledger.client, ledger.keys, read=read)
    now_ms, partitions = ledger.callers[0].time.now_ms, ledger.keys.partitions
    finalize = exporter_of(ledger, till_of(ledger)).closing.finalize
    return Pruner(outbox_of(ledger), lists, finalize, now_ms, partitions=partitions, keep_ms=KEEP_MS, **bounds)


async def overage(ledger: Ledger, org_id: str, windows: int, *, invoiced: bool = True) -> list[str]:
    """Windows of January in the order they were sealed, all delivered, its invoice written by February."""
    outbox, names = outbox_of(ledger), []
    for number in range(windows):
        await ledger.callers[0].counters.track(event(org_id, 1 if number else 11))
        name = await outbox.seal(f"{org_id}|scans")
        assert name is not None
        window = await outbox.window_of(org_id, name)
        assert window is not None
        assert await outbox.settle(window, State.DELIVERED)
        names.append(name)
    if invoiced:
        await ledger.client.hset(ledger.keys.record(org_id), "iv", 7)  # closes with it
    return names


async def passed(ledger: Ledger, at: str = "06-01T00:00:00") -> None:
    """It is some day after January, and everybody's January is closed."""
    await move_to(ledger, await next_year(ledger, at))
    org_ids = [key.decode().rpartition(":")[2] async for key in ledger.client.scan_iter(match="*:o:*")]
    for org_id in org_ids:
        await ledger.callers[0].orgs.get(org_id)


async def left(ledger: Ledger) -> int:
    """Windows there are, each of them in its list."""
    await lawful(ledger)
    return len([key async for key in ledger.client.scan_iter(match="*:b:*")])


async def test_what_is_old_goes_from_every_partition_and_its_period_is_final_by_then(each_store: StoreServer) -> None:
    async with calm(each_store.url, partitions=4) as ledger:
        for org_id in ("acme", "beta", "gamma", "delta", "epsilon"):
            await overage(ledger, org_id, 3)
        await passed(ledger, "03-01T00:00:00")
        await pruner_of(ledger).turn()
        assert await left(ledger) == 15
        await passed(ledger)
        await pruner_of(ledger).turn()
        assert await left(ledger) == 0


async def test_a_turn_is_bounded_and_the_next_goes_on_behind_what_must_stay(store: StoreServer) -> None:
    """Thirty windows of a period without an invoice are first in the list, and stay."""
    async with calm(store.url, partitions=1) as ledger:
        await overage(ledger, "acme", 30, invoiced=False)
        await overage(ledger, "beta", 6)
        await passed(ledger)
        pruner, turns = pruner_of(ledger, read=5, looked_at=10), 0
        while await left(ledger) > 30 and turns < 5:
            await ledger.client.config_resetstat()
            await pruner.turn()
            assert (await commands(ledger))["zrangebyscore"] <= 3  # the one seen last is read again
            turns += 1
        assert 3 <= turns <= 4
        await pruner.turn()
        assert await left(ledger) == 30


async def test_a_dead_window_that_is_let_go_long_after_its_period_holds_up_nothing_for_ever(store: StoreServer) -> None:
    """Nobody looks at an old period again but for this job: it is final, and all of it goes."""
    async with calm(store.url, partitions=1) as ledger:
        names, outbox = await overage(ledger, "acme", 4), outbox_of(ledger)
        window = await outbox.window_of("acme", names[1])
        assert window is not None
        assert await outbox.settle(window, State.DEAD, revoked=True)
        await passed(ledger)
        pruner = pruner_of(ledger)
        await pruner.turn()
        assert await left(ledger) == 4
        assert await outbox.discard(window, "a gift", "ann")
        await pruner.turn()
        assert await left(ledger) == 3
        await passed(ledger, "09-15T00:00:00")
        for _ in range(2):
            await pruner.turn()
        assert await left(ledger) == 0


async def test_windows_that_were_settled_in_another_order_go_in_that_of_their_chain(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        names, outbox = await overage(ledger, "acme", 5), outbox_of(ledger)
        first = await outbox.window_of("acme", names[0])
        assert first is not None
        assert await outbox.settle(first, State.DEAD, revoked=True)
        assert await outbox.settle(first, State.DELIVERED)
        assert await ledger.client.zrank("{p00}:settled", names[0]) == 4
        await passed(ledger)
        pruner = pruner_of(ledger, read=2)
        await pruner.turn()
        assert await left(ledger) == 4
        await pruner.turn()
        assert await left(ledger) == 0


async def test_a_counter_that_cannot_be_read_does_not_hold_up_the_others(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        names = await overage(ledger, "acme", 2)
        window = await outbox_of(ledger).window_of("acme", names[0])
        assert window is not None
        await overage(ledger, "beta", 2)
        await passed(ledger)
        await ledger.client.hset(ledger.keys.archive("acme", window.cut.period.start_ms), "d:scans", "many")
        await pruner_of(ledger).turn()
        assert len([key async for key in ledger.client.scan_iter(match="*:b:*")]) == 2


async def test_an_outage_ends_the_turn(store: StoreServer) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await overage(ledger, "acme", 2)
        await passed(ledger)
        away = connect(ledger.url.replace("/s", "/gone"), retries=0)
        with pytest.raises(StorageUnavailable):
            await pruner_of(ledger, client=away).turn()
        await away.aclose()


async def test_stripes_late_report_of_a_window_that_went_changes_nothing(store: StoreServer) -> None:
    async with calm(store.url, catalogue=SOLD, partitions=1) as ledger:
        await customer_of(ledger)
        names = await overage(ledger, "acme", 2)
        await passed(ledger)
        await pruner_of(ledger).turn()
        assert await left(ledger) == 0
        before = await ledger.dump()
        report = MeterReport("mtr_1", {"no_meter": 1}, {names[0]: "no_meter"}, 0, 0)
        await exporter_of(ledger, till_of(ledger)).reported(report)
        assert await ledger.dump() == before


async def test_a_page_misses_nothing_where_windows_before_it_went(store: StoreServer) -> None:
    """Whoever lists delivered windows goes on behind the last one seen, not behind so many."""
    async with calm(store.url, partitions=1) as ledger:
        names = await overage(ledger, "acme", 9)
        await passed(ledger)
        lists, found = WindowLists(ledger.client, ledger.keys, read=2), list[str]()
        async for _, windows in lists.ended(0, await ledger.now_ms(), None):
            found += [window.id for window in windows]
            await outbox_of(ledger).finalize("acme", windows[0].cut.period.start_ms, 9)
            assert await outbox_of(ledger).prune(windows, KEEP_MS) == len(windows)
        assert found == names
