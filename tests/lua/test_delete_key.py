"""delete_key.lua: a key ends with its place in the list and a line in the trail, once, whatever is wrong besides."""

import pytest

from metering.auth import ADMIN
from metering.errors import OrgCorrupt
from metering.store.api_key import NewKey
from metering.store.api_keys import MARK_MS
from tests.lua.scenes import lawful
from tests.lua.vault import OPERATOR, WRITER, run, trail, vault
from tests.support.servers import StoreServer


async def test_a_deleted_key_lets_nobody_in_and_leaves_a_mark_for_a_while(each_store: StoreServer) -> None:
    async with vault(each_store.url) as (ledger, [worker]):
        key, text = await worker.keys.create(WRITER, actor="ann")
        assert await worker.caller(text)
        await worker.keys.delete(key.key_id, actor="bob")
        assert await worker.caller(text) is None
        assert not await ledger.client.exists(ledger.keys.api_key(key.key_id))
        mark = ledger.keys.ended_key(key.key_id)
        assert await ledger.client.get(mark) == b"acme"
        assert 0 < await ledger.client.pttl(mark) <= MARK_MS
        assert [(entry["type"], entry["actor"]) for entry in await trail(ledger, "acme")] == [
            ("key_created", "ann"),
            ("key_deleted", "bob"),
        ]
        assert (await worker.keys.page("acme", None, 10))[0] == []
        await lawful(ledger)


async def test_deleting_again_changes_nothing_but_tells_every_worker_again(store: StoreServer) -> None:
    async with vault(store.url) as (ledger, [worker]):
        key, _ = await worker.keys.create(WRITER, actor="ann")
        await worker.keys.delete(key.key_id, actor="bob")
        before = await ledger.dump()
        await worker.keys.delete(key.key_id, actor="bob")
        after = await ledger.dump()
        assert {name for name in after if after[name] != before.get(name)} == {ledger.keys.shared("epoch", 0)}
        assert await worker.keys.owner_of(key.key_id) == "acme"


@pytest.mark.parametrize("key", [WRITER, OPERATOR, NewKey("of acme", "acme", (ADMIN,))])
async def test_whose_a_deleted_key_was_is_known_for_a_while(store: StoreServer, key: NewKey) -> None:
    async with vault(store.url) as (ledger, [worker]):
        made, _ = await worker.keys.create(key, actor="ann")
        assert await worker.keys.owner_of(made.key_id) == key.owner
        await worker.keys.delete(made.key_id, actor="bob")
        assert await worker.keys.owner_of(made.key_id) == key.owner
        await ledger.client.delete(ledger.keys.ended_key(made.key_id))
        assert await worker.keys.owner_of(made.key_id) is None
        await lawful(ledger)


@pytest.mark.parametrize("key_id", ["0" * 19, "fff" + "0" * 16, "001" + "f" * 16])
async def test_nobody_owns_a_key_that_never_was(store: StoreServer, key_id: str) -> None:
    async with vault(store.url) as (_, [worker]):
        assert await worker.keys.owner_of(key_id) is None


async def test_the_answers_of_the_script(store: StoreServer) -> None:
    async with vault(store.url) as (ledger, [worker]):
        key, _ = await worker.keys.create(WRITER, actor="ann")
        keys, partition = ledger.keys, ledger.keys.partition("acme")
        names = [keys.api_key(key.key_id), keys.ended_key(key.key_id)]
        names += [*(keys.shared(name, partition) for name in ("api_keys", "totals", "clock")), keys.trail("acme")]
        words = (f"acme|{key.key_id}", "acme", 60_000, "key_deleted", "actor", "bob")
        assert [await run(ledger, "delete_key", names, *words) for _ in range(3)] == [1, 2, 2]
        names[1] = keys.ended_key(f"{partition:03x}{'0' * 16}")
        before = await ledger.dump()
        assert await run(ledger, "delete_key", names, *words) == 0
        assert await ledger.dump() == before
        await lawful(ledger)


@pytest.mark.parametrize("skew_ms", [-3_600_000, 3_600_000])
async def test_clocks_that_differ_do_not_keep_a_key(store: StoreServer, skew_ms: int) -> None:
    async with vault(store.url) as (_, [worker]):
        key, text = await worker.keys.create(WRITER, actor="ann")
        worker.clock.ahead_ms = skew_ms
        await worker.keys.delete(key.key_id, actor="bob")
        assert await worker.caller(text) is None


@pytest.mark.parametrize("spoilt", ["api_keys", "totals"])
async def test_a_key_of_the_wrong_type_stops_it_with_nothing_written(store: StoreServer, spoilt: str) -> None:
    async with vault(store.url) as (ledger, [worker]):
        key, _ = await worker.keys.create(WRITER, actor="ann")
        name = ledger.keys.shared(spoilt, ledger.keys.partition("acme"))
        await ledger.client.delete(name)
        await ledger.client.set(name, "x")
        before = await ledger.dump()
        with pytest.raises(OrgCorrupt):
            await worker.keys.delete(key.key_id, actor="bob")
        assert await ledger.dump() == before
