"""S4: its curl examples as they stand there, typed with an API key: 500 credits for $45, credited once, given back."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any, Final

import httpx2
import pytest

from metering.auth import ADMIN, BILLING_WRITE
from tests.plans.test_packages import PRICE_LIST
from tests.service.running import problem, token
from tests.support.shop import Shop, shop

PACKAGES: Final = 'curl "http://localhost:8000/billing/credit-packages"'

CREATE: Final = r"""
curl -X POST "http://localhost:8000/billing/create-payment-intent" \
  -H "Authorization: Bearer YOUR_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"credit_amount": 500}'
"""

CREATE_100: Final = CREATE.replace("500", "100")
"""The same as the page's test of a purchase has it."""

CONFIRM: Final = r"""
curl -X POST "http://localhost:8000/billing/confirm-payment" \
  -H "Authorization: Bearer YOUR_API_KEY" \
  -H "Content-Type: application/json" \
  -d '{"payment_intent_id": "pi_1234567890"}'
"""

DECLINED, PAYS = "4000000000000002", "4242424242424242"


@pytest.fixture(scope="module")
def sold() -> Iterator[Shop]:
    with shop("s4", "/billing/webhook") as open_shop:
        yield open_shop


@pytest.fixture(scope="module")
def key(sold: Shop) -> str:
    """An API key of a customer."""
    wanted = {"name": "gateway", "org_id": "llm", "scopes": ["billing:read", "billing:write", "usage:write"]}
    sold.service.call("PUT", "/v1/orgs/llm", token(None, ADMIN), json={})
    made = sold.service.call("POST", "/v1/keys", token(None, ADMIN), json=wanted)
    assert made.status_code == 201, made.text
    return str(made.json()["key"])


def typed(sold: Shop, line: str, key: str = "", intent: str = "") -> Any:
    """What a line prints when it is typed as it stands there, with the reader's own key and payment filled in."""
    line = line.replace("localhost:8000", f"127.0.0.1:{sold.service.port}").replace("YOUR_API_KEY", key)
    line = line.replace("curl ", "curl --silent --show-error ").replace("pi_1234567890", intent)
    return json.loads(subprocess.run(["bash", "-c", line], check=True, capture_output=True, text=True).stdout)


def pay(sold: Shop, intent: str, card: str) -> int:
    """Pay with a card, as Stripe.js would from the payer's page, and let Stripe tell; the status."""
    asked = {"payment_intent": intent, "method": card}
    status = httpx2.post(f"{sold.stripe}/sandbox/payments", json=asked).status_code
    sold.tell()
    return status


def test_the_price_list_is_the_documented_one(sold: Shop) -> None:
    shown = typed(sold, PACKAGES)["packages"]
    found = [(p["credits"], p["price_minor"], p["price_per_credit"], p["discount_percent"]) for p in shown]
    assert found == PRICE_LIST


def test_500_credits_are_45_dollars_a_decline_gives_none_and_a_refund_takes_them_back(sold: Shop, key: str) -> None:
    begun = typed(sold, CREATE, key)
    intent = begun["payment_intent_id"]
    assert begun["client_secret"].startswith(f"{intent}_secret_")
    assert (begun["credits"], begun["amount"], begun["currency"]) == (500, 4500, "usd")

    assert typed(sold, CREATE_100, key)["amount"] == 1000
    pay(sold, intent, DECLINED)
    assert typed(sold, CONFIRM, key, intent)["code"] == "payment-failed"
    assert pay(sold, intent, PAYS) == 200
    paid = typed(sold, CONFIRM, key, intent)
    assert (paid["status"], paid["balance"]) == ("succeeded", 500)
    assert typed(sold, CONFIRM, key, intent)["balance"] == 500

    wanted = {"payment_intent_id": intent, "reason": "bought by mistake", "id": "ticket-9"}
    problem(sold.service.call("POST", "/billing/refund", key, json=wanted), 403, "forbidden")
    refund = sold.service.call("POST", "/billing/refund", token(None, ADMIN), json=wanted)
    assert refund.status_code == 201, refund.text
    told = refund.json()
    assert (told["status"], told["amount"], told["credits_removed"], told["balance"]) == ("succeeded", 4500, 500, 0)


def test_an_amount_that_is_no_package_is_not_sold(sold: Shop, key: str) -> None:
    refused = sold.service.call("POST", "/billing/create-payment-intent", key, json={"credit_amount": 123})
    problem(refused, 422, "package-unknown")
    bought = sold.service.call(
        "POST", "/billing/create-payment-intent", token("other", BILLING_WRITE), json={"credit_amount": 100}
    )
    assert bought.json()["amount"] == 1000
