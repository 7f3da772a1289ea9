"""API keys against a model, and who gets in with which text."""

import random
import re
from typing import Final

import pytest

from metering.auth import ADMIN, KEYS, USAGE_READ, USAGE_WRITE, Caller
from metering.errors import OrgNotFound
from metering.store.api_key import ApiKey, NewKey, digest_of
from metering.store.api_keys import ApiKeys
from tests.lua.ledger import Ledger
from tests.lua.scenes import lawful
from tests.lua.vault import OPERATOR, WRITER, Worker, vault
from tests.support.monitor import keys_of, monitored, scripts
from tests.support.servers import StoreServer
from tests.support.soak import SEED

STEPS: Final = 220


# ── who gets in ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_key_says_who_calls(store: StoreServer) -> None:
    async with vault(store.url) as (_, [worker]):
        for wanted in (WRITER, OPERATOR):
            key, text = await worker.keys.create(wanted, actor="ann")
            caller = await worker.caller(text)
            assert caller == Caller(f"key:{key.key_id}", wanted.org_id, frozenset(wanted.scopes))


async def test_a_text_that_is_not_the_keys_own_lets_nobody_in(store: StoreServer) -> None:
    async with vault(store.url, partitions=4) as (ledger, [worker]):
        _, text = await worker.keys.create(WRITER, actor="ann")
        _, other = await worker.keys.create(NewKey("x", "beta", (USAGE_WRITE,)), actor="ann")
        head, secret = text[:28], text[28:]
        for wrong in (
            head + "0" * 64,
            head + secret[:-1] + ("0" if secret[-1] != "0" else "1"),
            head + secret[:-1],
            text + "0",
            text.upper(),
            text.replace("mk_live_", "mk_test_"),
            other[:28] + secret,
            head + digest_of(text),
            f"mk_live_fff{'0' * 16}_{secret}",
            f"mk_live_001{'0' * 16}_{secret}",
            f"mk_live_00 {'0' * 16}_{secret}",
            "mk_live_",
            "mk_live_" + "a" * 7000,
            f"mk_live_*_{secret}",
            f"mk_live_{{p00}}:c:_{secret}",
        ):
            assert await worker.caller(wrong) is None, wrong
        assert await worker.caller(text)
        await lawful(ledger)


async def test_an_id_of_a_partition_that_does_not_exist_asks_nobody(store: StoreServer) -> None:
    async with vault(store.url, partitions=4) as (ledger, [worker]):
        await ledger.client.config_resetstat()
        assert await worker.caller(f"mk_live_004{'0' * 16}_{'0' * 64}") is None
        assert "cmdstat_hgetall" not in await ledger.client.info("commandstats")


async def test_a_key_holds_to_its_end_and_not_a_moment_longer(store: StoreServer) -> None:
    """Remembered or not: the memory of a key ends with it."""
    async with vault(store.url) as (_, [worker]):
        end = worker.clock.now_ms() + 3_600_000
        _, text = await worker.keys.create(NewKey("x", "acme", (USAGE_WRITE,), end), actor="ann")
        worker.clock.ahead_ms = end - worker.clock.now_ms() - 20_000
        assert await worker.caller(text)
        header, now_s = f"Bearer {text}".encode(), worker.clock.monotonic()
        assert worker.auth.remembered(header, now_s + 19) is not None
        assert worker.auth.remembered(header, now_s + 20.1) is None
        worker.auth.forget()
        worker.clock.ahead_ms += 20_001
        assert await worker.caller(text) is None


async def test_a_key_of_an_organisation_that_is_gone_lets_nobody_in_and_does_not_make_it_again(
    store: StoreServer,
) -> None:
    async with vault(store.url) as (ledger, [worker]):
        _, text = await worker.keys.create(WRITER, actor="ann")
        await ledger.client.delete(ledger.keys.record("acme"))
        assert await worker.caller(text) is None


@pytest.mark.parametrize(
    "spoil", ["SET {key} x", "HDEL {key} scopes", "HDEL {key} digest", "HSET {key} expires soon", "DEL {key}"]
)
async def test_a_key_that_cannot_be_read_lets_nobody_in(store: StoreServer, spoil: str) -> None:
    async with vault(store.url) as (ledger, [worker]):
        key, text = await worker.keys.create(WRITER, actor="ann")
        name = ledger.keys.api_key(key.key_id)
        if spoil.startswith("SET"):
            await ledger.client.delete(name)
        await ledger.client.execute_command(*spoil.format(key=name).split(" "))
        assert await worker.caller(text) is None
        assert (await worker.keys.page("acme", None, 10))[0] == []


# ── lists ────────────────────────────────────────────────────────────────────────────────────────────────


async def walked(keys: ApiKeys, owner: str | None, limit: int) -> list[ApiKey]:
    """All keys of an owner, page by page."""
    found: list[ApiKey] = []
    cursor = None
    while True:
        page, cursor = await keys.page(owner, cursor, limit)
        assert len(page) <= limit
        found += page
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 3, 500])
async def test_every_key_is_on_exactly_one_page(store: StoreServer, limit: int) -> None:
    async with vault(store.url, partitions=4) as (_, [worker]):
        wanted = [WRITER, NewKey("x", "beta", (USAGE_WRITE,)), OPERATOR, NewKey("y", "acme", (ADMIN,))]
        made = [(await worker.keys.create(one, actor="ann"))[0] for one in wanted * 4]
        for owner in (None, "acme", "beta", ""):
            found = await walked(worker.keys, owner, limit)
            expected = [key for key in made if owner in (None, key.owner)]
            assert sorted(key.key_id for key in found) == sorted(key.key_id for key in expected)


async def test_the_cursor_of_another_owner_shows_nothing_of_it(store: StoreServer) -> None:
    async with vault(store.url, partitions=1) as (_, [worker]):
        for org_id in ("acme", "beta"):
            for _ in range(3):
                await worker.keys.create(NewKey("x", org_id, (USAGE_WRITE,)), actor="ann")
        _, cursor = await worker.keys.page("beta", None, 1)
        for sent in (cursor, f"000{'0' * 16}.beta", f"000{'f' * 16}.", f"fff{'f' * 16}.beta"):
            found, _ = await worker.keys.page("acme", sent, 10)
            assert {key.org_id for key in found} <= {"acme"}


async def test_an_organisation_that_does_not_exist_has_no_list(store: StoreServer) -> None:
    async with vault(store.url) as (_, [worker]):
        with pytest.raises(OrgNotFound):
            await worker.keys.page("gamma", None, 10)


# ── the law ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("spoil", "law"),
    [
        ("DEL {key}", "list = API keys"),
        ("ZREM {list} {member}", "list = API keys"),
        ("ZADD {list} 0 beta|0000000000000000000", "list = API keys"),
        ("HSET {key} org gamma", "API keys belong to organisations"),
        ("HSET {key} created soon", "every figure can be read"),
        ("RENAME {key} {{p01}}:c:000ffffffffffffffff", "lies in the partition of its organisation"),
        ("EXPIRE {key} 1000", "expires by call"),
        ("PERSIST {mark}", "expires by ttl"),
        ("SET {epoch} 1", "is a hash"),
        ("SET {denied} 1", "is a zset"),
    ],
)
async def test_a_spoilt_key_breaks_its_law(store: StoreServer, spoil: str, law: str) -> None:
    async with vault(store.url, partitions=1) as (ledger, [worker]):
        key, _ = await worker.keys.create(WRITER, actor="ann")
        gone, _ = await worker.keys.create(WRITER, actor="ann")
        await worker.keys.delete(gone.key_id, actor="ann")
        await worker.withdrawn.deny("a", None)
        await lawful(ledger)
        names = {
            "key": ledger.keys.api_key(key.key_id),
            "mark": ledger.keys.ended_key(gone.key_id),
            "list": ledger.keys.shared("api_keys", 0),
            "epoch": ledger.keys.shared("epoch", 0),
            "denied": ledger.keys.shared("denied", 0),
            "member": f"acme|{key.key_id}",
        }
        await ledger.client.execute_command(*spoil.format(**names).split(" "))
        assert law in {violation.law for violation in (await ledger.walk()).violations}


class Run:
    """One seeded run of two workers: draws steps, tells the model which keys there are and who knows whom."""

    def __init__(self, ledger: Ledger, workers: list[Worker], seed: int) -> None:
        self.random = random.Random(seed)
        self.ledger, self.workers = ledger, workers
        self.live: dict[str, tuple[str, NewKey]] = {}
        self.dead: dict[str, str] = {}
        self.unseen: dict[str, set[int]] = {}

    async def step(self) -> None:
        kind = self.random.choices([self.create, self.delete, self.ask, self.look, self.list], [4, 2, 8, 3, 2])[0]
        await kind()

    async def create(self) -> None:
        org_id = self.random.choice(["acme", "beta", "gamma", None])
        scopes = self.random.choice([(USAGE_WRITE,), (USAGE_READ, KEYS), (ADMIN,)]) if org_id else (ADMIN,)
        wanted = NewKey("n", org_id, scopes)
        if org_id == "gamma":
            with pytest.raises(OrgNotFound):
                await self.worker().keys.create(wanted, actor="ann")
            return
        key, text = await self.worker().keys.create(wanted, actor="ann")
        self.live[key.key_id] = (text, wanted)

    async def delete(self) -> None:
        key_id = self.random.choice([*self.live, *self.dead, f"000{'0' * 16}"])
        worker = self.random.randrange(len(self.workers))
        await self.workers[worker].keys.delete(key_id, actor="bob")
        if key_id in self.live:
            self.dead[key_id] = self.live.pop(key_id)[0]
            self.unseen[key_id] = set(range(len(self.workers))) - {worker}

    async def ask(self) -> None:
        """A living key always gets in; a dead one only where its end was not seen yet and it was known."""
        for number, worker in enumerate(self.workers):
            for key_id, (text, wanted) in self.live.items():
                caller = await worker.caller(text)
                assert caller == Caller(f"key:{key_id}", wanted.org_id, frozenset(wanted.scopes))
            for key_id, text in self.dead.items():
                if number not in self.unseen[key_id]:
                    assert await worker.caller(text) is None

    async def look(self) -> None:
        number = self.random.randrange(len(self.workers))
        await self.workers[number].withdrawn.look()
        for unseen in self.unseen.values():
            unseen.discard(number)

    async def list(self) -> None:
        for owner in ("acme", "beta", "", None):
            found = await walked(self.worker().keys, owner, self.random.choice([1, 2, 50]))
            expected = {key_id for key_id, (_, wanted) in self.live.items() if owner in (None, wanted.owner)}
            assert {key.key_id for key in found} == expected
        for key_id, (_, wanted) in self.live.items():
            assert await self.worker().keys.owner_of(key_id) == wanted.owner

    def worker(self) -> Worker:
        return self.random.choice(self.workers)


async def agree(server: StoreServer, steps: int = STEPS) -> None:
    """Run a generated sequence on the server and hold every answer against the model, every key against the law."""
    async with vault(server.url, workers=2, partitions=2) as (ledger, workers):
        run = Run(ledger, workers, SEED)
        for number in range(steps):
            try:
                await run.step()
                if number % 20 == 0:
                    await lawful(ledger)
            except AssertionError as error:
                error.add_note(f"repeat with MODEL_SEED={SEED}; step {number}")
                raise
        await lawful(ledger)


async def test_keys_are_what_the_model_says_on_each_server(each_store: StoreServer) -> None:
    await agree(each_store)


async def test_keys_are_what_the_model_says_on_a_cluster(cluster: StoreServer) -> None:
    await agree(cluster, STEPS // 2)


async def test_scripts_touch_only_keys_that_they_declared_in_one_partition_and_see_no_secret() -> None:
    with StoreServer() as server:
        async with monitored(server.address) as lines:
            await agree(server, STEPS // 2)
    calls = [(declared, made) for declared, made in scripts(lines) if made]
    assert len(calls) > 10
    for declared, made in calls:
        assert {key for asked in made for key in keys_of(asked)} <= declared
        assert len({key[: key.index("}")] for key in declared}) == 1
    assert not re.search(r"mk_(live|test)_", "".join(lines))
