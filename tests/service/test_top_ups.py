"""Credits that are bought before they run out: over HTTP, by a running service, at the sandbox Stripe."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.service.running import problem, token
from tests.support.shop import TAKES_S, Shop, shop
from tests.support.wait import wait_until

PATH = "/v1/credits/auto-topup"
SET = {"threshold": 50, "package": 100, "max_amount_per_month": 5000}


@pytest.fixture(scope="module")
def sold() -> Iterator[Shop]:
    with shop("s4", "/billing/webhook") as open_shop:
        yield open_shop


def buy(sold: Shop, org: str, card: str) -> None:
    """100 credits, paid by somebody who is there."""
    intent = sold.call(org, "POST", "/billing/create-payment-intent", json={"credit_amount": 100})["payment_intent_id"]
    body = {"payment_intent": intent, "method": card}
    if httpx2.post(f"{sold.stripe}/sandbox/payments", json=body).json()["status"] == "requires_action":
        sold.pay(f"{sold.stripe}/pay/{intent}", "yes")
    sold.call(org, "POST", "/billing/confirm-payment", json={"payment_intent_id": intent})


def shown(sold: Shop, org: str) -> Any:
    return sold.call(org, "GET", PATH)


def intents(sold: Shop, org: str) -> Any:
    """The payments of an organisation at the sandbox."""
    answer = httpx2.get(f"{sold.stripe}/v1/payment_intents", headers={"Authorization": "Bearer sk_test_1"})
    return [one for one in answer.json()["data"] if one["metadata"]["org_id"] == org]


def test_credits_are_bought_before_they_run_out_and_a_card_that_asks_for_its_holder_pauses_it(sold: Shop) -> None:
    for org, card in (("ada", "4242424242424242"), ("bob", "4000002760003184")):
        buy(sold, org, card)
        told = sold.call(org, "PUT", PATH, json=SET)
        assert (told["status"], told["threshold"], told["max_per_day"], told["cooldown_s"]) == ("ready", 50, 3, 60)
        sold.call(org, "POST", "/usage/track", json={"feature": "api_requests", "quantity": 60})

    def balance(org: str) -> int:
        return int(sold.call(org, "GET", "/v1/credits/balance")["balance"])

    wait_until(lambda: balance("ada") == 140, timeout_s=TAKES_S, what="ada has a package more")
    wait_until(lambda: shown(sold, "ada")["status"] == "ready", timeout_s=TAKES_S, what="ada's attempt has ended")
    assert (shown(sold, "ada")["attempts_in_24_hours"], shown(sold, "ada")["amount_in_31_days"]) == (1, 1000)
    wait_until(lambda: shown(sold, "bob")["status"] == "paused", timeout_s=TAKES_S, what="bob's card asks for him")
    told = shown(sold, "bob")
    assert (balance("bob"), told["amount_in_31_days"]) == (40, 0)
    assert (told["paused"]["reason"], told["paused"]["detail"]) == (
        "authentication-required",
        "authentication_required",
    )
    assert "canceled" in {one["status"] for one in intents(sold, "bob")}, "nobody pays it later"
    history = sold.call("bob", "GET", "/v1/billing/history")["data"]
    assert {"topup_set", "topup_begun", "topup_stopped"} <= {entry["type"] for entry in history}


def test_whoever_has_none_sees_so(sold: Shop) -> None:
    sold.call("eve", "POST", "/billing/create-payment-intent", json={"credit_amount": 100})
    told = shown(sold, "eve")
    assert (told["status"], told["enabled"], told["package"], told["paused"]) == ("off", False, None, None)
    refused = sold.service.call("PUT", PATH, token("eve"), json=SET)
    problem(refused, 409, "no-payer")


def test_one_word_turns_it_off_and_keeps_the_rest(sold: Shop) -> None:
    buy(sold, "lea", "4242424242424242")
    off = sold.call("lea", "PUT", PATH, json={"enabled": False})
    assert (off["status"], off["package"]) == ("off", None)
    sold.call("lea", "PUT", PATH, json=SET | {"max_per_day": 2})
    off = sold.call("lea", "PUT", PATH, json={"enabled": False})
    assert (off["status"], off["package"], off["max_per_day"], off["threshold"]) == ("off", 100, 2, 50)
    refused = sold.service.call("PUT", PATH, token("lea"), json={"enabled": False, "package": 100})
    missing = [error["pointer"] for error in problem(refused, 422, "validation")["errors"]]
    assert missing == ["/threshold", "/max_amount_per_month"]
    refused = sold.service.call("PUT", PATH, token("lea"), json={})
    assert len(problem(refused, 422, "validation")["errors"]) == 3


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"package": 7}, "package-unknown"), ({"max_amount_per_month": 999}, "validation"),
        ({"threshold": 0}, "validation"), ({"max_per_day": 25}, "validation"), ({"cooldown_s": 59}, "validation"),
        ({"amount": 1}, "validation"), ({"threshold": None}, "validation"), ({"package": None}, "validation"),
    ],
)  # fmt: skip
def test_what_cannot_be_set_is_told(sold: Shop, wrong: dict[str, Any], code: str) -> None:
    buy(sold, "kim", "4242424242424242")
    before = shown(sold, "kim")
    problem(sold.service.call("PUT", PATH, token("kim"), json=SET | wrong), 422, code)
    assert shown(sold, "kim") == before
