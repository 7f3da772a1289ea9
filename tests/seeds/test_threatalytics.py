"""S3: calls are tracked by endpoint, the 101st of a month on Free asks for an upgrade, a checkout raises the limit."""

from collections.abc import Iterator

import pytest

from tests.service.running import problem, token
from tests.support.shop import Shop, shop

ENDPOINTS = ("analyze", "redact", "report", "drill")


@pytest.fixture(scope="module")
def sold() -> Iterator[Shop]:
    with shop("s3", "/webhooks/stripe") as open_shop:
        yield open_shop


def test_the_101st_call_asks_for_an_upgrade_and_a_checkout_raises_the_limit(sold: Shop) -> None:
    user = token("acme")
    for number in range(100):
        sent = {"endpoint": ENDPOINTS[number % 4]}
        answer = sold.service.call("POST", "/usage/track", user, json=sent)
        assert (answer.status_code, answer.json()["remaining"]) == (200, 99 - number)
    assert answer.json()["thresholds_crossed"] == [100]
    refused = problem(
        sold.service.call("POST", "/usage/track", user, json={"endpoint": "analyze"}), 403, "quota-exceeded"
    )
    assert (refused["detail"], refused["upgrade"]) == (
        "api_requests: 100 of 100 used, 1 more asked for",
        {"plan": "starter"},
    )

    status = sold.call("acme", "GET", "/subscription/status")
    assert (status["plan"], status["status"]) == ("free", None)
    bought = sold.call("acme", "POST", "/subscription/create", json={"plan": "starter"})
    assert "29.00" in sold.service.client.get(bought["url"]).text
    assert sold.pay(bought["url"]) == 303
    sold.on_plan("acme", "starter")

    assert sold.call("acme", "GET", "/usage")["features"]["api_requests"]["limit"] == 500
    assert sold.call("acme", "POST", "/usage/track", json={"endpoint": "analyze"})["remaining"] > 0
    status = sold.call("acme", "GET", "/subscription/status")
    assert (status["plan"], status["status"]) == ("starter", "active")
    assert sold.call("acme", "GET", "/subscription/portal")["url"].startswith(sold.stripe)
    ending = sold.call("acme", "POST", "/subscription/cancel")
    assert (ending["plan"], ending["cancel_at_period_end"]) == ("starter", True)


def test_history_tells_the_endpoints_apart(sold: Shop) -> None:
    for endpoint in ("analyze", "redact", "analyze"):
        sold.call("globex", "POST", "/usage/track", json={"endpoint": endpoint})
    asked = {"feature": "api_requests", "window": "day", "group_by": "metadata.endpoint"}
    rows = sold.call("globex", "GET", "/usage/history", params=asked)["data"]
    counted = {row["group"]["metadata.endpoint"]: row["value"] for row in rows}
    assert counted == {"analyze": 2, "redact": 1}


def test_a_card_that_is_declined_leaves_the_plan_as_it_was(sold: Shop) -> None:
    sold.call("initech", "POST", "/usage/track", json={"endpoint": "report"})
    bought = sold.call("initech", "POST", "/subscription/create", json={"plan": "professional"})
    assert sold.pay(bought["url"], "decline") == 402
    assert sold.call("initech", "GET", "/subscription/status")["plan"] == "free"
    assert sold.pay(bought["url"]) == 303
    sold.on_plan("initech", "professional")
    assert sold.call("initech", "GET", "/usage")["features"]["api_requests"]["limit"] == 5000
