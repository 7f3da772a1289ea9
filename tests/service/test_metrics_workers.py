"""Metrics of two workers under traffic: no counter ever goes back, whoever answers and whoever dies."""

import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count, pairwise
from typing import Final, Self
from urllib.request import Request, urlopen

import pytest
import redis

from metering.store.connect import normalise_url
from tests.service.exposition import Page, backwards, faults
from tests.support.fixtures import store, store_session
from tests.support.servers import StoreServer
from tests.support.service import ServiceProcess, call
from tests.support.wait import wait_until

__all__ = ["store", "store_session"]

SCRAPES: Final = 50
CUSTOMERS: Final = 3
FEATURES: Final = ("scans", "wallet_checks", "api_requests")
REST_S: Final = 20.0
"""Workers bring what only they know to where all see it every few seconds."""


def scraped(service: ServiceProcess) -> Page:
    """One page, over a connection of its own; asked again while a worker dies."""

    def answer() -> Page | None:
        try:
            with urlopen(Request(f"{service.url}/metrics"), timeout=10) as response:  # noqa: S310 - loopback
                return Page(response.read().decode(), response.headers["X-Worker-Pid"])
        except OSError:
            return None

    return wait_until(answer, timeout_s=20, what="a page of metrics") or Page("")


class Customers:
    """Threads that post events, each again until it is accepted; `units` is what was accepted, `posts` all answers."""

    def __init__(self, service: ServiceProcess) -> None:
        self._service, self._token = service, service.token()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(CUSTOMERS)
        self.units = self.posts = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._futures = [self._pool.submit(self._use, number) for number in range(CUSTOMERS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for future in self._futures:
            future.result()

    def _use(self, number: int) -> None:
        chance = random.Random(number)
        for event in count():
            if self._stop.is_set():
                return
            units = chance.randint(1, 9)
            body = {"org_id": f"org-{chance.randint(0, 30)}", "feature": chance.choice(FEATURES), "quantity": units}
            self._post(body | {"event_id": f"e-{number}-{event}"})
            with self._lock:
                self.units += units

    def _post(self, body: dict[str, object]) -> None:
        def accepted() -> bool:
            try:
                status, _ = call(f"{self._service.url}/usage/track", body, token=self._token)
            except OSError:
                return False
            with self._lock:
                self.posts += 1
            return status == 200

        wait_until(accepted, timeout_s=30, what=f"{body} is accepted")


@pytest.fixture
def service(store: StoreServer) -> Iterator[ServiceProcess]:
    """Two workers on an empty store."""
    with ServiceProcess("--workers", "2", settings={"REDIS_URL": store.url, "LOG_LEVEL": "ERROR"}) as service:
        wait_until(lambda: len(service.workers()) == 2, timeout_s=20, what="two workers")
        yield service


@contextmanager
def truth(server: StoreServer) -> Iterator["redis.Redis"]:
    """The store itself, in the database that the service uses."""
    with redis.Redis.from_url(normalise_url(server.url, database=2)) as client:
        yield client


def units_stored(server: StoreServer) -> dict[tuple[str, str], int]:
    """Units by organisation and feature, out of every record."""
    found = {}
    with truth(server) as client:
        for key in client.scan_iter(match="*:o:*", count=1000):
            for name, value in client.hgetall(key).items():
                if name.startswith(b"u:"):
                    found[key.decode().split(":")[2], name.decode()[2:]] = int(value)
    return found


def at_rest(service: ServiceProcess) -> list[Page]:
    """A page of each of the two workers, once they say the same of everything but scrapes."""
    pages: dict[str, Page] = {}

    def agreed() -> bool:
        page = scraped(service)
        pages[page.worker] = page
        return len(pages) > 1 and len({frozenset(_lasting(page)) for page in pages.values()}) == 1

    wait_until(agreed, timeout_s=REST_S, what="two workers that say the same")
    return list(pages.values())


def _lasting(page: Page) -> list[tuple[object, float]]:
    """What a scrape does not change itself."""
    return [(key, value) for key, value in page.samples.items() if ("endpoint", "/metrics") not in key[1]]


def test_fifty_scrapes_under_traffic_never_go_back_and_end_at_the_truth(
    service: ServiceProcess, store: StoreServer
) -> None:
    with Customers(service) as customers:
        pages = [scraped(service) for _ in range(SCRAPES)]
    assert len({page.worker for page in pages}) >= 2
    assert [backwards(before, after) for before, after in pairwise(pages)] == [[]] * (SCRAPES - 1)
    assert pages[0].total("scorpius_feature_usage_total") < pages[-1].total("scorpius_feature_usage_total")

    stored = units_stored(store)
    wait_until(
        lambda: (
            scraped(service).by("scorpius_usage_api_duration_seconds_count", "endpoint")["/usage/track",]
            == customers.posts
        ),
        timeout_s=REST_S,
        what="every answer is observed",
    )
    for page in at_rest(service):
        assert page.total("scorpius_feature_usage_total") == customers.units == sum(stored.values())
        for name in ("scorpius_feature_usage_total", "scorpius_usage_total"):
            assert faults(page.text) == [], name
        shown = page.by("scorpius_usage_total", "org_id", "feature")
        assert shown.items() <= stored.items()
        lowest = min(page.by("scorpius_org_usage_total", "org_id").values())
        assert len({org_id for org_id, _ in shown}) == 20
        others = {org_id for org_id, _ in stored} - {org_id for org_id, _ in shown}
        sums = {name: sum(units for (org_id, _), units in stored.items() if org_id == name) for name in others}
        assert max(sums.values()) <= lowest
        assert page["scorpius_total_organizations"] == len({org_id for org_id, _ in stored})
        assert page["metering_batch_events_total"] >= customers.posts


def test_a_worker_killed_under_traffic_takes_no_counter_back(service: ServiceProcess, store: StoreServer) -> None:
    victim = service.workers()[0]
    with Customers(service) as customers:
        pages = [scraped(service) for _ in range(SCRAPES // 2)]
        os.kill(victim, signal.SIGKILL)
        pages += [scraped(service) for _ in range(SCRAPES // 2)]
    assert [backwards(before, after) for before, after in pairwise(pages)] == [[]] * (SCRAPES - 1)
    wait_until(lambda: len({victim, *service.workers()}) == 3, timeout_s=20, what="another worker")
    for page in at_rest(service):
        assert page.worker != str(victim)
        assert page.total("scorpius_feature_usage_total") == customers.units == sum(units_stored(store).values())
        assert backwards(pages[-1], page) == []
