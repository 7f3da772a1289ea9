"""Metrics of two workers under traffic: no counter ever goes back, whoever answers and whoever dies."""

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import IncompleteRead
from itertools import count, pairwise
from typing import Any, Final, Self
from urllib.request import Request, urlopen

import pytest
import redis

from metering.store.connect import normalise_url
from tests.service.exposition import Page, backwards, faults
from tests.support.fixtures import store, store_session
from tests.support.servers import StoreServer
from tests.support.service import ServiceProcess, call
from tests.support.soak import often
from tests.support.wait import wait_until

__all__ = ["store", "store_session"]

SCRAPES: Final = often(50, 2)
CUSTOMERS: Final = 3
ORGS: Final = 30
TOP_ORGS: Final = 5
FEATURES: Final = ("scans", "wallet_checks", "api_requests")
REST_S: Final = 60.0
"""Workers bring what only they know to where all see it every few seconds."""


def scraped(service: ServiceProcess) -> Page:
    """One page, over a connection of its own; asked again while a worker dies, or the store is too busy to answer."""

    def answer() -> Page | None:
        try:
            with urlopen(Request(f"{service.url}/metrics"), timeout=10) as response:  # noqa: S310 - loopback
                page = Page(response.read().decode(), response.headers["X-Worker-Pid"])
        except OSError:
            return None
        return page if page["metering_store_up"] else None

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
            body = {"org_id": f"org-{chance.randrange(ORGS)}", "feature": chance.choice(FEATURES), "quantity": units}
            self._post(body | {"event_id": f"e-{number}-{event}"})
            with self._lock:
                self.units += units

    def _post(self, body: Mapping[str, object]) -> None:
        def accepted() -> bool:
            try:
                status, _ = call(f"{self._service.url}/usage/track", body, token=self._token)
            except (OSError, IncompleteRead):  # its worker died: before, or in the middle of the answer
                return False
            with self._lock:
                self.posts += 1
            return status == 200

        wait_until(accepted, timeout_s=30, what=f"{body} is accepted")


@contextmanager
def two_workers(store: StoreServer, top_orgs: int) -> Iterator[ServiceProcess]:
    """Two workers that both answer, on an empty store."""
    settings = {"REDIS_URL": store.url, "METRICS_TOP_ORGS": str(top_orgs), "DEBUG": "true", "LOG_LEVEL": "ERROR"}
    with ServiceProcess("--workers", "2", settings=settings) as service:
        _pages_until(service, lambda pages: len({page.worker for page in pages}) == 2)
        yield service


@pytest.fixture
def service(store: StoreServer) -> Iterator[ServiceProcess]:
    """Two workers that show every organisation of these tests, so that none leaves for another."""
    with two_workers(store, ORGS) as service:
        yield service


def _pages_until(service: ServiceProcess, enough: Callable[[list[Page]], bool]) -> list[Page]:
    """Scrape until these are pages enough; all of them, in order."""
    pages: list[Page] = []

    def another() -> bool:
        pages.append(scraped(service))
        return enough(pages)

    wait_until(another, timeout_s=REST_S, what="pages enough")
    return pages


def pages_of(service: ServiceProcess) -> list[Page]:
    """So many pages or more: until the organisations have their series."""
    return _pages_until(service, lambda pages: len(pages) >= SCRAPES and bool(shown(pages[-1])))


def went_back(pages: list[Page]) -> list[list[str]]:
    """Between which pages a counter went back, and which."""
    return [found for before, after in pairwise(pages) if (found := backwards(before, after))]


def shown(page: Page) -> dict[str, float]:
    """The organisations that have a series, and their units."""
    return {org_id: units for (org_id,), units in page.by("scorpius_org_usage_total", "org_id").items()}


def stored_units(server: StoreServer) -> dict[tuple[str, ...], int]:
    """Units by organisation and feature, out of every record of the database that the service uses."""
    found: dict[tuple[str, ...], int] = {}
    client: Any = redis.Redis.from_url(normalise_url(server.url, database=2), decode_responses=True)
    with client:
        for key in client.scan_iter(match="*:o:*", count=1000):
            for name, value in client.hgetall(key).items():
                if name.startswith("u:"):
                    found[key.split(":")[2], name[2:]] = int(value)
    return found


def at_rest(service: ServiceProcess) -> list[Page]:
    """A page of each of the two workers, once they say the same of everything but scrapes."""

    def last(pages: list[Page]) -> dict[str, Page]:
        return {page.worker: page for page in pages}

    def agreed(pages: list[Page]) -> bool:
        return len(last(pages)) > 1 and len({frozenset(_lasting(page)) for page in last(pages).values()}) == 1

    return list(last(_pages_until(service, agreed)).values())


def _lasting(page: Page) -> list[tuple[object, float]]:
    """What a scrape does not change itself."""
    return [(key, value) for key, value in page.samples.items() if ("endpoint", "/metrics") not in key[1]]


def named(service: ServiceProcess) -> set[tuple[str, ...]]:
    """The organisations and features that have a series of their own."""
    return set(scraped(service).by("scorpius_usage_total", "org_id", "feature"))


def observed(service: ServiceProcess) -> float:
    """How many events the histogram says were posted."""
    counts = scraped(service).by("scorpius_usage_api_duration_seconds_count", "method", "endpoint")
    return counts["POST", "/usage/track"]


def test_scrapes_under_traffic_never_go_back_and_end_at_the_truth(service: ServiceProcess, store: StoreServer) -> None:
    with Customers(service) as customers:
        pages = pages_of(service)
    assert len({page.worker for page in pages}) >= 2
    assert went_back(pages) == []
    assert pages[0].total("scorpius_feature_usage_total") < pages[-1].total("scorpius_feature_usage_total")

    stored = stored_units(store)
    wait_until(lambda: observed(service) == customers.posts, timeout_s=REST_S, what="every answer is observed")
    wait_until(lambda: named(service) == stored.keys(), timeout_s=REST_S, what="every organisation is shown")
    for page in at_rest(service):
        assert faults(page.text) == []
        assert page.total("scorpius_feature_usage_total") == customers.units == sum(stored.values())
        assert page.by("scorpius_usage_total", "org_id", "feature") == stored
        assert page["scorpius_total_organizations"] == len({org_id for org_id, _ in stored})
        assert page["metering_batch_events_total"] >= customers.posts


def test_a_worker_killed_under_traffic_takes_no_counter_back(service: ServiceProcess, store: StoreServer) -> None:
    victim = service.workers()[0]
    with Customers(service) as customers:
        pages = pages_of(service)
        os.kill(victim, signal.SIGKILL)
        pages += pages_of(service)
    assert went_back(pages) == []
    for page in at_rest(service):
        assert page.worker != str(victim)
        assert page.total("scorpius_feature_usage_total") == customers.units == sum(stored_units(store).values())
        assert backwards(pages[-1], page) == []


def test_at_rest_those_with_the_most_are_shown_with_what_the_store_holds(store: StoreServer) -> None:
    with two_workers(store, TOP_ORGS) as service:
        with Customers(service) as customers:
            wait_until(lambda: customers.posts > 300, timeout_s=60, what="300 events")
        stored = stored_units(store)
        totals = Counter[str]()
        for (org_id, _), units in stored.items():
            totals[org_id] += units
        highest = sorted(totals.values())[-TOP_ORGS:]
        wait_until(lambda: sorted(shown(scraped(service)).values()) == highest, timeout_s=REST_S, what="the highest")
        for page in at_rest(service):
            assert shown(page).items() <= totals.items()
            assert sorted(shown(page).values()) == highest
            assert page.by("scorpius_usage_total", "org_id", "feature").items() <= stored.items()
