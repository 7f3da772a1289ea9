"""S4: credits are bought in packages, with a test card, and given back; who has none is refused."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from metering.auth import ADMIN
from tests.service.running import problem, token
from tests.support.shop import TAKES_S, Shop, shop
from tests.support.wait import wait_until


@pytest.fixture(scope="module")
def sold() -> Iterator[Shop]:
    with shop("s4", "/billing/webhook") as open_shop:
        yield open_shop


def type_in(sold: Shop, intent: str, number: str) -> Any:
    """A payer types a card number into the form of a payment; what Stripe answers the browser."""
    body = {"payment_intent": intent, "method": number}
    return httpx2.post(f"{sold.stripe}/sandbox/payments", json=body).json()


def confirm(sold: Shop, org: str, intent: str) -> Any:
    return sold.call(org, "POST", "/billing/confirm-payment", json={"payment_intent_id": intent})


def refund(sold: Shop, intent: str, **body: Any) -> Any:
    sent = {"payment_intent_id": intent, "reason": "asked for", **body}
    headers = {"Idempotency-Key": f"refund-{intent}-{body.get('amount')}"}
    answer = sold.service.call("POST", "/billing/refund", token(None, ADMIN), json=sent, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()


def trail(sold: Shop, org: str) -> set[str]:
    """What kinds of entries the trail of an organisation has."""
    entries = sold.service.call("GET", "/v1/audit", token(None, ADMIN), params={"org_id": org}).json()["data"]
    return {entry["type"] for entry in entries}


def history(sold: Shop, org: str) -> Any:
    """What an organisation sees of its bills, the newest first."""
    return sold.call(org, "GET", "/v1/billing/history")["data"]


def tells(sold: Shop, org: str, kind: str) -> None:
    """Wait until it has such an entry: what Stripe tells takes effect after it was answered."""
    wait_until(lambda: kind in trail(sold, org), timeout_s=TAKES_S, what=f"{org} has an entry {kind}")


def test_500_credits_cost_45_dollars_are_credited_once_and_given_back(sold: Shop) -> None:
    packages = sold.service.call("GET", "/billing/credit-packages").json()["packages"]
    assert [(one["credits"], one["price"]) for one in packages][:2] == [(100, "10.00 USD"), (500, "45.00 USD")]
    begun = sold.call("ada", "POST", "/billing/create-payment-intent", json={"credit_amount": 500})
    intent = begun["payment_intent_id"]
    assert (begun["credits"], begun["amount"], begun["currency"]) == (500, 4500, "usd")
    assert begun["client_secret"].startswith(f"{intent}_secret_")
    assert type_in(sold, intent, "4242 4242 4242 4242")["status"] == "succeeded"
    paid = confirm(sold, "ada", intent)
    assert (paid["status"], paid["credits_added"], paid["balance"]) == ("succeeded", 500, 500)
    sold.tell()  # Stripe tells of it, too
    assert confirm(sold, "ada", intent) == {**paid, "duplicate": True}

    part = refund(sold, intent, amount=900)
    assert (part["status"], part["credits_removed"], part["balance"]) == ("succeeded", 100, 400)
    given = next(one for one in history(sold, "ada") if one["type"] == "credits_taken_back")
    assert (given["stripe_payment_intent_id"], given["stripe_refund_id"]) == (intent, part["refund_id"])
    amounts = {"refunded_minor": 900, "paid_minor": 4500, "currency": "usd"}
    assert given["details"].items() >= amounts.items()
    rest = refund(sold, intent)
    assert (rest["amount"], rest["credits_removed"], rest["balance"]) == (3600, 400, 0)


def test_a_declined_card_credits_nothing_and_another_one_pays(sold: Shop) -> None:
    begun = sold.call("bob", "POST", "/billing/create-payment-intent", json={"credit_amount": 100})
    intent = begun["payment_intent_id"]
    assert type_in(sold, intent, "4000 0000 0000 0002")["error"]["code"] == "card_declined"
    body = {"payment_intent_id": intent}
    refused = sold.service.call("POST", "/billing/confirm-payment", token("bob"), json=body)
    assert problem(refused, 402, "payment-failed")["stripe_code"] == "card_declined"
    type_in(sold, intent, "4242424242424242")
    assert confirm(sold, "bob", intent)["balance"] == 100


def test_who_never_confirms_is_credited_by_stripes_word(sold: Shop) -> None:
    begun = sold.call("eve", "POST", "/billing/create-payment-intent", json={"credit_amount": 100})
    type_in(sold, begun["payment_intent_id"], "4242424242424242")
    sold.tell()
    tells(sold, "eve", "credits_granted")
    httpx2.post(f"{sold.stripe}/sandbox/refunds", json={"payment_intent": begun["payment_intent_id"]})
    sold.tell()
    tells(sold, "eve", "credits_taken_back")
    tells(sold, "eve", "refund.created")
    told = next(one for one in history(sold, "eve") if one["type"] == "refund.created")
    assert told["stripe_payment_intent_id"] == begun["payment_intent_id"]
    assert told["stripe_refund_id"].startswith("re_")
    assert (told["details"]["total_minor"], told["details"]["refunded_minor"]) == (1000, 1000)


def test_a_checkout_sells_a_package_too(sold: Shop) -> None:
    begun = sold.call("kim", "POST", "/v1/billing/checkout", json={"package": 500})
    assert "45.00 USD" in httpx2.get(begun["url"]).text
    assert sold.pay(begun["url"], "pm_card_visa") == 303
    tells(sold, "kim", "credits_granted")


@pytest.mark.parametrize("body", [{}, {"plan": "pay_as_you_go", "package": 500}])
def test_a_checkout_is_of_one_thing(sold: Shop, body: dict[str, Any]) -> None:
    problem(sold.service.call("POST", "/v1/billing/checkout", token("kim"), json=body), 422, "validation")


def test_nobody_confirms_what_another_one_bought(sold: Shop) -> None:
    begun = sold.call("ann", "POST", "/billing/create-payment-intent", json={"credit_amount": 100})
    type_in(sold, begun["payment_intent_id"], "4242424242424242")
    sold.call("mallory", "POST", "/billing/create-payment-intent", json={"credit_amount": 100})
    body = {"payment_intent_id": begun["payment_intent_id"]}
    answer = sold.service.call("POST", "/billing/confirm-payment", token("mallory"), json=body)
    problem(answer, 404, "payment-not-found")
    assert "credits_granted" not in trail(sold, "mallory")


def test_a_refund_has_a_reason_and_a_name_and_is_for_administrators(sold: Shop) -> None:
    body = {"payment_intent_id": "pi_1", "reason": "asked for"}
    problem(sold.service.call("POST", "/billing/refund", token("ada"), json=body), 403, "forbidden")
    problem(sold.service.call("POST", "/billing/refund", token(None, ADMIN), json=body), 422, "validation")
    del body["reason"]
    named = {"Idempotency-Key": "r-1"}
    answer = sold.service.call("POST", "/billing/refund", token(None, ADMIN), json=body, headers=named)
    problem(answer, 422, "validation")
