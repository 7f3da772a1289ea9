"""GET /v1/events: what was counted, one by one, to those who may see it."""

import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from metering.auth import ADMIN, BILLING_READ
from metering.usage import UsageEvent
from tests.service.running import Running, problem, token
from tests.support.raw_entries import add, data_key_of


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


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def seed(service: Running, org: str, event_id: str, *, ago_ms: int = 0, **more: Any) -> None:
    """An entry of this organisation, counted `ago_ms` ago."""
    event = UsageEvent(org, more.pop("feature", "scans"), more.pop("quantity", 1), event_id, **more)
    add(service.store, event, data_key_of(service.store, org), now_ms() - ago_ms)


def listed(service: Running, bearer: str, **query: Any) -> dict[str, Any]:
    response = service.call("GET", "/v1/events", bearer, params=query)
    assert response.status_code == 200, response.text
    page: dict[str, Any] = response.json()
    return page


def ids(page: dict[str, Any]) -> list[str]:
    return [entry["event_id"] for entry in page["data"]]


def test_an_entry_shows_all_there_is(service: Running, own: str) -> None:
    details = orjson.dumps({"actor": "user-7", "metadata": {"chain": "ethereum"}})
    seed(service, own, "evt-1", quantity=5, source="svc-a", timestamp_ms=1_706_745_600_123, details=details)
    (entry,) = listed(service, token(own), feature="scans")["data"]
    assert entry.pop("id").count("-") == 1
    assert entry.pop("at").endswith("Z")
    assert entry.pop("current_usage") > 0
    assert entry == {
        "event_id": "evt-1",
        "source": "svc-a",
        "org_id": own,
        "feature": "scans",
        "quantity": 5,
        "recorded": 5,
        "overage": 0,
        "actor": "user-7",
        "metadata": {"chain": "ethereum"},
        "timestamp": "2024-02-01T00:00:00.123Z",
    }


def test_what_was_not_said_is_null(service: Running, own: str) -> None:
    seed(service, own, "evt-1")
    (entry,) = listed(service, token(own), feature="scans")["data"]
    assert {entry[name] for name in ("source", "actor", "metadata", "timestamp")} == {None}


def test_pages_follow_each_other_newest_first(service: Running, own: str) -> None:
    for number in range(5):
        seed(service, own, f"e{number}", ago_ms=500 - number)
    seen, cursor = [], None
    for _ in range(3):
        page = listed(service, token(own), feature="scans", limit=2, **({"cursor": cursor} if cursor else {}))
        seen.append(ids(page))
        cursor = page["next_cursor"]
    assert (seen, cursor) == ([["e4", "e3"], ["e2", "e1"], ["e0"]], None)


def test_filters_narrow_the_list(service: Running, own: str) -> None:
    seed(service, own, "e1", ago_ms=9000)
    seed(service, own, "e2", source="svc", ago_ms=8000)
    seed(service, own, "e2", source="other", ago_ms=7000)
    bearer = token(own)
    assert ids(listed(service, bearer, id="e1")) == ["e1"]
    assert ids(listed(service, bearer, id="e2")) == ["e2", "e2"]
    assert ids(listed(service, bearer, id="e2", source="svc")) == ["e2"]
    assert ids(listed(service, bearer, id="e3")) == []
    at = {name: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - s)) for name, s in (("a", 60), ("b", 1))}
    assert ids(listed(service, bearer, feature="scans", **{"from": at["a"], "to": at["b"]})) == ["e2", "e2", "e1"]
    assert ids(listed(service, bearer, feature="scans", to=at["a"])) == []


def test_another_organisation_sees_nothing_of_it(service: Running, own: str) -> None:
    other = f"{own}-b"
    service.track(org_id=other, feature="api_requests")
    seed(service, own, "mine")
    seed(service, other, "theirs")
    assert ids(listed(service, token(own), feature="scans")) == ["mine"]
    assert ids(listed(service, token(other), feature="scans")) == ["theirs"]
    assert ids(listed(service, token(own, ADMIN), feature="scans", org_id=other)) == ["theirs"]


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
