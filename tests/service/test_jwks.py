"""The keys behind a URL: when they are fetched, how long they are kept, and that no server is trusted to behave."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from metering.auth import ADMIN, Authenticator, Verifier
from metering.clock import HandClock, SystemClock
from metering.errors import KeysUnavailable, Unauthenticated
from metering.jwks import BYTES_MAX, REFETCH_S, REFRESH_S, RETRY_S, Download, FetchError, Jwks
from metering.jwts import JwtVerifier
from tests.service.running import Running, problem, token
from tests.support.certificate import self_signed
from tests.support.issuer import EC, RSA, JwksServer, Signer, document
from tests.support.servers import free_port
from tests.support.wait import await_until, wait_until

NOW_MS: Final = 1_700_000_000_000
NEW: Final = Signer("ES256", "ec-2")


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": "svc", "scopes": [ADMIN], "exp": int(time.time()) + 600} | more


class Publisher:
    """An issuer under a clock that is set by hand: what it publishes, whether it answers, how often it was asked."""

    def __init__(self, *signers: Signer) -> None:
        self.clock = HandClock(NOW_MS)
        self.answer: bytes | None = document(*(signer.jwk() for signer in signers))
        self.asked = 0
        self.removals = 0
        self.jwks = Jwks(self.fetch, self.clock, on_removed=self.removed)
        self.verifier = JwtVerifier(None, self.clock, sources=[self.jwks])

    async def fetch(self) -> bytes:
        self.asked += 1
        await asyncio.sleep(0)
        if self.answer is None:
            raise FetchError("away")
        return self.answer

    def removed(self) -> None:
        self.removals += 1

    def publish(self, *signers: Signer) -> None:
        self.answer = document(*(signer.jwk() for signer in signers))

    def passes(self, seconds: float) -> None:
        self.clock.advance(int(seconds * 1000))

    async def holds(self, signer: Signer) -> bool:
        """Whether a token of `signer` is accepted now. Raises KeysUnavailable."""
        sent = signer.token({"sub": "svc", "exp": self.clock.now_ms() // 1000 + 600})
        try:
            return await self.verifier.verify(sent) is not None
        except Unauthenticated:
            return False


# ── when it is fetched ───────────────────────────────────────────────────────────────────────────────────


async def test_known_keys_are_used_without_asking_again() -> None:
    issuer = Publisher(EC)
    assert [await issuer.holds(EC) for _ in range(3)] == [True] * 3
    assert issuer.asked == 1


async def test_an_unknown_name_asks_once_and_finds_the_new_key() -> None:
    issuer = Publisher(EC)
    await issuer.jwks.refresh()
    issuer.publish(EC, NEW)
    issuer.passes(REFETCH_S)
    assert await issuer.holds(NEW)
    assert issuer.asked == 2


async def test_unknown_names_ask_once_in_a_while_however_many_come() -> None:
    issuer = Publisher(EC)
    for number in range(50):
        assert not await issuer.holds(NEW.named(f"guess-{number}"))
    assert issuer.asked == 1
    issuer.passes(REFETCH_S)
    for number in range(50):
        assert not await issuer.holds(NEW.named(f"guess-{number}"))
    assert issuer.asked == 2
    assert await issuer.holds(EC)


async def test_tokens_that_come_together_wait_for_one_answer() -> None:
    issuer = Publisher(NEW)
    assert all(await asyncio.gather(*(issuer.holds(NEW) for _ in range(20))))
    assert issuer.asked == 1


async def test_a_wrong_signature_under_a_known_name_asks_nobody() -> None:
    issuer = Publisher(EC)
    await issuer.jwks.refresh()
    issuer.passes(REFETCH_S)
    assert not await issuer.holds(NEW.named("ec-1"))
    assert issuer.asked == 1


async def test_the_loop_asks_when_it_is_time_and_not_before() -> None:
    issuer = Publisher(EC)
    await issuer.jwks.turn()
    issuer.passes(REFRESH_S - 1)
    await issuer.jwks.turn()
    assert issuer.asked == 1
    issuer.passes(1)
    await issuer.jwks.turn()
    assert issuer.asked == 2


async def test_a_request_that_is_given_up_does_not_end_the_fetch_that_others_wait_for() -> None:
    issuer = Publisher(EC)
    given_up = asyncio.create_task(issuer.holds(EC))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(issuer.holds(EC))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await waiting
    assert issuer.asked == 1


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────


async def test_while_the_server_is_away_the_known_keys_hold_and_it_is_asked_again_soon() -> None:
    issuer = Publisher(EC)
    await issuer.jwks.turn()
    issuer.answer = None
    for turn in range(1, 4):
        issuer.passes(REFRESH_S)
        await issuer.jwks.turn()
        assert (await issuer.holds(EC), issuer.asked) == (True, turn + 1)
    issuer.publish(NEW)
    issuer.passes(RETRY_S)
    await issuer.jwks.turn()
    assert (await issuer.holds(NEW), await issuer.holds(EC)) == (True, False)


@pytest.mark.parametrize("answer", [None, b"", b"<html>", b'{"keys": 7}', b"[]"], ids=repr)
async def test_an_answer_that_is_no_document_counts_as_none(answer: bytes | None) -> None:
    issuer = Publisher(EC)
    await issuer.jwks.refresh()
    issuer.answer = answer
    await issuer.jwks.refresh()
    assert await issuer.holds(EC)
    assert (issuer.removals, bool(issuer.jwks.failure)) == (0, True)


async def test_a_key_that_was_taken_out_is_refused_after_the_refresh_and_told() -> None:
    issuer = Publisher(EC, RSA)
    await issuer.jwks.turn()
    issuer.publish(RSA)
    assert await issuer.holds(EC)
    issuer.passes(REFRESH_S)
    await issuer.jwks.turn()
    assert (await issuer.holds(EC), await issuer.holds(RSA), issuer.removals) == (False, True, 1)


async def test_an_issuer_that_publishes_no_key_at_all_is_believed() -> None:
    issuer = Publisher(EC)
    await issuer.jwks.refresh()
    issuer.publish()
    await issuer.jwks.refresh()
    assert (await issuer.holds(EC), issuer.removals) == (False, 1)


async def test_a_key_that_stays_or_comes_is_no_removal() -> None:
    issuer = Publisher(EC)
    await issuer.jwks.refresh()
    issuer.publish(NEW, EC)
    await issuer.jwks.refresh()
    assert issuer.removals == 0


async def test_new_material_under_an_old_name_replaces_the_old() -> None:
    issuer = Publisher(EC)
    await issuer.jwks.refresh()
    issuer.publish(NEW.named("ec-1"))
    await issuer.jwks.refresh()
    assert (await issuer.holds(EC), await issuer.holds(NEW.named("ec-1")), issuer.removals) == (False, True, 1)


async def test_while_the_server_is_away_an_unknown_name_cannot_be_judged() -> None:
    issuer = Publisher(EC)
    await issuer.jwks.refresh()
    issuer.answer = None
    issuer.passes(REFETCH_S)
    for _ in range(3):
        with pytest.raises(KeysUnavailable):
            await issuer.holds(NEW)
    assert issuer.asked == 2


async def test_a_token_verified_with_a_key_that_is_gone_is_forgotten_with_it() -> None:
    issuer = Publisher(EC)
    verifiers: list[Verifier] = []
    auth = Authenticator(verifiers, issuer.clock)
    jwks = Jwks(issuer.fetch, issuer.clock, on_removed=auth.forget)
    verifiers.append(JwtVerifier(None, issuer.clock, sources=[jwks]))
    header = b"Bearer " + EC.token({"sub": "svc", "exp": NOW_MS // 1000 + 600}).encode()
    await auth.identify(header)
    assert auth.remembered(header, issuer.clock.monotonic()) is not None
    issuer.publish(RSA)
    await jwks.refresh()
    assert auth.remembered(header, issuer.clock.monotonic()) is None


# ── how it is fetched ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def server() -> Iterator[JwksServer]:
    with JwksServer(document(EC.jwk())) as running:
        yield running


async def failure(url: str, within_s: float = 3.0) -> str:
    with pytest.raises(FetchError) as told:
        await Download(url, SystemClock(), within_s=within_s)()
    return str(told.value)


async def test_the_document_comes_as_it_is(server: JwksServer) -> None:
    assert await Download(server.url, SystemClock())() == server.answer
    assert server.paths == ["/jwks.json"]


async def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    server: JwksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert await Download(server.url, SystemClock())() == server.answer


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 308, 404, 429, 500, 503])
async def test_any_status_but_200_is_a_failure_and_no_redirect_is_followed(server: JwksServer, status: int) -> None:
    server.status, server.headers = status, {"Location": "/elsewhere"}
    if status == 204:
        server.answer = b""
    assert str(status) in await failure(server.url)
    assert server.paths == ["/jwks.json"]


@pytest.mark.parametrize("size", [BYTES_MAX + 1, 50 * 1024 * 1024])
async def test_a_document_that_is_too_large_is_not_read_to_its_end(server: JwksServer, size: int) -> None:
    server.answer = b" " * size
    assert f"more than {BYTES_MAX} bytes" in await failure(server.url)
    server.answer = b" " * BYTES_MAX
    assert len(await Download(server.url, SystemClock())()) == BYTES_MAX


async def test_nobody_there_is_a_failure() -> None:
    assert "refused" in await failure(f"http://127.0.0.1:{free_port()}/jwks.json")


async def test_a_server_that_does_not_speak_http_is_a_failure(server: JwksServer) -> None:
    assert await failure(server.url.replace("http://", "https://"))


async def test_a_server_whose_certificate_nobody_vouches_for_is_a_failure(tmp_path: Path) -> None:
    pem = tmp_path / "server.pem"
    key = RSA.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(self_signed(RSA.private).public_bytes(Encoding.PEM) + key)
    with JwksServer(document(EC.jwk()), pem=str(pem)) as server:
        assert "certificate" in (await failure(server.url)).lower()
        assert server.paths == []


async def test_a_server_that_says_nothing_is_given_up_and_asked_by_one_thread_at_a_time(server: JwksServer) -> None:
    server.held = True
    download = Download(server.url, SystemClock(), within_s=0.2)
    before = threading.active_count()
    with pytest.raises(FetchError):
        await download()
    waiting = [asyncio.create_task(download()) for _ in range(3)]
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(error) for error in told} == {FetchError}
    assert threading.active_count() - before <= 5  # the server's own threads among them
    server.held = False
    server.go.set()
    await await_until(lambda: threading.active_count() <= before, timeout_s=5, what="the threads end")
    assert await download() == server.answer


# ── through the service ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def running(server: JwksServer) -> Iterator[Running]:
    with Running(jwt_jwks_url=server.url) as service:
        yield service


def track(service: Running, signer: Signer, org: str) -> int:
    return service.track(signer.token(claims()), org_id=org, feature="scans").status_code


def test_a_service_with_a_jwks_url_takes_its_tokens_and_those_of_its_secret(running: Running, org: str) -> None:
    assert track(running, EC, org) == 200
    assert running.track(token(None, ADMIN), org_id=org, feature="scans").status_code == 200
    problem(running.track(NEW.token(claims()), org_id=org, feature="scans"), 401, "unauthenticated")


def test_requests_go_on_while_the_server_of_the_keys_keeps_one_waiting(
    running: Running, server: JwksServer, org: str
) -> None:
    server.held = True
    server.publish(EC, NEW)
    with ThreadPoolExecutor() as pool:
        asked = wait_until(lambda: _waits(pool, running, server, org), timeout_s=REFETCH_S + 5, what="a second fetch")
        assert running.call("GET", "/health/live").status_code == 200
        assert track(running, EC, org) == 200
        assert not asked.done()
        server.go.set()
        assert asked.result(timeout=10) == 200


def _waits(pool: ThreadPoolExecutor, service: Running, server: JwksServer, org: str) -> Any:
    """A request that hangs on the fetch it caused, or None where none was due yet."""
    before = len(server.paths)
    asked = pool.submit(track, service, NEW, org)
    wait_until(lambda: asked.done() or len(server.paths) > before, timeout_s=10, what="an answer or a fetch")
    return None if asked.done() else asked


def test_a_service_starts_while_the_keys_are_away_and_says_that_it_cannot_judge(org: str) -> None:
    with Running(jwt_jwks_url=f"http://127.0.0.1:{free_port()}/jwks.json") as service, service.unchanged():
        refused = service.track(EC.token(claims()), org_id=org, feature="scans")
        assert problem(refused, 503, "keys-unavailable")["retryable"]
        assert refused.headers["retry-after"] == "5"
        problem(service.call("GET", "/v1/plans", EC.token(claims())), 503, "keys-unavailable")
        assert service.call("GET", "/v1/plans", token(None, ADMIN)).status_code == 200


def test_an_address_of_keys_inside_a_token_is_never_asked(running: Running, server: JwksServer, org: str) -> None:
    with JwksServer(document(NEW.jwk())) as evil:
        for header in ({"jku": evil.url}, {"x5u": evil.url}, {"jwk": NEW.jwk()}, {"kid": evil.url}):
            sent = NEW.token(claims(), **header)
            problem(running.track(sent, org_id=org, feature="scans"), 401, "unauthenticated")
        assert evil.paths == []
