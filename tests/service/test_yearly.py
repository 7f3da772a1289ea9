"""A plan that is paid by the year: overage and limits go on by the month."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from metering.billing.yearly import JOINS, Joining
from metering.settings import Settings
from plans.catalogue import parse
from tests.support.shop import KEY, TAKES_S, Shop, shop
from tests.support.wait import wait_until

YEARLY = (
    Settings().plans_text()[0].replace("price_minor = 9900", "price_minor = 9900\nyearly = { price_minor = 99000 }")
)


@pytest.fixture(scope="module")
def sold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    file = tmp_path_factory.mktemp("plans") / "plans.toml"
    file.write_text(YEARLY, encoding="utf-8")
    with shop(str(file), "/webhooks/stripe") as open_shop:
        yield open_shop


def subscription(sold: Shop, org: str) -> Any:
    """An organisation's subscription as Stripe has it."""
    name = sold.call(org, "GET", "/v1/billing/subscription")["subscription_id"]
    return httpx2.get(f"{sold.stripe}/v1/subscriptions/{name}", headers={"Authorization": f"Bearer {KEY}"}).json()


def test_prices_of_overage_join_a_subscription_by_the_year_and_are_billed_by_the_month(sold: Shop) -> None:
    order = {"plan": "professional", "interval": "year"}
    assert sold.pay(sold.call("acme", "POST", "/v1/billing/checkout", json=order)["url"]) == 303
    sold.on_plan("acme", "professional")

    def metered() -> list[str]:
        sold.tell()
        return list(sold.call("acme", "GET", "/v1/billing/subscription")["metered"])

    wait_until(metered, timeout_s=TAKES_S, what="overage has joined")
    assert metered() == ["api_requests", "scans", "wallet_checks"]
    at_stripe = subscription(sold, "acme")
    rhythms = [item["price"]["recurring"]["interval"] for item in at_stripe["items"]["data"]]
    assert rhythms == ["year", "month", "month", "month"]
    assert JOINS not in at_stripe["metadata"]
    period = sold.call("acme", "GET", "/v1/billing/subscription")["period"]
    assert (int(period["end"][5:7]) - int(period["start"][5:7])) % 12 == 1
    assert sold.call("acme", "POST", "/usage/track", json={"feature": "scans", "quantity": 1001})["overage"] == 1


class Till:
    """Prices and changes of subscriptions."""

    def __init__(self, *there: str) -> None:
        self.there = there
        self.changes: list[tuple[str, Any, str]] = []

    async def prices(self, lookup_keys: Any) -> list[dict[str, Any]]:
        return [{"id": f"price_{key}", "lookup_key": key} for key in lookup_keys if key in self.there]

    async def update_subscription(self, subscription_id: str, params: Any, *, key: str) -> dict[str, Any]:
        self.changes.append((subscription_id, params, key))
        return {}


CATALOGUE = parse(YEARLY, "plans.toml")
KEYS = [f"metering_{name}_overage" for name in ("scans", "wallet_checks", "api_requests")]


@pytest.mark.parametrize(
    ("metadata", "status", "there", "joins"),
    [
        ({JOINS: "yes"}, "active", KEYS, True),
        ({JOINS: "yes"}, "trialing", KEYS, True),
        ({JOINS: "yes"}, "incomplete", KEYS, False),
        ({JOINS: "yes"}, "canceled", KEYS, False),
        ({"org_id": "acme"}, "active", KEYS, False),
        (None, "active", KEYS, False),
        ({JOINS: "yes"}, "active", KEYS[:2], False),
    ],
)
async def test_only_what_checkout_left_out_joins(
    metadata: dict[str, str] | None, status: str, there: list[str], joins: bool
) -> None:
    stripe = Till(*there)
    for _ in range(2):
        await Joining(stripe, CATALOGUE).join({"id": "sub_1", "status": status, "metadata": metadata})
    assert bool(stripe.changes) is joins
    if joins:
        first, second = stripe.changes
        assert first == second
        assert first[1] == {"items": [{"price": f"price_{key}"} for key in KEYS], "metadata": {JOINS: ""}}
