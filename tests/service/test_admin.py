"""All organisations, for those who look after them: filters, pages, usage by feature."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from metering.api.admin import LOOKED_AT_MAX, list_orgs
from metering.api.models.admin import OrgsQuery
from metering.api.route import Call
from metering.auth import ADMIN
from metering.store.org import Org
from tests.service.running import Running, problem, token

ORGS = {"a-free": "free", "a-pro": "professional", "b-free": "free", "b-pro": "professional", "c-big": "enterprise"}


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    with Running() as running:
        for name, plan in ORGS.items():
            told = {"org_id": name, "plan": plan}
            assert running.call("POST", "/billing/update", token(None, ADMIN), json=told).status_code == 200
        running.track(org_id="b-free", feature="scans", quantity=12)
        yield running


def walk(service: Running, path: str = "/v1/admin/orgs", **wanted: Any) -> list[dict[str, Any]]:
    """Every row of every page."""
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        params = wanted | ({"cursor": cursor} if cursor else {})
        answer = service.call("GET", path, token(None, ADMIN), params=params)
        assert answer.status_code == 200
        assert len(answer.json()["data"]) <= wanted.get("limit", 50) * 3
        found += answer.json()["data"]
        cursor = answer.json()["next_cursor"]
    return found


def names(rows: list[dict[str, Any]]) -> set[str]:
    """Their organisations, none of them twice."""
    found = [row["org_id"] for row in rows]
    assert len(found) == len(set(found))
    return set(found)


@pytest.mark.parametrize("limit", [1, 2, 50])
@pytest.mark.parametrize("path", ["/v1/admin/orgs", "/v1/admin/users", "/api/billing/admin/users"])
def test_every_organisation_is_on_one_page(service: Running, path: str, limit: int) -> None:
    assert names(walk(service, path, limit=limit)) == set(ORGS)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"plan": "free"}, {"a-free", "b-free"}),
        ({"starts": "a-"}, {"a-free", "a-pro"}),
        ({"plan": "free", "starts": "b"}, {"b-free"}),
        ({"status": "none"}, set(ORGS)),
        ({"status": "active"}, set()),
        ({"overdue": "true"}, set()),
        ({"overdue": "false"}, set(ORGS)),
    ],
)
def test_filters_let_through_what_fits_all_of_them(service: Running, wanted: Any, expected: set[str]) -> None:
    assert names(walk(service, limit=2, **wanted)) == expected


def test_a_row_has_usage_and_what_stripe_says(service: Running) -> None:
    (row,) = walk(service, starts="b-free")
    assert (row["features"]["scans"]["current"], row["overage_flagged"]) == (12, True)
    assert (row["subscription_status"], row["cancel_at_period_end"]) == (None, False)


class Endless:
    """More organisations than anybody has, of which no filter lets one through."""

    def __init__(self) -> None:
        self.asked = 0

    async def page(self, cursor: str | None, limit: int) -> tuple[list[Org], str | None]:
        del cursor
        self.asked += limit
        return [], f"0.org-{self.asked}"


async def test_a_request_looks_at_a_bounded_number_of_organisations() -> None:
    orgs = Endless()
    services: Any = SimpleNamespace(orgs=orgs)
    reply = await list_orgs(Call(services, {}, {}, query=OrgsQuery(limit=200, status="active")))
    assert json.loads(reply.body) == {"data": [], "next_cursor": f"0.org-{LOOKED_AT_MAX}"}
    assert orgs.asked == LOOKED_AT_MAX


def test_usage_has_a_row_for_each_feature_or_the_one_that_is_asked_for(service: Running) -> None:
    rows = walk(service, "/v1/admin/usage", limit=2)
    assert len(rows) == 3 * len(ORGS)
    assert names(walk(service, "/v1/admin/usage", feature="scans")) == set(ORGS)
    (scans,) = [row for row in rows if (row["org_id"], row["feature"]) == ("b-free", "scans")]
    del scans["period"]
    assert scans == {
        "org_id": "b-free", "plan": "free", "feature": "scans",
        "current": 12, "limit": 10, "remaining": 0, "percent": 120, "overage": 2,
    }  # fmt: skip


@pytest.mark.parametrize("wanted", [{"limit": 0}, {"cursor": "x"}, {"status": "A"}, {"starts": "/"}, {"who": "me"}])
def test_what_no_query_can_be_is_told(service: Running, wanted: dict[str, str]) -> None:
    problem(service.call("GET", "/v1/admin/orgs", token(None, ADMIN), params=wanted), 422, "validation")
