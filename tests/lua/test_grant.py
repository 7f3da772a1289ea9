"""grant.lua: credits are given once by the grant's id, and whoever has credits is known to."""

import asyncio
from typing import Any

import pytest

from metering.billing.credit_ledger import CreditLedger
from metering.errors import GrantConflict, Invalid, OrgCorrupt, OrgNotFound, TooManyGrants
from metering.store.pool import pool_from
from plans.credits import GRANTS_MAX, Kind
from tests.lua.crediting import ANN, credits_of, joined, lines_of, order, texts_of
from tests.lua.effecting import effects_of, trail_of
from tests.lua.ledger import Ledger
from tests.lua.scenes import DAY_MS, calm, lawful
from tests.support.servers import StoreServer


async def test_a_grant_stands_in_pool_ledger_and_trail_and_is_read_back(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await joined(ledger)
        book, now_ms = credits_of(ledger), await ledger.now_ms()
        made = await book.grant("acme", order(source={"payment_intent": "pi_1"}, kind=Kind.PAID), ANN)
        assert (made.made, made.balance) == (True, 100)
        assert await lines_of(ledger) == [("granted", "cg_1", 100, 100)]
        entry = (await trail_of(ledger))[-1]
        assert {name: entry[name] for name in ("type", "actor", "reason", "request_id", "grant", "credits")} == {
            "type": "credits_granted", "actor": "ann", "reason": "goodwill", "request_id": "req-1", "grant": "cg_1",
            "credits": "100",
        }  # fmt: skip
        [grant] = await book.grants("acme")
        assert (grant.amount, grant.left, grant.burned, grant.kind) == (100, 100, 0, Kind.PAID)
        assert (grant.source, grant.by, grant.reason) == ({"payment_intent": "pi_1"}, "ann", "goodwill")
        assert 0 <= grant.created_ms - now_ms < 5_000
        await lawful(ledger)


async def test_the_first_grant_makes_every_copy_of_the_organisation_stale_once(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        orgs = ledger.callers[0].orgs
        before = await orgs.get("acme")
        assert before is not None
        claims = [before.claim.revision]
        for name in ("cg_1", "cg_2"):
            await credits_of(ledger).grant("acme", order(name), ANN)
            org = await orgs.get("acme")
            assert org is not None
            assert org.pool
            claims.append(org.claim.revision)
        assert [claim - claims[0] for claim in claims] == [0, 1, 1]
        await lawful(ledger)


async def test_grants_of_one_id_at_the_same_time_make_one(each_store: StoreServer) -> None:
    async with calm(each_store.url) as ledger:
        await joined(ledger)
        books = [credits_of(ledger, caller) for caller in (0, 1, 0, 1)]
        made = await asyncio.gather(*(book.grant("acme", order(), ANN) for book in books))
        assert sorted(one.made for one in made) == [False, False, False, True]
        assert {one.balance for one in made} == {100}
        assert len(await lines_of(ledger)) == 1
        await lawful(ledger)


@pytest.mark.parametrize(
    "other",
    [{"amount": 99}, {"priority": 1}, {"kind": Kind.PAID}, {"scope": "scans"}, {"rollover": 1}, {"effective_ms": 1}],
)
async def test_another_grant_under_the_same_id_is_refused(store: StoreServer, other: dict[str, Any]) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book = credits_of(ledger)
        await book.grant("acme", order(), ANN)
        before = await ledger.dump()
        with pytest.raises(GrantConflict):
            await book.grant("acme", order(**other), ANN)
        assert await ledger.dump() == before


async def test_a_grant_that_has_expired_or_of_nobody_is_refused_and_writes_nothing(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book, now_ms = credits_of(ledger), await ledger.now_ms()
        before = await ledger.dump()
        with pytest.raises(Invalid):
            await book.grant("acme", order(expires_ms=now_ms - 1, effective_ms=now_ms - DAY_MS), ANN)
        with pytest.raises(Invalid):
            await book.grant("acme", order(expires_ms=now_ms + DAY_MS, effective_ms=now_ms + DAY_MS), ANN)
        with pytest.raises(OrgNotFound):
            await book.grant("nobody", order(), ANN)
        assert await ledger.dump() == before


async def test_two_hundred_grants_may_be_open_and_no_more(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book = credits_of(ledger)
        for number in range(GRANTS_MAX):
            await book.grant("acme", order(f"cg_{number}", 1), ANN)
        with pytest.raises(TooManyGrants):
            await book.grant("acme", order("cg_x", 1), ANN)
        await book.revoke("acme", "cg_7", ANN)
        assert (await book.grant("acme", order("cg_x", 1), ANN)).balance == GRANTS_MAX
        await lawful(ledger)


async def test_a_grant_that_begins_later_is_no_balance_yet(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book, later_ms = credits_of(ledger), await ledger.now_ms() + DAY_MS
        assert (await book.grant("acme", order(effective_ms=later_ms), ANN)).balance == 0
        told = await book.balance("acme")
        assert (told.grants, [one.grant_id for one in told.later]) == ([], ["cg_1"])
        await ledger.jump_to(later_ms)
        assert (await credits_of(await seen_again(ledger)).balance("acme")).balance == 100


async def seen_again(ledger: Ledger) -> Ledger:
    """The same after a jump, which its callers have to learn of."""
    for caller in ledger.callers:
        caller.time.test_offset_ms = ledger.offset_ms
    return ledger


async def test_the_first_grant_brings_the_catalogues_low_mark(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book = credits_of(ledger, low=20)
        await book.grant("acme", order(amount=10), ANN)
        told = await book.balance("acme")
        assert (told.low_mark, told.low) == (20, True)
        assert pool_from(await texts_of(ledger, ledger.keys.pool("acme"))).low == 20


@pytest.mark.parametrize("kind", ["pool", "burned", "ledger", "grants", "lapsing", "topups", "trail", "totals"])
async def test_a_key_of_another_type_is_corrupt_and_nothing_is_written(store: StoreServer, kind: str) -> None:
    async with calm(store.url, partitions=1) as ledger:
        await joined(ledger)
        named = {"pool", "burned", "ledger", "grants", "trail"}
        key = getattr(ledger.keys, kind)("acme") if kind in named else ledger.keys.shared(kind, 0)
        await ledger.client.delete(key)
        await ledger.client.set(key, "junk")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await credits_of(ledger).grant("acme", order(), ANN)
        assert await ledger.dump() == before


async def test_a_grant_that_is_no_grant_is_corrupt_and_nothing_is_written(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        await ledger.client.hset(ledger.keys.pool("acme"), "cg_0", "many")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await credits_of(ledger).grant("acme", order(), ANN)
        assert await ledger.dump() == before


async def test_what_was_paid_for_is_credited_though_as_many_grants_are_open_as_may_be(store: StoreServer) -> None:
    source = {"payment_intent": "pi_1", "amount_minor": 900, "currency": "usd"}
    async with calm(store.url) as ledger:
        await joined(ledger)
        book = credits_of(ledger)
        for number in range(GRANTS_MAX):
            await book.grant("acme", order(f"cg_{number}", 1), ANN)
        assert (await book.grant("acme", order("cg_x", 5, kind=Kind.PAID, source=source), ANN)).balance == 205
        with pytest.raises(TooManyGrants):
            await book.grant("acme", order("cg_y", 1), ANN)
        with pytest.raises(TooManyGrants):
            await CreditLedger(book, effects_of(ledger)).check_room("acme")


async def test_a_grant_whose_money_is_gone_already_is_made_frozen(store: StoreServer) -> None:
    async with calm(store.url) as ledger:
        await joined(ledger)
        book = credits_of(ledger)
        assert (await book.grant("acme", order(held=True), ANN)).balance == 0
        assert not (await book.grant("acme", order(), ANN)).made
        assert (await book.find("acme", "cg_1")).frozen
        assert await book.thaw("acme", "cg_1", ANN, ticket=1) == 100
        await lawful(ledger)
