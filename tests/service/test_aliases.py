"""Paths of clients that were written for other services: each asks for what its successor does, in its own shape."""

from collections.abc import Iterator
from typing import Any

import pytest

from metering.api.alias import Alias, older
from metering.api.routes import ROUTES
from metering.auth import ADMIN
from tests.service.running import Running, problem, token
from tests.support.stripe_till import Till, till

PORTAL = "/v1/billing_portal/sessions"
CHECKOUT = "/v1/checkout/sessions"


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
    told = {"org_id": org, "stripe_customer_id": f"cus_{org[4:]}"}
    assert service.call("POST", "/billing/update", token(None, ADMIN), json=told).status_code == 200
    stripe.sent.clear()
    return org


@pytest.mark.parametrize("path", ["/api/checkout/create", "/api/billing/checkout", "/subscription/create"])
def test_a_checkout_begins_at_every_older_path(service: Running, stripe: Till, payer: str, path: str) -> None:
    body = {"plan": "professional", "success_url": "http://localhost:3000/thanks"}
    answer = service.call("POST", path, token(payer), json=body)
    assert answer.status_code == 201
    (sent,) = stripe.posts(CHECKOUT)
    assert (sent["client_reference_id"], sent["success_url"]) == (payer, "http://localhost:3000/thanks")
    assert answer.json()["url"].startswith(f"{stripe.url}/pay/")


def test_the_portal_opens_at_both_older_paths(service: Running, stripe: Till, payer: str) -> None:
    back = "http://localhost:3000/back"
    posted = service.call("POST", "/api/billing/portal", token(payer), json={"return_url": back})
    gotten = service.call("GET", "/subscription/portal", token(payer), params={"return_url": back})
    plain = service.call("GET", "/subscription/portal", token(payer))
    assert [answer.status_code for answer in (posted, gotten, plain)] == [200] * 3
    urls = [sent["return_url"] for sent in stripe.posts(PORTAL)]
    assert urls == [back, back, "http://localhost:3000/billing"]
    assert gotten.json()["url"].startswith(f"{stripe.url}/portal/")
    told = problem(service.call("GET", "/subscription/portal?return_url=http://x/", token(payer)), 422, "validation")
    assert told["errors"][0]["pointer"] == "/return_url"


def test_an_older_path_names_its_successor(service: Running, payer: str) -> None:
    answer = service.call("GET", "/subscription/portal", token(payer))
    assert answer.headers["link"] == '</v1/billing/portal>; rel="successor-version"'
    assert "deprecation" in answer.headers


@pytest.mark.parametrize(
    ("path", "sent", "code"),
    [
        ("/api/billing/portal", {"json": {}}, "not-subscribed"),
        ("/api/billing/portal", {"json": {"x": 1}}, "validation"),
        ("/api/billing/checkout", {"json": {"plan": "nothing"}}, "plan-unknown"),
        ("/api/billing/checkout", {"content": b"{"}, "malformed-json"),
        ("/api/billing/webhook", {"json": {}}, "not-found"),
    ],
)
@pytest.mark.parametrize("keyed", [False, True])
def test_problems_of_api_billing_say_it_in_error_too(
    service: Running, org: str, path: str, sent: dict[str, Any], code: str, keyed: bool
) -> None:
    service.track(org_id=org, feature="scans")
    headers = {"Idempotency-Key": f"key-{org}-{code}"} if keyed else {}
    for _ in range(2):
        told = service.call("POST", path, token(org), headers=headers, **sent).json()
        assert (told["code"], told["error"]) == (code, told["detail"])


def test_who_calls_is_told_in_error_too_and_no_other_path_has_it(service: Running, org: str) -> None:
    told = problem(service.call("POST", "/api/billing/portal"), 401, "unauthenticated")
    assert told["error"] == told["detail"]
    wrong = problem(service.call("DELETE", "/api/billing/portal", token(org)), 405, "method-not-allowed")
    assert wrong["error"] == wrong["detail"]
    assert "error" not in problem(service.call("POST", "/v1/billing/portal"), 401, "unauthenticated")
    assert "error" not in problem(service.call("GET", "/subscription/portal"), 401, "unauthenticated")


def test_an_alias_of_a_route_that_there_is_not_is_told_at_the_start() -> None:
    with pytest.raises(KeyError, match="/v1/nothing"):
        older([Alias("GET", "/older", "GET /v1/nothing")], ROUTES)
