"""An organisation's subscription: what is told of it, and what customers do about it."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from metering.auth import BILLING_READ, USAGE_READ
from tests.service.running import Running, problem, token
from tests.service.subscribing import END_MS, customer_of, subscribed
from tests.support.stripe_till import Till, till

PATHS = ("/v1/billing/subscription", "/api/billing/subscription", "/subscription/status")


@pytest.fixture(scope="module")
def stripe() -> Iterator[Till]:
    with till() as running:
        yield running


@pytest.fixture(scope="module")
def service(stripe: Till) -> Iterator[Running]:
    with Running(stripe_secret_key="sk_test_1", stripe_api_base=stripe.url) as running:
        yield running


@pytest.mark.parametrize("path", PATHS)
def test_who_never_subscribed_has_its_plan(service: Running, org: str, path: str) -> None:
    service.track(org_id=org, feature="scans")
    told = service.call("GET", path, token(org)).json()
    assert (told["org_id"], told["plan"], told["status"]) == (org, "free", None)
    assert (told["cancel_at_period_end"], told["metered"], told["payment_overdue"]) == (False, [], False)
    nothing = ("subscription_id", "stripe_customer_id", "plan_subscribed", "started_at", "ends_at", "trial_ends_at")
    assert [told[name] for name in nothing] == [None] * len(nothing)
    assert set(told["period"]) == {"start", "end"}


@pytest.mark.parametrize("path", PATHS)
def test_what_stripe_told_of_a_subscription_is_shown_without_asking_again(
    service: Running, stripe: Till, org: str, path: str
) -> None:
    subscribed(service, org, status="trialing", stops_ms=END_MS, trial_end_ms=END_MS, cancel_at_period_end=True)
    stripe.sent.clear()
    told = service.call("GET", path, token(org)).json()
    assert (told["status"], told["plan_subscribed"]) == ("trialing", "professional")
    assert told["subscription_id"] == customer_of(org).replace("cus_", "sub_")
    assert (told["cancel_at_period_end"], told["ends_at"]) == (True, "2026-12-25T09:46:40Z")
    assert (told["trial_ends_at"], told["started_at"]) == ("2026-12-25T09:46:40Z", "2026-11-25T09:46:40Z")
    assert (told["metered"], told["stripe_customer_id"]) == (["scans"], customer_of(org))
    assert stripe.sent == []


def test_one_that_ended_says_when(service: Running, org: str) -> None:
    subscribed(service, org, status="canceled")
    told = service.call("GET", PATHS[0], token(org)).json()
    assert (told["status"], told["ends_at"], told["cancel_at_period_end"]) == (
        "canceled",
        "2026-12-25T09:46:40Z",
        False,
    )


def test_it_takes_the_scope_to_read_billing(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    problem(service.call("GET", PATHS[0], token(org, USAGE_READ)), 403, "forbidden")


# ── what customers do ────────────────────────────────────────────────────────────────────────────────────

CANCEL, RESUME = "/v1/billing/subscription/cancel", "/v1/billing/subscription/resume"


def act(service: Running, org: str, path: str, **more: Any) -> httpx2.Response:
    """A POST by a token of the organisation."""
    return service.call("POST", path, token(org), **more)


def changes(stripe: Till, org: str) -> list[tuple[str, dict[str, Any]]]:
    """What Stripe was asked to change of an organisation's subscription."""
    path = f"/v1/subscriptions/{customer_of(org).replace('cus_', 'sub_')}"
    return [(method, params) for method, where, params, _ in stripe.sent if where == path and method != "GET"]


@pytest.mark.parametrize("path", [CANCEL, "/subscription/cancel"])
@pytest.mark.parametrize("body", [None, {}, {"at_period_end": True}])
def test_it_ends_with_its_period_and_goes_on_again(
    service: Running, stripe: Till, org: str, path: str, body: dict[str, Any] | None
) -> None:
    subscribed(service, org)
    told = act(service, org, path, **({} if body is None else {"json": body})).json()
    assert (told["plan"], told["status"], told["cancel_at_period_end"]) == ("professional", "active", True)
    assert told["ends_at"] == told["period"]["end"]
    assert service.call("GET", PATHS[0], token(org)).json() == told
    back = act(service, org, RESUME).json()
    assert (back["cancel_at_period_end"], back["ends_at"]) == (False, None)
    ends = [params for _, params in changes(stripe, org)]
    assert ends == [{"cancel_at_period_end": "true"}, {"cancel_at_period_end": "false"}]


def test_it_ends_now_with_an_invoice_of_what_was_used(service: Running, stripe: Till, org: str) -> None:
    subscribed(service, org)
    told = act(service, org, CANCEL, json={"at_period_end": False}).json()
    assert (told["plan"], told["status"], told["cancel_at_period_end"]) == ("free", "canceled", False)
    assert changes(stripe, org) == [("DELETE", {"invoice_now": "true"})]
    problem(act(service, org, RESUME), 409, "not-subscribed")
    problem(act(service, org, CANCEL), 409, "not-subscribed")


def test_a_repeat_under_the_same_key_changes_nothing_again(service: Running, stripe: Till, org: str) -> None:
    subscribed(service, org)
    first, second = (act(service, org, CANCEL, headers={"Idempotency-Key": f"end-{org}"}) for _ in range(2))
    assert (first.content, second.headers["idempotency-replayed"]) == (second.content, "true")
    assert len(changes(stripe, org)) == 1


def test_who_asked_is_in_the_trail(service: Running, org: str) -> None:
    subscribed(service, org)
    for path, body in ((CANCEL, {}), (RESUME, {}), (CANCEL, {"at_period_end": False})):
        act(service, org, path, json=body)
    entries = service.call("GET", "/v1/audit", token(org)).json()["data"]
    told = [(entry["type"], entry["actor"]) for entry in entries if entry["type"].startswith("subscription_")]
    assert told == [(f"subscription_{word}", "tester") for word in ("cancelled", "resumed", "cancelled")]


@pytest.mark.parametrize("path", [CANCEL, RESUME])
def test_what_cannot_be_changed_is_told(service: Running, stripe: Till, org: str, path: str) -> None:
    problem(act(service, org, path), 404, "org-not-found")
    service.track(org_id=org, feature="scans")
    problem(act(service, org, path), 409, "not-subscribed")
    subscribed(service, org)
    problem(service.call("POST", path, token(org, BILLING_READ)), 403, "forbidden")
    problem(act(service, org, path, json={"at_end": True}), 422, "validation")
    for status, code, answered in (
        (400, "stripe-error", 502),
        (401, "stripe-error", 502),
        (500, "stripe-unavailable", 503),
    ):
        stripe.refuse = (status, {"error": {"type": "invalid_request_error", "message": "no"}})
        problem(act(service, org, path), answered, code)
        stripe.refuse = None


# ── another plan ─────────────────────────────────────────────────────────────────────────────────────────

CHANGE, PREVIEW = "/v1/billing/subscription/change", "/v1/billing/subscription/preview"


@pytest.mark.parametrize("proration", [None, "create_prorations", "always_invoice", "none"])
def test_another_plan_holds_at_once(service: Running, stripe: Till, org: str, proration: str | None) -> None:
    subscribed(service, org)
    asked = {"plan": "enterprise"} | ({} if proration is None else {"proration": proration})
    told = act(service, org, CHANGE, json=asked).json()
    assert (told["plan"], told["plan_subscribed"], told["status"]) == ("enterprise", "enterprise", "active")
    assert service.call("GET", f"/usage/{org}", token(org)).json()["plan"] == "enterprise"
    ((method, sent),) = changes(stripe, org)
    assert (method, sent["items"]) == ("POST", [{"id": "si_base", "price": "price_metering_enterprise_base"}])
    assert sent["proration_behavior"] == (proration or "create_prorations")
    assert sent["payment_behavior"] == "error_if_incomplete"
    assert act(service, org, CHANGE, json=asked).json() == told
    assert len(changes(stripe, org)) == 1


def test_what_it_would_cost_is_stripes_word(service: Running, stripe: Till, org: str) -> None:
    subscribed(service, org)
    told = act(service, org, PREVIEW, json={"plan": "enterprise", "proration": "always_invoice"}).json()
    assert (told["plan"], told["plan_previewed"], told["billed"]) == ("professional", "enterprise", "now")
    assert (told["currency"], told["total_minor"], told["due_minor"]) == ("usd", 6600, 6600)
    lines = [(line["description"], line["amount_minor"], line["proration"]) for line in told["lines"]]
    assert lines == [("Unused time", -3300, True), ("Professional", 9900, False)]
    assert (told["lines_left_out"], changes(stripe, org)) == (False, [])
    same = act(service, org, PREVIEW, json={"plan": "professional"}).json()
    assert (same["billed"], same["total_minor"]) == ("next_invoice", 9900)


def test_a_repeat_of_a_change_is_one_change(service: Running, stripe: Till, org: str) -> None:
    subscribed(service, org)
    headers = {"Idempotency-Key": f"change-{org}"}
    first, second = (act(service, org, CHANGE, json={"plan": "enterprise"}, headers=headers) for _ in range(2))
    assert (first.content, second.headers["idempotency-replayed"]) == (second.content, "true")
    assert len(changes(stripe, org)) == 1
    entries = service.call("GET", f"/v1/audit?org_id={org}&type=subscription_changed", token(org)).json()["data"]
    assert [entry["details"] for entry in entries] == [
        {"from": "professional", "to": "enterprise", "proration": "create_prorations"}
    ]


@pytest.mark.parametrize("path", [CHANGE, PREVIEW])
def test_a_plan_that_cannot_be_had_is_told(service: Running, stripe: Till, org: str, path: str) -> None:
    asked = {"plan": "enterprise"}
    problem(act(service, org, path, json=asked), 404, "org-not-found")
    service.track(org_id=org, feature="scans")
    problem(act(service, org, path, json=asked), 409, "not-subscribed")
    problem(act(service, org, path, json={"plan": "nothing"}), 404, "plan-unknown")
    problem(act(service, org, path, json={"plan": "enterprise", "proration": "some"}), 422, "validation")
    problem(act(service, org, path, json={}), 422, "validation")
    subscribed(service, org)
    stripe.lacks = {"metering_enterprise_base"}
    problem(act(service, org, path, json=asked), 409, "plan-not-sold")
    stripe.lacks = set()
    error = {"type": "card_error", "code": "card_declined", "message": "Your card was declined."}
    stripe.refuse = (402, {"error": error})
    told = problem(act(service, org, path, json=asked), 402, "payment-failed")
    stripe.refuse = None
    assert (told["detail"], told["stripe_code"]) == ("Your card was declined.", "card_declined")


@pytest.mark.parametrize("status", ["past_due", "unpaid"])
def test_what_is_owed_comes_first(service: Running, stripe: Till, org: str, status: str) -> None:
    subscribed(service, org, status=status)
    problem(act(service, org, CHANGE, json={"plan": "enterprise"}), 402, "payment-failed")
    assert changes(stripe, org) == []
