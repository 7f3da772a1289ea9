"""Hard limits under many writers at once."""

import asyncio
from typing import Final

import pytest

from metering.store.scripts import NAMES, script
from metering.store.timing import SKEW_MAX_MS
from metering.usage import Result, UsageEvent
from tests.lua.ledger import Ledger
from tests.support.servers import StoreServer

CATALOGUE = """
version = 1
currency = "usd"
default_plan = "free"
default_feature = "checks"
[features]
checks = { title = "Checks", unit = "check" }
calls = { title = "Calls", unit = "call" }
[plans.free]
title = "Free"
reset = "calendar"
on_limit = "block"
price_minor = 0
[plans.free.features]
checks = { limit = 100 }
calls = { limit = 100, on_limit = "cap" }
"""


@pytest.mark.parametrize(("feature", "quantity"), [("checks", 1), ("checks", 4), ("calls", 1), ("calls", 3)])
async def test_200_writers_through_four_workers_use_a_hard_limit_up_and_never_pass_it(
    store: StoreServer, feature: str, quantity: int
) -> None:
    """What was told as recorded is the counter, and the counter is exactly the limit."""
    async with Ledger(store.url, callers=4, test_clock=False, catalogue=CATALOGUE) as ledger:
        outcomes = await asyncio.gather(
            *(
                ledger.callers[number % 4].counters.track(UsageEvent("acme", feature, quantity, f"evt-{number}"))
                for number in range(200)
            )
        )
        org = await ledger.callers[0].orgs.get("acme")
        assert org is not None
        assert org.features[feature].used == sum(outcome.recorded for outcome in outcomes) == 100
        assert org.features[feature].overage == 0
        assert sum(outcome.result is Result.REFUSED for outcome in outcomes) >= 200 - 100 // quantity - 1


UNGUARDED: Final = {"create_key", "delete_key", "deny", "pace"}
"""Scripts that compare no clock of a caller: a key can be withdrawn whatever the clocks say, and the pace is by the
server's clock alone.
"""

TIMED: Final = [name for name in NAMES if "call('TIME')" in script(name).text and name not in UNGUARDED]


@pytest.mark.parametrize("name", TIMED)
def test_scripts_and_callers_hold_the_same_bound_between_clocks(name: str) -> None:
    """The number stands in Lua and in Python."""
    assert f"local SKEW_MAX_MS = {SKEW_MAX_MS}\n" in script(name).text
