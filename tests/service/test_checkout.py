"""Buying a plan: what Stripe is asked for, what the caller is told, and what is not bought."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import pytest

from metering.auth import ADMIN, USAGE_READ
from metering.store.fields import FieldCodec
from metering.store.keys import Keys
from metering.store.org import Profile, Subscription, profile_fields
from plans.periods import Period, Reset
from tests.service.running import Running, problem, token
from tests.support.fixtures import store, store_session
from tests.support.servers import StoreServer
from tests.support.stripe_till import Till, till

__all__ = ["store", "store_session"]

SESSIONS, CUSTOMERS = "/v1/checkout/sessions", "/v1/customers"


@pytest.fixture
def stripe() -> Iterator[Till]:
    with till() as running:
        yield running


@pytest.fixture
def service(store: StoreServer, stripe: Till) -> Iterator[Running]:
    with Running(store, stripe_secret_key="sk_test_1", stripe_api_base=stripe.url) as running:
        yield running


def buy(
    service: Running, *, bearer: str = "", headers: Mapping[str, str] | None = None, **body: Any
) -> httpx2.Response:
    """POST /v1/billing/checkout, for acme and the professional plan unless told otherwise."""
    wanted = {"org_id": "acme", "plan": "professional"} | body
    return service.call("POST", "/v1/billing/checkout", bearer or token(None, ADMIN), json=wanted, headers=headers)


def test_a_checkout_sells_the_plan_and_the_overage_of_every_feature_to_a_customer_of_the_organisation(
    service: Running, stripe: Till
) -> None:
    answer = buy(service)
    assert answer.status_code == 201
    assert answer.json() == {"id": "cs_2", "url": f"{stripe.url}/pay/cs_2", "expires_at": "2026-11-26T12:00:00Z"}
    (sent,) = stripe.posts(SESSIONS)
    assert sent["line_items"] == [
        {"price": "price_metering_professional_base", "quantity": "1"},
        {"price": "price_metering_scans_overage"},
        {"price": "price_metering_wallet_checks_overage"},
        {"price": "price_metering_api_requests_overage"},
    ]
    assert (sent["mode"], sent["customer"], sent["client_reference_id"]) == ("subscription", "cus_1", "acme")
    assert sent["subscription_data"] == {"metadata": {"org_id": "acme"}, "billing_mode": {"type": "flexible"}}
    assert sent["success_url"] == "http://localhost:3000/billing?checkout=done&session_id={CHECKOUT_SESSION_ID}"
    (customer,) = stripe.posts(CUSTOMERS)
    assert customer["metadata"]["org_id"] == "acme"


def test_tax_is_asked_for_where_it_is_wanted_and_the_address_kept(store: StoreServer, stripe: Till) -> None:
    for wanted in (True, False):
        asked: dict[str, Any] = {"stripe_secret_key": "sk_test_1", "stripe_api_base": stripe.url}
        with Running(store, stripe_automatic_tax=wanted, **asked) as service:
            assert buy(service, org_id=f"tax-{wanted}".lower()).status_code == 201
    with_tax, without = stripe.posts(SESSIONS)
    assert (with_tax["automatic_tax"], with_tax["customer_update"]) == ({"enabled": "true"}, {"address": "auto"})
    assert not {"automatic_tax", "customer_update"} & without.keys()


def test_nothing_changes_before_it_is_paid(service: Running) -> None:
    buy(service)
    view = service.call("GET", "/usage/acme", token(None, ADMIN)).json()
    assert (view["plan"], view["stripe_customer_id"]) == ("free", None)


def test_every_checkout_of_an_organisation_asks_for_the_same_customer(service: Running, stripe: Till) -> None:
    buy(service)
    buy(service)
    buy(service, org_id="other")
    keys = [key for _, path, _, key in stripe.sent if path == CUSTOMERS]
    assert (keys[0] == keys[1], keys[0] == keys[2]) == (True, False)
    assert [sent["customer"] for sent in stripe.posts(SESSIONS)][:2] == ["cus_1", "cus_1"]


def test_an_organisation_with_a_customer_pays_as_that_one(service: Running, stripe: Till) -> None:
    service.call(
        "POST", "/billing/update", token(None, ADMIN), json={"org_id": "acme", "stripe_customer_id": "cus_own"}
    )
    buy(service)
    assert stripe.posts(CUSTOMERS) == []
    assert stripe.posts(SESSIONS)[0]["customer"] == "cus_own"


def test_a_repeat_under_the_same_key_is_the_same_checkout(service: Running, stripe: Till) -> None:
    first, second = (buy(service, headers={"Idempotency-Key": "order-1"}) for _ in range(2))
    assert (first.json(), second.headers["idempotency-replayed"]) == (second.json(), "true")
    assert len(stripe.posts(SESSIONS)) == 1


def test_a_repeat_after_an_outage_uses_the_same_keys_at_stripe(service: Running, stripe: Till) -> None:
    stripe.refuse = (500, {"error": {"type": "api_error", "message": "oops"}})
    problem(buy(service, headers={"Idempotency-Key": "order-1"}), 503, "stripe-unavailable")
    stripe.refuse = None
    assert buy(service, headers={"Idempotency-Key": "order-1"}).status_code == 201


def test_a_stored_500_does_not_keep_an_organisation_from_buying(service: Running, stripe: Till) -> None:
    buy(service)
    (stored,) = {key for _, path, _, key in stripe.sent if path == CUSTOMERS}
    stripe.broken = {stored}
    assert buy(service).status_code == 201
    assert stripe.sent[-2][3] == f"{stored}:again"


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://localhost:3000/after", True),
        ("http://LOCALHOST:3000/after?x={CHECKOUT_SESSION_ID}", True),
        ("http://127.0.0.1:8005/billing", True),
        ("http://localhost:3001/after", False),
        ("https://localhost:3000/after", False),
        ("http://localhost:3000@evil.example/", False),
        ("http://localhost:3000\\@evil.example/", False),
        ("http://evil.example/?http://localhost:3000", False),
        ("http://localhost:3000.evil.example/", False),
        ("javascript:alert(1)", False),
        ("//localhost:3000/", False),
        ("http://localhost:99999999/", False),
        ("http://löcalhost:3000/", False),
    ],
)
@pytest.mark.parametrize("name", ["success_url", "cancel_url"])
def test_payers_come_back_to_the_front_end_or_to_this_service_alone(
    service: Running, stripe: Till, name: str, url: str, allowed: bool
) -> None:
    body: dict[str, Any] = {name: url}
    answer = buy(service, **body)
    if allowed:
        assert stripe.posts(SESSIONS)[0][name] == url
    else:
        (fault,) = problem(answer, 422, "validation")["errors"]
        assert (fault["pointer"], fault["code"]) == (f"/{name}", "url-not-allowed")
        assert stripe.sent == []


@pytest.fixture
def yearly(store: StoreServer, stripe: Till) -> Iterator[Running]:
    """A service that sells plans by the year."""
    with Running(store, stripe_secret_key="sk_test_1", stripe_api_base=stripe.url, plans_file="s0") as running:
        yield running


def test_a_plan_is_bought_by_the_year_where_it_is_sold_so(yearly: Running, stripe: Till) -> None:
    assert buy(yearly, plan="growth", interval="year").status_code == 201
    assert buy(yearly, plan="growth").status_code == 201
    by_year, by_month = stripe.posts(SESSIONS)
    assert by_year["line_items"] == [{"price": "price_metering_growth_base_yearly", "quantity": "1"}]
    assert by_year["subscription_data"]["metadata"] == {"org_id": "acme"}
    assert by_month["line_items"] == [{"price": "price_metering_growth_base", "quantity": "1"}]
    assert by_month["subscription_data"]["metadata"] == {"org_id": "acme"}
    told = problem(buy(yearly, plan="free", interval="year"), 409, "plan-not-sold")
    assert told["detail"] == "plan 'free' is not sold by the year"
    (fault,) = problem(buy(yearly, plan="growth", interval="week"), 422, "validation")["errors"]
    assert fault["pointer"] == "/interval"


def test_what_cannot_be_bought_is_told(service: Running, stripe: Till) -> None:
    problem(buy(service, plan="nothing"), 404, "plan-unknown")
    stripe.lacks = {"metering_free_base"}
    problem(buy(service, plan="free"), 409, "plan-not-sold")
    stripe.lacks = {"metering_scans_overage"}
    told = problem(buy(service), 409, "plan-not-sold")
    assert "metering_scans_overage" in told["detail"]
    assert stripe.posts(SESSIONS) == []


@pytest.mark.parametrize(
    ("status", "error", "code", "answered"),
    [
        (401, {"message": "Invalid API Key"}, "stripe-error", 502),
        (400, {"message": "No such price", "code": "resource_missing", "param": "line_items[0]"}, "stripe-error", 502),
        (
            400,
            {"message": "No such customer", "code": "resource_missing", "param": "customer"},
            "customer-unknown",
            409,
        ),
        (429, {"message": "later"}, "stripe-unavailable", 503),
        (503, {"message": "down"}, "stripe-unavailable", 503),
    ],
)
def test_what_stripe_says_is_told_by_a_stable_code(
    service: Running, stripe: Till, status: int, error: dict[str, Any], code: str, answered: int
) -> None:
    stripe.refuse = (status, {"error": {"type": "invalid_request_error", **error}})
    told = problem(buy(service), answered, code)
    assert told["retryable"] is (answered == 503)


def test_without_stripe_everything_else_works(store: StoreServer) -> None:
    with Running(store) as service:
        problem(buy(service), 409, "stripe-not-configured")
        assert service.track(org_id="acme", feature="scans").status_code == 200


def test_a_stripe_that_is_not_there_is_told_as_unavailable(store: StoreServer) -> None:
    with Running(store, stripe_secret_key="sk_test_1", stripe_api_base="http://127.0.0.1:9") as service:
        problem(buy(service), 503, "stripe-unavailable")


def test_buying_takes_the_scope_for_it_and_ones_own_organisation(service: Running) -> None:
    problem(buy(service, bearer=token("acme", USAGE_READ)), 403, "forbidden")
    problem(buy(service, bearer=token("other")), 404, "org-not-found")
    assert buy(service, bearer=token("acme")).status_code == 201


@pytest.mark.parametrize(
    ("status", "sells"),
    [("active", False), ("past_due", False), ("unpaid", False), ("canceled", True), ("incomplete_expired", True)],
)
def test_who_has_a_subscription_buys_no_second_one(service: Running, status: str, sells: bool) -> None:
    service.track(org_id="acme", feature="scans")
    held = Subscription("sub_1", status, "professional", 0, 0, Period(0, 1))
    profile = Profile(Reset.CALENDAR, "UTC", 0, b"k" * 32, 0, 0, subscription=held)
    field = profile_fields("acme", profile, FieldCodec())["subscription"]
    service.store.hset(Keys(64).profile("acme"), "subscription", field)
    answer = buy(service)
    if sells:
        assert answer.status_code == 201
    else:
        problem(answer, 409, "already-subscribed")
