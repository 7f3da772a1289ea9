"""`ack=async`: answered when on disk, counted afterwards, exactly once."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx2
import pytest

from metering.auth import ADMIN, USAGE_READ
from metering.store.keys import Keys
from tests.service import batches
from tests.service.batches import MANY, ONE
from tests.service.running import Running, problem, token
from tests.support.wait import wait_until

PATHS: Final = ("/v1/events", "/usage/track/batch")


def send(service: Running, *events: dict[str, Any], path: str = "/v1/events", **query: str) -> httpx2.Response:
    """Events as administrator."""
    return service.call("POST", path, token(None, ADMIN), params={"ack": "async", **query}, json=list(events))


def event(org: str, number: int = 1, feature: str = "scans", **more: Any) -> dict[str, Any]:
    return {"org_id": org, "feature": feature, "event_id": f"e{number}"} | more


def counted(service: Running, org: str, feature: str = "scans") -> int:
    view = service.call("GET", f"/usage/{org}", token(None, ADMIN)).json()
    units: int = view["features"][feature]["current"]
    return units


def drained(service: Running) -> None:
    """Wait until nothing is queued any more."""
    keys = [Keys(64).shared("queue", partition) for partition in range(64)]
    wait_until(lambda: not sum(map(service.store.xlen, keys)), timeout_s=20, what="the queues are empty")


@pytest.mark.parametrize("path", PATHS)
def test_accepted_events_are_counted_soon_and_once(service: Running, org: str, path: str) -> None:
    sent = [event(org, number, quantity=number) for number in (1, 2, 3)]
    for _ in range(2):
        answer = send(service, *sent, path=path)
        assert (answer.status_code, answer.json()) == (202, {"accepted": 3, "rejected": 0, "results": []})
    drained(service)
    assert counted(service, org) == 6


@pytest.mark.parametrize("encode", [*MANY.values(), *ONE.values()], ids=[*MANY, *ONE])
def test_events_are_accepted_in_every_way_they_come(service: Running, org: str, encode: Callable[..., Any]) -> None:
    answer = batches.send(service, encode([event(org, quantity=2)]), ack="async")
    assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
    drained(service)
    assert counted(service, org) == 2


def test_the_same_id_counts_once_in_both_ways(service: Running, org: str) -> None:
    assert service.track(**event(org, quantity=4)).status_code == 200
    assert send(service, event(org, quantity=4)).status_code == 202
    drained(service)
    assert counted(service, org) == 4
    assert send(service, event(org, 2)).status_code == 202
    drained(service)
    assert service.track(**event(org, 2)).json()["duplicate"] is True


def test_events_without_an_id_count_each(service: Running, org: str) -> None:
    sent = {"org_id": org, "feature": "scans"}
    assert send(service, sent, sent).json()["accepted"] == 2
    drained(service)
    assert counted(service, org) == 2


def test_a_repeat_under_an_idempotency_key_counts_nothing(service: Running, org: str) -> None:
    headers = {"Idempotency-Key": f"key-{org}"}
    sent = [{"org_id": org, "feature": "scans"}]
    for _ in range(2):
        bearer = token(None, ADMIN)
        answer = service.call("POST", "/v1/events", bearer, params={"ack": "async"}, headers=headers, json=sent)
        assert answer.status_code == 202
    drained(service)
    assert counted(service, org) == 1


def test_what_can_be_told_at_once_is_and_the_others_are_accepted(service: Running, org: str) -> None:
    answer = send(
        service,
        event(org, 1, quantity=2),
        event(org, 2, quantity=0),
        event(org, 3, "scnas"),
        event(org, 4, timestamp="2001-02-03T04:05:06Z"),
        event(org, 5),
    )
    assert answer.status_code == 207
    body = answer.json()
    assert (body["accepted"], body["rejected"]) == (2, 3)
    told = [(one["index"], one["id"], one["status"], one["problem"]["code"]) for one in body["results"]]
    assert told == [
        (1, "e2", "rejected", "validation"),
        (2, "e3", "rejected", "feature-unknown"),
        (3, "e4", "rejected", "timestamp-out-of-range"),
    ]
    assert body["results"][1]["problem"]["nearest"] == "scans"
    drained(service)
    assert counted(service, org) == 3


@pytest.mark.parametrize(
    "more", [{"dry_run": True}, {"event_id": None, "reservation_id": "r1"}], ids=["trial", "reservation"]
)
def test_what_has_to_be_answered_at_once_is_not_accepted(service: Running, org: str, more: dict[str, Any]) -> None:
    service.track(**event(org, 9))
    with service.unchanged():
        answer = send(service, event(org) | more)
    assert answer.status_code == 207
    (told,) = answer.json()["results"]
    (wrong,) = told["problem"]["errors"]
    assert wrong["code"] == "ack-async"
    assert wrong["pointer"].removeprefix("/") in more


def test_with_atomic_nothing_is_accepted(service: Running, org: str) -> None:
    with service.unchanged():
        problem(send(service, event(org), atomic="true"), 422, "validation")


def test_where_nothing_can_be_read_nothing_is_accepted(service: Running, org: str) -> None:
    with service.unchanged():
        problem(send(service, event(org, quantity=0), event(org, quantity=-1)), 422, "validation")
        assert send(service, event(org, feature="scnas")).status_code == 207


def test_an_event_over_a_limit_is_accepted_and_not_counted(service: Running, org: str) -> None:
    service.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={"on_limit": {"scans": "block"}})
    assert send(service, event(org, 1, quantity=9), event(org, 2, quantity=2)).json()["accepted"] == 2
    drained(service)
    assert counted(service, org) == 9


def test_another_organisation_is_rejected_as_an_unknown_one(service: Running, org: str) -> None:
    service.track(**event(f"{org}-b"))
    bearer = token(org)
    sent = [event(org), event(f"{org}-b", 2), event(f"{org}-c", 3)]
    answer = service.call("POST", "/v1/events", bearer, params={"ack": "async"}, json=sent).json()
    assert (answer["accepted"], answer["rejected"]) == (1, 2)
    assert {one["problem"]["code"] for one in answer["results"]} == {"org-not-found"}
    drained(service)
    assert (counted(service, org), counted(service, f"{org}-b")) == (1, 1)


def test_without_the_scope_nothing_is_accepted(service: Running, org: str) -> None:
    with service.unchanged():
        bearer = token(org, USAGE_READ)
        answer = service.call("POST", "/v1/events", bearer, params={"ack": "async"}, json=[event(org)])
        problem(answer, 403, "forbidden")


@pytest.mark.parametrize("ack", ["later", "", "Async"])
def test_another_kind_of_answer_is_refused(service: Running, org: str, ack: str) -> None:
    problem(service.call("POST", "/v1/events", token(org), params={"ack": ack}, json=[event(org)]), 422, "validation")


def test_nothing_sent_is_nothing_accepted(service: Running) -> None:
    assert send(service).json() == {"accepted": 0, "rejected": 0, "results": []}


def test_where_organisations_are_not_made_by_themselves_a_strangers_events_are_rejected(org: str) -> None:
    with Running(auto_create_orgs=False) as strict:
        assert strict.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={}).status_code == 201
        answer = send(strict, event(org), event(f"{org}-b", 2))
        assert answer.status_code == 207
        assert [(one["index"], one["problem"]["code"]) for one in answer.json()["results"]] == [(1, "org-not-found")]
        drained(strict)
        assert counted(strict, org) == 1


@pytest.fixture
def small() -> Iterator[Running]:
    """A service whose queues take one event each."""
    with Running(queue_max=1) as running:
        yield running


def test_a_full_queue_refuses_and_says_when_to_come_again(small: Running, org: str) -> None:
    small.track(**event(org, 9))
    with small.unchanged():  # more than it may ever hold, so it does not matter how quickly it is emptied
        told = send(small, event(org, 1), event(org, 2))
        problem(told, 503, "overloaded")
        assert told.headers["retry-after"] == "1"
    assert send(small, event(org, 1)).status_code == 202
    drained(small)
    assert counted(small, org) == 2


def test_a_full_queue_refuses_its_own_partition_alone(small: Running) -> None:
    keys = Keys(64)
    names = [f"org-{number}" for number in range(100)]
    other = next(name for name in names if keys.partition(name) != keys.partition(names[0]))
    answer = send(small, event(names[0], 1), event(names[0], 2), event(other, 3))
    assert (answer.status_code, answer.json()["accepted"]) == (207, 1)
    assert [(one["index"], one["problem"]["retryable"]) for one in answer.json()["results"]] == [(0, True), (1, True)]


def test_events_accepted_before_a_restart_are_counted_after_it(service: Running, org: str) -> None:
    store = service.server_store
    with Running(store, redis_db=5) as before:
        send(before, *(event(org, number) for number in range(1, 200)))
    with Running(store, redis_db=5) as after:
        drained(after)
        assert counted(after, org) == 199


def test_an_accepted_event_is_a_raw_event_once_it_is_counted(org: str) -> None:
    with Running(event_retention="1h") as keeping:
        send(keeping, event(org, quantity=3, actor="ann", metadata={"chain": "x"}, source="svc"))
        drained(keeping)
        (entry,) = keeping.call("GET", "/v1/events", token(org)).json()["data"]
        told = (entry["event_id"], entry["source"], entry["quantity"], entry["actor"], entry["metadata"])
        assert told == ("e1", "svc", 3, "ann", {"chain": "x"})
        assert entry["timestamp"] is None
