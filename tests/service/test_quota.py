"""What an organisation may use, what its period comes to so far, and the same for clients to whom 0 is no limit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from metering.auth import ADMIN, BILLING_READ, USAGE_READ
from metering.store.keys import Keys
from tests.service.running import Running, problem, token
from tests.service.test_outlook import TEXT

PATHS = ("/v1/billing/quota", "/v1/billing/usage", "/api/billing/quota", "/api/billing/usage")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    plans: Path = tmp_path_factory.mktemp("plans") / "plans.toml"
    plans.write_text(TEXT)
    with Running(plans_file=str(plans)) as running:
        yield running


def asked(service: Running, org: str, path: str) -> dict[str, Any]:
    """The answer to a token of the organisation that may read billing alone."""
    with service.unchanged():
        response = service.call("GET", path, token(org, BILLING_READ))
    assert response.status_code == 200, response.text
    told: dict[str, Any] = response.json()
    return told


@pytest.fixture
def over(service: Running, org: str) -> str:
    """An organisation that used 15 scans where 10 are included."""
    service.track(org_id=org, feature="scans", quantity=15)
    return org


def test_a_quota_is_the_limit_and_what_is_left_of_it(service: Running, org: str) -> None:
    service.track(org_id=org, feature="calls", quantity=30)
    held = {"id": "r1", "org_id": org, "feature": "calls", "quantity": 20, "ttl_s": 600}
    service.call("POST", "/v1/reservations", token(org), json=held)
    told = asked(service, org, "/v1/billing/quota")
    assert (told["org_id"], told["plan"], told["reset_date"]) == (org, "free", told["period"]["end"])
    assert told["features"]["calls"] == {
        "limit": 100, "unlimited": False, "on_limit": "overage", "enabled": True, "windows": [],
        "current": 30, "reserved": 20, "remaining": 50,
    }  # fmt: skip
    assert set(told["features"]) == {"scans", "calls", "exports"}


def test_a_summary_says_how_usage_is_covered_and_what_it_costs(service: Running, over: str) -> None:
    told = asked(service, over, "/v1/billing/usage")
    charge = told["charges"]["scans"]
    assert (charge["included"], charge["credit"], charge["overage"]) == (10, 0, 5)
    assert charge["price"]["amount_minor"] == 5 * 50
    assert told["charges"]["exports"] == {"included": 0, "credit": 0, "overage": 0, "price": None}
    assert told["currency"] == "usd"
    assert told["bill"] == {"plan_minor": 0, "overage_minor": 250, "total_minor": 250}


def test_units_that_credits_paid_for_are_neither_included_nor_overage(service: Running, over: str) -> None:
    service.store.hset(Keys(64).record(over), mapping={"a:scans": "3", "x:scans": "2"})
    charge = asked(service, over, "/v1/billing/usage")["charges"]["scans"]
    assert (charge["included"], charge["credit"], charge["overage"]) == (10, 3, 2)
    assert charge["price"]["amount_minor"] == 2 * 50


def test_a_price_that_was_agreed_is_the_one_that_is_billed(service: Running, over: str) -> None:
    agreed = {
        "price_minor": 700,
        "overrides": {"scans": {"overage_model": "volume", "overage_tiers": [{"price_minor": 7}]}},
    }
    changed = service.call("PATCH", f"/v1/orgs/{over}", token(None, ADMIN), json=agreed)
    assert changed.status_code == 200, changed.text
    told = asked(service, over, "/v1/billing/usage")
    assert told["bill"] == {"plan_minor": 700, "overage_minor": 35, "total_minor": 735}


def test_a_summary_is_the_organisation_as_it_is_shown_elsewhere_and_more(service: Running, over: str) -> None:
    view = service.call("GET", "/usage", token(over)).json()
    for path in ("/v1/billing/usage", "/api/billing/usage"):
        told = asked(service, over, path)
        limits = [feature.pop("limit") for feature in told["features"].values()]
        assert limits == [feature["limit"] for feature in view["features"].values()]
        assert {name: told[name] for name in view} | {"features": None} == view | {"features": None}
        assert set(told) - set(view) == {"currency", "charges", "bill"}


@pytest.mark.parametrize("what", ["quota", "usage"])
def test_to_clients_of_older_paths_0_is_no_limit_and_null_is_nothing(service: Running, org: str, what: str) -> None:
    """S1: 0 means unlimited. A limit of 0 must not be read as no limit."""
    limits = {"scans": None, "calls": 0, "exports": 7}
    service.call("POST", "/billing/update", token(None, ADMIN), json={"org_id": org, "limits": limits})
    newer, older = (asked(service, org, f"{root}/billing/{what}") for root in ("/v1", "/api"))
    assert {name: feature["limit"] for name, feature in older["features"].items()} == {
        "scans": 0,
        "calls": None,
        "exports": 7,
    }
    assert {name: feature["limit"] for name, feature in newer["features"].items()} == limits
    assert {name: feature["unlimited"] for name, feature in older["features"].items()} == {
        "scans": True,
        "calls": False,
        "exports": False,
    }
    for told in (newer, older):
        assert [feature.pop("limit") for feature in told["features"].values()]
    assert newer == older


@pytest.mark.parametrize("path", PATHS)
def test_it_takes_the_scope_to_read_billing_and_an_organisation_that_is_there(
    service: Running, org: str, path: str
) -> None:
    told = problem(service.call("GET", path, token(org, BILLING_READ)), 404, "org-not-found")
    assert ("error" in told) == path.startswith("/api/")
    service.track(org_id=org, feature="scans")
    problem(service.call("GET", path, token(org, USAGE_READ)), 403, "forbidden")
    problem(service.call("GET", path, token(org), params={"feature": "scans"}), 422, "validation")
