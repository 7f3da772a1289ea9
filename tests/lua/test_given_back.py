"""Credits that a correction gives back: as many as were paid, to what they were paid from, whoever counted."""

import re

import pytest

from metering.api.models.credits import GRANT_ID_PATTERN
from metering.store.correction import By, Change, adjustment, reset
from metering.store.credit_lines import CURSOR_PATTERN
from metering.store.orgs import OrgChange
from metering.usage import UsageEvent
from plans.catalogue import Override
from plans.credits import POOL, Grant
from plans.limits import OnLimit
from tests.lua.crediting import credits_of, joined
from tests.lua.granting import give
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, lawful, move_to, next_year
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
        assert await returned(ledger) == [(POOL, 10), ("scans", 1)]
        await ledger.callers[1].corrections.make(reset("acme", ["scans"], "a3", BY, forgive=True, minted=False))
        assert await returned(ledger) == [(POOL, 10), ("scans", 3)]
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
        assert await returned(ledger) == [(POOL, 15)]
        await lawful(ledger)


async def test_corrections_make_no_more_grants_than_there_are_features_and_one(store: StoreServer) -> None:
    """Red when each makes a grant of its own: an organisation has at most 200 open ones."""
    async with calm(store.url) as ledger:
        await joined(ledger)
        await give(ledger, "acme", Grant("cg_1", 6, 1, scope="scans"), Grant("cg_2", 100, 2))
        await used(ledger, 30, "track")  # six by the first, fourteen at two credits by the second
        for number in range(1, 21):
            await corrected(ledger, -1, f"a{number}")
        found = {one.grant_id: one for one in await credits_of(ledger).grants("acme")}
        assert await returned(ledger) == [(POOL, 28), ("scans", 6)]
        assert all(one.amount == one.left for name, one in found.items() if name.startswith("cg_back_"))
        lines, _ = await credits_of(ledger).transactions("acme", 50)
        assert [line.credits for line in lines if line.kind == "returned"] == [1] * 6 + [2] * 14
        await lawful(ledger)


async def test_what_came_back_and_is_used_up_makes_room_for_another_grant(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        await give(ledger, "acme", Grant("cg_1", 8, 1))
        await used(ledger, 14, "track")
        await corrected(ledger, -2, "a1")
        await used(ledger, 2, "track")
        await corrected(ledger, -1, "a2")
        assert await returned(ledger) == [(POOL, 2), (POOL, 4)]
        await lawful(ledger)


async def blocked(ledger: Ledger) -> None:
    """Eleven of ten scans are used, where the plan stops; twelve credits are left, for six scans or four checks."""
    await joined(ledger)
    blocks = OrgChange(overrides={"scans": Override(on_limit=OnLimit.BLOCK)})
    await ledger.callers[0].orgs.update("acme", blocks, actor="ann", create=False)
    await give(ledger, "acme", Grant("cg_1", 14, 1))
    await used(ledger, 11, "track")
    await ledger.callers[0].counters.track(UsageEvent("acme", "checks", 10, "c"))


@pytest.mark.parametrize(
    ("feature", "units", "paid"),
    [("checks", 2, 3), ("checks", 3, 1), ("scans", 2, 4), ("scans", 6, 0)],
)
async def test_units_put_in_leave_the_credits_that_holds_keep(
    store: StoreServer, feature: str, units: int, paid: int
) -> None:
    """Red when they do not: what was promised would be billed as overage of a plan that has none."""
    async with calm(store.url) as ledger:
        await blocked(ledger)
        held, _ = await ledger.callers[0].holds.place("acme", "r1", feature, units, 60_000)
        assert held is not None
        change = Change("scans", 9, place="/delta")
        made = adjustment("acme", change, "a1", BY, minted=False, period_ms=None, at_ms=None)
        [row] = (await ledger.callers[1].corrections.make(made)).rows
        assert (row.after.credit - row.before.credit, row.after.overage) == (paid, 9 - paid)
        _, _, outcome = await ledger.callers[0].holds.settle("acme", "r1", units)
        assert (outcome.recorded, outcome.overage) == (units, 0)
        await lawful(ledger)


async def test_holds_that_ended_keep_nothing_from_units_that_are_put_in(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await blocked(ledger)
        await ledger.callers[0].holds.place("acme", "r1", "checks", 3, 60_000)
        await move_to(ledger, await ledger.now_ms() + 60_000)
        await corrected(ledger, 9, "a1")
        org = await ledger.callers[0].orgs.get("acme")
        assert org is not None
        assert (org.features["scans"].credit, org.features["scans"].overage) == (7, 3)
        await lawful(ledger)


async def test_units_put_into_a_closed_period_leave_what_holds_of_the_running_one_keep(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await blocked(ledger)
        start_ms = await next_year(ledger, "01-01T00:00:00")
        await move_to(ledger, await next_year(ledger, "02-01T10:00:00"))
        await ledger.callers[0].holds.place("acme", "r1", "scans", 14, 60_000)  # ten included, four at two credits
        change = Change("scans", 9, place="/delta")
        made = adjustment("acme", change, "a1", BY, minted=False, period_ms=start_ms, at_ms=None)
        [row] = (await ledger.callers[1].corrections.make(made)).rows
        assert row.after.credit - row.before.credit == 2
        _, _, outcome = await ledger.callers[0].holds.settle("acme", "r1", 14)
        assert (outcome.recorded, outcome.overage) == (14, 0)
        await lawful(ledger)


def test_the_longest_grant_that_there_is_can_be_named() -> None:
    name = f"cg_back_{'0' * 16}_{'f' * 64}"
    assert re.fullmatch(GRANT_ID_PATTERN, name)
    assert re.fullmatch(CURSOR_PATTERN, f"1-1.20310110.{'f' * 64}.{name}")
