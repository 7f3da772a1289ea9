"""A process that reacts to Stripe's events until it is killed: an effect with its mark in one step, then a pause.

`python -m tests.faults.reacting STORE_URL` writes a line as soon as it works.
"""

import asyncio
import sys
from typing import Any, Final

from metering.billing.inbox import InboxWorker
from metering.clock import SystemClock
from metering.errors import Problem
from metering.store.connect import connect
from tests.lua.letters import inbox_of
from webhooks.stripe_events import StripeEvent

EFFECT: Final = """
if redis.call('SET', KEYS[1], 1, 'NX') then redis.call('HINCRBY', KEYS[2], ARGV[1], 1) end
return 1
"""
EFFECTS: Final = "effects"

IDLE_MS: Final = 200
"""What a killed process had in hand is another's so soon."""


async def react_to(url: str) -> None:
    """React for ever."""
    client: Any
    async with connect(url) as client:

        async def react(event: StripeEvent) -> bool:
            await client.eval(EFFECT, 2, f"mark:{event.dedupe_id}", EFFECTS, event.dedupe_id)
            return False

        worker = InboxWorker(inbox_of(client), react, SystemClock().monotonic, idle_ms=IDLE_MS)
        sys.stdout.write("reacting\n")
        sys.stdout.flush()
        while True:
            try:
                await worker.turn()
            except Problem:
                continue


if __name__ == "__main__":
    asyncio.run(react_to(sys.argv[1]))
