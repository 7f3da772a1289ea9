"""What decides besides the plan's limit: modes, trials, sub-windows, rates, and reservations settled by an event."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metering.auth import ADMIN
from tests.service.running import Running, problem, token

CATALOGUE = """
version = 1
currency = "usd"
default_plan = "free"
default_feature = "scans"
[dimensions]
actor = 2
chain = 5
[features]
scans = { title = "Scans", unit = "scan" }
checks = { title = "Checks", unit = "check" }
calls = { title = "Calls", unit = "call" }
[plans.free]
title = "Free"
reset = "calendar"
on_limit = "overage"
price_minor = 0
[plans.free.features]
scans = { limit = 10 }
checks = { limit = 10, on_limit = "block", windows = [{ limit = 4, per = "week" }] }
calls = { limit = 10, on_limit = "cap" }
[plans.fast]
title = "Fast"
reset = "calendar"
on_limit = "block"
price_minor = 100
rate_limit = { events = 60, per = "hour", burst = 2 }
[plans.fast.features]
scans = { limit = 1000 }
checks = { limit = "unlimited" }
calls = { limit = 1000 }
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with sub-windows, a rate limit and dimensions."""
    file: Path = tmp_path_factory.mktemp("plans") / "plans.toml"
    file.write_text(CATALOGUE)
    with Running(plans_file=file, minute_history_hours=48) as running:
        yield running


def used(service: Running, org: str, feature: str) -> dict[str, Any]:
    view: dict[str, Any] = service.call("GET", f"/usage/{org}", token(None, ADMIN)).json()["features"][feature]
    return view


def test_a_caller_may_tighten_the_policy_and_never_loosen_it(limited: Running, org: str) -> None:
    limited.track(org_id=org, feature="scans", quantity=8)
    problem(limited.track(org_id=org, feature="scans", quantity=3, mode="block"), 403, "quota-exceeded")
    capped = limited.track(org_id=org, feature="scans", quantity=3, mode="cap").json()
    assert (capped["recorded"], capped["current_usage"], capped["overage"]) == (2, 10, 0)
    problem(limited.track(org_id=org, feature="scans", mode="cap"), 403, "quota-exceeded")
    assert limited.track(org_id=org, feature="scans", mode="overage").json()["overage"] == 1
    limited.track(org_id=org, feature="calls", quantity=9)
    assert limited.track(org_id=org, feature="calls", quantity=5, mode="overage").json()["recorded"] == 1


def test_a_dry_run_answers_and_writes_nothing(limited: Running, org: str) -> None:
    limited.track(org_id=org, feature="calls", quantity=7)
    with limited.unchanged():
        told = limited.track(org_id=org, feature="calls", quantity=5, event_id="e1", dry_run=True).json()
        assert (told["recorded"], told["current_usage"], told["dry_run"]) == (3, 10, True)
        refused = limited.track(org_id=org, feature="checks", quantity=11, dry_run=True)
    problem(refused, 403, "quota-exceeded")
    assert limited.track(org_id=org, feature="calls", quantity=5, event_id="e1").json()["recorded"] == 3


def test_a_dry_run_of_an_unknown_organisation_makes_none(limited: Running, org: str) -> None:
    with limited.unchanged():
        assert limited.track(org_id=org, feature="scans", dry_run=True).json()["current_usage"] == 1


def test_a_sub_window_refuses_with_its_own_limit_and_end(limited: Running, org: str) -> None:
    allowed = limited.track(org_id=org, feature="checks", quantity=3).json()
    assert (allowed["decided_by"], allowed["remaining"]) == ("window_week", 7)
    told = problem(limited.track(org_id=org, feature="checks", quantity=2), 403, "quota-exceeded")
    assert told["decided_by"] == "window_week"
    assert told["window"] == {"limit": 4, "per": "week", "rolling": False}
    assert told["reset_date"].endswith("T00:00:00Z")
    assert told["detail"] == "checks: 2 more would pass the 4 of this week"  # not 3 of 4: the 3 are the period's
    assert (told["current_usage"], told["limit"], told["requested"]) == (3, 10, 2)
    problem(limited.track(org_id=org, feature="checks", quantity=2, mode="cap"), 403, "quota-exceeded")


def test_a_rate_limit_is_429_with_the_time_to_wait_and_the_headers(limited: Running, org: str) -> None:
    limited.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={"plan": "fast"})
    first, second, third = (limited.track(org_id=org, feature="scans", event_id=name) for name in "abc")
    assert first.headers["ratelimit-policy"] == '"events";q=60;w=3600'
    assert [answer.headers["ratelimit"].partition(";t=")[0] for answer in (first, second)] == [
        '"events";r=1', '"events";r=0',
    ]  # fmt: skip
    problem(third, 429, "rate-limited")
    assert 0 < int(third.headers["retry-after"]) <= 60
    assert third.headers["ratelimit"].startswith('"events";r=0')
    again = limited.track(org_id=org, feature="scans", event_id="a")
    assert (again.status_code, again.json()["duplicate"]) == (200, True)
    conflict = limited.track(org_id=org, feature="scans", event_id="a", quantity=2)
    assert conflict.headers["ratelimit"].startswith('"events";r=0')
    assert used(limited, org, "scans")["current"] == 2


def test_what_a_limit_refuses_takes_nothing_of_the_rate_and_says_so(limited: Running, org: str) -> None:
    limited.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={"plan": "fast", "on_limit": {"scans": "block"}})
    refused = limited.track(org_id=org, feature="scans", quantity=10_000)
    problem(refused, 403, "quota-exceeded")
    assert refused.headers["ratelimit"] == '"events";r=2;t=0'
    assert limited.track(org_id=org, feature="scans").headers["ratelimit"].startswith('"events";r=1')


def test_where_no_rate_is_limited_no_header_says_so(limited: Running, org: str) -> None:
    assert "ratelimit" not in limited.track(org_id=org, feature="scans").headers


def test_an_organisation_has_a_rate_of_its_own_until_it_changes_its_plan(limited: Running, org: str) -> None:
    admin = token(None, ADMIN)
    own = {"events": 1, "per": "day", "burst": 1}
    limited.call("PUT", f"/v1/orgs/{org}", admin, json={"plan": "free", "rate_limit": own})
    assert limited.track(org_id=org, feature="scans").status_code == 200
    problem(limited.track(org_id=org, feature="scans"), 429, "rate-limited")
    limited.call("PUT", f"/v1/orgs/{org}", admin, json={"rate_limit": None})
    assert limited.track(org_id=org, feature="scans").status_code == 200
    limited.call("PUT", f"/v1/orgs/{org}", admin, json={"plan": "fast"})
    assert "ratelimit" in limited.track(org_id=org, feature="scans").headers


def test_a_faster_rate_holds_at_once_after_a_slower_one(limited: Running, org: str) -> None:
    admin = token(None, ADMIN)
    slow, fast = ({"events": events, "per": "minute", "burst": 100} for events in (1, 600))
    limited.call("PUT", f"/v1/orgs/{org}", admin, json={"plan": "free", "rate_limit": slow})
    events = [{"org_id": org, "feature": "scans"}] * 100
    assert limited.call("POST", "/v1/events", admin, json=events).status_code == 200
    limited.call("PUT", f"/v1/orgs/{org}", admin, json={"rate_limit": fast})
    told = limited.track(org_id=org, feature="scans", dry_run=True)
    assert int(told.headers["ratelimit"].partition(";t=")[2]) <= 10


def test_an_organisation_has_sub_windows_of_its_own(limited: Running, org: str) -> None:
    body = {"plan": "free", "windows": {"scans": [{"limit": 2, "per": "day", "rolling": True}]}}
    limited.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json=body)
    limited.track(org_id=org, feature="scans", quantity=2)
    told = problem(limited.track(org_id=org, feature="scans"), 403, "quota-exceeded")
    assert (told["decided_by"], told["window"]["rolling"]) == ("window_rolling_day", True)
    limited.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={"windows": {}})
    assert limited.track(org_id=org, feature="scans").status_code == 200


@pytest.mark.parametrize(
    ("field", "value", "pointer"),
    [
        ("rate_limit", {"events": 0, "per": "hour", "burst": 1}, "/rate_limit/events"),
        ("rate_limit", {"events": 1, "per": "year", "burst": 1}, "/rate_limit/per"),
        ("windows", {"scans": [{"limit": -1, "per": "hour"}]}, "/windows/scans/0/limit"),
        ("windows", {"scan": [{"limit": 1, "per": "hour"}]}, "/windows/scan"),
        ("windows", {"scans": [{"limit": 1, "per": "hour"}] * 9}, "/windows/scans"),
    ],
)
def test_settings_of_rates_and_windows_are_checked(
    limited: Running, org: str, field: str, value: Any, pointer: str
) -> None:
    with limited.unchanged():
        answer = limited.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={field: value})
    assert [fault["pointer"] for fault in problem(answer, 422, "validation")["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("extra", "pointer"),
    [
        ({"event_id": "e"}, "/event_id"),
        ({"dry_run": True}, "/dry_run"),
        ({"timestamp": "2026-11-25T00:00:00Z"}, "/timestamp"),
    ],
)
def test_what_a_reservation_cannot_be_combined_with_is_told(
    limited: Running, org: str, extra: dict[str, Any], pointer: str
) -> None:
    answer = limited.track(org_id=org, feature="scans", reservation_id="r1", **extra)
    assert [fault["pointer"] for fault in problem(answer, 422, "validation")["errors"]] == [pointer]


def test_a_reservation_that_is_not_there_is_not_found(limited: Running, org: str) -> None:
    limited.track(org_id=org, feature="scans")
    with limited.unchanged():
        problem(limited.track(org_id=org, feature="scans", reservation_id="r1"), 404, "hold-not-found")


def test_values_of_dimensions_are_kept_by_the_hour_and_bounded(limited: Running, org: str) -> None:
    for actor, chain in (("ann", "eth"), ("bob", "eth"), ("cy", 7), ("ann", True), (None, None)):
        sent: dict[str, Any] = {"metadata": {"chain": chain}} | ({} if actor is None else {"actor": actor})
        assert limited.track(org_id=org, feature="scans", **sent).status_code == 200
    query = {"group_by": "actor", "window": "hour"}
    rows = limited.call("GET", f"/usage/{org}/history", token(None, ADMIN), params=query).json()["data"]
    assert sorted((row["group"]["actor"] or "", row["value"]) for row in rows) == [
        ("", 1), ("ann", 2), ("bob", 1), ("other", 1),
    ]  # fmt: skip
    query = {"group_by": "metadata.chain", "window": "day"}
    rows = limited.call("GET", f"/usage/{org}/history", token(None, ADMIN), params=query).json()["data"]
    found = {row["group"]["metadata.chain"]: row["value"] for row in rows}
    assert found == {"eth": 2, "7": 1, "true": 1, None: 1}


def test_minutes_are_kept_where_the_setting_asks_for_them(limited: Running, org: str) -> None:
    limited.track(org_id=org, feature="scans", quantity=12)
    rows = limited.call("GET", f"/usage/{org}/history", token(None, ADMIN), params={"window": "minute"}).json()["data"]
    assert [(row["feature"], row["value"], row["overage"]) for row in rows] == [("scans", 12, 2)]
