"""kill -9 of a worker, of the parent, of the store and of everything at once, in the middle of hundreds of posts."""

import asyncio
import json
import os
import random
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

import pytest

from metering.store.connect import connect
from metering.store.conservation import walk
from metering.store.keys import Keys
from tests.support.servers import speak
from tests.support.service import ServiceProcess, call
from tests.support.soak import SOAK, often
from tests.support.wait import wait_until

POSTS: Final = often(2_000, 4)
ORGS: Final = 7
CLIENTS: Final = 8


class Posts:
    """Clients that send each event until it is acknowledged, and some twice."""

    def __init__(self, service: ServiceProcess) -> None:
        self.url, self.token = service.url, service.token()
        self.acknowledged = 0
        self.repeated = 0
        self._lock = threading.Lock()

    def send(self, number: int) -> None:
        """Send event `number` until it is answered 200; a connection that breaks or a 503 is tried again."""
        body = {"org_id": f"org-{number % ORGS}", "feature": "scans", "quantity": 1, "event_id": f"evt-{number}"}
        wait_until(lambda: self._sent(body), timeout_s=60, what=f"event {number} acknowledged")
        again = self._sent(body) if number % 10 == 0 else {}
        if again:
            assert (again["duplicate"], again["recorded"]) == (True, 0)
        with self._lock:
            self.acknowledged += 1
            self.repeated += bool(again)

    def _sent(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer if it is a 200; nothing where the service, or the connection, gave none."""
        with suppress(OSError, HTTPException):
            status, answer = call(f"{self.url}/usage/track", body, token=self.token)
            assert status in (200, 503), answer
            return dict(answer) if status == 200 else {}
        return {}


def kill_worker(service: ServiceProcess) -> None:
    """One worker dies; the parent starts another."""
    os.kill(random.choice(service.workers()), signal.SIGKILL)


def kill_store(service: ServiceProcess) -> None:
    """The store dies; the parent starts it again on the same data."""
    os.kill(service.stores()[0], signal.SIGKILL)


def kill_parent(service: ServiceProcess) -> None:
    """The parent dies and takes everything along; it is started again."""
    service.kill()
    service.start(healthy=False)


def kill_everything(service: ServiceProcess) -> None:
    """Store, workers and parent die at once; the service is started again."""
    service.kill_everything()
    service.start(healthy=False)


def store_url(data_dir: Path) -> str:
    """Where the embedded store listens."""
    found = json.loads((data_dir / "store" / "run.json").read_text())
    return f"unix://{found['socket']}"


async def law(url: str) -> list[str]:
    """Violations of the conservation law over every key."""
    async with connect(url, database=2) as client:
        return [str(violation) for violation in (await walk(client, Keys(64))).violations]


Kill = Callable[[ServiceProcess], None]


def rounds(*kills: Kill) -> list[Sequence[Kill]]:
    """What is killed in a run: one after the other, and in a soak each kind again and again besides."""
    return [kills, *([kill] * 3 for kill in kills if SOAK)]


def named(kills: Sequence[Kill]) -> str:
    """The name of a run's parameter."""
    return "-".join(kill.__name__.removeprefix("kill_") for kill in kills)


@pytest.mark.parametrize("kills", rounds(kill_worker, kill_store, kill_parent, kill_everything), ids=named)
def test_every_event_counts_once_whatever_is_killed(kills: Sequence[Kill]) -> None:
    """Posts with client retries, kills among them: the counters equal the distinct ids."""
    with ServiceProcess("--workers", "2") as service:
        url = store_url(service.data_dir)
        assert "always" in speak(url.removeprefix("unix://"), "CONFIG", "GET", "appendfsync")
        posts = Posts(service)
        with ThreadPoolExecutor(CLIENTS) as clients:
            sent = [clients.submit(posts.send, number) for number in range(POSTS)]
            for turn, kill in enumerate(kills, 1):
                some = POSTS * turn // (len(kills) + 1)
                wait_until(lambda: posts.acknowledged >= some, timeout_s=60, what=f"{some} of the posts")  # noqa: B023
                kill(service)
            for one in sent:
                one.result()
        assert posts.repeated > 0
        wait_until(lambda: _used(service) == POSTS, timeout_s=10, what=f"{POSTS} counted, not {_used(service)}")
        assert asyncio.run(law(store_url(service.data_dir))) == []


def _used(service: ServiceProcess) -> int:
    total = 0
    for number in range(ORGS):
        status, view = call(f"{service.url}/usage/org-{number}", token=service.token())
        assert status == 200, view
        total += view["features"]["scans"]["current"]
    return total
