"""GET /v1/billing/history: what changed an organisation's bill, the newest first, with the figures it is about."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from metering.auth import ADMIN, BILLING_READ, USAGE_READ
from metering.clock import SystemClock
from metering.clock_tasks import advance
from metering.settings import Settings
from metering.store.fields import FieldCodec
from metering.store.grants import By, GrantOrder
from metering.store.keys import Keys
from plans.credits import Kind
from tests.service.running import SECRET, Running, problem, token

ROOT = token(None, ADMIN, sub="root")
DAY_MS = 86_400_000
NAMES = ("stripe_payment_intent_id", "stripe_refund_id", "stripe_invoice_id")


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    """A service whose time can be moved."""
    with Running(test_clock=True, tidies=True) as running:
        yield running


def past(service: Running, org: str, **query: Any) -> dict[str, Any]:
    """A page, as it is told to a token of the organisation that may read billing alone."""
    response = service.call("GET", "/v1/billing/history", token(org, BILLING_READ), params=query)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    return page


def wrote(service: Running, org: str, kind: str, /, **fields: str) -> None:
    """An entry in the trail, as a script writes it."""
    service.store.xadd(Keys(64).trail(org), {"type": kind, "at": "1795600000000"} | fields)


def test_what_changed_the_bill_is_told_without_who_did_it(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans", quantity=13)
    service.call("POST", "/billing/update", ROOT, json={"org_id": org, "plan": "professional"})
    adjusted = {"org_id": org, "feature": "scans", "delta": -1, "reason": "counted twice", "id": "a1"}
    service.call("POST", "/v1/usage/adjustments", ROOT, json=adjusted)
    entries = past(service, org)["data"]
    kinds = ["usage_adjusted", "plan_changed", "overage_started", "org_created"]
    assert [entry["type"] for entry in entries] == kinds
    assert "reason" not in entries[0]["details"]
    assert entries[0]["details"]["delta"] == -1
    assert entries[1]["details"] == {"plan_before": "free", "plan": "professional"}
    for entry in entries:
        assert list(entry) == ["id", "at", "type", "details", *NAMES]
        assert not {"actor", "request_id", "event"} & set(entry["details"])
        assert [entry[name] for name in NAMES] == [None] * 3


def test_what_is_about_keys_is_for_the_audit(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    for kind in ("key_created", "key_deleted", "overage_refused", "overage_replayed"):
        wrote(service, org, kind)
    assert [entry["type"] for entry in past(service, org)["data"]] == ["org_created"]


def test_a_payment_and_its_refund_have_the_names_that_stripe_knows_them_by(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    kept = {name: FieldCodec().encode(org, name, f"{name}_1") for name in ("payment_intent", "refund", "event")}
    wrote(service, org, "credits_granted", payment_intent=kept["payment_intent"], event=kept["event"], credits="500")
    wrote(service, org, "credits_taken_back", refund=kept["refund"], reason="fraud")
    refunded, paid = past(service, org, limit=2)["data"]
    assert (paid["stripe_payment_intent_id"], paid["stripe_refund_id"]) == ("payment_intent_1", None)
    assert paid["details"] == {"credits": 500}
    assert (refunded["stripe_payment_intent_id"], refunded["stripe_refund_id"]) == (None, "refund_1")
    assert refunded["details"] == {}


def test_an_invoice_says_what_it_comes_to_and_how_stripe_calls_it(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    told = {"invoice_id": "in_1", "total_minor": "7000", "paid_minor": "2900"}
    wrote(service, org, "invoice.paid", currency="usd", **{k: FieldCodec().encode(org, k, v) for k, v in told.items()})
    entry = past(service, org, limit=1)["data"][0]
    assert entry["details"] == {"currency": "usd", "total_minor": 7000, "paid_minor": 2900}
    assert [entry[name] for name in NAMES] == [None, None, "in_1"]


def test_credits_say_what_was_paid_for_them(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    bought = {"payment_intent": "pi_9", "amount_minor": 4500, "currency": "usd"}
    for name, source in (("cg_paid", bought), ("cg_given", {})):
        order = GrantOrder(name, 500, Kind.PAID, source=source)
        service.store.hset(Keys(64).grants(org), name, order.details(org, By("ann", "why", ""), FieldCodec()))
        wrote(service, org, "credits_granted", grant=name, credits="500", balance="500", kind="paid")
    wrote(service, org, "credits_granted", grant="cg_gone", credits="1", balance="1")
    gone, given, paid = past(service, org, limit=3)["data"]
    assert paid["stripe_payment_intent_id"] == "pi_9"
    told = {"grant": "cg_paid", "credits": 500, "balance": 500, "kind": "paid"}
    assert paid["details"] == told | {"paid_minor": 4500, "currency": "usd"}
    assert (given["stripe_payment_intent_id"], "paid_minor" in given["details"]) == (None, False)
    assert gone["stripe_payment_intent_id"] is None


def test_a_closed_period_says_what_was_used_and_how_much_of_the_overage_is_at_stripe(
    service: Running, org: str
) -> None:
    service.track(org_id=org, feature="scans", quantity=13)
    url = SecretStr(service.server_store.url)
    asyncio.run(
        advance(Settings(redis_url=url, jwt_secret=SecretStr(SECRET)), SystemClock(), 32 * DAY_MS, lambda _: None)
    )
    service.track(org_id=org, feature="scans")
    closed = next(entry for entry in past(service, org)["data"] if entry["type"] == "period_closed")
    assert closed["details"]["features"]["scans"] == {"used": 13, "credit": 0, "overage": 3, "billed": 0}
    assert (closed["details"]["plan"], closed["details"]["final"]) == ("free", False)
    name = next(service.store.scan_iter(f"{{*}}:u:{org}:*"))
    service.store.hset(name, mapping={"d:scans": "2", "y:scans": "1", "a:scans": "1", "final": "1"})
    closed = next(entry for entry in past(service, org)["data"] if entry["type"] == "period_closed")
    assert closed["details"]["features"]["scans"] == {"used": 13, "credit": 1, "overage": 2, "billed": 2}
    assert closed["details"]["final"] is True
    service.store.delete(name)
    closed = next(entry for entry in past(service, org)["data"] if entry["type"] == "period_closed")
    assert closed["details"]["features"] == {}


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_put_together_are_all_of_it_each_once(service: Running, org: str, limit: int) -> None:
    service.track(org_id=org, feature="scans")
    for number in range(5):
        wrote(service, org, "invoice.paid", number=str(number))
        wrote(service, org, "key_created")
    whole = past(service, org)
    assert whole["next_cursor"] is None
    assert [entry["details"].get("number") for entry in whole["data"]] == ["4", "3", "2", "1", "0", None]
    pages: list[list[dict[str, Any]]] = []
    cursor = None
    while not pages or cursor is not None:
        page = past(service, org, limit=limit, **({} if cursor is None else {"cursor": cursor}))
        pages.append(page["data"])
        cursor = page["next_cursor"]
    assert [entry for page in pages for entry in page] == whole["data"]
    assert {len(page) for page in pages[:-1]} <= {limit}


def test_what_does_not_concern_the_bill_is_passed_over_however_much_of_it_there_is(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    pipe = service.store.pipeline(transaction=False)
    for _ in range(450):  # three reads of the trail
        pipe.xadd(Keys(64).trail(org), {"type": "key_created"})
    pipe.execute()
    page = past(service, org)
    assert ([entry["type"] for entry in page["data"]], page["next_cursor"]) == (["org_created"], None)


def test_it_takes_the_scope_to_read_billing_and_a_cursor_of_ours(service: Running, org: str) -> None:
    path = "/v1/billing/history"
    problem(service.call("GET", path, token(org)), 404, "org-not-found")
    service.track(org_id=org, feature="scans")
    problem(service.call("GET", path, token(org, USAGE_READ)), 403, "forbidden")
    for query in ({"cursor": "x"}, {"cursor": "0-0"}, {"limit": "0"}, {"limit": "501"}, {"type": "x"}):
        problem(service.call("GET", path, token(org), params=query), 422, "validation")
    assert past(service, org, cursor="1-0") == {"data": [], "next_cursor": None}
