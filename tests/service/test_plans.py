"""The plans on the wire: what they cost, what they include, and which one a Stripe price buys."""

from collections.abc import Iterator

import pytest

from tests.service.running import Running, problem, token


@pytest.fixture(scope="module")
def sold() -> Iterator[Running]:
    """A service with four plans whose prices are named in the environment."""
    with Running(plans_file="threatalytics", vite_stripe_price_id_starter="price_starter_monthly") as service:
        yield service


def test_a_plan_is_shown_with_its_prices_and_what_it_includes(sold: Running) -> None:
    shown = sold.call("GET", "/v1/plans/starter", token("a")).json()
    assert shown["includes"] == ["All of Free", "Advanced analysis", "Priority support", "Custom reports"]
    assert (shown["price_minor"], shown["price"], shown["currency"]) == (2900, "29.00 USD", "usd")
    assert (shown["yearly_price_minor"], shown["yearly_price"]) == (29000, "290.00 USD")
    assert shown["features"]["api_requests"]["limit"] == 500
    listed = {plan["name"]: plan for plan in sold.call("GET", "/v1/plans", token("a")).json()["data"]}
    assert list(listed) == ["free", "starter", "professional", "enterprise"]
    assert listed["starter"] | {"currency": "usd"} == shown
    assert listed["free"]["yearly_price"] is None


def test_a_plan_that_there_is_not_is_told_with_the_nearest(sold: Running) -> None:
    told = problem(sold.call("GET", "/v1/plans/start", token("a")), 404, "plan-unknown")
    assert told["nearest"] == "starter"
    problem(sold.call("GET", "/v1/plans/starter"), 401, "unauthenticated")


@pytest.mark.parametrize(
    ("price", "bought"), [("price_starter_monthly", {"starter": 500}), ("price_of_somebody_else", {})]
)
def test_the_limits_of_a_stripe_price_are_those_of_the_plan_it_buys(
    sold: Running, price: str, bought: dict[str, int]
) -> None:
    shown = sold.call("GET", "/v1/plans", token("a"), params={"stripe_price": price}).json()["data"]
    assert {plan["name"]: plan["features"]["api_requests"]["limit"] for plan in shown} == bought


def test_a_price_has_to_be_named(sold: Running) -> None:
    problem(sold.call("GET", "/v1/plans?stripe_price=", token("a")), 422, "validation")
