"""create_key.lua: a key, its place in the list and its line in the trail come together or not at all."""

import asyncio
import re

import pytest

from metering.auth import ADMIN, KEYS, USAGE_WRITE
from metering.errors import OrgCorrupt, OrgNotFound, TooManyKeys
from metering.store import api_keys
from metering.store.api_key import NewKey, digest_of, id_of
from metering.store.connect import POOL_SIZE
from tests.lua.scenes import lawful
from tests.lua.vault import OPERATOR, WRITER, Worker, run, trail, vault
from tests.support.servers import StoreServer


async def test_a_key_is_kept_by_its_digest_alone_and_told_in_the_trail(each_store: StoreServer) -> None:
    async with vault(each_store.url) as (ledger, [worker]):
        key, text = await worker.keys.create(WRITER, actor="ann")
        stored = await ledger.client.hgetall(ledger.keys.api_key(key.key_id))
        assert {name.decode(): value.decode() for name, value in stored.items()} == {
            "digest": digest_of(text),
            "name": "collector",
            "scopes": f"{USAGE_WRITE} {KEYS}",
            "live": "1",
            "made_by": "ann",
            "org": "acme",
            "created": str(key.created_ms),
        }
        everything = b"".join((await ledger.dump()).values())
        assert text.rpartition("_")[2].encode() not in everything
        told = {"actor": "ann", "key_id": key.key_id, "name": "collector", "scopes": f"{USAGE_WRITE} {KEYS}"}
        assert await trail(ledger, "acme") == [{"type": "key_created", **told}]
        totals = await ledger.client.hget(ledger.keys.shared("totals", ledger.keys.partition("acme")), "e:key_created")
        assert totals == b"1"
        await lawful(ledger)


@pytest.mark.parametrize(("live", "shape"), [(True, "mk_live_"), (False, "mk_test_")])
async def test_a_key_reads_as_what_it_is(store: StoreServer, live: bool, shape: str) -> None:
    async with vault(store.url) as (ledger, _):
        key, text = await Worker(ledger, live=live).keys.create(WRITER, actor="ann")
        assert re.fullmatch(rf"{shape}[0-9a-f]{{19}}_[0-9a-f]{{64}}", text)
        assert (id_of(text), key.live) == (key.key_id, live)
        assert repr(key).find(digest_of(text)) == -1


async def test_no_two_keys_are_alike(store: StoreServer) -> None:
    async with vault(store.url) as (_, [worker]):
        made = await asyncio.gather(*(worker.keys.create(WRITER, actor="ann") for _ in range(POOL_SIZE)))
        assert len({key.key_id for key, _ in made}) == len({text for _, text in made}) == POOL_SIZE


async def test_a_key_for_an_organisation_that_does_not_exist_is_not_made(store: StoreServer) -> None:
    async with vault(store.url) as (ledger, [worker]):
        before = await ledger.dump()
        with pytest.raises(OrgNotFound):
            await worker.keys.create(NewKey("x", "gamma", (USAGE_WRITE,)), actor="ann")
        assert await ledger.dump() == before


@pytest.mark.parametrize("key", [OPERATOR, NewKey("of acme", "acme", (ADMIN,))])
async def test_a_key_that_may_everything_is_administrators_own(store: StoreServer, key: NewKey) -> None:
    async with vault(store.url) as (ledger, [worker]):
        made, _ = await worker.keys.create(key, actor="root")
        assert await worker.keys.owner_of(made.key_id) == ""
        assert (await worker.keys.page("acme", None, 10))[0] == []
        assert (await worker.keys.page(None, None, 10))[0] == [made]
        assert len(await trail(ledger, "acme")) == (0 if key.org_id is None else 1)
        await lawful(ledger)


async def test_the_same_call_again_changes_nothing(store: StoreServer) -> None:
    """As after a reply that was lost."""
    async with vault(store.url) as (ledger, _):
        keys = ledger.keys
        partition = keys.partition("acme")
        key_id = f"{partition:03x}{'0' * 16}"
        names = [keys.api_key(key_id), *(keys.shared(name, partition) for name in ("api_keys", "totals", "clock"))]
        names += [keys.record("acme"), keys.trail("acme")]
        more = ("name", "a", "scopes", KEYS, "live", "1", "made_by", "b", "org", "acme")
        words = (f"acme|{key_id}", "[acme|", "(acme}", 2, len(more), *more, "key_created", "actor", "b")
        code, created = await run(ledger, "create_key", names, "d1", *words)
        before = await ledger.dump()
        assert code == 1
        assert await run(ledger, "create_key", names, "d1", *words) == [1, created]
        assert await run(ledger, "create_key", names, "d2", *words) == [3, 0]
        assert await ledger.dump() == before
        await lawful(ledger)


async def test_an_owner_has_so_many_keys_and_no_more(store: StoreServer) -> None:
    async with vault(store.url) as (ledger, _):
        keys = Worker(ledger, most=5).keys
        made = await asyncio.gather(*(keys.create(WRITER, actor="ann") for _ in range(20)), return_exceptions=True)
        assert sum(isinstance(one, TooManyKeys) for one in made) == 15
        before = await ledger.dump()
        with pytest.raises(TooManyKeys):
            await keys.create(WRITER, actor="ann")
        assert await ledger.dump() == before
        await keys.create(NewKey("x", "beta", (USAGE_WRITE,)), actor="bob")
        await keys.create(NewKey("x", "acme", (ADMIN,)), actor="root")
        await lawful(ledger)


async def test_keys_that_have_expired_make_room(store: StoreServer) -> None:
    async with vault(store.url) as (ledger, _):
        worker = Worker(ledger, most=5)
        soon = NewKey("short", "acme", (USAGE_WRITE,), worker.clock.now_ms() + 60_000)
        for _ in range(4):
            await worker.keys.create(soon, actor="ann")
        kept, text = await worker.keys.create(WRITER, actor="ann")
        worker.clock.ahead_ms = 60_000
        key, _ = await worker.keys.create(WRITER, actor="ann")
        found, _ = await worker.keys.page("acme", None, 10)
        assert {one.key_id for one in found} == {kept.key_id, key.key_id}
        assert await worker.caller(text)
        ended = [entry for entry in await trail(ledger, "acme") if entry["type"] == "key_expired"]
        assert len(ended) == 4
        assert not any("actor" in entry for entry in ended)
        await lawful(ledger)


@pytest.mark.parametrize("spoilt", ["api_keys", "totals", "trail"])
async def test_a_key_of_the_wrong_type_stops_it_with_nothing_written(store: StoreServer, spoilt: str) -> None:
    async with vault(store.url) as (ledger, [worker]):
        partition = ledger.keys.partition("acme")
        name = ledger.keys.trail("acme") if spoilt == "trail" else ledger.keys.shared(spoilt, partition)
        await ledger.client.delete(name)
        await ledger.client.set(name, "x")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await worker.keys.create(WRITER, actor="ann")
        assert await ledger.dump() == before


def test_the_range_of_an_owner_holds_no_other() -> None:
    """In the order of bytes, as the store compares: what begins alike lies outside."""
    low, high = (bound[1:] for bound in api_keys.bounds("acme"))
    inside = [f"acme|{digit * 19}" for digit in "0f"]
    outside = ["acm|0", "acme-1|0", "acme.1|0", "acme0|0", "acmee|0", "acme_|0", "|0", "acmf|0"]
    assert all(low <= name < high for name in inside)
    assert not any(low <= name < high for name in outside)
