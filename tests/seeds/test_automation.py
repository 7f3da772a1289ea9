"""S1: quota is checked before an operation and used after it, refused with 403 and a text, and grows with the plan."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.service.running import problem, token
from tests.support.shop import TAKES_S, Shop, shop
from tests.support.wait import wait_until


@pytest.fixture(scope="module")
def sold() -> Iterator[Shop]:
    with shop("s1", "/api/billing/webhook") as open_shop:
        yield open_shop


def check_token_quota(sold: Shop, user_id: str, requested_tokens: int) -> tuple[bool, str]:
    """Whether an operation may go on, and what to say where not, as the helper of that name is documented."""
    told = sold.call(user_id, "POST", "/v1/check", json={"feature": "tokens", "quantity": requested_tokens})
    return told["allowed"], "" if told["allowed"] else f"{told['reason']}: {told['current_usage']} of {told['limit']}"


def record_token_usage(sold: Shop, user_id: str, tokens: int, metadata: dict[str, Any]) -> dict[str, Any]:
    """Record what an operation took."""
    body = {"feature": "tokens", "quantity": tokens, "metadata": metadata}
    recorded: dict[str, Any] = sold.call(user_id, "POST", "/usage/track", json=body)
    return recorded


def _paid(sold: Shop, user_id: str) -> list[dict[str, Any]]:
    """The invoices that a history tells were paid."""
    history = sold.call(user_id, "GET", "/v1/billing/history")["data"]
    return [entry for entry in history if entry["type"] == "invoice.paid"]


def test_quota_is_checked_used_refused_and_grows_from_basic_to_pro(sold: Shop) -> None:
    assert check_token_quota(sold, "user-1", 1000) == (False, "quota_exceeded: 0 of 0")
    bought = sold.call("user-1", "POST", "/api/billing/checkout", json={"plan": "basic"})
    assert sold.pay(bought["url"]) == 303
    sold.on_plan("user-1", "basic")

    assert check_token_quota(sold, "user-1", 1000) == (True, "")
    recorded = record_token_usage(sold, "user-1", 500, {"model": "gpt-4"})
    assert (recorded["current_usage"], recorded["limit"]) == (500, 100_000)
    record_token_usage(sold, "user-1", 99_400, {"model": "gpt-4"})
    allowed, error = check_token_quota(sold, "user-1", 1000)
    assert (allowed, error) == (False, "quota_exceeded: 99900 of 100000")
    answer = sold.service.track(token("user-1"), feature="tokens", quantity=1000)
    refused = problem(answer, 403, "quota-exceeded")
    assert refused["detail"] == "tokens: 99900 of 100000 used, 1000 more asked for"
    assert refused["upgrade"] == {"plan": "pro"}

    (invoice,) = sold.call("user-1", "GET", "/api/billing/invoices")["data"]
    wait_until(lambda: _paid(sold, "user-1"), timeout_s=TAKES_S, what="the payment of the invoice is in the history")
    (paid,) = _paid(sold, "user-1")
    assert paid["stripe_invoice_id"] == invoice["id"]
    assert (paid["details"]["total_minor"], paid["details"]["paid_minor"]) == (invoice["total"], invoice["amount_paid"])
    assert (paid["details"]["currency"], invoice["total"] > 0) == (invoice["currency"], True)

    changed = sold.call("user-1", "POST", "/v1/billing/subscription/change", json={"plan": "pro"})
    assert changed["plan"] == "pro"
    assert check_token_quota(sold, "user-1", 1000) == (True, "")
    assert record_token_usage(sold, "user-1", 1000, {"model": "gpt-4"})["remaining"] == 1_000_000 - 100_900


def test_every_kind_of_usage_has_its_own_quota(sold: Shop) -> None:
    bought = sold.call("user-2", "POST", "/api/billing/checkout", json={"plan": "basic"})
    sold.pay(bought["url"])
    sold.on_plan("user-2", "basic")
    for feature, limit in (("api_calls", 1000), ("scraping_tasks", 100)):
        assert (
            sold.call("user-2", "POST", "/usage/track", json={"feature": feature, "quantity": limit})["remaining"] == 0
        )
        refused = problem(sold.service.track(token("user-2"), feature=feature), 403, "quota-exceeded")
        assert refused["limit"] == limit
    assert sold.call("user-2", "GET", "/usage")["features"]["tokens"]["remaining"] == 100_000


def test_who_is_not_signed_in_is_told_in_error_too(sold: Shop) -> None:
    refused = problem(sold.service.call("GET", "/api/billing/subscription"), 401, "unauthenticated")
    assert refused["error"] == refused["detail"]
