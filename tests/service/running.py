"""The whole service in this process: a real store, the real server settings, a port, and a client that talks HTTP."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Self

import httpx2
import jwt
import redis
import uvicorn

from metering.app import create_app
from metering.auth import ADMIN, AUDIT, BILLING_READ, BILLING_WRITE, CHECK, KEYS, USAGE_READ, USAGE_WRITE
from metering.serve_worker import config
from metering.settings import Settings
from metering.store.connect import normalise_url
from metering.traces import Traces
from tests.support.servers import StoreServer
from tests.support.wait import wait_until

SECRET: Final = "a-secret-of-tests-long-enough-for-every-hash-that-could-be-tried-on-it"
OWN: Final = (USAGE_WRITE, USAGE_READ, CHECK, BILLING_READ, BILLING_WRITE, AUDIT, KEYS)
"""Every scope of a customer."""

START_S: Final = 20.0

SOON_MS: Final = 30_000
"""A key that has no longer to live may be gone before a test has looked twice."""

FOR_EVER: Final = -1
"""What PTTL says of a key that does not expire."""


class Recorder:
    """Metrics that only remember what they were told."""

    def __init__(self, *_: object) -> None:
        self.seen: list[tuple[str, str, int, float]] = []
        self.units: Counter[str] = Counter()
        self.exemplars: list[tuple[str, str, int, str]] = []

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        self.seen.append((method, route, status, seconds))

    def counted(self, org_id: str, units: int) -> None:
        self.units[org_id] += units

    def exemplar(self, method: str, route: str, status: int, seconds: float, trace_id: str) -> None:
        self.exemplars.append((method, route, status, trace_id))

    async def flush(self) -> None:
        pass

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        return f"accepted {accept!r}\n".encode(), "text/plain; version=0.0.4"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def token(org_id: str | None = None, *scopes: str, secret: str = SECRET, **claims: Any) -> str:
    """A token of `org_id` with `scopes` (all of a customer's when none is named), good for longer than tests take."""
    body: dict[str, Any] = {"sub": "tester", "scopes": list(scopes or OWN), "exp": int(time.time()) + 7200}
    if org_id is not None:
        body["org_id"] = org_id
    return jwt.encode(body | claims, secret, algorithm="HS256")


class Running:
    """`with Running() as service:` gives `.call`, `.store` (a plain client) and `.recorder`. `settings` override.

    Unless `tidies`, nothing but requests writes, so that a test can say that a request wrote nothing.
    """

    def __init__(
        self, store: StoreServer | None = None, *, tidies: bool = False, traces: Traces | None = None, **settings: Any
    ) -> None:
        self._own_store = None if store else StoreServer()
        self.server_store = store or self._own_store or StoreServer()
        self._given = settings
        self._tidies, self._traces = tidies, traces
        self.recorder = Recorder()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._own_store is not None:
                stack.enter_context(self._own_store)
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def _open(self, stack: ExitStack) -> None:
        defaults: dict[str, Any] = {
            "redis_url": self.server_store.url,
            "jwt_secret": SECRET,
            "debug": True,
            "host": "127.0.0.1",
            "store_kind": "external",  # as `metering serve` tells its workers; without it no address is believed
            "log_level": "ERROR",
        }
        settings = Settings(**(defaults | self._given))
        url = normalise_url(self.server_store.url, database=settings.redis_db)
        self.store = stack.enter_context(redis.Redis.from_url(url))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port: int = listener.getsockname()[1]
        served = config("set below")
        served.app, served.factory = (
            create_app(settings, measures=self._measures, tidies=self._tidies, traces=self._traces),
            False,
        )
        server = uvicorn.Server(served)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        stack.callback(thread.join, timeout=START_S)
        stack.callback(setattr, server, "should_exit", True)
        wait_until(lambda: server.started or not thread.is_alive(), timeout_s=START_S, what="the service serves")
        assert server.started
        self.client = stack.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20))

    def _measures(self, *_: object) -> Recorder:
        return self.recorder

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def call(
        self,
        method: str,
        path: str,
        bearer: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **sent: Any,
    ) -> httpx2.Response:
        """One request; `bearer` None sends no credentials, `sent` is what httpx2 takes (json, content, params)."""
        given = dict(headers or {})
        if bearer is not None:
            given["Authorization"] = f"Bearer {bearer}"
        return self.client.request(method, path, headers=given, **sent)

    def track(self, bearer: str | None = None, **body: Any) -> httpx2.Response:
        """POST /usage/track, by default as administrator."""
        return self.call("POST", "/usage/track", bearer or token(None, ADMIN), json=body)

    def snapshot(self) -> dict[bytes, bytes]:
        """Every key of the store with its value, which is serialised where its order is always the same: a large hash
        dumps in any. None that expires between the looks at it.
        """
        keys = sorted(self.store.scan_iter(count=1000))
        kinds = dict(zip(keys, self._asked("TYPE", keys), strict=True))
        hashes = [key for key, kind in kinds.items() if kind == b"hash"]
        others = [key for key, kind in kinds.items() if kind not in {b"hash", b"none"}]
        found = {key: repr(sorted(all_of.items())).encode() for key, all_of in self._hashes(hashes) if all_of}
        dumped = zip(others, self._asked("DUMP", others), strict=True)
        return found | {key: value for key, value in dumped if value is not None}

    def _hashes(self, keys: list[bytes]) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
        asked = self.store.pipeline(transaction=False)
        for key in keys:
            asked.hgetall(key)
        return zip(keys, asked.execute(), strict=True)

    def _asked(self, command: str, keys: Iterable[bytes]) -> list[Any]:
        """What the command says of every key, in one round trip."""
        asked = self.store.pipeline(transaction=False)
        for key in keys:
            asked.execute_command(command, key)
        return list(asked.execute())

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Fails unless the store holds the same, byte for byte, afterwards, but for what time alone took out of it."""
        before = self.snapshot()
        lives = zip(before, self._asked("PTTL", before), strict=True)
        expiring = {key for key, left in lives if left != FOR_EVER and left <= SOON_MS}
        yield
        after = self.snapshot()
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        written = sorted(key for key in changed if key in after or key not in expiring)
        assert not written, f"written or removed: {written}"


def problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of `response`, which must be one with this status and code."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), (
        response.text
    )
    body: dict[str, Any] = response.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, f"/problems/{code}")
    assert body["request_id"] == response.headers["x-request-id"]
    return body
