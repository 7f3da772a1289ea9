"""Which requests have a line in the log, and what it says."""

from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from metering import log
from metering.api.access import AccessLog
from metering.auth import ADMIN
from tests.service.running import Running, token

SAMPLE = 4


@pytest.fixture
def told() -> Iterator[list[Any]]:
    """What is logged, of every level. Afterwards the session's own setting is back."""
    log.configure("DEBUG")
    with capture_logs() as entries:
        yield entries
    log.configure("ERROR")


@pytest.mark.parametrize(("every", "lines"), [(0, 0), (1, 12), (4, 3), (5, 2)])
def test_one_counted_event_in_so_many_has_a_line_that_says_for_how_many_it_stands(
    told: list[Any], every: int, lines: int
) -> None:
    access = AccessLog(every=every)
    for _ in range(12):
        access.counted({"outcome": "recorded"}, "/usage/track", 0.01, "r")
    assert [entry["one_in"] for entry in told] == [every] * lines


@pytest.mark.parametrize(("seconds", "level"), [(0.0999, None), (0.1, "warning"), (9.0, "warning")])
def test_a_slow_event_always_has_a_line(told: list[Any], seconds: float, level: str | None) -> None:
    AccessLog(slow_ms=100).counted({}, "/usage/track", seconds, "r")
    assert [(entry["log_level"], entry["slow"]) for entry in told] == ([] if level is None else [(level, True)])


def test_a_worker_that_debugs_tells_every_event_quietly(told: list[Any]) -> None:
    access = AccessLog(slow_ms=100, every=2, all_of_them=True)
    for seconds in (0.01, 0.02, 0.5):
        access.counted({}, "/usage/track", seconds, "r")
    assert [entry["log_level"] for entry in told] == ["debug", "debug", "warning"]


@pytest.mark.parametrize(
    ("scope", "status", "outcome", "level"),
    [
        ({}, 200, "ok", "info"),
        ({"outcome": "capped"}, 200, "capped", "info"),
        ({"refused": "quota-exceeded"}, 403, "quota-exceeded", "info"),
        ({"refused": "overloaded"}, 503, "overloaded", "warning"),
        ({}, 503, "failed", "warning"),
        ({}, 499, "client_gone", "info"),
    ],
)
def test_a_line_says_what_became_of_the_request(
    told: list[Any], scope: dict[str, str], status: int, outcome: str, level: str
) -> None:
    AccessLog(slow_ms=1000).tell(scope, "GET", "/x", status, 0.01, "r")
    assert [(entry["outcome"], entry["log_level"]) for entry in told] == [(outcome, level)]


def test_what_streams_is_not_slow(told: list[Any]) -> None:
    AccessLog(slow_ms=1).tell({"streams": True}, "GET", "/x", 200, 99.0, "r")
    assert [entry["log_level"] for entry in told] == ["info"]


def test_what_cannot_name_an_organisation_is_not_shown_as_one(told: list[Any]) -> None:
    for org in ("a/b", "track", "\n", "", None):
        AccessLog().tell({"org": org}, "GET", "/x", 404, 0.0, "r")
    assert not [entry for entry in told if "org" in entry]


@pytest.fixture(scope="module")
def sampling() -> Iterator[Running]:
    """A service that tells one counted event in SAMPLE."""
    with Running(log_sample=SAMPLE, log_slow_ms=0) as running:
        yield running


def test_refusals_are_not_sampled_and_the_organisation_is_the_one_asked_for(sampling: Running, told: list[Any]) -> None:
    bearer = token(None, ADMIN)
    for number in range(2 * SAMPLE):
        assert sampling.track(org_id="org-a", feature="scans", event_id=f"e-{number}").status_code == 200
        assert sampling.track(org_id="org-a", feature="nope").status_code == 404
    sampling.call("GET", "/usage/org-b", bearer)
    sampling.call("GET", "/v1/billing/projection", token("org-c"))
    sampling.call("POST", "/billing/update", bearer, json={"org_id": "org-d", "plan": "free"})
    lines = [entry for entry in told if entry["event"] == "request"]
    assert [entry["outcome"] for entry in lines[: 2 * SAMPLE + 2]].count("recorded") == 2
    assert [entry["outcome"] for entry in lines].count("feature-unknown") == 2 * SAMPLE
    assert [entry["org"] for entry in lines[-3:]] == ["org-b", "org-c", "org-d"]
