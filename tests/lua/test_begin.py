"""begin.lua and finish.lua: one try runs, its answer is kept for the others, and a try that died is given up."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from metering.store.connect import connect
from metering.store.keys import Keys
from metering.store.scripts import script
from tests.support.servers import StoreServer
from tests.support.soak import SEED
from tests.support.wait import await_until

PLACE: Final = Keys(1).kept("0" * 32)
LEASE_MS: Final = 30_000
KEEP_MS: Final = 86_400_000


async def run(client: Redis, name: str, *arguments: Any) -> Any:
    words: Sequence[Any] = ("EVAL", script(name).text, 1, PLACE, *arguments)
    return await client.execute_command(*words)  # type: ignore[no-untyped-call]


async def begin(client: Redis, token: str, request: str = "r", lease_ms: int = LEASE_MS) -> list[Any]:
    reply: list[Any] = await run(client, "begin", token, request, lease_ms)
    return reply


async def finish(client: Redis, token: str, answer: str = "", request: str = "r") -> int:
    reply: int = await run(client, "finish", token, request, answer, KEEP_MS)
    return reply


async def test_the_first_try_runs_and_the_others_wait_for_it(each_store: StoreServer) -> None:
    async with connect(each_store.url) as client:
        assert await begin(client, "a") == [1]
        state, left_ms = await begin(client, "b")
        assert state == 4
        assert LEASE_MS - 5_000 < left_ms <= LEASE_MS


async def test_a_begin_whose_reply_was_lost_may_be_repeated(each_store: StoreServer) -> None:
    async with connect(each_store.url) as client:
        assert await begin(client, "a") == await begin(client, "a") == [1]


async def test_a_begin_that_is_repeated_has_its_whole_lease(each_store: StoreServer) -> None:
    async with connect(each_store.url) as client:
        await begin(client, "a", lease_ms=5_000)
        await begin(client, "a")
        assert await client.pttl(PLACE) > LEASE_MS - 5_000


async def test_another_request_under_the_key_is_told_at_once_and_ever_after(each_store: StoreServer) -> None:
    async with connect(each_store.url) as client:
        await begin(client, "a")
        assert await begin(client, "b", "other") == [3]
        await finish(client, "a", "done")
        assert await begin(client, "b", "other") == [3]
        assert await begin(client, "b") == [2, b"done"]


async def test_a_refusal_writes_nothing(each_store: StoreServer) -> None:
    async with connect(each_store.url) as client:
        await begin(client, "a")
        before = await client.dump(PLACE)
        await begin(client, "b")
        await begin(client, "b", "other")
        await finish(client, "b", "done")
        await finish(client, "b")
        assert await client.dump(PLACE) == before


async def test_an_answer_is_kept_for_its_time_and_every_byte_of_it(each_store: StoreServer) -> None:
    answer = bytes(range(256)).decode("latin-1")
    async with connect(each_store.url) as client:
        await begin(client, "a")
        assert await finish(client, "a", answer) == 1
        assert await begin(client, "b") == [2, answer.encode()]
        assert KEEP_MS - 60_000 < await client.pttl(PLACE) <= KEEP_MS


async def test_a_finish_whose_reply_was_lost_may_be_repeated(each_store: StoreServer) -> None:
    async with connect(each_store.url) as client:
        await begin(client, "a")
        assert await finish(client, "a", "done") == await finish(client, "a", "done") == 1
        assert await begin(client, "b") == [2, b"done"]


async def test_a_forgotten_request_runs_again_under_any_content(each_store: StoreServer) -> None:
    async with connect(each_store.url) as client:
        await begin(client, "a")
        assert await finish(client, "a") == await finish(client, "a") == 1
        assert await client.exists(PLACE) == 0
        assert await begin(client, "b", "other") == [1]


async def test_an_answer_is_not_forgotten_by_its_own_try(each_store: StoreServer) -> None:
    """A forget that a lost connection delivers late must not undo what was kept."""
    async with connect(each_store.url) as client:
        await begin(client, "a")
        await finish(client, "a", "done")
        assert await finish(client, "a") == 1
        assert await begin(client, "b") == [2, b"done"]


async def test_a_try_that_died_is_given_up_when_its_lease_ends(each_store: StoreServer) -> None:
    async with connect(each_store.url) as client:
        await begin(client, "a", lease_ms=20)

        async def given_up() -> bool:
            return await begin(client, "b") == [1]

        await await_until(given_up, timeout_s=5, what="the lease ends")
        assert await finish(client, "a", "late") == 0
        assert await finish(client, "b", "done") == 1
        assert await begin(client, "c") == [2, b"done"]


async def test_a_late_answer_is_kept_where_nobody_runs_it_again(each_store: StoreServer) -> None:
    async with connect(each_store.url) as client:
        await begin(client, "a")
        await client.delete(PLACE)
        assert await finish(client, "a", "late") == 1
        assert await begin(client, "b") == [2, b"late"]
        assert await begin(client, "b", "other") == [3]


@dataclass(slots=True)
class Model:
    """What is kept under one key: nothing, a running try, or an answer."""

    token: str | None = None
    request: str = ""
    answer: str | None = None

    def begin(self, token: str, request: str) -> list[Any]:
        if self.token is None:
            self.token, self.request, self.answer = token, request, None
            return [1]
        if self.request != request:
            return [3]
        if self.answer is not None:
            return [2, self.answer.encode()]
        return [1] if self.token == token else [4]

    def finish(self, token: str, answer: str, request: str) -> int:
        if self.token not in (None, token):
            return 0
        if self.answer is None and answer:
            self.token, self.request, self.answer = token, request, answer
        elif self.answer is None:
            self.token = None
        return 1

    def lapse(self) -> None:
        self.token, self.answer = None, None


@pytest.mark.parametrize("seed", [SEED, SEED + 1, SEED + 2])
async def test_any_sequence_of_tries_does_what_the_model_says(each_store: StoreServer, seed: int) -> None:
    drawn = random.Random(seed)
    model = Model()
    async with connect(each_store.url) as client:
        for _ in range(400):
            token, request = drawn.choice("abc"), drawn.choice(["r", "r", "r", "s"])
            verb = drawn.choice(["begin", "begin", "finish", "forget", "lapse"])
            if verb == "begin":
                assert (await begin(client, token, request))[:1] == model.begin(token, request)[:1], seed
            elif verb == "lapse":
                await client.delete(PLACE)
                model.lapse()
            else:
                answer = f"answer of {token}" if verb == "finish" else ""
                assert await finish(client, token, answer, request) == model.finish(token, answer, request), seed
            kept = await client.hget(PLACE, "answer")
            assert kept == (None if model.answer is None else model.answer.encode()), seed
            assert await client.exists(PLACE) == int(model.token is not None), seed
            assert (await client.pttl(PLACE) > 0) == (model.token is not None), seed
