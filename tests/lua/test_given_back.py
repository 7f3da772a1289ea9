"""Credits that a correction gives back: as many as were paid, to what they were paid from, whoever counted."""

import re

import pytest

from metering.api.models.credits import GRANT_ID_PATTERN
from metering.store.correction import By, Change, adjustment, reset
from metering.store.credit_lines import CURSOR_PATTERN
from metering.usage import UsageEvent
from plans.credits import POOL, Grant
from tests.lua.crediting import credits_of, joined
from tests.lua.granting import give
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, lawful
from tests.support.servers import StoreServer

BY = By("ann", "counted twice", "req-7")
WAYS = ["track", "admit", "adjust"]


async def used(ledger: Ledger, units: int, way: str) -> None:
    """Scans, by one of the scripts."""
    caller = ledger.callers[0]
    if way == "adjust":
        await corrected(ledger, units, f"up{units}")
    else:
        also = (("calls", 1),) if way == "admit" else ()
        await caller.counters.track(UsageEvent("acme", "scans", units, f"e{units}", also=also))


async def corrected(ledger: Ledger, units: int, name: str) -> None:
    change = Change("scans", units, place="/delta")
    made = adjustment("acme", change, name, BY, minted=False, period_ms=None, at_ms=None)
    await ledger.callers[1].corrections.make(made)


async def returned(ledger: Ledger) -> list[tuple[str, int]]:
    """What came back so far: for which feature, how many."""
    found = await credits_of(ledger).grants("acme")
    return sorted((one.scope, one.amount) for one in found if one.grant_id.startswith("cg_back_"))


@pytest.mark.parametrize("way", WAYS)
async def test_units_that_a_grant_for_one_feature_paid_come_back_as_that(each_store: StoreServer, way: str) -> None:
    async with calm(each_store.url) as ledger:
        await joined(ledger)
        await give(ledger, "acme", Grant("cg_1", 20, 1, scope="scans"))
        await used(ledger, 30, way)  # ten included, twenty paid, though a scan costs two credits of the pool
        await corrected(ledger, -4, "a1")
        assert await returned(ledger) == [("scans", 4)]
        await lawful(ledger)


@pytest.mark.parametrize("way", WAYS)
async def test_what_the_pool_paid_comes_back_before_what_the_features_own_grant_did(
    store: StoreServer, way: str
) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        await give(ledger, "acme", Grant("cg_1", 3, 1, scope="scans"), Grant("cg_2", 90, 2))
        await used(ledger, 18, way)  # three by the first, five at two credits by the second
        await corrected(ledger, -2, "a1")
        assert await returned(ledger) == [(POOL, 4)]
        await corrected(ledger, -4, "a2")
        assert await returned(ledger) == [(POOL, 4), (POOL, 6), ("scans", 1)]
        await ledger.callers[1].corrections.make(reset("acme", ["scans"], "a3", BY, forgive=True, minted=False))
        assert await returned(ledger) == [(POOL, 4), (POOL, 6), ("scans", 1), ("scans", 2)]
        await lawful(ledger)


async def test_a_weight_that_changed_since_gives_back_what_was_paid(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        await give(ledger, "acme", Grant("cg_1", 100, 1))
        await used(ledger, 13, "track")  # three at two credits
        await ledger.client.hset(ledger.keys.record("acme"), "v:scans", 9)
        await used(ledger, 1, "track")  # one at nine
        await corrected(ledger, -2, "a1")
        assert await returned(ledger) == [(POOL, 6)]  # three each, and the rest with the last
        await corrected(ledger, -2, "a2")
        assert await returned(ledger) == [(POOL, 6), (POOL, 9)]
        await lawful(ledger)


def test_the_longest_grant_that_there_is_can_be_named() -> None:
    name = f"cg_back_{'0' * 16}_{'f' * 64}"
    assert re.fullmatch(GRANT_ID_PATTERN, name)
    assert re.fullmatch(CURSOR_PATTERN, f"1-1.20310110.{'f' * 64}.{name}")
