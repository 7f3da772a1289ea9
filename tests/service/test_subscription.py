"""An organisation's subscription: what is told of it, and what customers do about it."""

from collections.abc import Iterator
from typing import Any

import pytest

from metering.auth import ADMIN, USAGE_READ
from metering.store.fields import FieldCodec
from metering.store.keys import Keys
from metering.store.org import Profile, Subscription, profile_fields
from plans.periods import Period, Reset
from tests.service.running import Running, problem, token
from tests.support.stripe_till import Till, till

PATHS = ("/v1/billing/subscription", "/api/billing/subscription", "/subscription/status")

START_MS, END_MS = 1_795_600_000_000, 1_798_192_000_000


@pytest.fixture(scope="module")
def stripe() -> Iterator[Till]:
    with till() as running:
        yield running


@pytest.fixture(scope="module")
def service(stripe: Till) -> Iterator[Running]:
    with Running(stripe_secret_key="sk_test_1", stripe_api_base=stripe.url) as running:
        yield running


def subscribed(service: Running, org: str, **told: Any) -> None:
    """Let an organisation have a subscription, as Stripe's events would have told of it."""
    paid = {"org_id": org, "stripe_customer_id": f"cus_{org[4:]}"}
    assert service.call("POST", "/billing/update", token(None, ADMIN), json=paid).status_code == 200
    known: dict[str, Any] = {"status": "active", "plan": "professional", "period": Period(START_MS, END_MS)} | told
    sold = Subscription(id="sub_1", since_ms=START_MS, anchor_ms=START_MS, metered=frozenset({"scans"}), **known)
    profile = Profile(Reset.CALENDAR, "UTC", 0, b"k" * 32, 0, 0, subscription=sold)
    field = profile_fields(org, profile, FieldCodec())["subscription"]
    service.store.hset(Keys(64).profile(org), "subscription", field)


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
    assert (told["status"], told["subscription_id"], told["plan_subscribed"]) == ("trialing", "sub_1", "professional")
    assert (told["cancel_at_period_end"], told["ends_at"]) == (True, "2026-12-25T09:46:40Z")
    assert (told["trial_ends_at"], told["started_at"]) == ("2026-12-25T09:46:40Z", "2026-11-25T09:46:40Z")
    assert (told["metered"], told["stripe_customer_id"]) == (["scans"], f"cus_{org[4:]}")
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
