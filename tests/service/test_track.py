"""POST /usage/track: the six fields every client knows, and what was added to them."""

import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from metering.auth import ADMIN, USAGE_READ, USAGE_WRITE
from metering.settings import Settings
from tests.service.running import Running, problem, token

FIRST = ["org_id", "feature", "current_usage", "limit", "remaining", "reset_date"]
ADDED = [
    "event_id",
    "allowed",
    "recorded",
    "duplicate",
    "overage",
    "unlimited",
    "period",
    "thresholds_crossed",
    "decided_by",
]


def test_the_first_event_of_an_unknown_organisation_is_counted_on_the_free_plan(service: Running, org: str) -> None:
    response = service.track(org_id=org, feature="scans", quantity=5, metadata={"contract": "0x123", "chain": "eth"})
    assert response.status_code == 200
    body = response.json()
    assert list(body) == FIRST + ADDED
    assert [body[name] for name in FIRST[:5]] == [org, "scans", 5, 10, 5]
    assert re.fullmatch(r"\d{4}-\d{2}-01T00:00:00Z", body["reset_date"])
    assert body["period"]["end"] == body["reset_date"]
    assert re.fullmatch(r"evt_[0-9A-HJKMNP-TV-Z]{26}", body["event_id"])
    assert [body[name] for name in ADDED[1:6]] == [True, 5, False, 0, False]
    assert (body["thresholds_crossed"], body["decided_by"]) == ([], "plan_limit")


@pytest.mark.parametrize(
    ("field", "value"),
    [("mode", "cheap"), ("mode", None), ("reservation_id", "a b"), ("reservation_id", False), ("dry_run", 0)],
)
def test_a_wrong_mode_reservation_or_dry_run_is_told(service: Running, org: str, field: str, value: Any) -> None:
    with service.unchanged():
        (told,) = problem(service.track(org_id=org, feature="scans", **{field: value}), 422, "validation")["errors"]
    assert told["pointer"] == f"/{field}"


def test_metadata_and_actor_are_checked_and_not_stored(service: Running, org: str) -> None:
    said = secrets.token_hex(8)
    service.track(org_id=org, feature="scans", metadata={said: said}, actor=said, event_id="e1")
    service.call("POST", "/usage/track", token(org, USAGE_WRITE), json={"endpoint": said})
    assert said.encode() not in b"".join(service.snapshot().values())


def test_a_repeated_event_id_answers_with_the_balance_and_counts_nothing(service: Running, org: str) -> None:
    first = service.track(org_id=org, feature="scans", quantity=5, event_id="e1").json()
    service.track(org_id=org, feature="scans", quantity=1)
    again = service.track(org_id=org, feature="scans", quantity=5, event_id="e1")
    assert again.status_code == 200
    body = again.json()
    assert (body["event_id"], body["duplicate"], body["recorded"], body["current_usage"]) == ("e1", True, 0, 6)
    assert body["decided_by"] == "event_id"
    assert (first["duplicate"], first["current_usage"]) == (False, 5)


def test_an_event_id_reused_for_other_content_is_a_conflict(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans", quantity=5, event_id="e1")
    with service.unchanged():
        for other in ({"quantity": 6}, {"feature": "wallet_checks", "quantity": 5}):
            body = {"org_id": org, "feature": "scans", "event_id": "e1"} | other
            assert problem(service.track(**body), 409, "event-conflict")["event_id"] == "e1"


def test_the_same_id_of_another_source_is_another_event(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans", event_id="e1", source="a")
    assert service.track(org_id=org, feature="scans", event_id="e1", source="b").json()["current_usage"] == 2


def test_parallel_copies_of_one_event_count_once(service: Running, org: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(service.track, org_id=org, feature="scans", quantity=2, event_id="x") for _ in range(40)]
    answers = [call.result().json() for call in calls]
    assert sorted(answer["duplicate"] for answer in answers) == [False] + [True] * 39
    assert {answer["current_usage"] for answer in answers} == {2}


def test_usage_above_the_limit_is_counted_allowed_and_shown_as_overage(service: Running, org: str) -> None:
    assert service.track(org_id=org, feature="scans", quantity=10).json()["overage"] == 0
    body = service.track(org_id=org, feature="scans", quantity=3).json()
    assert (body["current_usage"], body["remaining"], body["overage"], body["allowed"]) == (13, 0, 3, True)


def test_the_marks_a_step_crosses_are_named(service: Running, org: str) -> None:
    assert service.track(org_id=org, feature="scans", quantity=8).json()["thresholds_crossed"] == [75, 80]
    assert service.track(org_id=org, feature="scans", quantity=2).json()["thresholds_crossed"] == [90, 100]


def test_an_unlimited_feature_has_no_limit_and_no_remainder(service: Running, org: str) -> None:
    admin = token(None, ADMIN)
    service.call("PUT", f"/v1/orgs/{org}", admin, json={"plan": "enterprise"})
    body = service.track(org_id=org, feature="scans", quantity=10**12).json()
    assert (body["limit"], body["remaining"], body["unlimited"], body["decided_by"]) == (None, None, True, "unlimited")


def test_a_blocked_event_is_refused_with_the_balance_and_a_plan_that_has_room(service: Running, org: str) -> None:
    service.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={"on_limit": {"scans": "block"}})
    service.track(org_id=org, feature="scans", quantity=9)
    with service.unchanged():
        body = problem(service.track(org_id=org, feature="scans", quantity=2), 403, "quota-exceeded")
    assert {name: body[name] for name in ("org_id", "feature", "current_usage", "limit", "requested", "upgrade")} == {
        "org_id": org,
        "feature": "scans",
        "current_usage": 9,
        "limit": 10,
        "requested": 2,
        "upgrade": {"plan": "professional"},
    }
    assert re.fullmatch(r"\d{4}-\d{2}-01T00:00:00Z", body["reset_date"])
    assert "9 of 10" in body["detail"]


def test_a_capped_event_records_what_fits_and_then_nothing(service: Running, org: str) -> None:
    service.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={"on_limit": {"scans": "cap"}})
    body = service.track(org_id=org, feature="scans", quantity=12).json()
    assert (body["recorded"], body["current_usage"], body["remaining"], body["allowed"]) == (10, 10, 0, True)
    problem(service.track(org_id=org, feature="scans"), 403, "quota-exceeded")


def test_an_unknown_feature_names_the_nearest_and_all(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    with service.unchanged():
        body = problem(service.track(org_id=org, feature="scnas"), 404, "feature-unknown")
    assert (body["nearest"], body["features"]) == ("scans", ["api_requests", "scans", "wallet_checks"])


def test_a_total_beyond_exact_numbers_is_refused(service: Running, org: str) -> None:
    service.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={"plan": "enterprise"})
    service.track(org_id=org, feature="scans")
    (key,) = service.store.scan_iter(f"*:o:{org}")
    service.store.hset(key, "u:scans", 2**53 - 2)
    with service.unchanged():
        body = problem(service.track(org_id=org, feature="scans", quantity=2), 422, "total-too-large")
    assert body["current_usage"] == 2**53 - 2
    assert service.track(org_id=org, feature="scans", quantity=1).json()["current_usage"] == 2**53 - 1


@pytest.mark.parametrize("path", ["/usage/track", "/api/usage/track"])
def test_the_short_form_counts_one_call_for_the_tokens_organisation(service: Running, org: str, path: str) -> None:
    response = service.call("POST", path, token(org, USAGE_WRITE), json={"endpoint": "analyze"})
    body = response.json()
    assert (body["org_id"], body["feature"], body["current_usage"], body["limit"]) == (org, "api_requests", 1, 1000)


def test_the_tokens_organisation_is_the_default_and_quantity_one_is(service: Running, org: str) -> None:
    body = service.track(token(org, USAGE_WRITE), feature="scans").json()
    assert (body["org_id"], body["recorded"]) == (org, 1)


def test_an_event_of_an_earlier_period_is_late_and_counts_now(service: Running, org: str) -> None:
    period = service.track(org_id=org, feature="scans").json()["period"]
    before = period["start"].replace("T00:00:00Z", "T00:00:00.001+00:01")
    body = service.track(org_id=org, feature="scans", timestamp=before, event_id="late").json()
    assert (body["late"], body["current_usage"]) == (True, 2)
    assert "late" not in service.track(org_id=org, feature="scans").json()


def test_a_timestamp_outside_the_window_names_the_window(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    with service.unchanged():
        response = service.track(org_id=org, feature="scans", timestamp="2001-02-03T04:05:06Z")
        body = problem(response, 422, "timestamp-out-of-range")
    assert body["errors"][0]["pointer"] == "/timestamp"
    assert body["oldest"] < body["newest"]
    assert body["newest"].endswith("Z")


def test_the_caller_needs_the_scope_to_write(service: Running, org: str) -> None:
    with service.unchanged():
        response = service.track(token(org, USAGE_READ), feature="scans")
        body = problem(response, 403, "forbidden")
    assert body["scope"] == USAGE_WRITE
    assert 'scope="usage:write"' in response.headers["www-authenticate"]


def test_an_earlier_event_may_be_refused_instead(org: str) -> None:
    with Running(late_policy="reject") as strict:
        period = strict.track(org_id=org, feature="scans").json()["period"]
        before = period["start"].replace("T00:00:00Z", "T00:00:00.001+00:01")
        with strict.unchanged():
            problem(strict.track(org_id=org, feature="scans", timestamp=before), 422, "timestamp-out-of-range")


def test_a_feature_that_the_plan_leaves_out_is_disabled(org: str, tmp_path: Path) -> None:
    text, _ = Settings().plans_text()
    file = tmp_path / "plans.toml"
    file.write_text(text.replace("scans = { limit = 10 }", "scans = { limit = 10, enabled = false }"))
    with Running(plans_file=file) as other:
        other.track(org_id=org, feature="wallet_checks")
        with other.unchanged():
            body = problem(other.track(org_id=org, feature="scans"), 403, "feature-disabled")
        shown = other.call("GET", f"/usage/{org}", token(org)).json()["features"]["scans"]
    assert (body["feature"], body["upgrade"]) == ("scans", {"plan": "professional"})
    assert (shown["enabled"], shown["current"]) == (False, 0)
