"""What holds for every answer, whoever gives it."""

import asyncio
import re
import socket
from typing import Any, Final

import httpx2
import pytest

from metering.api.front import Front
from metering.auth import ADMIN
from metering.clock import HandClock
from metering.errors import OrgCorrupt, leaves
from metering.ulid import Ulids
from tests.service.running import Running, problem, token

MINTED: Final = re.compile("[0-9A-HJKMNP-TV-Z]{26}")

ANSWERS: Final = {
    "counted": ("POST", "/usage/track", {"org_id": "org-front", "feature": "scans"}),
    "refused": ("POST", "/usage/track", {"org_id": "org-front", "feature": "nope"}),
    "read": ("GET", "/v1/plans", None),
    "open": ("GET", "/health", None),
    "page": ("GET", "/docs", None),
    "no path": ("GET", "/nowhere", None),
    "no method": ("DELETE", "/usage/track", None),
    "faults": ("POST", "/billing/update", {"x": 1}),
}


def send(service: Running, name: str, **headers: str) -> httpx2.Response:
    method, path, body = ANSWERS[name]
    return service.call(method, path, token(None, ADMIN), headers=headers, **({} if body is None else {"json": body}))


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_has_an_id_of_its_own(service: Running, name: str) -> None:
    first, second = (send(service, name).headers["x-request-id"] for _ in range(2))
    assert MINTED.fullmatch(first)
    assert first < second


@pytest.mark.parametrize("name", ANSWERS)
def test_a_sane_id_of_the_client_is_kept(service: Running, name: str) -> None:
    response = send(service, name, **{"X-Request-Id": "req-1.A_b"})
    assert response.headers["x-request-id"] == "req-1.A_b"
    if response.status_code >= 400:
        assert response.json()["request_id"] == "req-1.A_b"


@pytest.mark.parametrize("name", ["counted", "open"])
@pytest.mark.parametrize("given", ["", "a b", "a" * 65, "a;b", "<script>", 'a"b', "{a}"])
def test_another_id_of_the_client_is_replaced(service: Running, name: str, given: str) -> None:
    response = send(service, name, **{"X-Request-Id": given})
    assert MINTED.fullmatch(response.headers["x-request-id"])


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_keeps_browsers_careful(service: Running, name: str) -> None:
    headers = send(service, name).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers
    if name != "counted":
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"].startswith("default-src 'none'")


def test_no_answer_lets_other_sites_in(service: Running) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    response = service.call("OPTIONS", "/usage/track", headers=headers)
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/usage/track", "POST"),
        ("GET", "/api/usage/track", "POST"),
        ("POST", "/usage", "GET, HEAD"),
        ("POST", "/v1/orgs/a", "DELETE, GET, HEAD, PATCH, PUT"),
        ("OPTIONS", "/health", "GET, HEAD"),
        ("TRACE", "/billing/update", "POST"),
    ],
)
def test_another_method_names_those_that_are_taken(service: Running, method: str, path: str, allowed: str) -> None:
    response = service.call(method, path, token(None, ADMIN))
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == allowed


def test_head_answers_as_get_without_the_body(service: Running) -> None:
    head, get = (service.call(method, "/v1/plans", token("a")) for method in ("HEAD", "GET"))
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(get.content))


@pytest.mark.parametrize("path", ["/usage/track", "/billing/update", "/health"])
@pytest.mark.parametrize(
    "headers",
    [{f"X-{n}": "1" for n in range(70)}, {"X-Large": "a" * 17_000}, {f"X-{n}": "a" * 1000 for n in range(20)}],
    ids=["70 lines", "17 KB in one", "20 KB in 20"],
)
def test_too_many_headers_are_431(service: Running, path: str, headers: dict[str, str]) -> None:
    method = "GET" if path == "/health" else "POST"
    with service.unchanged():
        problem(service.call(method, path, token(None, ADMIN), headers=headers), 431, "headers-too-large")


def test_doubled_headers_are_all_counted(service: Running) -> None:
    head = "GET /health HTTP/1.1\r\nHost: x\r\n" + f"X-A: {'a' * 3000}\r\n" * 6 + "\r\n"
    assert raw(service, head.encode()).startswith(b"HTTP/1.1 431 ")


def raw(service: Running, sent: bytes) -> bytes:
    """All bytes the server answers to `sent` until it closes or says no more for a while."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as line:
        line.sendall(sent)
        answer = line.recv(65536)
        line.settimeout(0.2)
        try:
            while more := line.recv(65536):
                answer += more
        except TimeoutError:
            pass
        return answer


SMUGGLED: Final = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
BODY: Final = '{"org_id":"org-smuggled","feature":"scans"}'
AMBIGUOUS: Final = {
    "two lengths": f"Content-Length: 0\r\nContent-Length: {len(SMUGGLED)}\r\n\r\n{SMUGGLED}",
    "length and chunks": f"Content-Length: {len(BODY)}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}",
    "chunks not last": f"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{SMUGGLED}",
    "length with a sign": f"Content-Length: +{len(BODY)}\r\n\r\n{BODY}",
    "length in hex": f"Content-Length: 0x10\r\n\r\n{BODY}",
    "bare line feed": f"X: y\nContent-Length: {len(BODY)}\n\n{BODY}",
    "folded header": f"X: y\r\n z\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}",
    "NUL in a header": f"X: a\x00b\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}",
    "space before the colon": f"Content-Length : {len(BODY)}\r\n\r\n{BODY}",
}


@pytest.mark.parametrize("rest", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_request_with_two_meanings_has_none(service: Running, rest: str) -> None:
    head = (
        "POST /usage/track HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token(None, ADMIN)}\r\n"
    )
    with service.unchanged():
        answer = raw(service, (head + rest).encode("latin-1"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"alive" not in answer


def test_a_refusal_before_an_endless_body_ends_the_connection(service: Running) -> None:
    for head in ("POST /usage/track", "POST /billing/update", "POST /nowhere", "GET /health"):
        answer = raw(
            service, f"{head} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".encode()
        )
        assert b"connection: close" in answer, head


def test_a_refusal_before_a_small_body_keeps_the_connection(service: Running) -> None:
    one = f"POST /usage/track HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}"
    answer = raw(service, one.encode() * 2)
    assert answer.count(b"HTTP/1.1 401 ") == 2
    assert b"connection: close" not in answer


def test_pipelined_events_are_answered_in_order(service: Running, org: str) -> None:
    bearer = token(None, ADMIN)
    sent = b""
    for number in range(1, 6):
        body = f'{{"org_id":"{org}","feature":"scans","quantity":{number}}}'
        sent += (
            f"POST /usage/track HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
    totals = re.findall(rb'"current_usage":(\d+)', raw(service, sent))
    assert totals == [b"1", b"3", b"6", b"10", b"15"]


async def answered(router: Any, path: str = "/x") -> tuple[list[dict[str, Any]], list[tuple[Any, ...]]]:
    """What a front over `router` sends for a GET, and what it observes."""
    sent: list[dict[str, Any]] = []
    observed: list[tuple[Any, ...]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def note(message: dict[str, Any]) -> None:
        sent.append(message)

    clock = HandClock(0)
    front = Front(router, router, Ulids(clock), lambda *told: observed.append(told), clock)
    await front({"type": "http", "method": "GET", "path": path, "headers": []}, receive, note)
    return sent, observed


async def test_an_unforeseen_error_is_a_500_that_tells_nothing_of_the_inside() -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("secret words")

    sent, observed = await answered(broken)
    assert sent[0]["status"] == 500
    assert b'"code":"internal-error"' in sent[1]["body"]
    assert b"secret" not in sent[1]["body"]
    assert b"Traceback" not in sent[1]["body"]
    assert [told[2] for told in observed] == [500]


async def test_a_stream_takes_as_long_as_until_it_begins() -> None:
    clock = HandClock(0)
    observed: list[tuple[Any, ...]] = []

    async def streams(scope: Any, _: Any, send: Any) -> None:
        scope["streams"] = True
        await send({"type": "http.response.start", "status": 200, "headers": []})
        clock.advance(60_000)
        await send({"type": "http.response.body", "body": b""})

    front = Front(streams, streams, Ulids(clock), lambda *told: observed.append(told), clock)
    await front({"type": "http", "method": "GET", "path": "/x", "headers": []}, nothing, ignored)
    assert [told[3] for told in observed] == [0.0]


async def nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def ignored(_: Any) -> None:
    """Nobody reads the answer."""


async def test_an_error_after_half_an_answer_breaks_the_connection() -> None:
    async def half(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await answered(half)


async def test_a_cancelled_request_is_not_answered() -> None:
    async def cancelled(*_: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await answered(cancelled)


async def test_a_problem_of_the_store_is_answered_as_it_says() -> None:
    async def parked(*_: Any) -> None:
        raise OrgCorrupt(headers={"Retry-After": "10"})

    sent, _ = await answered(parked)
    assert (sent[0]["status"], dict(sent[0]["headers"])[b"retry-after"]) == (503, b"10")


def test_codes_are_unique_and_every_problem_has_a_cure() -> None:
    passing = {"version-conflict", "idempotency-in-progress"}
    kinds = leaves()
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert kind.cure.endswith((".", ")"))
        assert 400 <= kind.status < 600
        assert (kind.status in {408, 429, 503} or kind.code in passing) == (kind.retry_after_s is not None)
