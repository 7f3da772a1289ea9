"""Invoices as their payers see them, and as those see them who look after all."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from metering.auth import ADMIN
from tests.service.running import Running, problem, token
from tests.support.stripe_till import Till, till

OWN, ALL = "/v1/billing/invoices", "/v1/admin/invoices"


@pytest.fixture(scope="module")
def stripe() -> Iterator[Till]:
    with till() as running:
        yield running


@pytest.fixture(scope="module")
def service(stripe: Till) -> Iterator[Running]:
    with Running(stripe_secret_key="sk_test_1", stripe_api_base=stripe.url) as running:
        yield running


def invoice(name: str, customer: str, status: str = "paid") -> dict[str, Any]:
    """An invoice as Stripe has it."""
    final = status != "draft"
    return {
        "id": f"in_{name}", "customer": customer, "status": status, "number": f"A-{name}" if final else None,
        "currency": "usd", "total": 10150, "amount_due": 10150, "amount_paid": 0, "amount_remaining": 10150,
        "created": 1_700_000_000, "period_start": 1_697_000_000, "period_end": 1_700_000_000, "due_date": None,
        "hosted_invoice_url": f"https://invoice.stripe.com/i/{name}" if final else None,
        "invoice_pdf": f"https://pay.stripe.com/invoice/{name}/pdf" if final else None,
    }  # fmt: skip


@pytest.fixture
def payer(service: Running, stripe: Till, org: str) -> str:
    """An organisation whose customer has four invoices; somebody else has one, too."""
    customer = f"cus_{org[4:]}"
    told = {"org_id": org, "stripe_customer_id": customer}
    assert service.call("POST", "/billing/update", token(None, ADMIN), json=told).status_code == 200
    stripe.invoices = [
        invoice("4", customer, "draft"), invoice("3", customer, "open"), invoice("x", "cus_elsewhere"),
        invoice("2", customer), invoice("1", customer),
    ]  # fmt: skip
    stripe.sent.clear()
    return org


def ids(answer: httpx2.Response) -> list[str]:
    """The invoices of a page."""
    assert answer.status_code == 200
    return [row["id"] for row in answer.json()["data"]]


def test_an_organisation_sees_its_own_invoices_with_their_addresses(service: Running, payer: str) -> None:
    answer = service.call("GET", OWN, token(payer))
    assert ids(answer) == ["in_4", "in_3", "in_2", "in_1"]
    draft, owed = answer.json()["data"][:2]
    assert (draft["number"], draft["hosted_invoice_url"]) == (None, None)
    assert owed == {
        "id": "in_3", "number": "A-3", "status": "open", "currency": "usd", "total": 10150, "amount_due": 10150,
        "amount_paid": 0, "amount_remaining": 10150, "created": "2023-11-14T22:13:20Z",
        "period": {"start": "2023-10-11T04:53:20Z", "end": "2023-11-14T22:13:20Z"}, "due_date": None,
        "hosted_invoice_url": "https://invoice.stripe.com/i/3", "invoice_pdf": "https://pay.stripe.com/invoice/3/pdf",
    }  # fmt: skip


@pytest.mark.parametrize("path", [OWN, "/api/billing/invoices"])
def test_pages_follow_each_other_to_the_end(service: Running, payer: str, path: str) -> None:
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = service.call("GET", path, token(payer), params={"limit": 3} | ({"cursor": cursor} if cursor else {}))
        found += ids(answer)
        cursor = answer.json()["next_cursor"]
    assert found == ["in_4", "in_3", "in_2", "in_1"]


def test_only_those_of_a_status_where_one_is_asked_for(service: Running, payer: str) -> None:
    assert ids(service.call("GET", OWN, token(payer), params={"status": "paid"})) == ["in_2", "in_1"]
    problem(service.call("GET", OWN, token(payer), params={"status": "lost"}), 422, "validation")


def test_an_organisation_that_nobody_pays_for_has_none_and_stripe_is_not_asked(
    service: Running, stripe: Till, org: str
) -> None:
    service.track(org_id=org, feature="scans")
    stripe.sent.clear()
    for path, bearer in ((OWN, token(org)), (ALL, token(None, ADMIN))):
        assert service.call("GET", path, bearer, params={"org_id": org}).json() == {"data": [], "next_cursor": None}
    assert stripe.sent == []


def test_a_cursor_of_no_invoice_is_told(service: Running, stripe: Till, payer: str) -> None:
    refusal = {"type": "invalid_request_error", "code": "resource_missing", "param": "starting_after", "message": "no"}
    stripe.refuse = (400, {"error": refusal})
    try:
        answer = service.call("GET", OWN, token(payer), params={"cursor": "in_gone"})
    finally:
        stripe.refuse = None
    (fault,) = problem(answer, 422, "validation")["errors"]
    assert (fault["pointer"], fault["code"]) == ("/cursor", "cursor-unknown")
    problem(service.call("GET", OWN, token(payer), params={"cursor": "cus_1"}), 422, "validation")


@pytest.mark.parametrize("path", [ALL, "/api/billing/admin/invoices"])
def test_administrators_see_all_of_them_and_who_pays(service: Running, payer: str, path: str) -> None:
    answer = service.call("GET", path, token(None, ADMIN))
    assert ids(answer) == ["in_4", "in_3", "in_x", "in_2", "in_1"]
    owned, elsewhere = answer.json()["data"][1:3]
    assert (owned["org_ids"], elsewhere["org_ids"]) == ([payer], [])
    assert (owned["stripe_customer_id"], elsewhere["stripe_customer_id"]) == (f"cus_{payer[4:]}", "cus_elsewhere")


def test_administrators_may_ask_for_those_of_an_organisation(service: Running, payer: str) -> None:
    asked = {"org_id": payer, "status": "open"}
    assert ids(service.call("GET", ALL, token(None, ADMIN), params=asked)) == ["in_3"]


def test_without_stripe_there_is_nothing_to_ask(org: str) -> None:
    with Running() as service:
        service.track(org_id=org, feature="scans")
        problem(service.call("GET", OWN, token(org)), 409, "stripe-not-configured")
