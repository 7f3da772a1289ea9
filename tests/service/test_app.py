"""The life of the application, and what its doors do when something behind them breaks."""

import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from metering.api.access import GONE
from metering.api.endpoint import router
from metering.api.routes import ROUTES
from metering.api.track import Counts, Track
from metering.app import create_app
from metering.auth import ADMIN, Authenticator, Caller
from metering.clock import SystemClock
from metering.jwts import JwtVerifier
from metering.settings import Settings
from metering.ulid import Ulids
from metering.usage import UsageEvent
from plans.catalogue import parse
from tests.service.running import SECRET, Recorder, Running, token
from tests.support.service import clean_environment

App = Callable[[Any, Any, Any], Awaitable[None]]


async def answered(app: App, scope: dict[str, Any], *received: dict[str, Any]) -> list[dict[str, Any]]:
    """What `app` sends for `scope` while it receives these messages."""
    messages, sent = list(received), []

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def http(path: str = "/usage/track", **more: Any) -> dict[str, Any]:
    bearer = f"Bearer {token('org-1', ADMIN)}".encode()
    headers = [(b"authorization", bearer), (b"content-type", b"application/json")]
    return {"type": "http", "method": "POST", "path": path, "root_path": "", "headers": headers} | more


def body(text: bytes = b'{"feature":"scans"}') -> dict[str, Any]:
    return {"type": "http.request", "body": text, "more_body": False}


class Broken:
    """Counters that fail in a way nobody foresaw."""

    async def track(self, event: UsageEvent) -> Any:
        raise RuntimeError(f"secret words about {event.org_id}")

    def room(self) -> bool:
        return True


class Full(Broken):
    """Counters that take no more."""

    def room(self) -> bool:
        return False


class Unasked(Authenticator):
    """Says who calls to nobody."""

    def remembered(self, header: bytes | None, now_s: float) -> Caller | None:
        raise AssertionError((header, now_s))


def track(recorder: Recorder, counters: Counts | None = None, kind: type[Authenticator] = Authenticator) -> Track:
    clock = SystemClock()
    auth = kind([JwtVerifier(SECRET, clock)], clock)
    return Track(auth, counters or Broken(), parse(*Settings().plans_text()), Ulids(clock), recorder.observe, clock)


async def test_an_unforeseen_error_while_counting_is_a_500_without_details() -> None:
    recorder = Recorder()
    start, answer = await answered(track(recorder), http(), body())
    assert start["status"] == 500
    assert b'"code":"internal-error"' in answer["body"]
    assert b"secret words" not in answer["body"]
    assert [told[2] for told in recorder.seen] == [500]


@pytest.mark.parametrize(
    ("length", "read", "kept"),
    [((b"content-length", b"19"), 0, True), ((b"transfer-encoding", b"chunked"), 1, False)],
    ids=["short body", "unbounded body"],
)
async def test_with_no_room_neither_credentials_nor_body_are_looked_at(
    length: tuple[bytes, bytes], read: int, *, kept: bool
) -> None:
    recorder = Recorder()
    unread = [body(b"{" * 19)] * 2
    scope = http()
    scope["headers"].append(length)
    sent = await answered(track(recorder, Full(), Unasked), scope, *unread[:read])
    headers = dict(sent[0]["headers"])
    assert (sent[0]["status"], headers[b"retry-after"], b"connection" not in headers) == (503, b"1", kept)
    assert b'"code":"overloaded"' in sent[1]["body"]
    assert [told[2] for told in recorder.seen] == [503]


async def test_a_client_that_left_is_noted_and_not_answered() -> None:
    recorder = Recorder()
    assert await answered(track(recorder), http(), {"type": "http.disconnect"}) == []
    assert [told[:3] for told in recorder.seen] == [("POST", "/usage/track", GONE)]


async def test_behind_a_path_prefix_track_is_found_by_the_router() -> None:
    nobody: Any = None
    routed = router(ROUTES, nobody, track(Recorder()))
    sent = await answered(routed, http("/base/usage/track", root_path="/base"), body(b"{}"))
    assert sent[0]["status"] == 422


async def test_before_its_life_begins_and_after_it_ends_the_service_sends_clients_away() -> None:
    app = create_app(Settings())
    start, answer = await answered(app, http("/health"))
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"1")
    assert b'"code":"overloaded"' in answer["body"]


async def test_a_websocket_is_turned_away() -> None:
    assert await answered(create_app(Settings()), {"type": "websocket"}) == [{"type": "websocket.close", "code": 1000}]


async def test_a_refusal_to_start_is_told_in_words_with_the_cure() -> None:
    app = create_app(Settings.model_validate({"redis_url": "unix:///nowhere/store.sock"}))
    (told,) = await answered(app, {"type": "lifespan"}, {"type": "lifespan.startup"})
    assert told["type"] == "lifespan.startup.failed"
    assert "JWT_SECRET: the documented default. Set JWT_SECRET to 32 random bytes" in told["message"]
    assert "store: no answer" in told["message"]
    assert "Traceback" not in told["message"]


async def test_a_life_begins_ends_and_can_begin_again() -> None:
    with Running() as running:
        given = {"redis_url": running.server_store.url, "jwt_secret": SECRET, "debug": True}
        app = create_app(Settings.model_validate(given), measures=Recorder)
        for _ in range(2):
            signs = ({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
            sent = await answered(app, {"type": "lifespan"}, *signs)
            assert [told["type"] for told in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_importing_the_service_starts_nothing_and_prints_nothing() -> None:
    looks = "threading.active_count() == 1 and not logging.root.handlers"
    code = f"import logging, threading, metering.app; assert {looks}"
    done = subprocess.run([sys.executable, "-c", code], env=clean_environment(), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
