"""Idempotency-Key over routes of the test's own: what runs, what is answered again, what is kept and how."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final

import pytest
from pydantic import BaseModel, ConfigDict

from metering.api.keyed import run
from metering.api.route import Call, Reply, Route, json_reply
from metering.auth import ADMIN, USAGE_WRITE
from metering.errors import (
    EventConflict,
    InternalError,
    OrgNotFound,
    Overloaded,
    Problem,
    QuotaExceeded,
    StorageUnavailable,
    VersionConflict,
)
from metering.store.connect import REPLY_TIMEOUT_S
from metering.store.ephemeral import ephemeral_store
from metering.store.kept import KEPT_BYTES_MAX, LEASE_S, RUN_S
from tests.service.hosting import KEEP_S, Answered, Host
from tests.service.running import token
from tests.support.fixtures import store, store_session
from tests.support.proxy import Proxy
from tests.support.servers import StoreServer
from tests.support.wait import await_until

__all__ = ["store", "store_session"]

RANDOM: Final = "0f8fad5b-d9cb-469f-a165-70867728950e"


class Asked(BaseModel):
    """Any body."""

    model_config = ConfigDict(extra="allow")


class Answer(BaseModel):
    """Any answer."""


@dataclass(slots=True)
class Work:
    """A handler that counts its runs, waits where it is told to, and does what `then` says."""

    then: Callable[[Call], Awaitable[Reply]] | None = None
    runs: int = 0
    names: list[str | None] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, call: Call) -> Reply:
        self.runs += 1
        self.names.append(call.idempotency_key)
        number = self.runs
        await self.go.wait()
        if self.then is not None:
            return await self.then(call)
        return json_reply({"run": number}, 201, {"Location": f"/done/{number}"})


@asynccontextmanager
async def hosted(url: str, work: Work, *, waits: bool = False, **more: Any) -> AsyncIterator[Host]:
    """One worker with POST, PUT and DELETE routes on `work`; without `waits` the work runs through."""
    if not waits:
        work.go.set()
    routes = [
        Route(
            "POST", "/do", "Do", USAGE_WRITE, "test", work, {201: Answer}, request=Asked, aliases=("/older",), **more
        ),
        Route("PUT", "/do", "Do", USAGE_WRITE, "test", work, {201: Answer}, request=Asked),
        Route("DELETE", "/do", "Undo", USAGE_WRITE, "test", work, {201: Answer}),
        Route("GET", "/do", "Look", USAGE_WRITE, "test", work, {201: Answer}),
        Route("POST", "/look", "Look", USAGE_WRITE, "test", work, {201: Answer}, request=Asked, reads=True),
        Route("POST", "/open", "Open", "", "test", work, {201: Answer}, request=Asked),
    ]
    host = Host(url, *routes)
    try:
        yield host
    finally:
        work.go.set()
        await host.close()


def raising(problem: Exception) -> Callable[[Call], Awaitable[Reply]]:
    async def refuse(_: Call) -> Reply:
        raise problem

    return refuse


def answering(reply: Reply) -> Callable[[Call], Awaitable[Reply]]:
    async def answer(_: Call) -> Reply:
        return reply

    return answer


# ── the same again ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_the_same_request_runs_once_and_is_answered_again_byte_for_byte(store: StoreServer, method: str) -> None:
    work = Work()
    async with hosted(store.url, work) as host:
        first = await host.ask(RANDOM, method=method)
        again = [await host.ask(RANDOM, method=method) for _ in range(3)]
        assert (first.status, first.body, first.headers["location"]) == (201, b'{"run":1}', "/done/1")
        assert "idempotency-replayed" not in first.headers
        for one in again:
            assert one.replayed
            assert (one.status, one.body) == (first.status, first.body)
            assert {**one.headers, "x-request-id": ""} == {
                **first.headers, "x-request-id": "", "idempotency-replayed": "true",
            }  # fmt: skip
        assert work.runs == 1


async def test_a_store_in_memory_keeps_answers_too() -> None:
    work = Work()
    work.go.set()
    with ephemeral_store() as url:
        host = Host(
            url,
            Route("POST", "/do", "Do", USAGE_WRITE, "test", work, {201: Answer}, request=Asked),
            retries=3,
            fake=True,
        )
        assert [(await host.ask(RANDOM)).replayed for _ in range(2)] == [False, True]
        assert (await host.ask(RANDOM, body=b'{"a":1}')).code == "idempotency-key-reused"
        work.then = raising(Overloaded())
        assert [(await host.ask("other")).code for _ in range(2)] == ["overloaded", "overloaded"]
        await host.close()


async def test_without_the_header_every_request_runs_and_nothing_is_asked_of_the_store(store: StoreServer) -> None:
    work = Work()
    async with hosted("unix:///nowhere/s", work) as host:
        assert [(await host.ask()).body for _ in range(2)] == [b'{"run":1}', b'{"run":2}']
        assert work.names == [None, None]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("key", [RANDOM, "", "no key at all", '"'])
async def test_requests_that_only_read_ignore_the_header(store: StoreServer, method: str, key: str) -> None:
    work = Work()
    async with hosted("unix:///nowhere/s", work) as host:
        assert [(await host.ask(key, method=method)).status for _ in range(2)] == [201, 201]
        assert (await host.ask(key, path="/look")).status == 201
        assert work.names == [None, None, None]


async def test_an_open_route_has_no_caller_whose_key_it_could_be(store: StoreServer) -> None:
    work = Work()
    async with hosted("unix:///nowhere/s", work) as host:
        assert [(await host.ask(RANDOM, path="/open")).body for _ in range(2)] == [b'{"run":1}', b'{"run":2}']


async def test_the_two_ways_to_write_a_key_name_the_same(store: StoreServer) -> None:
    work = Work()
    async with hosted(store.url, work) as host:
        first = await host.ask("a-b:c/d+e=")
        assert (await host.ask('"a-b:c/d+e="')).body == first.body
        assert (await host.ask(r'"a \"b\" \\c"')).body == b'{"run":2}'
        assert (await host.ask(r'"a \"b\" \\c"')).replayed


@pytest.mark.parametrize(
    "key",
    ["", " ", "a b", "a,b", "a;b", 'a"b', '"', '""', '"a', '"a"b', '"a";p=1', r'"a\b"', "a\\b", "a\tb", "\xe9",
     "a" * 256, '"' + "a" * 256 + '"', '"a\x7f"'],
)  # fmt: skip
async def test_a_key_that_is_none_is_told_and_nothing_runs(store: StoreServer, key: str) -> None:
    work = Work()
    async with hosted(store.url, work) as host:
        refused = await host.ask(key)
        assert (refused.status, refused.code, work.runs) == (422, "validation", 0)
        assert b"Idempotency-Key" in refused.body
        assert await host.kept_keys() == []


@pytest.mark.parametrize("key", ["!", "a" * 255, '"' + "a" * 255 + '"', '" "', "~!#$%&'()*+-./:<=>?@[]^_`{|}"])
async def test_every_other_key_is_taken(store: StoreServer, key: str) -> None:
    work = Work()
    async with hosted(store.url, work) as host:
        assert [(await host.ask(key)).replayed for _ in range(2)] == [False, True]


async def test_a_key_given_twice_is_refused(store: StoreServer) -> None:
    work = Work()
    async with hosted(store.url, work) as host:
        refused = await host.ask("a", idempotency_key="b")
        assert (refused.status, work.runs) == (422, 0)


# ── another request ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "other",
    [
        {"body": b'{"a":1}'},
        {"body": b"{} "},
        {"method": "PUT"},
        {"path": "/older"},
        {"query": "detail=none"},
        {"content_type": "application/json; charset=utf-8"},
        {"if_match": '"a"'},
        {"ce_id": "a1"},
    ],
    ids=str,
)
async def test_another_request_under_the_same_key_is_refused(store: StoreServer, other: dict[str, Any]) -> None:
    work = Work()
    async with hosted(store.url, work) as host:
        first = await host.ask(RANDOM)
        refused = await host.ask(RANDOM, **other)
        assert (refused.status, refused.code, refused.replayed) == (422, "idempotency-key-reused", False)
        assert (await host.ask(RANDOM)).body == first.body
        assert work.runs == 1


@pytest.mark.parametrize("other", [{"x_request_id": "r-2"}, {"user_agent": "other"}, {"traceparent": "00-1"}], ids=str)
async def test_headers_that_ask_for_nothing_make_no_other_request(store: StoreServer, other: dict[str, Any]) -> None:
    work = Work()
    async with hosted(store.url, work) as host:
        await host.ask(RANDOM)
        assert (await host.ask(RANDOM, **other)).replayed


async def test_another_caller_with_the_same_key_is_somebody_else(store: StoreServer) -> None:
    """Another organisation, another subject, and an administrator of the same name and organisation."""
    callers = [
        token("org-1"), token("org-2"), token("org-1", sub="other"), token("org-1", ADMIN), token(None, ADMIN),
        token("org-1t", sub="ester"), token("org-1tester", sub=""),
    ]  # fmt: skip
    work = Work()
    async with hosted(store.url, work) as host:
        bearers = [bearer for bearer in callers if bearer != token(None)]
        bodies = [(await host.ask(RANDOM, bearer=bearer)).body for bearer in bearers]
        assert len(set(bodies)) == len(bearers) == work.runs
        assert len(set(work.names)) == len(bearers)
        again = [await host.ask(RANDOM, bearer=bearer) for bearer in bearers]
        assert [(one.body, one.replayed) for one in again] == [(body, True) for body in bodies]


async def test_where_the_name_of_a_caller_ends_its_key_begins(store: StoreServer) -> None:
    work = Work()
    async with hosted(store.url, work) as host:
        await host.ask("xkey", bearer=token("org-1", sub="ann"))
        assert (await host.ask("key", bearer=token("org-1", sub="annx"))).body == b'{"run":2}'


async def test_a_renewed_token_is_the_same_caller(store: StoreServer) -> None:
    work = Work()
    async with hosted(store.url, work) as host:
        await host.ask(RANDOM, bearer=token("org-1", jti="1"))
        assert (await host.ask(RANDOM, bearer=token("org-1", USAGE_WRITE, jti="2"))).replayed


async def test_the_handler_is_told_a_name_that_is_the_same_for_every_repeat_and_for_nothing_else(
    store: StoreServer,
) -> None:
    work = Work(raising(Overloaded()))
    async with hosted(store.url, work) as host:
        for key, body in (("a", b"{}"), ("a", b"{}"), ("a", b'{"x":1}'), ("b", b"{}")):
            await host.ask(key, body=body)
        first, second, other_body, other_key = work.names
        assert first == second
        assert len({first, other_body, other_key}) == 3
        assert all(name is not None and len(name) == 32 for name in work.names)


# ── at the same time ─────────────────────────────────────────────────────────────────────────────────────


async def test_while_it_runs_the_same_request_is_told_to_come_back(store: StoreServer) -> None:
    work = Work()
    async with hosted(store.url, work, waits=True) as host:
        running = asyncio.create_task(host.ask(RANDOM))
        await await_until(lambda: work.runs, timeout_s=5, what="the first runs")
        refused = await host.ask(RANDOM)
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (409, "idempotency-in-progress", "1")
        assert (await host.ask(RANDOM, body=b'{"a":1}')).code == "idempotency-key-reused"
        work.go.set()
        first = await running
        assert (await host.ask(RANDOM)).body == first.body
        assert work.runs == 1


async def test_of_20_at_once_on_two_workers_one_runs(store: StoreServer) -> None:
    work = Work()
    async with hosted(store.url, work) as one, hosted(store.url, work) as two:
        found: list[Answered] = await asyncio.gather(*((one, two)[n % 2].ask(RANDOM) for n in range(20)))
        assert work.runs == 1
        assert {(a.status, a.body) for a in found if a.status == 201} == {(201, b'{"run":1}')}
        assert {a.code for a in found if a.status != 201} <= {"idempotency-in-progress"}
        assert (await two.ask(RANDOM)).body == b'{"run":1}'


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "problem",
    [OrgNotFound(), QuotaExceeded("3 of 3", org_id="o", limit=3), EventConflict()],
    ids=lambda problem: problem.code,
)
async def test_a_refusal_that_the_handler_decided_is_given_again(store: StoreServer, problem: Problem) -> None:
    work = Work(raising(problem))
    async with hosted(store.url, work) as host:
        first, again = await host.ask(RANDOM), await host.ask(RANDOM)
        assert (first.status, first.code) == (problem.status, problem.code)
        assert (again.status, again.body, again.replayed) == (first.status, first.body, True)
        assert again.headers["content-type"] == "application/problem+json"
        assert again.headers["x-request-id"] != first.headers["x-request-id"]
        assert work.runs == 1


@pytest.mark.parametrize(
    "then",
    [
        raising(StorageUnavailable()),
        raising(Overloaded()),
        raising(VersionConflict()),
        raising(InternalError()),
        raising(RuntimeError("nobody foresaw this")),
        raising(TimeoutError("nor this")),
        answering(Reply(b"{}", 503)),
    ],
    ids=["storage", "overloaded", "retryable conflict", "internal", "unforeseen", "time-out of its own", "reply 503"],
)
async def test_what_may_succeed_later_is_not_kept_and_runs_again(
    store: StoreServer, then: Callable[[Call], Awaitable[Reply]]
) -> None:
    work = Work(then)
    async with hosted(store.url, work) as host:
        failed = await host.ask(RANDOM)
        assert failed.status in {409, 500, 503}
        assert await host.kept_keys() == []
        work.then = None
        assert (await host.ask(RANDOM)).body == b'{"run":2}'


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"bearer": "x.y.z"}, 401),
        ({"bearer": token("org-1", "none")}, 403),
        ({"content_type": "text/plain"}, 415),
        ({"body": b"{"}, 400),
        ({"body": b"[]"}, 422),
    ],
)
async def test_what_was_refused_before_the_handler_is_not_kept(
    store: StoreServer, wrong: dict[str, Any], status: int
) -> None:
    work = Work()
    async with hosted(store.url, work) as host:
        assert (await host.ask(RANDOM, **wrong)).status == status
        assert await host.kept_keys() == []
        assert (await host.ask(RANDOM)).status == 201


async def test_a_run_that_does_not_end_is_cut_off_before_its_lease_ends(store: StoreServer) -> None:
    assert RUN_S + 2 * REPLY_TIMEOUT_S < LEASE_S
    work = Work()
    async with hosted(store.url, work, waits=True) as host:
        one = host.kept.attempt(("", "org-1", "ann"), RANDOM, [b"POST"])
        services: Any = SimpleNamespace(kept=host.kept)
        with pytest.raises(StorageUnavailable, match="not done after"):
            await run(work, Call(services, {}, {}), one, run_s=0.01)
        assert work.runs == 1
        assert await host.kept_keys() == []


async def test_an_answer_is_kept_for_the_hours_of_the_setting(store: StoreServer) -> None:
    async with hosted(store.url, Work()) as host:
        await host.ask(RANDOM)
        [key] = await host.kept_keys()
        assert KEEP_S - 60 < await host.client.ttl(key) <= KEEP_S


async def test_an_answer_without_a_body_is_given_again_without_one(store: StoreServer) -> None:
    work = Work(answering(Reply(b"", 204)))
    async with hosted(store.url, work) as host:
        answers = [await host.ask(RANDOM) for _ in range(2)]
        assert [(one.status, one.body, one.replayed) for one in answers] == [(204, b"", False), (204, b"", True)]


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 100_000])
async def test_an_answer_of_any_size_is_given_again_as_it_was(store: StoreServer, size: int) -> None:
    body = b"\n\x00\xff" + b'{"a":"b"},' * (size // 10) + b"x" * (size % 10)
    work = Work(answering(Reply(body, 200, b"text/csv", {"Content-Disposition": 'attachment; filename="a.csv"'})))
    async with hosted(store.url, work) as host:
        answers = [await host.ask(RANDOM) for _ in range(2)]
        assert [(one.body, one.headers["content-type"]) for one in answers] == [(body, "text/csv")] * 2
        assert answers[1].headers["content-disposition"] == 'attachment; filename="a.csv"'
        [key] = await host.kept_keys()
        assert await host.client.memory_usage(key) < KEPT_BYTES_MAX


@pytest.mark.parametrize("body", [b"%d " * 50_000 % tuple(range(7, 50_007)), b"a" * 3_000_000], ids=["rich", "long"])
async def test_an_answer_too_large_to_keep_is_not_given_again_and_does_not_run_again(
    store: StoreServer, body: bytes
) -> None:
    work = Work(answering(Reply(body)))
    async with hosted(store.url, work) as host:
        assert (await host.ask(RANDOM)).body == body
        again = await host.ask(RANDOM)
        assert (again.status, again.code, work.runs) == (409, "idempotency-not-kept", 1)
        [key] = await host.kept_keys()
        assert await host.client.memory_usage(key) < 1_000


async def test_nothing_in_the_store_tells_the_key_the_caller_or_the_answer(store: StoreServer) -> None:
    work = Work(answering(Reply(b'{"api_key":"mk_canary"}')))
    async with hosted(store.url, work) as host:
        await host.ask("canary-key", bearer=token("org-canary", sub="ann-canary"))
        [key] = await host.kept_keys()
        stored: dict[bytes, bytes] = await host.client.hgetall(key)
        assert b"canary" not in b"".join([key.encode(), *stored, *stored.values()])


async def test_an_answer_that_somebody_spoilt_is_not_given(store: StoreServer) -> None:
    work = Work()
    async with hosted(store.url, work) as host:
        await host.ask(RANDOM)
        [key] = await host.kept_keys()
        for junk in (b"", b"junk", bytes(40)):
            await host.client.hset(key, "answer", junk)
            assert (await host.ask(RANDOM)).code == "idempotency-not-kept"
        assert work.runs == 1


@pytest.mark.parametrize("key", ["order-1042", '"' + "a" * 19 + '"'])
async def test_a_secret_is_sealed_with_nothing_that_can_be_guessed(store: StoreServer, key: str) -> None:
    work = Work()
    async with hosted(store.url, work, secret=True) as host:
        refused = await host.ask(key)
        assert (refused.status, refused.code, work.runs) == (422, "validation", 0)
        assert b"20 characters" in refused.body
        assert [(await host.ask("a" * 20)).replayed for _ in range(2)] == [False, True]


# ── when something fails ─────────────────────────────────────────────────────────────────────────────────


async def loaded(store: StoreServer) -> None:
    """Let the store know the scripts, so that one call is one message."""
    async with hosted(store.url, Work()) as host:
        await host.ask("warm")
    assert store.say("FLUSHALL", "SYNC").startswith("+OK")


async def test_without_a_store_nothing_runs(store: StoreServer) -> None:
    work = Work()
    async with hosted("unix:///nowhere/s", work) as host:
        refused = await host.ask(RANDOM)
        assert (refused.status, refused.code, work.runs) == (503, "storage-unavailable", 0)
        assert refused.headers["retry-after"] == "1"


async def test_a_store_that_is_gone_at_the_end_does_not_take_the_answer_along(store: StoreServer) -> None:
    """It ran, so it is answered; the try is given up by itself, and a repeat runs with the same name."""
    work = Work()
    async with Proxy(store.address) as proxy, hosted(proxy.url, work, waits=True) as host:
        await loaded(store)
        running = asyncio.create_task(host.ask(RANDOM))
        await await_until(lambda: work.runs, timeout_s=5, what="the first runs")
        proxy.cut_at = 0
        work.go.set()
        assert (await running).body == b'{"run":1}'
        assert (await host.ask(RANDOM)).code == "idempotency-in-progress"
        [key] = await host.kept_keys()
        await host.client.pexpire(key, 1)
        await await_until(_gone(host, key), timeout_s=5, what="the lease ends")
        assert (await host.ask(RANDOM)).body == b'{"run":2}'
        assert work.names[0] == work.names[1]


def _gone(host: Host, key: str) -> Callable[[], Awaitable[bool]]:
    async def gone() -> bool:
        return not await host.client.exists(key)

    return gone


async def test_an_answer_whose_keeping_was_carried_out_but_not_confirmed_is_kept(store: StoreServer) -> None:
    work = Work()
    async with Proxy(store.address) as proxy, hosted(proxy.url, work, waits=True) as host:
        await loaded(store)
        running = asyncio.create_task(host.ask(RANDOM))
        await await_until(lambda: work.runs, timeout_s=5, what="the first runs")
        proxy.lose_replies = 1
        work.go.set()
        assert (await running).status == 201
        assert proxy.lose_replies == 0
        assert (await host.ask(RANDOM)).replayed
        assert work.runs == 1


async def test_a_try_whose_beginning_was_not_confirmed_is_asked_again_and_runs(store: StoreServer) -> None:
    work = Work()
    work.go.set()
    async with Proxy(store.address) as proxy:
        host = Host(
            proxy.url, Route("POST", "/do", "Do", USAGE_WRITE, "test", work, {201: Answer}, request=Asked), retries=3
        )
        await loaded(store)
        proxy.lose_replies = 1
        assert (await host.ask(RANDOM)).status == 201
        assert proxy.lose_replies == 0
        assert work.runs == 1
        await host.close()
