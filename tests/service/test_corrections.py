"""Corrections over HTTP: what callers see, and that a refusal changes nothing."""

import secrets
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from metering.auth import ADMIN
from tests.service.running import Running, problem, token

ROOT = token(None, ADMIN)
WHY = "counted twice"


@pytest.fixture
def org(service: Running) -> str:
    """An organisation with 13 scans of 10, counted by the event `e1` of `svc`."""
    name = f"org-{secrets.token_hex(6)}"
    assert service.track(org_id=name, feature="scans", quantity=13, event_id="e1", source="svc").status_code == 200
    return name


def adjust(service: Running, org: str, units: float, **more: Any) -> httpx2.Response:
    body = {"org_id": org, "feature": "scans", "delta": units, "reason": WHY} | more
    return service.call("POST", "/v1/usage/adjustments", ROOT, json=body)


def void(service: Running, org: str, event_id: str = "e1", **more: Any) -> httpx2.Response:
    body = {"org_id": org, "source": "svc", "feature": "scans", "quantity": 13, "reason": WHY} | more
    sent = {name: value for name, value in body.items() if value is not None}
    return service.call("POST", f"/v1/events/{event_id}/void", ROOT, json=sent)


def reset(service: Running, org: str, **more: Any) -> httpx2.Response:
    return service.call("POST", f"/v1/usage/{org}/reset", ROOT, json={"reason": WHY} | more)


def scans(service: Running, org: str) -> dict[str, Any]:
    view: dict[str, Any] = service.call("GET", f"/usage/{org}", ROOT).json()["features"]["scans"]
    return view


# ── adjustments ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_adjustment_answers_with_before_and_after_and_the_view_agrees(service: Running, org: str) -> None:
    told = adjust(service, org, -5, id="ticket-1").json()
    assert told["before"] == {"used": 13, "overage": 3, "remaining": 0}
    assert told["after"] == {"used": 8, "overage": 0, "remaining": 2}
    assert (told["delta"], told["overage_given_back"], told["stripe_action"]) == (-5, 3, "none")
    assert (told["org_id"], told["feature"], told["id"], told["duplicate"]) == (org, "scans", "ticket-1", False)
    view = scans(service, org)
    assert (view["current"], view["overage"], view["remaining"]) == (8, 0, 2)
    assert not service.call("GET", f"/usage/{org}", ROOT).json()["overage_flagged"]


def test_an_id_adjusts_once_and_means_one_thing(service: Running, org: str) -> None:
    first = adjust(service, org, -5, id="ticket-1").json()
    with service.unchanged():
        again = adjust(service, org, -5, id="ticket-1", reason="said otherwise").json()
        other = adjust(service, org, -4, id="ticket-1")
    assert (again["duplicate"], again["delta"], again["before"]) == (True, 0, again["after"])
    assert again["after"] == first["after"]
    assert again["audit_id"] == first["audit_id"]
    problem(other, 409, "event-conflict")


def test_without_an_id_every_adjustment_is_one_of_its_own(service: Running, org: str) -> None:
    made = [adjust(service, org, -1).json() for _ in range(2)]
    assert [one["after"]["used"] for one in made] == [12, 11]
    assert made[0]["id"] != made[1]["id"]


def test_an_idempotency_key_names_it_too(service: Running, org: str) -> None:
    headers = {"Idempotency-Key": secrets.token_hex(16)}
    body = {"org_id": org, "feature": "scans", "delta": -1, "reason": WHY}
    first, again = (service.call("POST", "/v1/usage/adjustments", ROOT, json=body, headers=headers) for _ in range(2))
    assert first.content == again.content
    assert scans(service, org)["current"] == 12


def test_a_counter_never_goes_below_zero(service: Running, org: str) -> None:
    with service.unchanged():
        told = problem(adjust(service, org, -14), 422, "below-zero")
    assert (told["current_usage"], told["requested"]) == (13, -14)
    assert told["errors"][0]["pointer"] == "/delta"


def test_the_total_stays_exact(service: Running, org: str) -> None:
    service.store.hset(next(service.store.scan_iter(f"*:o:{org}")), "u:wallet_checks", 2**53 - 2)
    told = problem(adjust(service, org, 2, feature="wallet_checks"), 422, "total-too-large")
    assert told["errors"][0]["pointer"] == "/delta"


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"feature": "scams"}, 404, "feature-unknown"),
        ({"period": "2024-01-01T00:00:00Z"}, 404, "period-not-found"),
        ({"timestamp": "2024-01-01T00:00:00Z"}, 422, "timestamp-out-of-range"),
        ({"org_id": "org-nobody"}, 404, "org-not-found"),
        ({"delta": 0}, 422, "validation"),
        ({"delta": 1.5}, 422, "validation"),
        ({"delta": 10**12 + 1}, 422, "validation"),
        ({"reason": ""}, 422, "validation"),
        ({"reason": None}, 422, "validation"),
        ({"quantity": 1}, 422, "validation"),
        ({"period": "yesterday"}, 422, "validation"),
    ],
    ids=str,
)
def test_what_cannot_be_adjusted_changes_nothing(
    service: Running, org: str, more: dict[str, Any], status: int, code: str
) -> None:
    with service.unchanged():
        told = problem(adjust(service, org, -1, **more), status, code)
    assert told["code"] != "feature-unknown" or told["nearest"] == "scans"


def test_five_and_no_tenth_is_five(service: Running, org: str) -> None:
    assert adjust(service, org, -5.0).json()["delta"] == -5


# ── voids ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_void_takes_the_event_back_once_and_its_id_stays_known(service: Running, org: str) -> None:
    told = void(service, org).json()
    assert (told["after"]["used"], told["overage_given_back"], told["also"], told["id"]) == (0, 3, [], "e1")
    with service.unchanged():
        again = void(service, org).json()
        sent = service.track(org_id=org, feature="scans", quantity=13, event_id="e1", source="svc").json()
    assert (again["duplicate"], again["audit_id"]) == (True, told["audit_id"])
    assert (sent["duplicate"], sent["current_usage"]) == (True, 0)


@pytest.mark.parametrize(
    ("event_id", "more", "status", "code"),
    [
        ("e2", {}, 404, "event-not-found"),
        ("e1", {"source": None}, 404, "event-not-found"),
        ("e1", {"quantity": 12}, 409, "event-conflict"),
        ("e1", {"feature": "wallet_checks"}, 409, "event-conflict"),
        (
            "e1",
            {"feature": None, "quantity": None, "features": [{"feature": "scans", "quantity": 12}]},
            409,
            "event-conflict",
        ),
        ("e1", {"features": [{"feature": "scans", "quantity": 13}]}, 422, "validation"),
        ("e1", {"quantity": None}, 422, "validation"),
        ("e1", {"feature": None}, 422, "validation"),
        ("e1", {"feature": None, "quantity": None, "features": []}, 422, "validation"),
        ("e1", {"recorded": 14}, 422, "validation"),
        ("e1", {"period": "2024-01-01T00:00:00Z"}, 404, "period-not-found"),
        ("e1", {"reason": None}, 422, "validation"),
    ],
    ids=str,
)
def test_what_cannot_be_voided_changes_nothing(
    service: Running, org: str, event_id: str, more: dict[str, Any], status: int, code: str
) -> None:
    with service.unchanged():
        problem(void(service, org, event_id, **more), status, code)


def test_an_id_of_any_letters_can_be_voided(service: Running, org: str) -> None:
    event_id = "é vt?#%&+1"
    assert service.track(org_id=org, feature="scans", quantity=2, event_id=event_id, source="svc").status_code == 200
    told = void(service, org, quote(event_id, safe=""), quantity=2).json()
    assert (told["id"], told["after"]["used"]) == (event_id, 13)


def test_a_part_of_the_quantity_is_taken_out_where_fewer_units_were_recorded(service: Running, org: str) -> None:
    assert void(service, org, recorded=3).json()["delta"] == -3


def test_a_void_after_other_corrections_never_takes_what_is_not_there(service: Running, org: str) -> None:
    adjust(service, org, -6)
    with service.unchanged():
        told = problem(void(service, org), 422, "below-zero")
    assert told["errors"][0]["pointer"] == "/quantity"


# ── resets ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_reset_keeps_the_overage_that_is_billed(service: Running, org: str) -> None:
    told = reset(service, org, id="r1").json()
    [row] = told["data"]
    assert (row["after"]["used"], row["after"]["overage"], row["overage_given_back"]) == (3, 3, 0)
    assert reset(service, org, id="r1").json()["duplicate"]


def test_a_reset_that_forgives_leaves_nothing(service: Running, org: str) -> None:
    service.track(org_id=org, feature="wallet_checks", quantity=4)
    told = reset(service, org, features=["scans", "scans"], forgive_overage=True, keep_anchor=True).json()
    assert [(row["feature"], row["after"]["used"]) for row in told["data"]] == [("scans", 0)]
    view = service.call("GET", f"/usage/{org}", ROOT).json()["features"]
    assert (view["scans"]["current"], view["wallet_checks"]["current"]) == (0, 4)


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"keep_anchor": False}, 422, "validation"),
        ({"features": []}, 422, "validation"),
        ({"features": ["scams"]}, 404, "feature-unknown"),
        ({"reason": None}, 422, "validation"),
    ],
    ids=str,
)
def test_what_cannot_be_reset_changes_nothing(
    service: Running, org: str, more: dict[str, Any], status: int, code: str
) -> None:
    with service.unchanged():
        problem(reset(service, org, **more), status, code)


# ── who, and what is left of it ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/v1/usage/adjustments", "/v1/events/e1/void", "/v1/usage/{org}/reset"])
def test_customers_correct_nothing(service: Running, org: str, path: str) -> None:
    with service.unchanged():
        problem(service.call("POST", path.replace("{org}", org), token(org), json={}), 403, "forbidden")


def test_history_shows_what_is_left(service: Running, org: str) -> None:
    adjust(service, org, -5)
    told = service.call("GET", f"/usage/{org}/history", ROOT).json()["data"]
    assert [(row["value"], row["overage"]) for row in told] == [(8, 0)]
