"""A worker that prunes may die before or after any call: every law holds then, and the next one finishes."""

import sys
from typing import Final

from metering.billing.pruning import Pruner
from metering.store.window_lists import WindowLists
from tests.faults.steps import Crash, Schedule, SteppedRedis, Steps, singles
from tests.lua.exporting import SOLD, exporter_of, till_of
from tests.lua.ledger import Ledger
from tests.lua.outboxes import outbox_of
from tests.lua.scenes import calm, lawful
from tests.lua.test_pruning import KEEP_MS, left, overage, passed
from tests.support.servers import StoreServer
from tests.support.soak import drawn

READ: Final = 2
"""So few at once that the five windows take several scripts."""


async def pruned(ledger: Ledger, steps: Steps) -> None:
    """One turn of a worker that may die in it; its clients are the only ones it has."""
    client = SteppedRedis.over(ledger.client, steps)
    lists = WindowLists(client, ledger.keys, read=READ)
    finalize = exporter_of(ledger, till_of(ledger), client=client).closing.finalize
    now_ms = ledger.callers[0].time.now_ms
    outbox = outbox_of(ledger, client=client)
    await Pruner(outbox, lists, finalize, now_ms, partitions=1, keep_ms=KEEP_MS).turn()


async def run(store: StoreServer, schedule: Schedule) -> Steps:
    """Prune five windows of two counters with a crash; in between and in the end every law holds."""
    assert store.say("FLUSHALL", "SYNC").startswith("+OK")
    steps = Steps(schedule)
    async with calm(store.url, catalogue=SOLD, partitions=1, callers=1) as ledger:
        await overage(ledger, "acme", 3)
        await overage(ledger, "beta", 2)
        await passed(ledger)
        try:
            await pruned(ledger, steps)
        except Crash:
            await lawful(ledger)
            await pruned(ledger, Steps({}))
        assert await left(ledger) == 0
    return steps


async def test_a_worker_may_die_before_or_after_any_call(store: StoreServer) -> None:
    number = len((await run(store, {})).names)
    assert number > 10
    sys.stdout.write(f"pruning: N = {number} steps\n")
    for schedule in drawn(singles(number), 3):
        await run(store, schedule)
