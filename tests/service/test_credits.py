"""Credits over HTTP: given and taken by administrators, looked at by their owner, every change with its reason."""

import csv
import io
import secrets
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from metering.auth import ADMIN, BILLING_READ
from metering.moments import rfc3339
from tests.service.running import Running, problem, token

ROOT = token(None, ADMIN, sub="root")
WHY = "goodwill"


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    """A service whose catalogue sells credits and has a low mark of 20."""
    with Running(plans_file="s4") as running:
        yield running


@pytest.fixture
def org(service: Running) -> str:
    """An organisation without credits."""
    name = f"org-{secrets.token_hex(6)}"
    assert service.call("PUT", f"/v1/orgs/{name}", ROOT, json={}).status_code == 201
    return name


def give(service: Running, org: str, key: str | None = None, **body: Any) -> httpx2.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return service.call("POST", f"/v1/orgs/{org}/grants", ROOT, json={"reason": WHY} | body, headers=headers)


def given(service: Running, org: str, **body: Any) -> dict[str, Any]:
    answer = give(service, org, **body)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


def read(service: Running, path: str, org: str, **query: Any) -> dict[str, Any]:
    answer = service.call("GET", path, token(org, BILLING_READ), params=query)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_a_grant_is_told_with_all_its_terms_and_makes_a_balance(service: Running, org: str) -> None:
    now_ms = int(service.store.time()[0]) * 1000
    ends = rfc3339(now_ms + 90 * 86_400_000)
    told = given(service, org, amount=500, kind="paid", priority=10, expires_at=ends, rollover={"max": 50})
    assert (told["balance"], told["left"], told["burned"], told["granted_by"]) == (500, 500, 0, "root")
    assert (told["scope"], told["kind"], told["priority"], told["expires_at"]) == ("credits", "paid", 10, ends)
    assert (told["rollover"], told["reason"], told["revoked"]) == ({"max": 50}, WHY, False)
    balance = read(service, "/v1/credits/balance", org)
    assert balance.pop("grants") == [
        {"id": told["id"], "scope": "credits", "kind": "paid", "priority": 10, "effective_at": told["effective_at"],
         "expires_at": ends, "left": 500, "usable": True, "frozen": False},
    ]  # fmt: skip
    assert balance == {
        "org_id": org, "balance": 500, "reserved": 0, "owed": 0, "low": False, "low_mark": 20,
        "currency_value": {"amount_minor": 5000, "currency": "usd"},
    }  # fmt: skip


def test_the_older_path_tells_the_same_balance(service: Running, org: str) -> None:
    given(service, org, amount=7)
    older = service.call("GET", "/api/credits/balance", token(org))
    assert older.json() == read(service, "/v1/credits/balance", org)
    assert older.json()["low"] is True


def test_a_key_gives_once(service: Running, org: str) -> None:
    key = secrets.token_hex(16)
    first, again = give(service, org, key, amount=5), give(service, org, key, amount=5)
    assert (first.status_code, first.content) == (201, again.content)
    assert read(service, "/v1/credits/balance", org)["balance"] == 5
    assert given(service, org, amount=5)["balance"] == 10


def test_a_revocation_takes_what_is_left_and_stands_in_the_audit(service: Running, org: str) -> None:
    grant = given(service, org, amount=30)
    given(service, org, amount=3)
    path = f"/v1/orgs/{org}/grants/{grant['id']}"
    told = service.call("DELETE", path, ROOT, params={"reason": "given by mistake"}).json()
    assert (told["left"], told["taken"], told["revoked"], told["balance"]) == (0, 30, True, 3)
    entries = service.call("GET", "/v1/audit", ROOT, params={"org_id": org, "type": "credits_revoked"}).json()["data"]
    assert [entry["actor"] for entry in entries] == ["root"]
    details = entries[0]["details"]
    assert {name: details[name] for name in ("reason", "grant", "credits", "balance")} == {
        "reason": "given by mistake", "grant": grant["id"], "credits": 30, "balance": 3,
    }  # fmt: skip
    with service.unchanged():
        assert service.call("DELETE", path, ROOT, params={"reason": "again"}).json()["balance"] == 3


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"amount": 0}, "/amount", "too-small"),
        ({"amount": 10**12 + 1}, "/amount", "too-large"),
        ({"amount": 1.5}, "/amount", "type"),
        ({"amount": 1, "priority": 101}, "/priority", "too-large"),
        ({"amount": 1, "scope": "scan"}, "/scope", "feature-unknown"),
        ({"amount": 1, "rollover": {"max": 1}}, "/rollover", "conflict"),
        ({"amount": 1, "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at", "out-of-range"),
        ({"amount": 1, "expires_at": "1970-01-01T00:00:00Z"}, "/expires_at", "out-of-range"),
        ({"amount": 1, "expires_at": "1950-01-01T00:00:00Z"}, "/expires_at", "out-of-range"),
        ({"amount": 1, "price": 3}, "/price", "unknown-field"),
    ],
)
def test_what_is_no_grant_is_told_and_changes_nothing(
    service: Running, org: str, body: dict[str, Any], pointer: str, code: str
) -> None:
    with service.unchanged():
        told = problem(give(service, org, **body), 422, "validation")
    assert [fault["pointer"] for fault in told["errors"]] == [pointer]


def test_grants_are_listed_the_newest_first_page_by_page(service: Running, org: str) -> None:
    made = [given(service, org, amount=number)["id"] for number in (1, 2, 3)]
    found, cursor = [], None
    while True:
        query = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        page = read(service, f"/v1/orgs/{org}/grants", org, **query)
        found += [grant["id"] for grant in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(found) == sorted(made)
    assert len(found) == 3
    answer = service.call("GET", f"/v1/orgs/{org}/grants", token(org), params={"cursor": "cg_none"})
    problem(answer, 404, "grant-not-found")


def test_transactions_tell_every_line_as_pages_and_as_a_file(service: Running, org: str) -> None:
    grant = given(service, org, amount=100)["id"]
    given(service, org, amount=5)
    path = f"/v1/orgs/{org}/grants/{grant}"
    service.call("DELETE", path, ROOT, params={"reason": WHY})
    lines, cursor = [], None
    for _ in range(3):
        query = {"limit": 1} | ({} if cursor is None else {"cursor": cursor})
        page = read(service, "/v1/credits/transactions", org, **query)
        lines += page["data"]
        cursor = page["next_cursor"]
    assert cursor is None
    assert [(line["type"], line["credits"], line["balance"]) for line in lines] == [
        ("revoked", -100, 5),
        ("granted", 5, 105),
        ("granted", 100, 100),
    ]
    answer = service.call("GET", "/v1/credits/transactions", token(org), params={"format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["type"], row["credits"], row["balance"]) for row in rows] == [
        ("revoked", "-100", "5"),
        ("granted", "5", "105"),
        ("granted", "100", "100"),
    ]


def test_the_organisation_and_its_entitlements_show_credits_once_there_are_any(service: Running, org: str) -> None:
    assert service.call("GET", f"/v1/orgs/{org}", ROOT).json()["credits"] is None
    path = f"/v1/orgs/{org}/entitlements"
    before = service.call("GET", path, ROOT)
    grant = given(service, org, amount=9)
    shown = {"balance": 9, "reserved": 0, "owed": 0, "low": True, "low_mark": 20}
    assert service.call("GET", f"/v1/orgs/{org}", ROOT).json()["credits"] == shown
    assert service.call("GET", f"/usage/{org}", ROOT).json()["credits"] == shown
    after = service.call("GET", path, ROOT)
    assert [one["id"] for one in after.json()["grants"]] == [grant["id"]]
    assert after.headers["etag"] != before.headers["etag"]


@pytest.mark.parametrize("cursor", ["0-0.", "x", "1-1", ".20260101"])
def test_a_cursor_that_no_page_told_is_refused(service: Running, org: str, cursor: str) -> None:
    given(service, org, amount=100)
    answer = service.call("GET", "/v1/credits/transactions", token(org), params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation")
