"""GET /v1/events: what was counted, one by one, to those who may see it."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from metering.auth import ADMIN, BILLING_READ
from metering.moments import rfc3339
from metering.store.keys import Keys
from tests.service.running import Running, problem, token


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    """A service that keeps raw events for a day."""
    with Running(event_retention="24h") as running:
        yield running


@pytest.fixture
def own(service: Running, org: str) -> str:
    """An organisation that exists."""
    assert service.track(org_id=org, feature="api_requests").status_code == 200
    return org


def send(service: Running, org: str, event_id: str, **more: Any) -> None:
    """Count an event of this organisation."""
    answer = service.track(org_id=org, event_id=event_id, **{"feature": "scans"} | more)
    assert answer.status_code == 200, answer.text


def listed(service: Running, bearer: str, **query: Any) -> dict[str, Any]:
    response = service.call("GET", "/v1/events", bearer, params=query)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    return page


def ids(page: dict[str, Any]) -> list[str]:
    return [entry["event_id"] for entry in page["data"]]


def at(seconds: float) -> str:
    """So many seconds from now, on the wire."""
    return rfc3339(time.time_ns() // 1_000_000 + int(seconds * 1000))


def test_an_entry_shows_all_there_is(service: Running, own: str) -> None:
    when = at(-1)
    send(service, own, "evt-0", quantity=8)
    send(
        service, own, "evt-1",
        quantity=5, source="svc-a", timestamp=when, actor="user-7", metadata={"chain": "ethereum", "n": [1]},
    )  # fmt: skip
    (entry, _) = listed(service, token(own), feature="scans")["data"]
    assert entry.pop("id").count("-") == 1
    assert at(-60) < entry.pop("at") <= at(1)
    assert entry == {
        "event_id": "evt-1",
        "source": "svc-a",
        "org_id": own,
        "feature": "scans",
        "quantity": 5,
        "recorded": 5,
        "overage": 3,
        "current_usage": 13,
        "actor": "user-7",
        "metadata": {"chain": "ethereum", "n": [1]},
        "timestamp": when,
    }


def test_what_was_not_said_is_null(service: Running, own: str) -> None:
    service.track(org_id=own, feature="scans")
    (entry,) = listed(service, token(own), feature="scans")["data"]
    assert {entry[name] for name in ("event_id", "source", "actor", "metadata", "timestamp")} == {None}


def test_only_what_counted_is_listed(service: Running, own: str) -> None:
    service.call("PUT", f"/v1/orgs/{own}", token(None, ADMIN), json={"on_limit": {"scans": "block"}})
    send(service, own, "evt-1", quantity=9)
    send(service, own, "evt-1", quantity=9)  # a duplicate
    assert service.track(org_id=own, feature="scans", event_id="evt-1", quantity=8).status_code == 409
    assert service.track(org_id=own, feature="scans", event_id="evt-2", quantity=2).status_code == 403
    assert ids(listed(service, token(own), feature="scans")) == ["evt-1"]


def test_pages_follow_each_other_newest_first(service: Running, own: str) -> None:
    for number in range(5):
        send(service, own, f"e{number}")
    seen, cursor = [], None
    for _ in range(3):
        page = listed(service, token(own), feature="scans", limit=2, **({"cursor": cursor} if cursor else {}))
        seen.append(ids(page))
        cursor = page["next_cursor"]
    assert (seen, cursor) == ([["e4", "e3"], ["e2", "e1"], ["e0"]], None)


def test_filters_narrow_the_list(service: Running, own: str) -> None:
    send(service, own, "e1")
    send(service, own, "e2", source="svc")
    send(service, own, "e2", source="other")
    bearer = token(own)
    assert ids(listed(service, bearer, id="e1")) == ["e1"]
    assert ids(listed(service, bearer, id="e2")) == ["e2", "e2"]
    assert ids(listed(service, bearer, id="e2", source="svc")) == ["e2"]
    assert ids(listed(service, bearer, id="e3")) == []
    assert ids(listed(service, bearer, feature="scans", **{"from": at(-60), "to": at(60)})) == ["e2", "e2", "e1"]
    assert ids(listed(service, bearer, feature="scans", to=at(-60))) == []
    assert ids(listed(service, bearer, feature="scans", **{"from": at(60)})) == []


def test_another_organisation_sees_nothing_of_it(service: Running, own: str) -> None:
    other = f"{own}-b"
    send(service, own, "mine")
    send(service, other, "theirs")
    assert ids(listed(service, token(own), feature="scans")) == ["mine"]
    assert ids(listed(service, token(other), feature="scans")) == ["theirs"]
    assert ids(listed(service, token(own, ADMIN), feature="scans", org_id=other)) == ["theirs"]


def test_nothing_that_names_anybody_lies_in_the_log_in_plain_text(service: Running, own: str) -> None:
    said: dict[str, Any] = {
        "event_id": "evt-canary",
        "source": "src-canary",
        "actor": "act-canary",
        "metadata": {"m": "meta-canary"},
    }
    assert service.track(org_id=own, feature="scans", **said).status_code == 200
    keys = [Keys(64).shared("events", partition) for partition in range(64)]
    held = [value for key in keys for _, fields in service.store.xrange(key) for value in fields.values()]
    assert held
    for word in (own, "canary"):
        assert not [value for value in held if word.encode() in value]


@pytest.mark.parametrize(
    ("query", "pointer", "code"),
    [
        ({"limit": "0"}, "/limit", "greater-than-equal"),
        ({"limit": "501"}, "/limit", "less-than-equal"),
        ({"cursor": "now"}, "/cursor", "string-pattern-mismatch"),
        ({"cursor": "0-0"}, "/cursor", "string-pattern-mismatch"),
        ({"from": "yesterday"}, "/from", "timestamp"),
        ({"from": "2024-02-01T00:00:00Z", "to": "2024-02-01T00:00:00Z"}, "/to", "out-of-range"),
        ({"feature": "No Feature"}, "/feature", "string-pattern-mismatch"),
        ({"id": ""}, "/id", "string-too-short"),
        ({"form": "x"}, "/form", "unknown-field"),
    ],
    ids=str,
)
def test_a_bad_query_is_told(service: Running, own: str, query: dict[str, str], pointer: str, code: str) -> None:
    told = problem(service.call("GET", "/v1/events", token(own), params=query), 422, "validation")
    assert (pointer, code) in [(fault["pointer"], fault["code"]) for fault in told["errors"]]


def test_the_scope_to_read_usage_is_needed(service: Running, own: str) -> None:
    problem(service.call("GET", "/v1/events", token(own, BILLING_READ)), 403, "forbidden")


def test_a_service_that_keeps_no_raw_events_says_so(org: str) -> None:
    with Running() as plain:
        plain.track(org_id=org, feature="scans")
        told = problem(plain.call("GET", "/v1/events", token(org)), 409, "events-not-kept")
        assert "EVENT_RETENTION" in told["cure"]
        problem(plain.call("GET", "/v1/events", token(f"{org}-b")), 404, "org-not-found")
