"""Reading and changing organisations: the fields there are, and the rule for overrides."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from metering.auth import ADMIN, BILLING_READ, BILLING_WRITE, USAGE_READ
from tests.service.running import Running, problem, token

FIRST: Final = [
    "org_id",
    "plan",
    "features",
    "stripe_customer_id",
    "payment_overdue",
    "created_at",
    "updated_at",
]
FEATURE_FIRST: Final = ["current", "limit", "reset_date", "last_updated"]
INSTANT: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{3})?Z")

PLANS: Final[dict[str, dict[str, int | None]]] = {
    "free": {"scans": 10, "wallet_checks": 100, "api_requests": 1000},
    "professional": {"scans": 1000, "wallet_checks": 10_000, "api_requests": 50_000},
    "enterprise": {"scans": None, "wallet_checks": None, "api_requests": None},
}
"""The limits that the shipped plans promise."""


def update(service: Running, org: str, bearer: str | None = None, **body: Any) -> dict[str, Any]:
    """POST /billing/update, which must succeed; the organisation."""
    sent = {"org_id": org} | body
    response = service.call("POST", "/billing/update", bearer or token(None, ADMIN), json=sent)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def view(service: Running, org: str, bearer: str | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = service.call("GET", f"/usage/{org}", bearer or token(None, ADMIN)).json()
    return answer


def limits(answer: dict[str, Any]) -> dict[str, int | None]:
    return {name: feature["limit"] for name, feature in answer["features"].items()}


def test_an_organisation_shows_what_every_client_knows_first(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans", quantity=5)
    body = view(service, org)
    assert list(body)[:7] == FIRST
    assert (body["org_id"], body["plan"], body["stripe_customer_id"], body["payment_overdue"]) == (
        org,
        "free",
        None,
        False,
    )
    assert set(body["features"]) == {"scans", "wallet_checks", "api_requests"}
    scans = body["features"]["scans"]
    assert list(scans)[:4] == FEATURE_FIRST
    assert (scans["current"], scans["limit"]) == (5, 10)
    assert all(INSTANT.fullmatch(body[name]) for name in ("created_at", "updated_at"))
    assert INSTANT.fullmatch(scans["last_updated"])
    assert scans["reset_date"] == body["period"]["end"]
    assert body["features"]["api_requests"]["last_updated"] is None


def test_what_was_added_stands_after_it(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans", quantity=7)
    body = view(service, org)
    scans = body["features"]["scans"]
    assert {name: scans[name] for name in list(scans)[4:]} == {
        "remaining": 3,
        "overage": 0,
        "overage_billed": False,
        "unlimited": False,
        "reserved": 0,
        "percent": 70,
        "on_limit": "overage",
        "enabled": True,
    }
    assert (body["overage_flagged"], body["reset"], body["timezone"]) == (False, "calendar", "UTC")
    assert body["credits"] is None
    assert body["period"]["start"] < body["created_at"] < body["period"]["end"]


def test_the_first_overage_flags_the_organisation(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans", quantity=12)
    body = view(service, org)
    scans = body["features"]["scans"]
    assert body["overage_flagged"] is True
    assert (scans["current"], scans["remaining"], scans["overage"], scans["percent"]) == (12, 0, 2, 120)
    assert scans["overage_billed"] is False


def test_the_three_ways_to_read_an_organisation_say_the_same(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    bearer = token(org)
    answers = [service.call("GET", path, bearer).json() for path in ("/usage", "/api/usage", f"/v1/orgs/{org}")]
    assert all(answer == view(service, org, bearer) for answer in answers)


def test_an_update_of_everything_is_taken_and_answers_with_the_organisation(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans", quantity=5)
    given = {"scans": 1000, "wallet_checks": 10000, "api_requests": 50000}
    body = update(service, org, plan="professional", limits=given, stripe_customer_id="cus_123")
    assert list(body)[:7] == FIRST
    assert (body["plan"], body["stripe_customer_id"], limits(body)) == ("professional", "cus_123", given)
    assert body["features"]["scans"]["current"] == 5
    assert body == view(service, org)


@pytest.mark.parametrize("plan", PLANS)
def test_the_shipped_plans_have_the_promised_limits(service: Running, org: str, plan: str) -> None:
    assert limits(update(service, org, plan=plan)) == PLANS[plan]


def test_a_change_holds_from_the_next_event_on(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans", quantity=11)
    update(service, org, plan="professional")
    answer = service.track(org_id=org, feature="scans").json()
    assert (answer["current_usage"], answer["limit"], answer["remaining"], answer["overage"]) == (12, 1000, 988, 0)


def test_limits_replace_all_limits_and_an_empty_object_clears_them(service: Running, org: str) -> None:
    assert limits(update(service, org, limits={"scans": 7, "wallet_checks": None})) == PLANS["free"] | {
        "scans": 7,
        "wallet_checks": None,
    }
    assert limits(update(service, org, limits={"api_requests": 0})) == PLANS["free"] | {"api_requests": 0}
    assert limits(update(service, org, limits={})) == PLANS["free"]


def test_limits_stay_with_the_same_plan_and_go_with_another(service: Running, org: str) -> None:
    update(service, org, plan="free", limits={"scans": 7})
    assert limits(update(service, org, stripe_customer_id="cus_1"))["scans"] == 7
    assert limits(update(service, org, plan="free"))["scans"] == 7
    assert limits(update(service, org, plan="professional")) == PLANS["professional"]
    assert limits(update(service, org, plan="free")) == PLANS["free"]


def test_limits_given_with_another_plan_are_the_only_ones(service: Running, org: str) -> None:
    update(service, org, limits={"scans": 7}, on_limit={"scans": "block"})
    body = update(service, org, plan="professional", limits={"wallet_checks": 5})
    assert limits(body) == PLANS["professional"] | {"wallet_checks": 5}
    assert body["features"]["scans"]["on_limit"] == "overage"


def test_limits_and_on_limit_are_set_apart(service: Running, org: str) -> None:
    update(service, org, limits={"scans": 7})
    body = update(service, org, on_limit={"scans": "block", "wallet_checks": "cap"})
    assert (body["features"]["scans"]["limit"], body["features"]["scans"]["on_limit"]) == (7, "block")
    body = update(service, org, limits={"scans": 8})
    assert (body["features"]["scans"]["limit"], body["features"]["scans"]["on_limit"]) == (8, "block")
    assert update(service, org, on_limit={})["features"]["wallet_checks"]["on_limit"] == "overage"


def test_changes_of_limits_and_on_limit_at_the_same_time_both_take_effect(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    with ThreadPoolExecutor(2) as pool:
        for limit in range(20, 60):
            on_limit = ("block", "cap")[limit % 2]
            sent: tuple[dict[str, Any], ...] = ({"limits": {"scans": limit}}, {"on_limit": {"scans": on_limit}})
            for done in [pool.submit(update, service, org, **body) for body in sent]:
                done.result()
            scans = view(service, org)["features"]["scans"]
            assert (scans["limit"], scans["on_limit"]) == (limit, on_limit)


def test_period_and_zone_can_be_set(service: Running, org: str) -> None:
    body = update(service, org, reset="anniversary", timezone="Europe/Paris")
    assert (body["reset"], body["timezone"]) == ("anniversary", "Europe/Paris")


def test_the_tokens_own_organisation_needs_no_naming(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    response = service.call("POST", "/billing/update", token(org), json={"plan": "professional"})
    assert response.json()["org_id"] == org


def test_put_makes_an_organisation_once(service: Running, org: str) -> None:
    admin = token(None, ADMIN)
    made = service.call("PUT", f"/v1/orgs/{org}", admin, json={"plan": "professional"})
    again = service.call("PUT", f"/v1/orgs/{org}", admin, json={"plan": "professional"})
    assert (made.status_code, again.status_code) == (201, 200)
    assert made.json() == again.json()
    assert service.track(org_id=org, feature="scans").json()["limit"] == 1000


REFUSED: Final[dict[str, tuple[dict[str, Any], list[tuple[str, str]]]]] = {
    "negative limit": ({"limits": {"scans": -1}}, [("/limits/scans", "greater-than-equal")]),
    "limit as text": ({"limits": {"scans": "5"}}, [("/limits/scans", "int-type")]),
    "fractional limit": ({"limits": {"scans": 1.5}}, [("/limits/scans", "int-type")]),
    "limit true": ({"limits": {"scans": True}}, [("/limits/scans", "int-type")]),
    "limit too large": ({"limits": {"scans": 9 * 10**13 + 1}}, [("/limits/scans", "less-than-equal")]),
    "limits a list": ({"limits": [1]}, [("/limits", "dict-type")]),
    "limits null": ({"limits": None}, [("/limits", "dict-type")]),
    "unknown features": (
        {"limits": {"scnas": 1}, "on_limit": {"foo": "cap"}},
        [("/limits/scnas", "feature-unknown"), ("/on_limit/foo", "feature-unknown")],
    ),
    "no feature name": ({"limits": {"Not A Name": 1}}, [("/limits/Not A Name", "string-pattern-mismatch")]),
    "unknown on_limit": ({"on_limit": {"scans": "deny"}}, [("/on_limit/scans", "literal-error")]),
    "unknown reset": ({"reset": "weekly"}, [("/reset", "literal-error")]),
    "unknown zone": ({"timezone": "Mars/Olympus"}, [("/timezone", "timezone")]),
    "zone as a path": ({"timezone": "../../etc/passwd"}, [("/timezone", "timezone")]),
    "not a customer id": ({"stripe_customer_id": "sub_1"}, [("/stripe_customer_id", "string-pattern-mismatch")]),
    "customer null": ({"stripe_customer_id": None}, [("/stripe_customer_id", "string-type")]),
    "plan null": ({"plan": None}, [("/plan", "string-type")]),
    "fields that are not to be set": (
        {"payment_overdue": False, "credits": 5, "features": {}},
        [("/payment_overdue", "unknown-field"), ("/credits", "unknown-field"), ("/features", "unknown-field")],
    ),
}


@pytest.mark.parametrize(("body", "faults"), REFUSED.values(), ids=REFUSED)
def test_a_change_with_faults_changes_nothing(
    service: Running, org: str, body: dict[str, Any], faults: list[tuple[str, str]]
) -> None:
    service.track(org_id=org, feature="scans")
    with service.unchanged():
        for method, path, sent in (
            ("POST", "/billing/update", {"org_id": org} | body),
            ("PUT", f"/v1/orgs/{org}", body),
        ):
            errors = problem(service.call(method, path, token(None, ADMIN), json=sent), 422, "validation")["errors"]
            assert [(fault["pointer"], fault["code"]) for fault in errors] == faults


def test_an_unknown_feature_in_limits_gets_a_suggestion(service: Running, org: str) -> None:
    sent = {"org_id": org, "limits": {"scnas": 1}}
    body = problem(service.call("POST", "/billing/update", token(None, ADMIN), json=sent), 422, "validation")
    assert "'scans'" in body["errors"][0]["detail"]


def test_an_unknown_plan_names_the_nearest_and_all(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    sent = {"org_id": org, "plan": "profesional"}
    with service.unchanged():
        body = problem(service.call("POST", "/billing/update", token(None, ADMIN), json=sent), 404, "plan-unknown")
    assert (body["nearest"], body["plans"]) == ("professional", ["enterprise", "free", "professional"])


@pytest.mark.parametrize(
    ("scopes", "shown"),
    [
        ((USAGE_READ,), None),
        ((USAGE_READ, BILLING_READ), "cus_9"),
        ((USAGE_READ, BILLING_WRITE), "cus_9"),
        ((ADMIN,), "cus_9"),
    ],
)
def test_stripes_id_is_for_those_who_have_to_do_with_billing(
    service: Running, org: str, scopes: tuple[str, ...], shown: str | None
) -> None:
    update(service, org, stripe_customer_id="cus_9")
    assert view(service, org, token(org, *scopes))["stripe_customer_id"] == shown


def test_a_walk_over_the_pages_meets_every_organisation_once(service: Running) -> None:
    made = {f"page-{number}" for number in range(25)}
    for name in made:
        service.track(org_id=name, feature="scans")
    admin, met, cursor = token(None, ADMIN), [], None
    while True:
        query = {"limit": "7"} | ({"cursor": cursor} if cursor else {})
        page = service.call("GET", "/v1/orgs", admin, params=query).json()
        assert len(page["data"]) <= 7
        met += [entry["org_id"] for entry in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(met) == len(set(met))
    assert made <= set(met)
    assert set(met) == {key.decode().split(":")[-1] for key in service.store.scan_iter("*:o:*", count=1000)}


def test_a_corrupt_organisation_is_left_out_of_the_list_and_hides_no_other() -> None:
    admin = token(None, ADMIN)
    with Running() as running:
        for name in ("org-1", "org-2", "org-3"):
            running.track(org_id=name, feature="scans")
        (key,) = running.store.scan_iter("*:o:org-2")
        running.store.delete(key)
        running.store.set(key, "no record")
        listed, query = [], {"limit": "1"}
        while query:
            page = running.call("GET", "/v1/orgs", admin, params=query)
            assert page.status_code == 200
            listed += [entry["org_id"] for entry in page.json()["data"]]
            following = page.json()["next_cursor"]
            query = {"limit": "1", "cursor": following} if following else {}
        problem(running.call("GET", "/v1/orgs/org-2", admin), 503, "org-corrupt")
    assert sorted(listed) == ["org-1", "org-3"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/limit"),
        ("limit=501", "/limit"),
        ("limit=ten", "/limit"),
        ("limit=", "/limit"),
        ("cursor=x", "/cursor"),
        ("cursor=1.a:b", "/cursor"),
        ("cursor=", "/cursor"),
        ("page=2", "/page"),
        ("limit=1&limit=2", "/limit"),
        ("limit=%ff", ""),
        ("&".join(f"a{n}=1" for n in range(40)), ""),
    ],
)
def test_a_query_with_faults_is_refused(service: Running, query: str, pointer: str) -> None:
    body = problem(service.call("GET", f"/v1/orgs?{query}", token(None, ADMIN)), 422, "validation")
    assert body["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("cursor", ["99999.zz", "0.a", "63.zzz"])
def test_a_cursor_from_elsewhere_is_a_place_like_any_other(service: Running, cursor: str) -> None:
    response = service.call("GET", "/v1/orgs", token(None, ADMIN), params={"cursor": cursor})
    assert response.status_code == 200


def test_the_catalogue_is_shown_with_null_for_unlimited(service: Running, org: str) -> None:
    body = service.call("GET", "/v1/plans", token(org, USAGE_READ)).json()
    shown = {plan["name"]: {name: rule["limit"] for name, rule in plan["features"].items()} for plan in body["data"]}
    assert shown == PLANS
    assert (body["default_plan"], body["default_feature"], body["currency"]) == ("free", "api_requests", "usd")
    assert {feature["name"] for feature in body["features"]} == set(PLANS["free"])
