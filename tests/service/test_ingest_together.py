"""All or nothing: one event that counts several features, and batches that are counted as a whole."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from metering.auth import ADMIN
from metering.settings import Settings
from tests.service.batches import CLOUD, MANY, ONE, post, send, usage
from tests.service.running import Running, problem, token

RULES: Final = """
[[meters]]
type = "scan.finished"
features = [ { feature = "scans", quantity = "$.pages" }, { feature = "wallet_checks" }, { feature = "api_requests" } ]
"""


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service in whose catalogue an event counts three features."""
    file = tmp_path_factory.mktemp("plans") / "plans.toml"
    file.write_text(Settings().plans_text()[0] + RULES)
    with Running(plans_file=Path(file)) as running:
        yield running


def block(service: Running, org: str, **limits: int) -> None:
    """Refuse what is above these limits."""
    sent = {"limits": limits, "on_limit": dict.fromkeys(limits, "block")}
    assert service.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json=sent).status_code in {200, 201}


# ── one event, several features ───────────────────────────────────────────────────────────────────────────


def finished(org: str, number: int = 1, pages: Any = 4) -> dict[str, Any]:
    attributes = {"specversion": "1.0", "id": f"e{number}", "source": "s", "type": "scan.finished", "subject": org}
    return attributes | {"data": {"pages": pages}}


def deliver(service: Running, *events: dict[str, Any], **params: str) -> Any:
    kind = "application/cloudevents-batch+json"
    return send(service, ({"Content-Type": kind}, json.dumps(events).encode()), **params)


def test_an_event_counts_all_of_its_features_and_says_so(ruled: Running, org: str) -> None:
    answer = deliver(ruled, finished(org))
    assert answer.status_code == 200
    (only,) = answer.json()["results"]
    assert (only["status"], only["feature"], only["recorded"], only["current_usage"]) == ("recorded", "scans", 4, 4)
    assert only["features"] == [
        {"feature": "scans", "recorded": 4, "current_usage": 4, "limit": 10, "remaining": 6, "overage": 0},
        {"feature": "wallet_checks", "recorded": 1, "current_usage": 1, "limit": 100, "remaining": 99, "overage": 0},
        {"feature": "api_requests", "recorded": 1, "current_usage": 1, "limit": 1000, "remaining": 999, "overage": 0},
    ]
    assert usage(ruled, org) == {"scans": 4, "wallet_checks": 1, "api_requests": 1}


def test_the_same_event_again_counts_none_of_them(ruled: Running, org: str) -> None:
    deliver(ruled, finished(org))
    again = deliver(ruled, finished(org))
    assert (again.status_code, again.json()["duplicates"]) == (200, 1)
    assert [part["recorded"] for part in again.json()["results"][0]["features"]] == [0, 0, 0]
    (other,) = deliver(ruled, finished(org, pages=5)).json()["results"]
    assert other["problem"]["code"] == "event-conflict"
    assert usage(ruled, org) == {"scans": 4, "wallet_checks": 1, "api_requests": 1}


def test_a_limit_of_one_feature_refuses_the_event_with_all_of_them(ruled: Running, org: str) -> None:
    block(ruled, org, wallet_checks=1)
    body = deliver(ruled, finished(org, 1), finished(org, 2)).json()
    assert [entry["status"] for entry in body["results"]] == ["recorded", "blocked"]
    told = body["results"][1]["problem"]
    assert (told["code"], told["feature"], told["limit"], told["requested"]) == (
        "quota-exceeded",
        "wallet_checks",
        1,
        1,
    )
    assert usage(ruled, org) == {"scans": 4, "wallet_checks": 1, "api_requests": 1}


def test_events_of_one_and_of_many_features_share_a_batch(ruled: Running, org: str) -> None:
    plain = {"specversion": "1.0", "id": "p", "source": "s", "type": "usage.scans", "subject": org}
    body = deliver(ruled, plain, finished(org, 1), finished(org, 2, 0), plain).json()
    assert [entry["status"] for entry in body["results"]] == ["recorded", "recorded", "rejected", "duplicate"]
    assert ["features" in entry for entry in body["results"]] == [False, True, False, False]
    assert body["results"][2]["problem"]["errors"][0]["pointer"] == "/data/pages"
    assert usage(ruled, org) == {"scans": 5, "wallet_checks": 1, "api_requests": 1}


def test_a_thousand_events_of_three_features_are_counted(ruled: Running, org: str) -> None:
    events = [finished(org, number, 1) for number in range(1000)]
    assert deliver(ruled, *events).json()["accepted"] == 1000
    assert deliver(ruled, *events).json()["duplicates"] == 1000
    assert usage(ruled, org) == {"scans": 1000, "wallet_checks": 1000, "api_requests": 1000}


# ── a batch as a whole ────────────────────────────────────────────────────────────────────────────────────


def event(org: str, number: int = 1, feature: str = "scans", **more: Any) -> dict[str, Any]:
    return {"org_id": org, "feature": feature, "event_id": f"e{number}", "source": "s"} | more


def together(service: Running, *events: Any, **params: str) -> Any:
    return post(service, *events, atomic="true", **params)


def test_all_are_counted_and_the_same_again_counts_nothing(service: Running, org: str) -> None:
    events = [event(org, number, ("scans", "wallet_checks")[number % 2]) for number in range(250)]
    for counted in ((250, 0, 0, 0), (0, 250, 0, 0)):
        answer = together(service, *events)
        assert answer.status_code == 200
        assert tuple(answer.json()[name] for name in ("accepted", "duplicates", "blocked", "rejected")) == counted
    assert together(service, *events, detail="none").status_code == 204
    assert usage(service, org)["wallet_checks"] == 125


@pytest.mark.parametrize("encode", MANY.values(), ids=MANY)
def test_whatever_way_they_come(service: Running, org: str, encode: Any) -> None:
    answer = send(service, encode([event(org, 1), event(org, 2)]), atomic="true")
    assert (answer.status_code, answer.json()["accepted"]) == (200, 2)
    answer = send(service, ONE["binary"]([event(org, 3)]), atomic="true")
    assert (answer.status_code, answer.json()["accepted"]) == (200, 1)


REFUSED: Final[dict[str, tuple[dict[str, Any], str, str]]] = {
    "over the limit": ({"feature": "wallet_checks", "quantity": 3}, "blocked", "quota-exceeded"),
    "unknown feature": ({"feature": "scnas"}, "rejected", "feature-unknown"),
    "bad quantity": ({"quantity": 0}, "rejected", "validation"),
    "id of another event": ({"event_id": "taken", "quantity": 5}, "rejected", "event-conflict"),
    "too old": ({"timestamp": "2001-02-03T04:05:06Z"}, "rejected", "timestamp-out-of-range"),
}


@pytest.mark.parametrize(("wrong", "status", "code"), REFUSED.values(), ids=REFUSED)
def test_one_that_cannot_be_counted_keeps_all_from_it(
    service: Running, org: str, wrong: dict[str, Any], status: str, code: str
) -> None:
    block(service, org, wallet_checks=2)
    post(service, event(org, feature="scans", event_id="taken"))
    events = [event(org, 1), event(org, 2) | wrong, event(org, 3)]
    with service.unchanged():
        told = problem(together(service, *events), 409, "batch-refused")
        short = problem(together(service, *events, detail="none"), 409, "batch-refused")
    assert told["detail"] == "1 of 3 events cannot be counted, so none was"
    assert [entry["status"] for entry in told["results"]] == ["skipped", status, "skipped"]
    assert told["results"][1]["problem"]["code"] == code
    assert [entry["index"] for entry in short["results"]] == [1]
    good = together(service, event(org, 1), event(org, 3))
    assert (good.status_code, good.json()["accepted"]) == (200, 2)


def test_what_was_counted_before_does_not_stand_in_the_way(service: Running, org: str) -> None:
    post(service, event(org, 1))
    body = together(service, event(org, 1), event(org, 2), event(org, 2)).json()
    assert [entry["status"] for entry in body["results"]] == ["duplicate", "recorded", "duplicate"]
    assert usage(service, org)["scans"] == 2


def test_the_limit_counts_for_all_of_them_together(service: Running, org: str) -> None:
    block(service, org, scans=5)
    with service.unchanged():
        told = problem(together(service, *(event(org, number) for number in range(6))), 409, "batch-refused")
    assert [entry["status"] for entry in told["results"]].count("blocked") == 1
    assert together(service, *(event(org, number) for number in range(5))).json()["accepted"] == 5


def test_of_batches_at_once_only_whole_ones_are_counted(service: Running, org: str) -> None:
    block(service, org, scans=10)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(together, service, *(event(org, 3 * n + k) for k in range(3))) for n in range(8)]
    statuses = [call.result().status_code for call in calls]
    assert sorted(statuses) == [200] * 3 + [409] * 5
    assert usage(service, org)["scans"] == 9


def test_only_one_organisation_and_so_many_features_go_together(service: Running, ruled: Running, org: str) -> None:
    with service.unchanged():
        told = problem(together(service, event(org, 1), event(f"{org}-b", 2)), 422, "validation")
        assert [fault["code"] for fault in told["errors"]] == ["atomic-orgs"]
        many = [event(f"{org}-{number % 2}", number) for number in range(251)]
        told = problem(together(service, *many), 422, "validation")
        assert [fault["code"] for fault in told["errors"]] == ["atomic-orgs", "atomic-events"]
    with ruled.unchanged():
        told = problem(
            deliver(ruled, *(finished(org, number) for number in range(84)), atomic="true"), 422, "validation"
        )
        assert "252 counted features" in told["detail"]
    assert deliver(ruled, *(finished(org, number) for number in range(83)), atomic="true").json()["accepted"] == 83


def test_a_foreign_organisation_is_told_as_an_unknown_one(service: Running, org: str) -> None:
    service.track(org_id=f"{org}-b", feature="scans")
    for other in (f"{org}-b", f"{org}-nobody"):
        with service.unchanged():
            answer = post(service, event(org, 1), event(other, 2), bearer=token(org), atomic="true")
        told = problem(answer, 409, "batch-refused")
        assert [entry.get("problem", {}).get("code") for entry in told["results"]] == [None, "org-not-found"]


def test_where_not_one_can_be_read_it_is_a_422_and_none_is_nothing(service: Running, org: str) -> None:
    with service.unchanged():
        problem(together(service, event(org, quantity=0), 5), 422, "validation")
        problem(send(service, ONE["structured"]([event(org, quantity=0)]), atomic="true"), 422, "validation")
        assert together(service).json()["results"] == []


@pytest.mark.parametrize("text", ["1", "yes", "True", ""])
def test_atomic_is_true_or_false(service: Running, org: str, text: str) -> None:
    with service.unchanged():
        told = problem(post(service, event(org), atomic=text), 422, "validation")
    assert [fault["pointer"] for fault in told["errors"]] == ["/atomic"]
    assert post(service, event(org), atomic="false").status_code == 200


def test_what_is_decided_later_cannot_be_decided_together(service: Running, org: str) -> None:
    with service.unchanged():
        told = problem(together(service, event(org), ack="async"), 422, "validation")
    assert [(fault["pointer"], fault["code"]) for fault in told["errors"]] == [("/atomic", "conflict")]


def test_a_trial_says_that_it_is_one(service: Running, org: str) -> None:
    service.track(org_id=org, feature="scans")
    with service.unchanged():
        body = post(service, event(org, 1, dry_run=True), event(org, 2, dry_run=True)).json()
    assert [(entry["status"], entry["dry_run"]) for entry in body["results"]] == [("recorded", True)] * 2


def test_a_cloudevent_alone_may_be_counted_together_with_nobody(ruled: Running, org: str) -> None:
    answer = send(ruled, ({"Content-Type": CLOUD}, json.dumps(finished(org)).encode()), atomic="true")
    assert (answer.status_code, len(answer.json()["results"][0]["features"])) == (200, 3)
