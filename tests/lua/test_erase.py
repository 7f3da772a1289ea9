"""erase.lua and the job after it: an organisation ends in one step, and nothing of it but its mark is left."""

import asyncio

import pytest

from metering.erasure_errors import ErasureBlocked, OrgErased
from metering.errors import OrgNotFound
from metering.store.correction import Change, adjustment
from metering.store.orgs import OrgChange
from metering.store.removal import Files
from metering.usage import Outcome
from tests.lua.crediting import ANN, credits_of, order
from tests.lua.effecting import effects_of
from tests.lua.erasing import CORRECTOR, DPO, JOB, delivered, erased, erasures_of, left_of, lived, removal_of, sums
from tests.lua.outboxes import CUSTOMER, customer_of, sealed
from tests.lua.scenes import calm, event, lawful
from tests.lua.topping import RULE, attempt, low, topups_of
from tests.lua.vault import WRITER, Worker
from tests.support.servers import StoreServer


async def test_nothing_is_left_but_the_mark_and_the_sums_of_everybody_stay(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await lived(ledger)
        await lived(ledger, "acme-2")  # a name that begins with the other one's
        before = await sums(ledger)
        erasure = await erased(ledger)
        assert (erasure.job_id, erasure.by, erasure.customer, erasure.done_ms) == (JOB, DPO, CUSTOMER, None)
        await lawful(ledger)
        await removal_of(ledger).turn()
        record = ledger.keys.record("acme")
        assert await left_of(ledger) == {record, f"{ledger.keys.shared('erased', ledger.keys.partition('acme'))}#acme"}
        assert b"plan" not in await ledger.client.hkeys(record)
        told = await erasures_of(ledger).find("acme")
        assert told is not None
        assert told.done_ms is not None
        kept = (await ledger.client.config_get("appendonly"))["appendonly"] == "yes"
        assert told.files == (Files.REWRITTEN if kept else Files.NONE)
        after = await sums(ledger)
        assert (after.units, after.taken_out, after.delivered) == (before.units, before.taken_out, before.delivered)
        assert (after.orgs, after.plans["pro"]) == (before.orgs - 1, before.plans["pro"] - 1)
        assert after.events["org_erased"] == 1
        await lawful(ledger)
        assert await ledger.callers[1].orgs.get("acme-2") is not None


async def test_an_erased_name_is_never_used_again(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        text = await lived(ledger)
        await erased(ledger)
        await removal_of(ledger).turn()
        before = await ledger.dump()
        one, (first, second) = ledger.callers[0], ledger.callers
        again = adjustment("acme", Change("checks", -1), "a2", CORRECTOR, minted=False, period_ms=None, at_ms=None)
        for refused in (
            first.counters.track(event("acme", 1, "e0", "checks")),  # knows it from before
            second.counters.track(event("acme", 1)),
            one.orgs.get("acme"),
            one.orgs.update("acme", OrgChange(plan="free"), actor="ann", create=True),
            one.corrections.make(again),
            one.holds.place("acme", "r2", "scans", 1, 60_000),
            credits_of(ledger).grant("acme", order(), ANN),
            topups_of(ledger).set("acme", RULE, CUSTOMER, ANN),
            Worker(ledger).keys.create(WRITER, actor="a"),
            Worker(ledger).keys.page("acme", None, 10),
        ):
            with pytest.raises(OrgErased):
                await refused
        effects = effects_of(ledger)
        assert (await effects.ticket("acme"), await effects.apply("acme", "evt_1", lambda *_: None)) == (0, None)
        assert await one.orgs.living("acme") is None
        assert await Worker(ledger).caller(text) is None
        assert await ledger.dump() == before


async def test_who_repeats_it_is_told_of_the_first(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await lived(ledger)
        first = await erased(ledger)
        again = await erasures_of(ledger, 1).ask("acme", "era_2", ANN, write_off=True)
        assert again == first
        with pytest.raises(OrgNotFound):
            await erased(ledger, "nobody")
        assert await erasures_of(ledger).find("nobody") is None


async def test_many_who_ask_at_once_erase_it_once_while_events_come(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await lived(ledger)
        one, other = ledger.callers
        events = [event("acme", 1, f"x{number}", "checks") for number in range(60)]
        told, *found = await asyncio.gather(
            asyncio.gather(
                *(erasures_of(ledger, n % 2).ask("acme", f"era_{n}", DPO, write_off=True) for n in range(6))
            ),
            *(one.counters.track(some) for some in events[::2]),
            *(other.counters.track(some) for some in events[1::2]),
            return_exceptions=True,
        )
        assert isinstance(told, list)
        assert len({erasure.job_id for erasure in told}) == 1
        assert all(isinstance(outcome, Outcome | OrgErased) for outcome in found), found
        assert (await sums(ledger)).events["org_erased"] == 1
        await removal_of(ledger).turn()
        assert await left_of(ledger) == {
            ledger.keys.record("acme"), f"{ledger.keys.shared('erased', ledger.keys.partition('acme'))}#acme"
        }  # fmt: skip
        await lawful(ledger)


async def test_what_is_still_to_be_billed_keeps_it_until_it_is_given_up(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        await caller.counters.track(event("acme", 14))
        await customer_of(ledger)
        for units, what in ((4, "nobody sealed it"), (4, "it is on its way")):
            with pytest.raises(ErasureBlocked) as refusal:
                await erased(ledger)
            assert refusal.value.extra["blocked_by"][0]["what"] == "overage", what  # type: ignore[index]
            assert f"{units} units" in refusal.value.detail
            if what == "nobody sealed it":
                await sealed(ledger)
        await lawful(ledger)
        assert (await erased(ledger, write_off=True)).given_up == 4
        await removal_of(ledger).turn()
        assert not [key async for key in ledger.client.scan_iter(match="*:b:*")]
        await lawful(ledger)


async def test_overage_of_a_closed_period_counts_too_and_what_nobody_pays_for_does_not(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        caller = ledger.callers[0]
        for org_id in ("acme", "beta"):
            await caller.counters.track(event(org_id, 14))
        await ledger.jump_to(await ledger.now_ms() + 40 * 86_400_000)
        for org_id in ("acme", "beta"):
            await caller.orgs.get(org_id)
        await customer_of(ledger)
        with pytest.raises(ErasureBlocked, match="4 units"):
            await erased(ledger)
        assert (await erased(ledger, "beta")).given_up == 0
        await lawful(ledger)


async def test_a_top_up_that_is_under_way_keeps_it(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        book = await low(ledger)
        await book.begin("acme", attempt(), ANN)
        with pytest.raises(ErasureBlocked, match="top-up"):
            await erased(ledger)
        await book.end("acme", "tu_1", ANN)
        await erased(ledger)


async def test_one_worker_takes_away_and_another_after_its_lease(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await lived(ledger)
        await delivered(ledger, "acme|scans")
        await erased(ledger)
        lease = ledger.keys.shared("eraser", 0)
        await ledger.client.set(lease, "another", ex=60)
        await removal_of(ledger).turn()
        assert (await erasures_of(ledger).find("acme")).done_ms is None  # type: ignore[union-attr]
        await ledger.client.delete(lease)
        await removal_of(ledger).turn()
        assert (await erasures_of(ledger).find("acme")).done_ms is not None  # type: ignore[union-attr]
        assert not await ledger.client.exists(lease)
