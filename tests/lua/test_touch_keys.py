"""touch_keys.lua: when a key was last used is noted now and then, and never brings a key back."""

from metering.store.api_keys import USED_AGAIN_MS
from tests.lua.scenes import commands, lawful
from tests.lua.vault import OPERATOR, WRITER, run, vault
from tests.support.servers import StoreServer


async def test_a_use_is_noted_by_the_next_turn_and_not_again_for_a_while(store: StoreServer) -> None:
    async with vault(store.url) as (ledger, [worker]):
        key, text = await worker.keys.create(WRITER, actor="ann")
        assert key.used_ms is None
        await worker.caller(text)
        first_ms = worker.clock.now_ms()
        await worker.keys.note_uses()
        [found], _ = await worker.keys.page("acme", None, 10)
        assert found.used_ms is not None
        assert abs(found.used_ms - first_ms) < 10_000
        for ahead_ms, later in ((USED_AGAIN_MS // 2, False), (USED_AGAIN_MS + 10_000, True)):
            worker.clock.ahead_ms = ahead_ms
            worker.auth.forget()
            await worker.caller(text)
            await worker.keys.note_uses()
            [again], _ = await worker.keys.page("acme", None, 10)
            assert (again.used_ms != found.used_ms) is later
        await lawful(ledger)


async def test_a_turn_without_uses_asks_nobody(store: StoreServer) -> None:
    async with vault(store.url) as (ledger, [worker]):
        await ledger.client.config_resetstat()
        await worker.keys.note_uses()
        assert set(await commands(ledger)) <= {"config|resetstat", "info"}


async def test_requests_of_a_known_key_ask_nobody(store: StoreServer) -> None:
    async with vault(store.url) as (ledger, [worker]):
        _, text = await worker.keys.create(WRITER, actor="ann")
        await worker.caller(text)
        await ledger.client.config_resetstat()
        for _ in range(100):
            await worker.caller(text)
        assert set(await commands(ledger)) <= {"config|resetstat", "info"}


async def test_uses_of_several_partitions_and_of_deleted_keys_are_noted_as_they_should(store: StoreServer) -> None:
    async with vault(store.url, partitions=4) as (ledger, [worker]):
        made = [await worker.keys.create(OPERATOR, actor="root") for _ in range(12)]
        for _, text in made:
            await worker.caller(text)
        gone, _ = made[0]
        await worker.keys.delete(gone.key_id, actor="root")
        await worker.keys.note_uses()
        found, _ = await worker.keys.page(None, None, 50)
        assert len(found) == 11
        assert all(key.used_ms for key in found)
        assert not await ledger.client.exists(ledger.keys.api_key(gone.key_id))
        await lawful(ledger)


async def test_an_earlier_use_does_not_hide_a_later_one(store: StoreServer) -> None:
    async with vault(store.url) as (ledger, [worker]):
        key, _ = await worker.keys.create(WRITER, actor="ann")
        name = ledger.keys.api_key(key.key_id)
        absent = ledger.keys.api_key(f"{ledger.keys.partition('acme'):03x}{'0' * 16}")
        noted = [await run(ledger, "touch_keys", [name, absent], at, at) for at in (2_000, 1_000, 2_000, 3_000)]
        assert noted == [1, 0, 0, 1]
        assert (await ledger.client.hget(name, "used"), await ledger.client.exists(absent)) == (b"3000", 0)
