"""Asking before acting: the answer is what the event would meet, it explains itself, and it writes nothing."""

from typing import Any

import pytest

from metering.auth import ADMIN, CHECK, USAGE_READ
from tests.service.running import Running, problem, token


def check(service: Running, bearer: str | None = None, **body: Any) -> dict[str, Any]:
    response = service.call("POST", "/v1/check", bearer or token(None, ADMIN), json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.fixture
def blocked(service: Running, org: str) -> str:
    """An organisation with 8 of 10 scans used, and nothing beyond."""
    settings = {"plan": "free", "on_limit": {"scans": "block"}}
    service.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json=settings)
    service.track(org_id=org, feature="scans", quantity=8)
    return org


def test_a_yes_says_where_the_counter_stands(service: Running, blocked: str) -> None:
    with service.unchanged():
        told = check(service, org_id=blocked, feature="scans", quantity=2)
    assert (told["allowed"], told["reason"], told["decided_by"]) == (True, "ok", "plan_limit")
    assert (told["current_usage"], told["limit"], told["remaining"], told["granted"]) == (8, 10, 2, 2)
    assert (told["overage_allowed"], told["upgrade"], told["consumed"]) == (False, None, False)
    assert told["cache_ttl_ms"] == 0


def test_a_no_says_why_and_what_unblocks_it(service: Running, blocked: str) -> None:
    with service.unchanged():
        told = check(service, org_id=blocked, feature="scans", quantity=5)
    assert (told["allowed"], told["reason"], told["granted"]) == (False, "quota_exceeded", 0)
    assert told["upgrade"] == {"plan": "professional", "missing": 3}
    assert told["retry_after_ms"] > 0
    assert told["reset_date"].endswith("-01T00:00:00Z")
    assert 0 < told["cache_ttl_ms"] <= 10_000


def test_the_plan_that_would_unblock_has_room_for_all_of_the_units(service: Running, blocked: str) -> None:
    service.call("PUT", f"/v1/orgs/{blocked}", token(None, ADMIN), json={"plan": "professional"})
    service.call(
        "PUT", f"/v1/orgs/{blocked}", token(None, ADMIN), json={"limits": {"scans": 20}, "on_limit": {"scans": "block"}}
    )
    told = check(service, org_id=blocked, feature="scans", quantity=15)
    assert told["upgrade"] == {"plan": "enterprise", "missing": 3}
    refused = problem(service.track(org_id=blocked, feature="scans", quantity=15), 403, "quota-exceeded")
    assert refused["upgrade"] == {"plan": "enterprise"}


def test_where_a_sub_window_refuses_no_plan_is_offered(service: Running, org: str) -> None:
    windows = {"scans": [{"limit": 2, "per": "week"}]}
    service.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={"plan": "professional", "windows": windows})
    told = check(service, org_id=org, feature="scans", quantity=3)
    assert (told["decided_by"], told["upgrade"]) == ("window_week", None)
    refused = problem(service.track(org_id=org, feature="scans", quantity=3), 403, "quota-exceeded")
    assert refused["upgrade"] == {"plan": None}


def test_the_more_is_left_the_longer_a_yes_is_good_for(service: Running, org: str) -> None:
    service.track(org_id=org, feature="wallet_checks", quantity=50)
    limits = {"plan": "free", "on_limit": {"wallet_checks": "block"}}
    service.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json=limits)
    assert check(service, org_id=org, feature="wallet_checks", quantity=10)["cache_ttl_ms"] == 4_000
    assert check(service, org_id=org, feature="scans")["cache_ttl_ms"] == 10_000  # counted on above the limit


def test_consuming_counts_in_the_same_step_and_once(service: Running, blocked: str) -> None:
    told = check(service, org_id=blocked, feature="scans", quantity=2, consume=True, event_id="c1")
    assert (told["allowed"], told["consumed"], told["current_usage"], told["remaining"]) == (True, True, 10, 0)
    again = check(service, org_id=blocked, feature="scans", quantity=2, consume=True, event_id="c1")
    assert (again["allowed"], again["duplicate"], again["consumed"], again["current_usage"]) == (True, True, False, 10)
    with service.unchanged():
        told = check(service, org_id=blocked, feature="scans", consume=True, event_id="c2")
    assert (told["allowed"], told["consumed"]) == (False, False)


@pytest.mark.parametrize("several", [False, True])
def test_what_an_idempotency_key_consumed_counts_once_also_when_its_answer_was_not_kept(
    service: Running, org: str, several: bool
) -> None:
    ask = {"org_id": org, "feature": "scans", "quantity": 2, "consume": True}
    body = {"checks": [ask, ask]} if several else ask
    for _ in range(2):
        headers = {"Idempotency-Key": f"consumed-{several}"}
        told = service.call("POST", "/v1/check", token(None, ADMIN), json=body, headers=headers)
        assert told.status_code == 200
        for kept in service.store.scan_iter("{p*}:k:*"):  # as a worker leaves it that dies in between
            service.store.delete(kept)
    assert [answer["duplicate"] for answer in told.json().get("results", [told.json()])] == [True] * (1 + several)
    assert (
        service.call("GET", f"/usage/{org}", token(None, ADMIN)).json()["features"]["scans"]["current"]
        == 2 + 2 * several
    )


def test_many_questions_are_answered_each_for_itself(service: Running, blocked: str) -> None:
    asks = [
        {"org_id": blocked, "feature": "scans", "quantity": 2},
        {"org_id": blocked, "feature": "scans", "quantity": 3},
        {"org_id": blocked, "feature": "scan"},
        {"org_id": blocked, "feature": "api_requests"},
    ]
    with service.unchanged():
        results = check(service, checks=asks)["results"]
    assert [result.get("allowed") for result in results] == [True, False, None, True]
    assert results[2]["problem"]["code"] == "feature-unknown"


def test_questions_about_organisations_that_the_caller_does_not_see_have_no_answer(
    service: Running, blocked: str, org: str
) -> None:
    asks = [{"org_id": blocked, "feature": "scans"}, {"org_id": f"{blocked}-other", "feature": "scans"}]
    headers = {"X-Request-Id": "mine-1"}
    sent = service.call("POST", "/v1/check", token(blocked, CHECK), json={"checks": asks}, headers=headers)
    own, foreign = sent.json()["results"]
    assert own["allowed"]
    assert (foreign["problem"]["code"], foreign["problem"]["request_id"]) == ("org-not-found", "mine-1")


def test_a_mode_tightens_the_question(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans", quantity=8)
    assert check(service, org_id=org, feature="scans", quantity=3)["granted"] == 3
    assert not check(service, org_id=org, feature="scans", quantity=3, mode="block")["allowed"]
    assert check(service, org_id=org, feature="scans", quantity=3, mode="cap")["granted"] == 2


def test_only_consuming_needs_the_scope_to_write(service: Running, org: str) -> None:
    bearer = token(org, CHECK)
    assert check(service, bearer, feature="scans")["allowed"]
    answer = service.call("POST", "/v1/check", bearer, json={"feature": "scans", "consume": True})
    problem(answer, 403, "forbidden")
    problem(service.call("POST", "/v1/check", token(org, USAGE_READ), json={"feature": "scans"}), 403, "forbidden")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/feature"),
        ({"feature": "scans", "checks": [{"feature": "scans"}]}, "/feature"),
        ({"checks": []}, "/checks"),
        ({"checks": [{"feature": "scans"}] * 101}, "/checks"),
        ({"checks": [{"feature": "scans", "quantity": 0}]}, "/checks/0/quantity"),
        ({"feature": "scans", "consume": 1}, "/consume"),
        ({"feature": "scans", "quantities": 1}, "/quantities"),
    ],
)
def test_a_question_that_cannot_be_read_is_told(service: Running, org: str, body: Any, pointer: str) -> None:
    with service.unchanged():
        answer = service.call("POST", "/v1/check", token(org, ADMIN), json=body)
    assert problem(answer, 422, "validation")["errors"][0]["pointer"] == pointer


def test_an_unknown_feature_is_not_found(service: Running, org: str) -> None:
    answer = service.call("POST", "/v1/check", token(org, ADMIN), json={"feature": "scan"})
    assert problem(answer, 404, "feature-unknown")["nearest"] == "scans"


def test_entitlements_say_what_may_be_used_and_keep_their_etag_while_usage_goes_on(
    service: Running, blocked: str
) -> None:
    path, admin = f"/v1/orgs/{blocked}/entitlements", token(None, ADMIN)
    first = service.call("GET", path, admin)
    assert first.json()["features"]["scans"] == {
        "limit": 10, "unlimited": False, "on_limit": "block", "enabled": True, "windows": [],
    }  # fmt: skip
    assert (first.json()["rate_limit"], first.json()["grants"]) == (None, [])
    service.track(org_id=blocked, feature="scans")
    unchanged = service.call("GET", path, admin, headers={"If-None-Match": first.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    service.call("PUT", f"/v1/orgs/{blocked}", admin, json={"windows": {"scans": [{"limit": 5, "per": "day"}]}})
    after = service.call("GET", path, admin, headers={"If-None-Match": first.headers["etag"]})
    assert after.status_code == 200
    assert after.json()["features"]["scans"]["windows"] == [{"limit": 5, "per": "day", "rolling": False}]
