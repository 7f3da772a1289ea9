"""GET /v1/orgs/{org_id}/export: every kind of record, true to what the other routes say, and whole."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metering.auth import ADMIN, KEYS, USAGE_WRITE
from tests.service.running import Running, problem, token

CALLER = token(None, ADMIN)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One that keeps history by team, and raw events."""
    file: Path = tmp_path_factory.mktemp("plans") / "plans.toml"
    file.write_text(Path("plans/catalogs/scorpius.toml").read_text() + "\n[dimensions]\nteam = 10\n")
    with Running(event_retention="24h", plans_file=str(file)) as running:
        yield running


def exported(service: Running, org: str) -> dict[str, list[Any]]:
    """The records by kind, whose number is the last line's."""
    answer = service.call("GET", f"/v1/orgs/{org}/export", CALLER)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert answer.headers["content-disposition"] == f'attachment; filename="{org}.ndjson"'
    *lines, last = map(json.loads, answer.text.splitlines())
    assert last == {"record": "end", "data": {"lines": len(lines)}}
    found = defaultdict(list)
    for line in lines:
        found[line["record"]].append(line["data"])
    return found


def test_it_holds_all_that_the_other_routes_tell(service: Running, org: str) -> None:
    for number in range(4):
        sent = {"org_id": org, "feature": "scans", "quantity": 20, "event_id": f"e{number}",
                "metadata": {"team": "red" if number else "blue"}}  # fmt: skip
        assert service.call("POST", "/usage/track", CALLER, json=sent).status_code == 200
    given = {"amount": 5, "reason": "sorry"}
    grant = service.call("POST", f"/v1/orgs/{org}/grants", CALLER, json=given).json()
    made = {"name": "collector", "scopes": [USAGE_WRITE]}
    key = service.call("POST", "/v1/keys", token(org, KEYS, USAGE_WRITE), json=made).json()
    found = exported(service, org)
    assert found["organisation"] == [service.call("GET", f"/v1/orgs/{org}", CALLER).json()]
    assert found["subscription"][0]["plan"] == "free"
    assert [one["key_id"] for one in found["api_key"]] == [key["key_id"]]
    assert key["key"] not in json.dumps(found)
    whole = [row for row in found["usage"] if not row["group"]]
    assert sum(row["value"] for row in whole) == found["organisation"][0]["features"]["scans"]["current"] == 80
    assert sum(row["overage"] for row in whole) == found["organisation"][0]["features"]["scans"]["overage"] == 70
    teams = {row["group"]["team"]: row["value"] for row in found["usage"] if row["group"]}
    assert teams == {"red": 60, "blue": 20}
    assert [(one["id"], one["reason"]) for one in found["grant"]] == [(grant["id"], "sorry")]
    assert [(line["type"], line["credits"]) for line in found["credit"]] == [("granted", 5)]
    events = {event["event_id"]: event["metadata"] for event in found["event"]}
    assert events == {f"e{n}": {"team": "red" if n else "blue"} for n in range(4)}
    granted = next(step for step in found["billing"] if step["type"] == "credits_granted")
    assert (granted["actor"], granted["details"]["reason"]) == ("tester", "sorry")


def test_pages_leave_nothing_out(service: Running, org: str) -> None:
    events = [{"org_id": org, "feature": "scans", "event_id": f"e{number}"} for number in range(700)]
    assert service.call("POST", "/v1/events", CALLER, json=events).status_code in {200, 207}
    found = exported(service, org)
    assert {event["event_id"] for event in found["event"]} == {event["event_id"] for event in events}
    assert len(found["event"]) == 700


def test_whom_there_is_not_has_none(service: Running) -> None:
    problem(service.call("GET", "/v1/orgs/nobody-here/export", CALLER), 404, "org-not-found")
