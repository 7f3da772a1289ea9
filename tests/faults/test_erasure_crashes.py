"""A worker may die before or after any call of an erasure: every law holds then, and another one finishes it."""

import sys

from tests.faults.steps import Crash, Schedule, SteppedRedis, Steps, singles
from tests.lua.erasing import DPO, JOB, erasures_of, left_of, lived, removal_of, sums
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, lawful
from tests.support.servers import StoreServer
from tests.support.soak import drawn


async def erase(ledger: Ledger, steps: Steps) -> None:
    """Ask for it, and take away what is left, by a worker that may die in it."""
    client = SteppedRedis.over(ledger.client, steps)
    await erasures_of(ledger, client=client).ask("acme", JOB, DPO, write_off=False)
    await removal_of(ledger, client=client).turn()


async def run(store: StoreServer, schedule: Schedule) -> Steps:
    """Erase an organisation that had everything, with a crash; in between and in the end every law holds."""
    assert store.say("FLUSHALL", "SYNC").startswith("+OK")
    steps = Steps(schedule)
    async with calm(store.url, callers=1) as ledger:
        await lived(ledger)
        before = (await sums(ledger)).units
        try:
            await erase(ledger, steps)
        except Crash:
            await lawful(ledger)
            await ledger.client.delete(ledger.keys.shared("eraser", 0))  # its time is over
            await erase(ledger, Steps({}))
        erasure = await erasures_of(ledger).find("acme")
        assert erasure is not None
        assert erasure.done_ms is not None
        assert len(await left_of(ledger)) == 2, "the mark, and its place among the erased"
        assert (await sums(ledger)).units == before
        assert (await sums(ledger)).events["org_erased"] == 1
        await lawful(ledger)
    return steps


async def test_a_worker_may_die_before_or_after_any_call(store: StoreServer) -> None:
    number = len((await run(store, {})).names)
    assert number > 15
    sys.stdout.write(f"erasure: N = {number} steps\n")
    for schedule in drawn(singles(number), 8):
        await run(store, schedule)
