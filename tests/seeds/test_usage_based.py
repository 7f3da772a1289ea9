"""S0: a free user passes 1,000 requests, is told where to move, buys the next tier and goes on."""

from collections.abc import Iterator

import pytest

from tests.service.running import token
from tests.support.shop import Shop, shop


@pytest.fixture(scope="module")
def sold() -> Iterator[Shop]:
    with shop("s0", "/api/webhook/stripe") as open_shop:
        yield open_shop


def test_a_free_user_who_passes_1000_moves_to_growth_and_goes_on(sold: Shop) -> None:
    counted = sold.call("ada", "POST", "/api/usage/track", json={"quantity": 1000, "feature": "api_requests"})
    assert (counted["current_usage"], counted["limit"], counted["remaining"]) == (1000, 1000, 0)
    refused = sold.service.call("POST", "/api/usage/track", token("ada"), json={"endpoint": "/v1/things"})
    # Packs of credits may pay for it as well as another tier, so what is missing may be told as credits.
    assert refused.json()["code"] in {"quota-exceeded", "credits-exhausted"}
    assert refused.json()["upgrade"] == {"plan": "growth"}
    assert sold.call("ada", "GET", "/api/usage")["features"]["api_requests"]["current"] == 1000

    offers = {plan["name"]: plan["price"] for plan in sold.call("ada", "GET", "/v1/plans")["data"]}
    assert offers == {"free": "0.00 EUR", "growth": "9.00 EUR", "scale": "79.00 EUR", "enterprise": None}
    bought = sold.call("ada", "POST", "/api/checkout/create", json={"plan": "growth"})
    assert "9.00 EUR" in sold.service.client.get(bought["url"]).text
    assert sold.pay(bought["url"]) == 303
    sold.on_plan("ada", "growth")
    again = sold.call("ada", "POST", "/api/usage/track", json={"endpoint": "/v1/things"})
    assert (again["allowed"], again["limit"]) == (True, 100_000)


def test_a_tier_is_bought_by_the_year_and_its_limit_holds_by_the_month(sold: Shop) -> None:
    bought = sold.call("bob", "POST", "/api/checkout/create", json={"plan": "scale", "interval": "year"})
    assert "790.00 EUR" in sold.service.client.get(bought["url"]).text
    assert sold.pay(bought["url"]) == 303
    sold.on_plan("bob", "scale")
    period = sold.call("bob", "GET", "/api/billing/subscription")["period"]
    months = int(period["end"][5:7]) - int(period["start"][5:7])
    assert months % 12 == 1
