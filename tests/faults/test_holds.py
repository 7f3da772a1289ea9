"""Reservations and leases when replies are lost and workers are killed: each has one effect, and none is lost."""

import asyncio
import os
import random
import secrets
import signal
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final

import httpx2
import pytest

from metering.store.connect import connect
from metering.store.conservation import walk
from metering.store.keys import Keys
from tests.faults.test_kill import kill_everything, law, store_url
from tests.support.proxy import Proxy
from tests.support.servers import StoreServer
from tests.support.service import ServiceProcess, call
from tests.support.soak import SEED, drawn
from tests.support.wait import wait_until

ALWAYS: Final = 10**6
"""More replies than a service ever asks for."""

LIMITLESS: Final = {"plan": "enterprise"}
"""The plan of the shipped catalogue under which nothing is refused."""


@dataclass(slots=True)
class Customer:
    """A client of a service whose store it can cut off."""

    proxy: Proxy
    client: httpx2.AsyncClient
    store: Any

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx2.Response:
        """One request."""
        sent: dict[str, Any] = {} if body is None else {"json": body}
        return await self.client.request(method, path, **sent)

    async def lost(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask while every reply of a script is lost; then again, as a client does that was answered 503."""
        self.proxy.lose_replies = ALWAYS
        refused = await self.ask(method, path, body)
        assert (refused.status_code, refused.json()["code"]) == (503, "storage-unavailable")
        assert self.proxy.lose_replies < ALWAYS
        self.proxy.lose_replies = 0
        answer = await self.ask(method, path, body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else {}

    async def figures(self) -> tuple[int, int]:
        """Units used and held, as stored."""
        used, held = await self.store.hmget(Keys(64).record("acme"), "u:scans", "h:scans")
        return int(used or 0), int(held or 0)


@asynccontextmanager
async def customer(store: StoreServer) -> AsyncIterator[Customer]:
    """A service before a network that loses what it is told to."""
    async with Proxy(store.address) as proxy, connect(store.url, database=2) as plain:
        settings = {"REDIS_URL": proxy.url, "DEBUG": "true", "JWT_SECRET": secrets.token_hex(32)}
        service = await asyncio.to_thread(ServiceProcess(settings=settings).start)
        try:
            headers = {"Authorization": f"Bearer {service.token(org='acme')}"}
            async with httpx2.AsyncClient(base_url=service.url, headers=headers, timeout=60) as client:
                yield Customer(proxy, client, plain)
                assert (await walk(plain, Keys(64))).violations == []
        finally:
            await asyncio.to_thread(service.close)


async def test_what_is_asked_again_after_its_reply_was_lost_has_one_effect(store: StoreServer) -> None:
    """The store did it each time; the service could not know, said 503, and the client repeated."""
    asked = {"id": "r1", "feature": "scans", "quantity": 4, "ttl_s": 600}
    async with customer(store) as acme:
        await acme.ask("PUT", "/v1/orgs/acme", LIMITLESS)
        made = await acme.lost("POST", "/v1/reservations", asked)
        assert (made["status"], made["reserved"], await acme.figures()) == ("held", 4, (0, 4))
        longer = await acme.lost("POST", "/v1/reservations/r1/extend", {"ttl_s": 1200})
        assert longer["expires_at"] > made["expires_at"]
        committed = await acme.lost("POST", "/v1/reservations/r1/commit", {"quantity": 3})
        assert (committed["duplicate"], committed["current_usage"]) == (True, 3)
        assert await acme.figures() == (3, 0)

        await acme.ask("POST", "/v1/reservations", asked | {"id": "r2"})
        assert await acme.figures() == (3, 4)
        assert await acme.lost("DELETE", "/v1/reservations/r2") == {}
        assert await acme.figures() == (3, 0)

        granted = await acme.lost("POST", "/v1/leases", asked | {"id": "l1", "ttl_s": 300})
        assert (granted["granted"], await acme.figures()) == (4, (3, 4))
        settled = await acme.lost("POST", "/v1/leases/l1/settle", {"used": 2})
        assert (settled["duplicate"], settled["used"], settled["status"]) == (True, 2, "settled")
        assert await acme.figures() == (5, 0)

        await acme.ask("POST", "/v1/leases", asked | {"id": "l2", "ttl_s": 300})
        released = await acme.lost("POST", "/v1/leases/l2/settle", {"used": 0})
        assert (released["duplicate"], released["status"]) == (True, "released")
        assert await acme.figures() == (5, 0)


# ── kill -9 ──────────────────────────────────────────────────────────────────────────────────────────────

JOBS: Final = 240
CLIENTS: Final = 8
LEFT: Final = 10
"""Jobs that take a lease and are never heard of again."""


class Jobs:
    """Clients that reserve, are interrupted, and commit; every request is repeated until it is answered."""

    def __init__(self, service: ServiceProcess) -> None:
        self.url, self.token = service.url, service.token(org="acme")
        self.reserved = self.used = 0
        self.interrupted = threading.Event()
        self._lock = threading.Lock()

    def run(self, number: int) -> None:
        """One job. The first half wait between reserving and settling for what happens; some settle twice."""
        chance = random.Random(f"{SEED}-{number}")
        quantity, lease = chance.randint(1, 9), number % 3 == 0
        path, name, ttl_s = ("/v1/leases", "used", 300) if lease else ("/v1/reservations", "quantity", 3600)
        self._post(path, {"id": f"job-{number}", "feature": "scans", "quantity": quantity, "ttl_s": ttl_s}, 201)
        with self._lock:
            self.reserved += 1
        if number < JOBS // 2:
            assert self.interrupted.wait(60)
        used = max(1, quantity + chance.choice((-1, 0, 0, 2)))
        settled = f"{path}/job-{number}/{'settle' if lease else 'commit'}"
        self._post(settled, {name: used}, 200)
        if chance.random() < 0.3:
            assert self._post(settled, {name: used}, 200)["duplicate"]
        with self._lock:
            self.used += used

    def leave(self, number: int) -> None:
        """A lease of five units that nobody settles."""
        self._post("/v1/leases", {"id": f"left-{number}", "feature": "scans", "quantity": 5, "ttl_s": 2}, 201)

    def _post(self, path: str, body: dict[str, Any], status: int) -> dict[str, Any]:
        return wait_until(lambda: self._sent(path, body, status), timeout_s=60, what=f"{path} {body} answered")

    def _sent(self, path: str, body: dict[str, Any], wanted: int) -> dict[str, Any]:
        """The answer; nothing where the service, or the connection, gave none."""
        with suppress(OSError, HTTPException):
            status, answer = call(f"{self.url}{path}", body, token=self.token)
            assert status in (wanted, 503), answer
            return dict(answer) if status == wanted else {}
        return {}


def kill_workers(service: ServiceProcess) -> None:
    """Every worker dies; the parent starts others."""
    for pid in service.workers():
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", drawn([kill_workers, kill_everything], 2), ids=lambda kill: kill.__name__)
def test_what_is_reserved_before_kill_9_is_committed_after_it_once(kill: Callable[[ServiceProcess], None]) -> None:
    """Nothing that was held is lost, nothing counts twice, and leases of which nobody heard again are charged once."""
    with ServiceProcess("--workers", "2") as service:
        jobs = Jobs(service)
        call(f"{service.url}/billing/update", {"org_id": "acme"} | LIMITLESS, token=jobs.token)
        for number in range(LEFT):
            jobs.leave(number)
        with ThreadPoolExecutor(JOBS // 2 + CLIENTS) as clients:
            sent = [clients.submit(jobs.run, number) for number in range(JOBS)]
            wait_until(lambda: jobs.reserved >= JOBS // 2, timeout_s=60, what="half of the jobs have reserved")
            kill(service)
            jobs.interrupted.set()
            for one in sent:
                one.result()
        expected = jobs.used + 5 * LEFT
        wait_until(lambda: _figures(service) == (expected, 0), timeout_s=40, what=f"{expected} used and none held")
        assert asyncio.run(law(store_url(service.data_dir))) == []


def _figures(service: ServiceProcess) -> tuple[int, int]:
    status, view = call(f"{service.url}/usage/acme", token=service.token(org="acme"))
    assert status == 200, view
    return view["features"]["scans"]["current"], view["features"]["scans"]["reserved"]
