"""A worker may die before or after any call while it tops up: the payer pays once, and has the credits once."""

import sys

from tests.billing.topping import Shelf, wanting
from tests.faults.steps import Crash, Schedule, SteppedRedis, SteppedTill, Steps, pairs, singles
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, lawful, move_to
from tests.lua.topping import PRICE
from tests.support.servers import StoreServer
from tests.support.soak import drawn
from tests.support.till import Fault, lost

TURNS_MAX = 8
PASSES_MS = 150_000
"""Between two turns: an attempt under way is looked at again, and another could begin."""


async def turn(ledger: Ledger, till: object, steps: Steps) -> bool:
    """One turn of a new worker; whether it lived to its end."""
    shelf = Shelf(ledger, SteppedTill(till, steps), SteppedRedis.over(ledger.client, steps))
    try:
        await shelf.top_up.turn()
    except Crash:
        return False
    return True


async def run(store: StoreServer, schedule: Schedule, *faults: Fault | None) -> Steps:
    """Workers that follow each other until one has nothing to do. What fails names its schedule."""
    assert store.say("FLUSHALL", "SYNC").startswith("+OK")
    async with calm(store.url, partitions=1, callers=1) as ledger:
        till, steps = await wanting(ledger), Steps(schedule)
        till.faults = list(faults)
        plain = Shelf(ledger, till)
        try:
            for _ in range(TURNS_MAX):
                lived = await turn(ledger, till, steps)
                await move_to(ledger, await ledger.now_ms() + PASSES_MS)
                if lived and (await plain.kept()).attempt is None and await plain.balance() > 10:
                    break
            assert (till.taken(), await plain.balance()) == ([PRICE], 510)
            kept = await plain.kept()
            assert (kept.attempt, kept.stopped, len(kept.tries)) == (None, None, 1)
            await lawful(ledger)
        except Exception as error:
            error.add_note(f"{dict(schedule)}, {faults}")
            raise
    return steps


async def test_a_worker_may_die_before_or_after_any_call(store: StoreServer) -> None:
    await run(store, {})
    number = len((await run(store, {})).names)
    sys.stdout.write(f"topping up: N = {number} steps\n")
    assert number > 10
    for schedule in drawn(singles(number), 4):
        await run(store, schedule)
        await run(store, schedule, lost())


async def declined(store: StoreServer, schedule: Schedule) -> Steps:
    """The same with a card that declines: one attempt, which nobody can pay any more, and why it stopped."""
    assert store.say("FLUSHALL", "SYNC").startswith("+OK")
    async with calm(store.url, partitions=1, callers=1) as ledger:
        till, steps = await wanting(ledger), Steps(schedule)
        till.becomes = "card_declined"
        plain = Shelf(ledger, till)
        try:
            for _ in range(TURNS_MAX):
                await turn(ledger, till, steps)
                await move_to(ledger, await ledger.now_ms() + PASSES_MS)
                if (kept := await plain.kept()).stopped is not None:
                    break
            assert kept.stopped is not None
            assert (kept.stopped.why, kept.stopped.detail) == ("declined", "card_declined")
            assert (till.statuses(), kept.attempt, await plain.balance()) == (["canceled"], None, 10)
            await lawful(ledger)
        except Exception as error:
            error.add_note(f"{dict(schedule)}")
            raise
    return steps


async def test_a_worker_may_die_at_any_call_while_a_card_declines(store: StoreServer) -> None:
    await declined(store, {})
    number = len((await declined(store, {})).names)
    for schedule in drawn(singles(number), 4):
        await declined(store, schedule)


async def test_two_workers_may_die_at_any_two_calls(store: StoreServer) -> None:
    number = len((await run(store, {})).names)
    for schedule in drawn(pairs(number), 60):
        await run(store, schedule)
