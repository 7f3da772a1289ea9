"""Health, readiness, metrics and pages."""

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from types import FrameType
from typing import Any

import pytest

from metering.errors import leaves
from metering.settings import Settings
from metering.store.gate import Check, GateReport
from metering.store.keys import DATASET
from metering.vitals import End, StoreVitals, told_of_the_end
from tests.service.running import Running, problem, token
from tests.support.servers import StoreServer
from tests.support.service import END_S, ServiceProcess
from tests.support.wait import wait_until


@pytest.fixture
def fragile() -> Iterator[Running]:
    """A service whose store a test may break."""
    with Running() as running:
        yield running


def test_health_shows_status_time_and_services_first_and_says_more(service: Running) -> None:
    response = service.call("GET", "/health")
    assert response.status_code == 200
    body = response.json()
    assert list(body)[:3] == ["status", "timestamp", "services"]
    assert (body["status"], body["services"]) == ("healthy", {"redis": "healthy", "stripe": "not_configured"})
    assert body["stripe"] == "not_configured"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", body["timestamp"])
    assert (body["store"]["kind"], body["store"]["durability"], body["store"]["lossy"]) == ("external", "always", False)
    assert re.fullmatch(r"\d+\.\d+\.\d+", body["version"])


@pytest.mark.parametrize(("key", "mode"), [("sk_test_x", "test"), ("rk_live_x", "live"), ("sk_sandbox_x", "sandbox")])
def test_with_a_key_stripe_is_configured_and_told_by_its_kind(key: str, mode: str) -> None:
    with Running(stripe_secret_key=key, tidies=False) as running:
        body = running.call("GET", "/health").json()
        assert (body["services"]["stripe"], body["stripe"]) == ("configured", mode)


def test_a_store_that_may_lose_usage_degrades_the_service() -> None:
    with StoreServer(appendfsync="everysec") as store, Running(store, allow_lossy_ledger=True) as running:
        response = running.call("GET", "/health")
    assert response.status_code == 200
    body = response.json()
    assert (body["status"], body["store"]["durability"], body["store"]["lossy"]) == ("degraded", "lossy", True)


def test_a_store_that_is_gone_makes_the_service_unhealthy_but_alive(fragile: Running) -> None:
    fragile.server_store.kill()
    health = fragile.call("GET", "/health")
    assert health.status_code == 503
    assert (health.json()["status"], health.json()["services"]["redis"]) == ("unhealthy", "unhealthy")
    ready = fragile.call("GET", "/health/ready")
    assert (ready.status_code, ready.json()) == (503, {"status": "not_ready", "reasons": ["store"]})
    assert fragile.call("GET", "/health/live").json() == {"status": "alive"}


def test_while_the_store_is_gone_calls_are_503_and_say_when_to_come_back(fragile: Running) -> None:
    fragile.track(org_id="org-1", feature="scans")
    fragile.server_store.kill()
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/usage/track", {"org_id": "org-1", "feature": "scans"}),
        ("GET", "/usage/org-1", None),
        ("GET", "/v1/orgs", None),
        ("POST", "/billing/update", {"org_id": "org-1", "plan": "free"}),
    ]
    with ThreadPoolExecutor(len(calls)) as pool:  # each waits as long as a restart may take
        answers = list(pool.map(lambda one: fragile.call(one[0], one[1], token(None, "admin"), json=one[2]), calls))
    for answer in answers:
        body = problem(answer, 503, "storage-unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert body["retryable"] is True
        assert str(fragile.server_store.folder) not in answer.text


def test_when_the_store_is_back_everything_goes_on(fragile: Running) -> None:
    fragile.track(org_id="org-1", feature="scans")
    fragile.server_store.kill()
    assert fragile.call("GET", "/health").status_code == 503
    fragile.server_store.start()
    wait_until(lambda: fragile.call("GET", "/health/ready").status_code == 200, timeout_s=10, what="ready again")
    assert fragile.track(org_id="org-1", feature="scans").json()["current_usage"] == 2


def test_an_emptied_store_is_not_served_as_zero_usage(fragile: Running) -> None:
    assert fragile.call("GET", "/health/ready").json() == {"status": "ready", "reasons": []}
    fragile.store.flushall()
    ready = fragile.call("GET", "/health/ready")
    assert (ready.status_code, ready.json()["reasons"]) == (503, ["data set"])


@pytest.mark.parametrize(("name", "value"), [("maxmemory-policy", "allkeys-lru"), ("appendfsync", "everysec")])
def test_a_store_weakened_while_running_is_not_ready(fragile: Running, name: str, value: str) -> None:
    fragile.store.config_set(name, value)
    ready = fragile.call("GET", "/health/ready")
    assert (ready.status_code, ready.json()["reasons"]) == (503, [name])


def test_the_liveness_probe_does_not_touch_the_store(service: Running) -> None:
    def commands() -> int:
        return int(service.store.info("stats")["total_commands_processed"])

    before = commands()
    service.call("GET", "/health/live")
    assert commands() == before + 1  # the second look itself


def test_a_signal_to_end_is_noted_and_handed_on() -> None:
    handed_on: list[int] = []

    def server(number: int, _: FrameType | None) -> None:
        handed_on.append(number)

    before = signal.signal(signal.SIGTERM, server)
    try:
        with told_of_the_end() as end:
            assert end == End(told=False)
            signal.raise_signal(signal.SIGTERM)
            assert (end.told, handed_on) == (True, [signal.SIGTERM])
        assert signal.getsignal(signal.SIGTERM) is server
    finally:
        signal.signal(signal.SIGTERM, before)


def test_metrics_are_shown_on_loopback_and_hear_what_the_scraper_prefers(service: Running) -> None:
    for path in ("/metrics/usage", "/metrics"):
        response = service.call("GET", path, headers={"Accept": "text/plain;version=0.0.4"})
        assert (response.status_code, response.text) == (200, "accepted 'text/plain;version=0.0.4'\n")
        assert response.headers["content-type"] == "text/plain; version=0.0.4"


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_metrics_with_a_token_want_it_wherever_the_server_is_bound(host: str) -> None:
    with Running(host=host, metrics_token="scrape-me-with-this") as running:
        spoofed = {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
        for bearer in (None, "wrong", token(None, "admin")):
            problem(running.call("GET", "/metrics", bearer, headers=spoofed), 401, "unauthenticated")
        assert running.call("GET", "/metrics", "scrape-me-with-this").status_code == 200


def test_metrics_of_a_server_for_all_without_a_token_are_closed() -> None:
    with Running(host="0.0.0.0") as running:
        assert "METRICS_TOKEN" in problem(running.call("GET", "/metrics"), 401, "unauthenticated")["detail"]


def test_durations_are_told_by_template_whatever_the_path(service: Running) -> None:
    service.recorder.seen.clear()
    for number in range(30):
        service.call("GET", f"/usage/org-{number}", token(None, "admin"))
        service.call("GET", f"/nowhere/{number}")
        service.call("PROPFIND", f"/usage/org-{number}")
    service.track(org_id="a", feature="scans")
    told = {(method, route, status) for method, route, status, _ in service.recorder.seen}
    assert told == {
        ("GET", "/usage/{org_id}", 404),
        ("GET", "other", 404),
        ("other", "/usage/{org_id}", 405),
        ("POST", "/usage/track", 200),
    }
    assert all(0 < seconds < 10 for *_, seconds in service.recorder.seen)


def test_the_reference_page_loads_from_this_server_alone(service: Running) -> None:
    page = service.call("GET", "/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'" in policy
    assert "http" not in policy
    assert not re.search(r"https?://", page.text)
    assert not re.search(r"<script>|\son\w+=", page.text)
    files = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(files) == 4
    for file in files:
        assert service.call("GET", file).status_code == 200
    assert len(service.call("GET", "/docs/swagger.js").content) > 1_000_000


@pytest.mark.parametrize("file", ["x.js", "redoc.js", "..%2f__init__.py", "%2e%2e", "__init__.py"])
def test_no_other_file_is_served(service: Running, file: str) -> None:
    problem(service.call("GET", f"/docs/{file}"), 404, "not-found")


def test_every_problem_has_a_page_with_its_cure(service: Running) -> None:
    for kind in leaves():
        page = service.call("GET", f"/problems/{kind.code}")
        assert page.status_code == 200
        assert kind.code in page.text
    problem(service.call("GET", "/problems/unheard-of"), 404, "not-found")


def test_another_data_set_in_the_same_store_is_not_served(fragile: Running) -> None:
    fragile.store.hset(DATASET, "id", "somebody-elses")
    ready = fragile.call("GET", "/health/ready")
    assert (ready.status_code, ready.json()["reasons"]) == (503, ["data set"])


class Looks:
    """A gate that counts how often it is asked and waits until it may answer."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()

    async def __call__(self) -> GateReport:
        self.asked += 1
        await self.may_answer.wait()
        return GateReport(None, (Check("appendfsync", ok=False, found="no"),), lossy=True)


def vitals(gate: Looks, end: End) -> StoreVitals:
    nobody: Any = None
    return StoreVitals(nobody, gate, GateReport(None, (), lossy=False), nobody, end, Settings())


async def test_told_to_end_it_is_not_ready_whatever_the_store_says() -> None:
    gate = Looks()
    assert await vitals(gate, End(told=True)).unready() == ["shutting down"]
    assert gate.asked == 0


async def test_told_to_end_while_the_store_is_asked_it_is_not_ready_either() -> None:
    gate, end = Looks(), End()
    probe = asyncio.create_task(vitals(gate, end).unready())
    await asyncio.sleep(0)
    end.told = True
    gate.may_answer.set()
    assert await probe == ["shutting down"]
    assert gate.asked == 1


def test_a_service_that_was_told_to_end_says_so_on_the_connections_it_has() -> None:
    with ServiceProcess() as running, ExitStack() as stack:
        bearer = {"Authorization": f"Bearer {running.token()}"}
        probe, other = (stack.enter_context(closing(HTTPConnection("127.0.0.1", running.port))) for _ in range(2))
        for line in (probe, other):
            line.request("GET", "/health/ready")
            assert line.getresponse().read() == b'{"status":"ready","reasons":[]}'
        (store,) = running.stores()
        os.kill(store, signal.SIGSTOP)  # so that both requests are still under way when the signal comes
        other.request("POST", "/usage/track", b'{"feature":"scans"}', bearer)
        probe.request("GET", "/health/ready")
        os.kill(running.pid, signal.SIGTERM)
        wait_until(lambda: "Shutting down" in running.output(), timeout_s=END_S, what="the worker ends")
        os.kill(store, signal.SIGCONT)
        ready = probe.getresponse()
        assert (ready.status, ready.read()) == (503, b'{"status":"not_ready","reasons":["shutting down"]}')
        assert other.getresponse().status == 200
        assert running.wait() == 0


async def test_however_many_ask_the_store_is_asked_once() -> None:
    gate = Looks()
    asked = vitals(gate, End())
    probes = [asyncio.create_task(asked.unready()) for _ in range(20)]
    await asyncio.sleep(0)
    gate.may_answer.set()
    assert await asyncio.gather(*probes) == [["appendfsync"]] * 20
    assert gate.asked == 1
    assert await asked.unready() == ["appendfsync"]
    assert gate.asked == 2
