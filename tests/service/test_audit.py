"""GET /v1/audit: every kind of entry readable, filters, pages, and who sees what."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from metering.auth import ADMIN, AUDIT
from metering.moments import rfc3339
from tests.service.running import Running, problem, token

ROOT = token(None, ADMIN, sub="root")
WHY = "counted twice"


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    """A service of this file alone: the walk over all organisations counts them."""
    with Running() as running:
        yield running


@pytest.fixture
def org(service: Running) -> str:
    """An organisation to which something of every kind happened."""
    name = f"org-{secrets.token_hex(6)}"
    service.track(org_id=name, feature="scans", quantity=13, event_id="e1")
    update = {"org_id": name, "plan": "professional", "limits": {"scans": None}}
    headers = {"X-Request-Id": "req-of-ann"}
    service.call("POST", "/billing/update", token(name, sub="ann"), json=update, headers=headers)
    adjusted = {"org_id": name, "feature": "scans", "delta": -1, "reason": WHY, "id": "a1"}
    service.call("POST", "/v1/usage/adjustments", ROOT, json=adjusted, headers={"X-Request-Id": "req-of-root"})
    return name


def audit(service: Running, bearer: str = ROOT, **query: Any) -> dict[str, Any]:
    response = service.call("GET", "/v1/audit", bearer, params=query)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    return page


def test_entries_of_every_kind_say_what_happened_who_did_it_and_why(service: Running, org: str) -> None:
    entries = audit(service, org_id=org)["data"]
    period = service.call("GET", f"/usage/{org}", ROOT).json()["period"]["start"]
    ids = [entry.pop("id") for entry in entries]
    assert sorted(ids) == ids
    assert all(entry.pop("at").endswith("Z") and entry.pop("org_id") == org for entry in entries)
    assert entries == [
        {"type": "org_created", "actor": None, "details": {"plan": "free"}},
        {"type": "overage_started", "actor": None,
         "details": {"plan": "free", "feature": "scans", "used": 13, "limit": 10, "period": period}},
        {"type": "plan_changed", "actor": "ann",
         "details": {"plan_before": "free", "plan": "professional", "overrides": {"scans": {"limit": None}},
                     "request_id": "req-of-ann"}},
        {"type": "usage_adjusted", "actor": "root",
         "details": {"feature": "scans", "delta": -1, "used_before": 13, "used_after": 12, "overage_before": 3,
                     "overage_after": 3, "limit": None, "period": period, "reason": WHY, "id": "a1",
                     "request_id": "req-of-root"}},
    ]  # fmt: skip


def test_the_answer_of_a_correction_names_its_entry(service: Running, org: str) -> None:
    body = {"org_id": org, "feature": "scans", "quantity": 13, "reason": WHY}
    told = service.call("POST", "/v1/events/e1/void", ROOT, json=body)
    problem(told, 422, "below-zero")
    body = {"features": ["scans"], "reason": WHY, "forgive_overage": True}
    told = service.call("POST", f"/v1/usage/{org}/reset", ROOT, json=body)
    [entry] = audit(service, org_id=org, type="usage_reset")["data"]
    assert entry["id"] == told.json()["data"][0]["audit_id"]


@pytest.mark.parametrize(
    ("query", "kinds"),
    [
        ({"type": "plan_changed"}, ["plan_changed"]),
        ({"actor": "root"}, ["usage_adjusted"]),
        ({"actor": "ann", "type": "usage_adjusted"}, []),
        ({"type": "no_such_thing"}, []),
    ],
    ids=str,
)
def test_filters_hold_together(service: Running, org: str, query: dict[str, str], kinds: list[str]) -> None:
    assert [entry["type"] for entry in audit(service, org_id=org, **query)["data"]] == kinds


def test_a_span_of_time_holds_its_beginning_and_not_its_end(service: Running, org: str) -> None:
    entries = audit(service, org_id=org)["data"]
    for entry in entries:
        same = [one["id"] for one in entries if one["at"] == entry["at"]]
        after = [one["id"] for one in entries if one["at"] >= entry["at"]]
        assert [one["id"] for one in audit(service, org_id=org, **{"from": entry["at"]})["data"]] == after
        before = [one["id"] for one in audit(service, org_id=org, to=entry["at"])["data"]]
        assert before == [one["id"] for one in entries if one["id"] not in after]
        assert set(same) <= set(after)
    problem(
        service.call("GET", "/v1/audit", ROOT, params={"from": rfc3339(2000), "to": rfc3339(2000)}), 422, "validation"
    )


def test_pages_of_one_organisation_put_together_are_all_of_it(service: Running, org: str) -> None:
    whole = audit(service, org_id=org)["data"]
    found, cursor = [], None
    while True:
        page = audit(service, org_id=org, limit=1, **({"cursor": cursor} if cursor else {}))
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == whole
    assert audit(service, org_id=org, limit=4)["next_cursor"] is None


def test_an_administrator_walks_all_organisations_each_from_its_oldest_entry(service: Running, org: str) -> None:
    for number in range(20):
        service.track(org_id=f"walk-{number}", feature="scans")
    found, cursor = [], None
    while True:
        page = audit(service, limit=7, **({"cursor": cursor} if cursor else {}))
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    places = [(entry["org_id"], entry["id"]) for entry in found]
    assert len(set(places)) == len(places)
    assert {f"walk-{number}" for number in range(20)} | {org} <= {name for name, _ in places}
    order = list(dict.fromkeys(name for name, _ in places))
    assert [name for name, _ in places] == sorted((name for name, _ in places), key=order.index)
    assert [entry for entry in found if entry["org_id"] == org] == audit(service, org_id=org)["data"]
    assert audit(service, limit=500, type="plan_changed", actor="ann")["data"]


def test_an_organisation_with_a_broken_trail_hides_no_other(service: Running, org: str) -> None:
    service.track(org_id="broken", feature="scans")
    [key] = service.store.scan_iter("*:a:broken")
    service.store.delete(key)
    service.store.set(key, "junk")
    try:
        names = {entry["org_id"] for entry in audit(service, limit=500)["data"]}
        assert org in names
        assert "broken" not in names
        problem(service.call("GET", "/v1/audit?org_id=broken", ROOT), 503, "org-corrupt")
    finally:
        service.store.delete(key)


def test_an_entry_that_no_script_wrote_is_shown_as_it_is(service: Running, org: str) -> None:
    [key] = service.store.scan_iter(f"*:a:{org}")
    service.store.xadd(key, {"limit": "none", "period": "99999999999999999", "overrides": "{", "x": b"\xff"})
    entry = audit(service, org_id=org)["data"][-1]
    assert (entry["type"], entry["actor"]) == ("unknown", None)
    assert entry["details"] == {"limit": "none", "period": "99999999999999999", "overrides": "{", "x": "\ufffd"}


def test_the_scope_shows_the_own_organisation_alone(service: Running, org: str) -> None:
    mine = token(org, AUDIT)
    assert {entry["org_id"] for entry in audit(service, mine)["data"]} == {org}
    foreign = service.call("GET", "/v1/audit?org_id=walk-1", mine)
    unknown = service.call("GET", "/v1/audit?org_id=org-nobody", mine)
    problem(foreign, 404, "org-not-found")
    assert foreign.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
    problem(service.call("GET", "/v1/audit", mine, params={"cursor": "walk-1@1-1"}), 422, "validation")
    problem(service.call("GET", "/v1/audit", token(None, AUDIT)), 422, "validation")
    problem(service.call("GET", "/v1/audit", token("org-nobody", AUDIT)), 404, "org-not-found")


@pytest.mark.parametrize("cursor", ["", "walk-1", "walk-1@x-1", "@1-1", "walk-1@1-12345678901234567890", "a@1-1 "])
def test_a_cursor_that_is_none_is_told(service: Running, cursor: str) -> None:
    problem(service.call("GET", "/v1/audit", ROOT, params={"cursor": cursor}), 422, "validation")


def test_a_cursor_from_the_end_of_time_finds_nothing(service: Running, org: str) -> None:
    assert audit(service, org_id=org, cursor=f"{org}@9999999999999-9999999999999999999")["data"] == []
