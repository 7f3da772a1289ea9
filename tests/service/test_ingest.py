"""POST /v1/events: many events in one request, each counted or told why not."""

from collections.abc import Callable
from typing import Any, Final

import pytest

from metering.auth import ADMIN, USAGE_READ, USAGE_WRITE
from tests.service.batches import LINES, MANY, NATIVE, ONE, array, cloud, lines, post, send, usage
from tests.service.running import Running, problem, token

COUNTS: Final = ("accepted", "duplicates", "blocked", "rejected")
BIG: Final = {f"k{number}": "x" * 2000 for number in range(40)}


def event(org: str, number: int = 1, feature: str = "scans", **more: Any) -> dict[str, Any]:
    return {"org_id": org, "feature": feature, "event_id": f"e{number}", "source": "s"} | more


def counts(body: dict[str, Any]) -> tuple[int, ...]:
    return tuple(body[name] for name in COUNTS)


def block(service: Running, org: str, feature: str = "scans") -> None:
    """Refuse what is above the limit of 10 (scans) or 100 (wallet checks)."""
    sent = {"on_limit": {feature: "block"}}
    assert service.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json=sent).status_code in {200, 201}


@pytest.mark.parametrize("encode", MANY.values(), ids=MANY)
def test_events_are_counted_in_their_order_and_the_same_again_counts_nothing(
    service: Running, org: str, encode: Callable[..., Any]
) -> None:
    sent = encode([event(org, 1, quantity=2), event(org, 2, "wallet_checks"), event(org, 3, quantity=3)])
    answer = send(service, sent)
    assert answer.status_code == 200
    assert counts(answer.json()) == (3, 0, 0, 0)
    assert answer.json()["results"] == [
        result(0, org, "scans", recorded=2, used=2, limit=10),
        result(1, org, "wallet_checks", recorded=1, used=1, limit=100),
        result(2, org, "scans", recorded=3, used=5, limit=10),
    ]
    again = send(service, sent)
    assert again.status_code == 200
    assert counts(again.json()) == (0, 3, 0, 0)
    assert [(r["status"], r["recorded"], r["current_usage"]) for r in again.json()["results"]] == [
        ("duplicate", 0, 5),
        ("duplicate", 0, 1),
        ("duplicate", 0, 5),
    ]
    assert usage(service, org) == {"scans": 5, "wallet_checks": 1, "api_requests": 0}


def result(index: int, org: str, feature: str, *, recorded: int, used: int, limit: int) -> dict[str, Any]:
    return {
        "index": index,
        "id": f"e{index + 1}",
        "status": "recorded",
        "org_id": org,
        "feature": feature,
        "recorded": recorded,
        "current_usage": used,
        "limit": limit,
        "remaining": limit - used,
        "overage": 0,
    }


@pytest.mark.parametrize("encode", ONE.values(), ids=ONE)
def test_one_event_is_a_batch_of_one(service: Running, org: str, encode: Callable[..., Any]) -> None:
    sent = encode([event(org, quantity=4, metadata={"chain": "ethereum"}, actor="user-7")])
    for counted in ((1, 0, 0, 0), (0, 1, 0, 0)):
        answer = send(service, sent)
        assert answer.status_code == 200
        assert counts(answer.json()) == counted
        (only,) = answer.json()["results"]
        assert (only["index"], only["id"], only["org_id"], only["current_usage"]) == (0, "e1", org, 4)


def test_the_same_event_is_the_same_in_whatever_way_it_comes(service: Running, org: str) -> None:
    for number, encode in enumerate((*MANY.values(), *ONE.values())):
        body = send(service, encode([event(org, quantity=2)])).json()
        assert counts(body) == ((0, 1, 0, 0) if number else (1, 0, 0, 0))
    assert service.track(**event(org, quantity=2)).json()["duplicate"] is True


FAULTS: Final[dict[str, tuple[dict[str, Any], int, str, str, str]]] = {
    "unknown feature": ({"feature": "scnas"}, 404, "feature-unknown", "", ""),
    "quantity of none": ({"quantity": 0}, 422, "validation", "/quantity", "/data/quantity"),
    "quantity in half": ({"quantity": 1.5}, 422, "validation", "/quantity", "/data/quantity"),
    "quantity in words": ({"quantity": "5"}, 422, "validation", "/quantity", "/data/quantity"),
    "quantity too large": ({"quantity": 10**12 + 1}, 422, "validation", "/quantity", "/data/quantity"),
    "organisation of no name": ({"org_id": "a b"}, 422, "validation", "/org_id", "/subject"),
    "reserved organisation": ({"org_id": "track"}, 422, "validation", "/org_id", "/subject"),
    "no organisation": ({"org_id": None}, 422, "validation", "/org_id", "/subject"),
    "empty id": ({"event_id": ""}, 422, "validation", "/event_id", "/id"),
    "long id": ({"event_id": "x" * 256}, 422, "validation", "/event_id", "/id"),
    "source of control characters": ({"source": "a\x01b"}, 422, "validation", "/source", "/source"),
    "no such day": ({"timestamp": "2024-02-30T00:00:00Z"}, 422, "validation", "/timestamp", "/time"),
    "too old": ({"timestamp": "2001-02-03T04:05:06Z"}, 422, "timestamp-out-of-range", "/timestamp", "/time"),
    "actor of the wrong type": ({"actor": ["x"]}, 422, "validation", "/actor", "/actor"),
    "metadata too deep": ({"metadata": {"a": {"b": {"c": {}}}}}, 422, "validation", "/metadata", "/data"),
    "metadata too large": ({"metadata": {"a": "x" * 9000}}, 422, "validation", "/metadata", "/data"),
    "event too large": ({"metadata": BIG}, 413, "too-large", "", ""),
    "same id, other content": ({"event_id": "e1", "quantity": 7}, 409, "event-conflict", "", ""),
    "unknown field": ({"Quantity": 3}, 422, "validation", "/Quantity", "/Quantity"),
}
"""What is wrong, and the status, code and places it is told with, of native events and of CloudEvents."""


@pytest.mark.parametrize("encode", MANY.values(), ids=MANY)
@pytest.mark.parametrize(("wrong", "status", "code", "native", "own"), FAULTS.values(), ids=FAULTS)
def test_one_bad_event_is_told_and_spoils_no_other(
    service: Running,
    org: str,
    wrong: dict[str, Any],
    status: int,
    code: str,
    native: str,
    own: str,
    encode: Callable[..., Any],
) -> None:
    answer = send(service, encode([event(org, 1), event(org, 2) | wrong, event(org, 3)]))
    body = answer.json()
    assert (answer.status_code, counts(body)) == (207, (2, 0, 0, 1))
    assert [(r["index"], r["status"]) for r in body["results"]] == [(0, "recorded"), (1, "rejected"), (2, "recorded")]
    told = body["results"][1]["problem"]
    assert (told["status"], told["code"], told["type"]) == (status, code, f"/problems/{code}")
    place = own if encode is MANY["cloudevents"] else native
    assert [fault["pointer"] for fault in told["errors"]] == ([place] if place else [])
    assert told["detail"]
    assert "request_id" not in told
    assert usage(service, org)["scans"] == 2


NO_OBJECT: Final = [5, "x", None, [], True]


@pytest.mark.parametrize("encode", MANY.values(), ids=MANY)
@pytest.mark.parametrize("value", NO_OBJECT, ids=map(repr, NO_OBJECT))
def test_what_is_no_object_is_no_event(service: Running, org: str, value: Any, encode: Callable[..., Any]) -> None:
    body = send(service, encode([value, event(org)])).json()
    assert counts(body) == (1, 0, 0, 1)
    assert (body["results"][0]["id"], body["results"][0]["problem"]["code"]) == (None, "validation")


@pytest.mark.parametrize("encode", MANY.values(), ids=MANY)
def test_what_a_limit_refuses_is_blocked_and_told_with_the_balance(
    service: Running, org: str, encode: Callable[..., Any]
) -> None:
    block(service, org)
    answer = send(service, encode([event(org, 1, quantity=9), event(org, 2, quantity=2), event(org, 3)]))
    body = answer.json()
    assert (answer.status_code, counts(body)) == (207, (2, 0, 1, 0))
    blocked = body["results"][1]
    assert (blocked["status"], blocked["org_id"], blocked["feature"]) == ("blocked", org, "scans")
    told = {name: blocked["problem"][name] for name in ("code", "status", "current_usage", "limit", "requested")}
    assert told == {"code": "quota-exceeded", "status": 403, "current_usage": 9, "limit": 10, "requested": 2}
    assert blocked["problem"]["upgrade"] == {"plan": "professional"}
    assert body["results"][2]["current_usage"] == 10


def test_what_is_capped_is_accepted_and_says_how_much(service: Running, org: str) -> None:
    service.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={"on_limit": {"scans": "cap"}})
    answer = post(service, event(org, quantity=12))
    assert (answer.status_code, counts(answer.json())) == (200, (1, 0, 0, 0))
    (only,) = answer.json()["results"]
    assert (only["status"], only["recorded"], only["current_usage"]) == ("capped", 10, 10)


def test_what_is_above_the_limit_says_its_overage(service: Running, org: str) -> None:
    results = post(service, event(org, 1, quantity=9), event(org, 2, quantity=4)).json()["results"]
    assert [entry["overage"] for entry in results] == [0, 3]


def test_an_unlimited_feature_has_neither_limit_nor_remainder(service: Running, org: str) -> None:
    service.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={"plan": "enterprise"})
    (only,) = post(service, event(org)).json()["results"]
    assert (only["limit"], only["remaining"]) == (None, None)


def test_an_event_of_an_earlier_period_is_late(service: Running, org: str) -> None:
    start = service.track(org_id=org, feature="scans").json()["period"]["start"]
    late = start.replace("T00:00:00Z", "T00:00:00.001+00:01")
    results = post(service, event(org, 1, timestamp=late), event(org, 2)).json()["results"]
    assert [entry.get("late") for entry in results] == [True, None]


def test_a_repeat_inside_one_batch_counts_once(service: Running, org: str) -> None:
    body = post(service, event(org), event(org), event(org, quantity=2)).json()
    assert [entry["status"] for entry in body["results"]] == ["recorded", "duplicate", "rejected"]
    assert body["results"][2]["problem"]["code"] == "event-conflict"


def test_events_without_an_id_count_each_time_and_say_that_they_have_none(service: Running, org: str) -> None:
    plain = {"org_id": org, "feature": "scans"}
    body = post(service, plain, plain).json()
    assert [(entry["id"], entry["status"]) for entry in body["results"]] == [(None, "recorded"), (None, "recorded")]
    assert usage(service, org)["scans"] == 2


def test_one_batch_may_hold_many_organisations(service: Running, org: str) -> None:
    orgs = [f"{org}-{number}" for number in range(70)]
    body = post(service, *(event(name, quantity=2) for name in (*orgs, *reversed(orgs)))).json()
    assert counts(body) == (70, 70, 0, 0)
    assert {entry["org_id"] for entry in body["results"]} == set(orgs)


def test_a_thousand_events_with_three_bad_ones_count_997(service: Running, org: str) -> None:
    service.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={"plan": "enterprise"})
    block(service, org, "wallet_checks")
    limits = {"limits": {"wallet_checks": 0}, "on_limit": {"wallet_checks": "block"}}
    service.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json=limits)
    events = [event(org, number) for number in range(1000)]
    events[100] = event(org, 99)
    events[500] = event(org, 500, "scnas")
    events[900] = event(org, 900, "wallet_checks")
    answer = post(service, *events)
    body = answer.json()
    assert (answer.status_code, counts(body)) == (207, (997, 1, 1, 1))
    assert [body["results"][index]["status"] for index in (99, 100, 500, 900)] == [
        "recorded",
        "duplicate",
        "rejected",
        "blocked",
    ]
    assert [entry["index"] for entry in body["results"]] == list(range(1000))
    assert usage(service, org)["scans"] == 997
    again = post(service, *events)
    assert (again.status_code, counts(again.json())) == (207, (0, 998, 1, 1))
    assert usage(service, org)["scans"] == 997


def test_a_thousand_events_are_a_handful_of_calls_of_the_store(service: Running, org: str) -> None:
    post(service, *(event(org, number) for number in range(1000)))
    service.store.config_resetstat()
    assert post(service, *(event(org, number) for number in range(1000, 2000))).json()["accepted"] == 1000
    stats: Any = service.store.info("commandstats")
    assert stats["cmdstat_evalsha"]["calls"] <= 8


def test_where_not_one_event_can_be_read_all_are_refused_with_their_places(service: Running, org: str) -> None:
    bad: list[Any] = [event(org, quantity=0), 5, event(org) | {"x": 1}]
    for encode, prefix in ((array, ""), (MANY["events"], "/events"), (lines, "")):
        with service.unchanged():
            told = problem(send(service, encode(bad)), 422, "validation")
        assert [(fault["pointer"], fault["code"]) for fault in told["errors"]] == [
            (f"{prefix}/0/quantity", "greater-than-equal"),
            (f"{prefix}/1", "model-type"),
            (f"{prefix}/2/x", "unknown-field"),
        ]


def test_of_very_many_faults_some_are_told(service: Running, org: str) -> None:
    told = problem(post(service, *(event(org, quantity=0) for _ in range(1000))), 422, "validation")
    assert len(told["errors"]) == 50


def test_what_can_be_read_and_not_counted_is_no_422(service: Running, org: str) -> None:
    answer = post(service, event(org, feature="scnas"), 5)
    assert (answer.status_code, counts(answer.json())) == (207, (0, 0, 0, 2))


@pytest.mark.parametrize("encode", ONE.values(), ids=ONE)
def test_a_single_event_that_cannot_be_read_is_refused_as_a_whole(
    service: Running, org: str, encode: Callable[..., Any]
) -> None:
    with service.unchanged():
        told = problem(send(service, encode([event(org, quantity=0, org_id="a b")])), 422, "validation")
    places = {"/org_id", "/quantity"} if encode is ONE["alone"] else {"/subject", "/data/quantity"}
    assert {fault["pointer"] for fault in told["errors"]} == places


@pytest.mark.parametrize(
    ("kind", "content"),
    [(NATIVE, b"[]"), (NATIVE, b'{"events":[]}'), (LINES, b""), (LINES, b"\n \r\n\n"), ("cloudevents", b"[]")],
)
def test_a_batch_of_none_is_counted_as_such(service: Running, kind: str, content: bytes) -> None:
    kind = "application/cloudevents-batch+json" if kind == "cloudevents" else kind
    with service.unchanged():
        answer = send(service, ({"Content-Type": kind}, content))
    assert (answer.status_code, answer.json()) == (200, dict.fromkeys(COUNTS, 0) | {"results": []})


def test_without_detail_a_yes_says_nothing_and_a_no_tells_what_failed(service: Running, org: str) -> None:
    good = post(service, event(org, 1), detail="none")
    assert (good.status_code, good.content) == (204, b"")
    assert "content-type" not in good.headers
    assert post(service, event(org, 1), detail="none").status_code == 204
    mixed = post(service, event(org, 2), event(org, 3, "scnas"), event(org, 1), detail="none")
    assert (mixed.status_code, counts(mixed.json())) == (207, (1, 1, 0, 1))
    assert [(entry["index"], entry["status"]) for entry in mixed.json()["results"]] == [(1, "rejected")]
    assert problem(post(service, event(org), detail="some"), 422, "validation")["errors"][0]["pointer"] == "/detail"


def test_only_some_unknown_names_get_a_suggestion(service: Running, org: str) -> None:
    body = post(service, *(event(org, number, f"scans_{number}") for number in range(30))).json()
    hinted = [entry for entry in body["results"] if entry["problem"].get("nearest")]
    assert len(hinted) == 20
    assert all("features" not in entry["problem"] for entry in body["results"])
    same = post(service, *(event(org, number, "scnas") for number in range(30))).json()
    assert {entry["problem"]["nearest"] for entry in same["results"]} == {"scans"}


# ── who may ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("encode", MANY.values(), ids=MANY)
def test_events_of_foreign_organisations_are_told_as_of_unknown_ones(
    service: Running, org: str, encode: Callable[..., Any]
) -> None:
    other, nobody = f"{org}-other", f"{org}-nobody"
    service.track(org_id=other, feature="scans")
    sent = [event(org, 1), event(other, 2), event(nobody, 3), event(org.upper(), 4)]
    answer = send(service, encode(sent), token(org))
    body = answer.json()
    assert (answer.status_code, counts(body)) == (207, (1, 0, 0, 3))
    told = [{name: v for name, v in entry.items() if name not in {"index", "id"}} for entry in body["results"][1:]]
    assert told[0] == told[1] == told[2]
    assert told[0]["problem"]["code"] == "org-not-found"
    assert usage(service, other) == {"scans": 1, "wallet_checks": 0, "api_requests": 0}
    assert usage(service, nobody) == {}


def test_the_tokens_organisation_is_that_of_events_which_name_none(service: Running, org: str) -> None:
    sent = {"feature": "scans", "event_id": "n1"}
    for encode in (*MANY.values(), *ONE.values()):
        answer = send(service, encode([sent]), token(org, USAGE_WRITE))
        assert (answer.status_code, answer.json()["results"][0]["org_id"]) == (200, org)


@pytest.mark.parametrize("path", ["/v1/events", "/usage/track/batch"])
def test_the_caller_needs_the_scope_to_write(service: Running, org: str, path: str) -> None:
    with service.unchanged():
        problem(send(service, array([event(org)]), token(org, USAGE_READ), path), 403, "forbidden")
        problem(send(service, array([event(org)]), "x.y.z", path), 401, "unauthenticated")


def test_without_auto_create_an_unknown_organisation_is_told_by_event(org: str) -> None:
    with Running(auto_create_orgs=False) as strict:
        assert strict.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={}).status_code == 201
        body = post(strict, event(org, 1), event(f"{org}-b", 2)).json()
    assert [entry["status"] for entry in body["results"]] == ["recorded", "rejected"]
    assert body["results"][1]["problem"]["code"] == "org-not-found"


def test_the_plain_sibling_takes_the_same_json(service: Running, org: str) -> None:
    path = "/usage/track/batch"
    for number, encode in enumerate((array, MANY["events"], ONE["alone"])):
        body = send(service, encode([event(org, number)]), None, path).json()
        assert counts(body) == (1, 0, 0, 0)
    problem(send(service, lines([event(org)]), None, path), 415, "unsupported-media-type")
    problem(send(service, MANY["cloudevents"]([event(org)]), None, path), 415, "unsupported-media-type")
    # what has no event in it but attributes in its headers is one only where CloudEvents are taken
    headers, content = ONE["binary"]([event(org, quantity=2)])
    problem(send(service, (headers, content), None, path), 422, "validation")
    assert cloud(event(org))["type"] == "usage.scans"
