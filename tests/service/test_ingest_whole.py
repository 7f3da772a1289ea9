"""What concerns a batch as a whole: meter rules of a catalogue, a store that is away, keys in place of ids."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from metering.auth import ADMIN
from metering.settings import Settings
from tests.service.batches import CLOUD, MANY, ONE, array, lines, post, send, usage
from tests.service.running import Running, problem, token
from tests.support.wait import wait_until

RULES: Final = """
[[meters]]
type = "scan.finished"
match = { "$.result.kind" = "deep" }
features = [ { feature = "scans", quantity = "$.result.pages" } ]
[[meters]]
type = "scan.finished"
features = [ { feature = "wallet_checks", quantity = 3 } ]
"""


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service whose catalogue has meter rules."""
    file = tmp_path_factory.mktemp("plans") / "plans.toml"
    file.write_text(Settings().plans_text()[0] + RULES)
    with Running(plans_file=Path(file)) as running:
        yield running


def finished(service: Running, org: str, data: Any, event_id: str = "e1", event_type: str = "scan.finished") -> Any:
    value = {"specversion": "1.0", "id": event_id, "source": "s", "type": event_type, "subject": org, "data": data}
    return send(service, ({"Content-Type": CLOUD}, json.dumps(value).encode()))


def test_a_rule_says_the_feature_and_where_the_quantity_stands(ruled: Running, org: str) -> None:
    deep = finished(ruled, org, {"result": {"kind": "deep", "pages": 7}, "free": {"text": {"of": {"any": "depth"}}}})
    (only,) = deep.json()["results"]
    assert (only["feature"], only["recorded"]) == ("scans", 7)
    (only,) = finished(ruled, org, {"result": {"kind": "flat"}}, "e2").json()["results"]
    assert (only["feature"], only["recorded"]) == ("wallet_checks", 3)
    assert usage(ruled, org) == {"scans": 7, "wallet_checks": 3, "api_requests": 0}


def test_data_larger_than_metadata_is_no_matter_to_a_rule(ruled: Running, org: str) -> None:
    data = {"result": {"kind": "deep", "pages": 2}, **{f"k{n}": ["x" * 300] for n in range(150)}}
    assert finished(ruled, org, data).json()["accepted"] == 1


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"kind": "deep"}, "is missing or null"),
        ({"kind": "deep", "pages": None}, "is missing or null"),
        ({"kind": "deep", "pages": 0}, "is not a whole number"),
        ({"kind": "deep", "pages": 1.5}, "is not a whole number"),
        ({"kind": "deep", "pages": "7"}, "is not a whole number"),
        ({"kind": "deep", "pages": 10**12 + 1}, "is not a whole number"),
    ],
)
def test_a_path_that_leads_to_no_quantity_is_named(ruled: Running, org: str, result: Any, reason: str) -> None:
    with ruled.unchanged():
        (fault,) = problem(finished(ruled, org, {"result": result}), 422, "validation")["errors"]
    assert (fault["pointer"], fault["code"]) == ("/data/result/pages", "meter-quantity")
    assert fault["detail"].startswith("the meter rule of 'scan.finished' counts $.result.pages: it is"), fault["detail"]
    assert reason in fault["detail"]


def test_the_same_id_under_another_quantity_is_a_conflict(ruled: Running, org: str) -> None:
    assert finished(ruled, org, {"result": {"kind": "deep", "pages": 7}}).json()["accepted"] == 1
    assert finished(ruled, org, {"result": {"kind": "deep", "pages": 7}}).json()["duplicates"] == 1
    (only,) = finished(ruled, org, {"result": {"kind": "deep", "pages": 8}}).json()["results"]
    assert only["problem"]["code"] == "event-conflict"


def test_types_without_a_rule_count_by_their_name(ruled: Running, org: str) -> None:
    assert finished(ruled, org, {"quantity": 4}, event_type="usage.scans").json()["results"][0]["recorded"] == 4
    (only,) = finished(ruled, org, {}, "e2", "scan.begun").json()["results"]
    assert only["problem"]["detail"] == "no meter rule for type 'scan.begun'"


# ── a store that is away ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def fragile() -> Iterator[Running]:
    """A service of this test alone."""
    with Running() as running:
        yield running


def event(org: str, number: int, **more: Any) -> dict[str, Any]:
    return {"org_id": org, "feature": "scans", "event_id": f"e{number}"} | more


def test_while_the_store_is_away_the_whole_answer_is_503_and_a_repeat_counts_once(fragile: Running, org: str) -> None:
    sent = [event(org, 1), event(f"{org}-b", 2), event(org, 3, quantity=0)]
    assert post(fragile, event(org, 1)).json()["accepted"] == 1
    fragile.server_store.kill()
    calls = [
        lambda: post(fragile, *sent),
        lambda: post(fragile, *sent, detail="none"),
        lambda: send(fragile, ONE["binary"](sent)),
    ]
    with ThreadPoolExecutor(len(calls)) as pool:
        answers = list(pool.map(lambda call: call(), calls))
    for answer in answers:
        problem(answer, 503, "storage-unavailable")
        assert int(answer.headers["retry-after"]) >= 1
    fragile.server_store.start()
    wait_until(lambda: fragile.call("GET", "/health/ready").status_code == 200, timeout_s=10, what="ready again")
    body = post(fragile, *sent).json()
    assert [entry["status"] for entry in body["results"]] == ["duplicate", "recorded", "rejected"]
    assert usage(fragile, org)["scans"] == 1


def test_an_organisation_whose_data_is_corrupt_is_told_and_holds_up_no_other(fragile: Running, org: str) -> None:
    post(fragile, event(org, 1), event(f"{org}-b", 1))
    (key,) = fragile.store.scan_iter(f"*:o:{org}")
    fragile.store.delete(key)
    fragile.store.set(key, "x")
    body = post(fragile, event(org, 2), event(f"{org}-b", 2)).json()
    assert [entry["status"] for entry in body["results"]] == ["rejected", "recorded"]
    told = body["results"][0]["problem"]
    assert (told["code"], told["status"], told["retryable"]) == ("org-corrupt", 503, True)
    problem(post(fragile, event(org, 3)), 503, "org-corrupt")


def test_more_events_than_may_wait_are_shed_before_any_is_counted(org: str) -> None:
    with Running(pending_max=1) as small:
        problem(post(small, event(org, 1), event(org, 2)), 413, "too-large")
        assert post(small, event(org, 1)).json()["accepted"] == 1


def test_while_others_wait_for_the_store_a_batch_is_shed_before_it_is_read(org: str) -> None:
    with Running(pending_max=1) as small:
        small.track(org_id=org, feature="scans")
        small.server_store.kill()
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(small.track, org_id=org, feature="scans")
            answer = wait_until(lambda: _shed(small), timeout_s=2, what="a batch is shed")
            problem(answer, 503, "overloaded")
            problem(waits.result(), 503, "storage-unavailable")


def _shed(service: Running) -> Any:
    """The answer to a batch that is no JSON, if nobody looked at it."""
    answer = send(service, ({"Content-Type": "application/json"}, b"{"))
    return answer if answer.status_code == 503 else None


def test_all_or_none_is_refused_with_the_problem_that_all_of_them_have(fragile: Running, org: str) -> None:
    assert post(fragile, event(org, 1), atomic="true").status_code == 200
    fragile.server_store.kill()
    problem(post(fragile, event(org, 2), event(org, 3), atomic="true"), 503, "storage-unavailable")
    with Running(auto_create_orgs=False) as strict:
        problem(post(strict, event(org, 1), event(org, 2), atomic="true"), 404, "org-not-found")


# ── keys in place of ids ──────────────────────────────────────────────────────────────────────────────────


def keyed(service: Running, key: str, **body: Any) -> Any:
    return service.call("POST", "/usage/track", token(None, ADMIN), json=body, headers={"Idempotency-Key": key})


@pytest.mark.parametrize("key", ["8e03978e-40d5-43e8-bc93-6894a57f9324", '"a key"', "x" * 255])
def test_a_key_is_the_id_of_an_event_that_has_none(service: Running, org: str, key: str) -> None:
    first = keyed(service, key, org_id=org, feature="scans", quantity=2).json()
    assert (first["event_id"], first["duplicate"], first["current_usage"]) == (key.strip('"'), False, 2)
    again = keyed(service, key, org_id=org, feature="scans", quantity=2)
    assert (again.status_code, again.json()["duplicate"], again.json()["current_usage"]) == (200, True, 2)
    assert "idempotency-replayed" not in again.headers
    problem(keyed(service, key, org_id=org, feature="scans", quantity=3), 409, "event-conflict")


def test_the_id_of_the_event_itself_comes_first(service: Running, org: str) -> None:
    for number in (1, 2):
        body = keyed(service, "k", org_id=org, feature="scans", event_id=f"e{number}").json()
        assert (body["event_id"], body["duplicate"]) == (f"e{number}", False)


@pytest.mark.parametrize("key", ["", "a b", "a,b", "x" * 256, '"'])
def test_a_key_that_is_none_is_told(service: Running, org: str, key: str) -> None:
    with service.unchanged():
        for more in ({}, {"event_id": "e1"}):
            told = problem(keyed(service, key, org_id=org, feature="scans", **more), 422, "validation")
            assert [fault["code"] for fault in told["errors"]] == ["idempotency-key"]


@pytest.mark.parametrize("encode", [array, lines, ONE["alone"]])
def test_under_a_key_events_without_ids_are_counted_once(service: Running, org: str, encode: Any) -> None:
    plain = {"org_id": org, "feature": "scans"}
    headers, content = encode([plain, plain | {"event_id": "own"}, plain])
    headers = headers | {"Idempotency-Key": '"k 1"'}
    names = ["k 1/0", "own", "k 1/2"][: 1 if encode is ONE["alone"] else 3]
    for status in ("recorded", "duplicate"):
        results = send(service, (headers, content)).json()["results"]
        assert [(entry["id"], entry["status"]) for entry in results] == [(name, status) for name in names]


def test_a_key_that_is_none_refuses_the_batch(service: Running, org: str) -> None:
    for encode in MANY.values():
        headers, content = encode([event(org, 1)])
        with service.unchanged():
            problem(send(service, (headers | {"Idempotency-Key": "a b"}, content)), 422, "validation")
