"""Stripe's portal: who gets in, by which configuration, and where they come back to."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from metering.auth import ADMIN, BILLING_READ
from tests.service.running import Running, problem, token
from tests.support.stripe_till import Till, till

SESSIONS = "/v1/billing_portal/sessions"


@pytest.fixture(scope="module")
def stripe() -> Iterator[Till]:
    with till() as running:
        yield running


@pytest.fixture(scope="module")
def service(stripe: Till) -> Iterator[Running]:
    with Running(stripe_secret_key="sk_test_1", stripe_api_base=stripe.url) as running:
        yield running


@pytest.fixture
def payer(service: Running, stripe: Till, org: str) -> str:
    """An organisation that a customer pays for."""
    stripe.sent.clear()
    told = {"org_id": org, "stripe_customer_id": f"cus_{org[4:]}"}
    assert service.call("POST", "/billing/update", token(None, ADMIN), json=told).status_code == 200
    return org


def enter(service: Running, org: str, **more: Any) -> httpx2.Response:
    """POST /v1/billing/portal, by a token of the organisation."""
    return service.call("POST", "/v1/billing/portal", token(org), **more)


def test_a_payer_gets_in_as_the_customer_of_the_organisation(service: Running, stripe: Till, payer: str) -> None:
    answer = enter(service, payer, json={"return_url": "http://localhost:3000/account"})
    assert answer.status_code == 200
    assert answer.json()["url"].startswith(f"{stripe.url}/portal/")
    (sent,) = stripe.posts(SESSIONS)
    assert (sent["customer"], sent["return_url"]) == (f"cus_{payer[4:]}", "http://localhost:3000/account")


def test_without_a_body_they_come_back_to_the_front_end(service: Running, stripe: Till, payer: str) -> None:
    assert enter(service, payer).status_code == 200
    assert enter(service, payer, headers={"Content-Type": "application/json"}).status_code == 200
    assert [sent["return_url"] for sent in stripe.posts(SESSIONS)] == ["http://localhost:3000/billing"] * 2


def test_a_body_that_is_there_has_to_say_what_it_is(service: Running, payer: str) -> None:
    problem(enter(service, payer, content=b"{}", headers={"Content-Type": "text/plain"}), 415, "unsupported-media-type")
    problem(enter(service, payer, json={"returnUrl": "http://localhost:3000/"}), 422, "validation")


@pytest.mark.parametrize("url", ["https://evil.example/", "http://localhost:3000@evil.example/", "javascript:alert(1)"])
def test_they_come_back_to_known_addresses_alone(service: Running, stripe: Till, payer: str, url: str) -> None:
    (fault,) = problem(enter(service, payer, json={"return_url": url}), 422, "validation")["errors"]
    assert (fault["pointer"], fault["code"]) == ("/return_url", "url-not-allowed")
    assert stripe.sent == []


def test_a_repeat_under_the_same_key_is_the_same_way_in(service: Running, stripe: Till, payer: str) -> None:
    first, second = (enter(service, payer, headers={"Idempotency-Key": f"in-{payer}"}) for _ in range(2))
    assert (first.content, second.headers["idempotency-replayed"]) == (second.content, "true")
    assert len(stripe.posts(SESSIONS)) == 1


def test_the_configuration_of_the_set_up_is_taken_and_remembered(stripe: Till, org: str) -> None:
    ours = {"id": "bpc_ours", "metadata": {"metering": "portal"}}
    with Running(stripe_secret_key="sk_test_1", stripe_api_base=stripe.url) as service:
        told = {"org_id": org, "stripe_customer_id": "cus_1"}
        service.call("POST", "/billing/update", token(None, ADMIN), json=told)
        stripe.sent.clear()
        enter(service, org)
        stripe.configurations.append(ours)
        for _ in range(2):
            enter(service, org)
        stripe.configurations.remove(ours)
    assert [sent.get("configuration") for sent in stripe.posts(SESSIONS)] == [None, "bpc_ours", "bpc_ours"]
    assert [path for method, path, *_ in stripe.sent if method == "GET"] == ["/v1/billing_portal/configurations"] * 2


def test_where_nobody_pays_nobody_gets_in(service: Running, stripe: Till, org: str) -> None:
    service.track(org_id=org, feature="scans")
    stripe.sent.clear()
    told = problem(enter(service, org), 409, "not-subscribed")
    assert "POST /v1/billing/checkout" in told["cure"]
    assert stripe.sent == []


@pytest.mark.parametrize(
    ("status", "error", "code", "answered"),
    [
        (401, {"message": "Invalid API Key"}, "stripe-error", 502),
        (400, {"message": "No configuration"}, "stripe-error", 502),
        (
            400,
            {"message": "No such customer", "code": "resource_missing", "param": "customer"},
            "customer-unknown",
            409,
        ),
        (429, {"message": "later"}, "stripe-unavailable", 503),
    ],
)
def test_what_stripe_says_is_told_by_a_stable_code(
    service: Running, stripe: Till, payer: str, status: int, error: dict[str, Any], code: str, answered: int
) -> None:
    stripe.refuse = (status, {"error": {"type": "invalid_request_error", **error}})
    problem(enter(service, payer), answered, code)
    stripe.refuse = None


def test_it_takes_the_scope_to_change_billing(service: Running, payer: str) -> None:
    problem(service.call("POST", "/v1/billing/portal", token(payer, BILLING_READ)), 403, "forbidden")
