"""Withdrawn on one worker, refused by every other: two real processes on one socket, and two services on one store."""

import http.client
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import jwt
import pytest

from metering.auth import ADMIN, CACHE_S, KEYS, USAGE_READ, USAGE_WRITE
from metering.clock import SystemClock
from tests.service.running import Running, problem, token
from tests.support.fixtures import store, store_session
from tests.support.issuer import EC, RSA, JwksServer
from tests.support.servers import StoreServer
from tests.support.service import ServiceProcess
from tests.support.wait import wait_until

__all__ = ["store", "store_session"]

WITHIN_S: Final = 2.0
"""What is promised (RULINGS.md G1), far below the time that a verified credential is remembered."""


class Line:
    """One kept connection, so that every request of it reaches the same worker. `pid` says which."""

    def __init__(self, service: ServiceProcess) -> None:
        host, port = service.url.removeprefix("http://").split(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=10)
        self.pid = self._send("GET", "/metrics").headers["X-Worker-Pid"]

    def ask(self, method: str, path: str, bearer: str, body: Any = None) -> tuple[int, Any]:
        """The status and the body of one request."""
        answer = self._send(method, path, bearer, body)
        return answer.status, answer.said

    def _send(self, method: str, path: str, bearer: str = "", body: Any = None) -> Any:
        sent = None if body is None else json.dumps(body)
        headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
        self._connection.request(method, path, sent, headers | {"Content-Type": "application/json"})
        answer: Any = self._connection.getresponse()
        text = answer.read()
        answer.said = json.loads(text) if text.startswith(b"{") else None
        return answer

    def close(self) -> None:
        self._connection.close()


def other_than(line: Line, service: ServiceProcess) -> Line:
    """A connection to another worker: connections are made until one leads there."""
    found: list[Line] = []

    def tried() -> bool:
        found.append(Line(service))
        return bool(found[-1].pid != line.pid)

    wait_until(tried, timeout_s=30, what="a connection to the other worker")
    for unwanted in found[:-1]:
        unwanted.close()
    return found[-1]


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceProcess]:
    """Two workers, and an organisation."""
    with ServiceProcess("--workers", "2") as running:
        wait_until(lambda: len(running.workers()) == 2, timeout_s=30, what="two workers")
        bearer = running.token(ADMIN)
        assert running.call("/usage/track", {"org_id": "org-123", "feature": "scans"}, token=bearer)[0] == 200
        yield running


@pytest.fixture
def lines(service: ServiceProcess) -> Iterator[tuple[Line, Line]]:
    """A connection to each worker."""
    with closing(Line(service)) as here, closing(other_than(here, service)) as there:
        yield here, there


def refused_after_s(line: Line, bearer: str) -> float:
    """How long a worker that takes `bearer` now goes on to take it, asked all the time."""
    began = time.monotonic()
    wait_until(lambda: line.ask("GET", "/usage", bearer)[0] == 401, timeout_s=CACHE_S, what="the other worker refuses")
    return time.monotonic() - began


def test_a_key_deleted_on_one_worker_is_refused_by_the_other(service: ServiceProcess, lines: tuple[Line, Line]) -> None:
    here, there = lines
    root = service.token(ADMIN)
    for _ in range(3):
        wanted = {"name": "n", "org_id": "org-123", "scopes": [USAGE_READ, USAGE_WRITE]}
        status, key = here.ask("POST", "/v1/keys", root, wanted)
        assert status == 201
        assert [line.ask("GET", "/usage", key["key"])[0] for line in (here, there)] == [200, 200]
        assert here.ask("DELETE", f"/v1/keys/{key['key_id']}", root)[0] == 204
        assert here.ask("GET", "/usage", key["key"])[0] == 401
        assert refused_after_s(there, key["key"]) < WITHIN_S
        assert there.ask("POST", "/usage/track", key["key"], {"feature": "scans"})[0] == 401


def test_a_token_denied_on_one_worker_is_refused_by_the_other(
    service: ServiceProcess, lines: tuple[Line, Line]
) -> None:
    here, there = lines
    root, leaked = service.token(ADMIN), service.token(USAGE_READ)
    assert [line.ask("GET", "/usage", leaked)[0] for line in (here, there)] == [200, 200]
    assert here.ask("POST", "/v1/tokens/deny", root, {"jti": jti_of(leaked)})[0] == 200
    assert here.ask("GET", "/usage", leaked)[0] == 401
    assert refused_after_s(there, leaked) < WITHIN_S
    assert there.ask("GET", "/usage", service.token(USAGE_READ))[0] == 200


def jti_of(bearer: str) -> str:
    """The id in a token."""
    found: str = jwt.decode(bearer, options={"verify_signature": False})["jti"]
    return found


def test_whoever_is_still_known_is_not_asked_for_again(service: ServiceProcess, lines: tuple[Line, Line]) -> None:
    """A withdrawal makes workers forget everybody; those who hold good credentials notice nothing."""
    here, there = lines
    root = service.token(ADMIN)
    _, kept = here.ask("POST", "/v1/keys", root, {"name": "kept", "org_id": "org-123", "scopes": [USAGE_READ]})
    for _ in range(5):
        _, gone = here.ask("POST", "/v1/keys", root, {"name": "gone", "org_id": "org-123", "scopes": [KEYS]})
        assert there.ask("DELETE", f"/v1/keys/{gone['key_id']}", root)[0] == 204
        assert [line.ask("GET", "/usage", kept["key"])[0] for line in (here, there)] == [200, 200]


def test_a_worker_that_is_started_anew_knows_what_was_withdrawn_before(store: StoreServer, org: str) -> None:
    jti = secrets.token_hex(8)
    bearer = token(org, jti=jti)
    root = token(None, ADMIN)
    with Running(store) as first:
        first.track(org_id=org, feature="scans")
        assert first.call("GET", "/usage", bearer).status_code == 200
        first.call("POST", "/v1/tokens/deny", root, json={"jti": jti})
    with Running(store) as second:
        problem(second.call("GET", "/usage", bearer), 401, "unauthenticated")


def test_while_the_store_is_away_keys_cannot_be_checked_and_known_ones_are_remembered(
    store: StoreServer, org: str
) -> None:
    """503, not 401: a client that is told to give up its key would be told so by a restart."""
    with Running(store) as running:
        running.track(org_id=org, feature="scans")
        body = {"name": "n", "org_id": org, "scopes": [USAGE_READ]}
        known, unknown = (
            running.call("POST", "/v1/keys", token(None, ADMIN), json=body).json()["key"] for _ in range(2)
        )
        assert running.call("GET", "/v1/plans", known).status_code == 200
        store.kill()
        refused = running.call("GET", "/v1/plans", unknown)
        assert refused.status_code == 503
        assert refused.json()["code"] in {"storage-unavailable", "overloaded"}
        assert running.call("GET", "/v1/plans", known).status_code == 200
        assert running.call("GET", "/v1/plans", token(org)).status_code == 200
        store.start()
        wait_until(
            lambda: running.call("GET", "/v1/plans", unknown).status_code == 200,
            timeout_s=10,
            what="keys are checked again",
        )


def test_a_signing_key_that_was_taken_out_ends_its_tokens_with_the_next_fetch(store: StoreServer, org: str) -> None:
    """A token with an unknown key makes the service fetch; what it finds counts for those it knew as well."""
    claims = {"sub": "svc", "org_id": org, "scopes": [USAGE_READ], "exp": SystemClock().now_ms() // 1000 + 600}
    with JwksServer() as server:
        server.publish(EC, RSA)
        with Running(store, jwt_jwks_url=server.url) as running:
            running.track(org_id=org, feature="scans")
            old, new = EC.token(claims), RSA.named("rsa-2").token(claims)
            assert running.call("GET", "/usage", old).status_code == 200
            server.publish(RSA.named("rsa-2"))
            wait_until(
                lambda: running.call("GET", "/usage", new).status_code == 200, timeout_s=15, what="the new key is known"
            )
            problem(running.call("GET", "/usage", old), 401, "unauthenticated")
