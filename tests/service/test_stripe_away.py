"""While Stripe is slow or away usage is counted as ever, overage waits, and the service is degraded and not dead."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from metering.auth import ADMIN
from tests.service.running import Running, problem, token
from tests.support.fixtures import store, store_session
from tests.support.servers import StoreServer
from tests.support.stripe_till import METER_EVENTS, Till, till
from tests.support.wait import wait_until

__all__ = ["store", "store_session"]

ROOT = token(None, ADMIN)
DOWN = (503, {"error": {"type": "api_error", "message": "down"}})
HUNG_S = 5.0
"""An event takes some ms."""


@pytest.fixture
def stripe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Till]:
    with till() as running:
        monkeypatch.setenv("STRIPE_API_BASE", running.url)
        yield running


@pytest.fixture
def service(store: StoreServer, stripe: Till) -> Iterator[Running]:
    with Running(
        store, stripe_secret_key="sk_test_1", stripe_api_base=stripe.url, overage_push_s=1.0, tidies=True
    ) as running:
        yield running


def track(service: Running, quantity: int) -> int:
    """Usage of acme; how much it has used."""
    sent = {"org_id": "acme", "feature": "scans", "quantity": quantity}
    answer = service.call("POST", "/usage/track", ROOT, json=sent, timeout=HUNG_S)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["current_usage"])


def states(service: Running) -> dict[str, str]:
    """How the service says it is."""
    answers = {path: service.call("GET", path) for path in ("/health", "/health/ready", "/health/live")}
    assert {answer.status_code for answer in answers.values()} == {200}
    return {path: answer.json()["status"] for path, answer in answers.items()}


@contextmanager
def silent(stripe: Till) -> Iterator[None]:
    """Stripe takes meter events, and answers when the block is left."""
    speaks = threading.Event()
    stripe.on_metered = speaks.wait
    try:
        yield
    finally:
        speaks.set()


def on_its_way(service: Running) -> int:
    """Windows of acme that Stripe does not have."""
    counts = service.call("GET", "/v1/stripe/outbox", ROOT, params={"org_id": "acme"}).json()["counts"]
    return int(counts["sealed"]["windows"] + counts["inflight"]["windows"])


def test_row_7_while_stripe_is_silent_usage_is_counted_and_its_overage_goes_out_later(
    service: Running, stripe: Till
) -> None:
    assert service.call("PUT", "/v1/orgs/acme", ROOT, json={"stripe_customer_id": "cus_1"}).status_code == 201
    with silent(stripe):
        track(service, 13)
        wait_until(lambda: stripe.metered, timeout_s=10, what="a call to Stripe hangs")
        assert [track(service, 1) for _ in range(20)] == list(range(14, 34))
        assert (on_its_way(service), len(stripe.posts(METER_EVENTS))) == (1, 1)
    wait_until(
        lambda: sum(stripe.metered.values()) == 23 and not on_its_way(service),
        timeout_s=10,
        what="Stripe has everything",
    )


def test_row_7_while_stripe_is_away_the_service_is_degraded_and_neither_dead_nor_unready(
    service: Running, stripe: Till
) -> None:
    wanted = {"org_id": "acme", "plan": "professional"}
    stripe.refuse = DOWN
    problem(service.call("POST", "/v1/billing/checkout", ROOT, json=wanted), 503, "stripe-unavailable")
    assert states(service) == {"/health": "degraded", "/health/ready": "ready", "/health/live": "alive"}
    assert service.call("GET", "/health").json()["services"] == {"redis": "healthy", "stripe": "unreachable"}
    assert track(service, 1) == 1
    stripe.refuse = None
    assert service.call("POST", "/v1/billing/checkout", ROOT, json=wanted).status_code == 201
    assert states(service)["/health"] == "healthy"
