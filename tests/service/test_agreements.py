"""Limits and prices of one organisation, with an end: set, shown, refused, and what projections make of them."""

from typing import Any, Final

import pytest

from metering.auth import ADMIN, BILLING_READ, USAGE_READ
from tests.service.running import Running, problem, token

LATER: Final = "2200-01-01T00:00:00Z"
SOON: Final = "2199-01-01T00:00:00Z"
TIERS: Final = [{"up_to": 2, "price_minor": 30}, {"price_minor": 7, "per": 2, "flat_minor": 100}]
SHOWN_TIERS: Final = [
    {"up_to": 2, "price_minor": 30, "per": 1, "flat_minor": 0},
    {"up_to": None, "price_minor": 7, "per": 2, "flat_minor": 100},
]


def agree(service: Running, org: str, **body: Any) -> dict[str, Any]:
    """PATCH the organisation, which must succeed; what is agreed with it."""
    response = service.call("PATCH", f"/v1/orgs/{org}", token(None, ADMIN), json=body)
    assert response.status_code == 200, response.text
    agreed: dict[str, Any] = response.json()["agreed"]
    return agreed


@pytest.fixture
def own(service: Running, org: str) -> str:
    """An organisation that is there, with nothing counted."""
    service.call("PUT", f"/v1/orgs/{org}", token(None, ADMIN), json={})
    return org


def test_an_organisation_has_limits_and_prices_of_its_own_until_they_end(service: Running, own: str) -> None:
    scans = {"limit": 50, "on_limit": "block", "overage_model": "graduated", "overage_tiers": TIERS}
    agreed = agree(service, own, overrides={"scans": scans | {"expires_at": LATER}}, price_minor=79_900)
    assert agreed == {
        "price_minor": 79_900,
        "price_expires_at": None,
        "rate_limit_expires_at": None,
        "overrides": {"scans": scans | {"overage_tiers": SHOWN_TIERS, "expires_at": LATER}},
    }
    view = service.call("GET", f"/v1/orgs/{own}", token(None, ADMIN)).json()
    assert (view["features"]["scans"]["limit"], view["features"]["scans"]["on_limit"]) == (50, "block")


def test_a_feature_is_set_anew_and_others_stay(service: Running, own: str) -> None:
    agree(service, own, overrides={"scans": {"limit": 50, "on_limit": "cap"}, "wallet_checks": {"enabled": False}})
    agreed = agree(service, own, overrides={"scans": {"limit": None}})
    assert agreed["overrides"] == {
        "scans": {"limit": None, "expires_at": None},
        "wallet_checks": {"enabled": False, "expires_at": None},
    }
    assert agree(service, own, overrides={"scans": None, "wallet_checks": {}})["overrides"] == {}


def test_one_end_for_all_that_is_agreed(service: Running, own: str) -> None:
    rate = {"events": 600, "per": "minute", "burst": 50}
    sent = {"org_id": own, "limits": {"scans": 50}, "rate_limit": rate, "overrides_expire_at": LATER}
    agreed = service.call("POST", "/billing/update", token(None, ADMIN), json=sent).json()["agreed"]
    assert (agreed["overrides"]["scans"]["expires_at"], agreed["rate_limit_expires_at"]) == (LATER, LATER)
    kept = agree(service, own, overrides={"wallet_checks": {"limit": 5, "expires_at": SOON}})
    assert [one["expires_at"] for one in kept["overrides"].values()] == [LATER, SOON]
    agreed = agree(service, own, limits={"scans": 60})
    assert agreed["overrides"] == {"scans": {"limit": 60, "expires_at": LATER}}
    agreed = agree(service, own, overrides_expire_at=None)
    assert (agreed["overrides"]["scans"]["expires_at"], agreed["rate_limit_expires_at"]) == (None, None)


def test_patch_makes_no_organisation(service: Running, org: str) -> None:
    problem(service.call("PATCH", f"/v1/orgs/{org}", token(None, ADMIN), json={}), 404, "org-not-found")


def test_what_is_agreed_is_for_those_who_have_to_do_with_billing(service: Running, own: str) -> None:
    agree(service, own, price_minor=5)
    shown = [
        service.call("GET", f"/v1/orgs/{own}", token(own, *scopes)).json()["agreed"]
        for scopes in ((USAGE_READ,), (USAGE_READ, BILLING_READ))
    ]
    assert (shown[0], shown[1]["price_minor"]) == (None, 5)


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({"overrides": {"scnas": {"limit": 1}}}, [("/overrides/scnas", "feature-unknown")]),
        ({"overrides": {"scans": {}}, "limits": {}}, [("/overrides", "conflict")]),
        ({"overrides": {"scans": {"price": 1}}}, [("/overrides/scans/price", "unknown-field")]),
        (
            {"overrides": {"scans": {"overage_per": 0}}},
            [("/overrides/scans/overage_per", "greater-than-equal")],
        ),
        ({"overrides": {"scans": {"overage_model": "flat"}}}, [("/overrides/scans/overage_price_minor", "price")]),
        ({"overrides": {"scans": {"overage_tiers": TIERS}}}, [("/overrides/scans/overage_model", "price")]),
        (
            {"overrides": {"scans": {"overage_model": "volume", "overage_tiers": TIERS[:1]}}},
            [("/overrides/scans/overage_tiers/0/up_to", "price")],
        ),
        (
            {"overrides": {"scans": {"expires_at": "2020-01-01T00:00:00Z"}}},
            [("/overrides/scans/expires_at", "not-in-the-future")],
        ),
        ({"overrides_expire_at": "2020-01-01T00:00:00Z"}, [("/overrides_expire_at", "not-in-the-future")]),
        ({"overrides_expire_at": "tomorrow"}, [("/overrides_expire_at", "timestamp")]),
        ({"price_minor": -1}, [("/price_minor", "greater-than-equal")]),
        ({"price_minor": 9.99}, [("/price_minor", "int-type")]),
    ],
)
def test_an_agreement_with_faults_changes_nothing(
    service: Running, own: str, body: dict[str, Any], faults: list[tuple[str, str]]
) -> None:
    with service.unchanged():
        response = service.call("PATCH", f"/v1/orgs/{own}", token(None, ADMIN), json=body)
        errors = problem(response, 422, "validation")["errors"]
    assert [(fault["pointer"], fault["code"]) for fault in errors] == faults


def test_projection_and_preview_take_the_prices_that_were_agreed(service: Running, own: str) -> None:
    """Two units above 10 are 2 x 30, one more is 1 x 7 / 2 and 100 once."""
    scans = {"overage_model": "graduated", "overage_tiers": TIERS}
    agree(service, own, overrides={"scans": scans}, price_minor=79_900)
    service.track(org_id=own, feature="scans", quantity=13)
    bearer = token(None, ADMIN)
    shown = service.call("GET", f"/v1/billing/projection?org_id={own}", bearer).json()
    assert [line["text"] for line in shown["features"]["scans"]["price"]["now"]["lines"]] == [
        "2 x 30 = 60",
        "1 x 7 / 2 + 100 = 104",
    ]
    assert shown["bill"]["now"] == {"plan_minor": 79_900, "overage_minor": 164, "total_minor": 80_064}
    preview = service.call("POST", "/v1/plans/professional/preview", bearer, json={"org_id": own}).json()
    bills = {side: preview["bill"][side]["plan_minor"] for side in ("present", "changed", "full_period")}
    assert bills == {"present": 79_900, "changed": 9900, "full_period": 9900}
    assert preview["drops_own_limits"] is True
    changed = preview["features"]["scans"]["changed"]["price"]
    assert changed["lines"][0]["price_minor"] != 30
    same = service.call("POST", "/v1/plans/free/preview", bearer, json={"org_id": own}).json()
    assert same["bill"]["full_period"]["plan_minor"] == 79_900


def test_what_is_agreed_is_in_the_audit_and_changes_the_etag(service: Running, own: str) -> None:
    bearer = token(None, ADMIN)
    before = service.call("GET", f"/v1/orgs/{own}", bearer).headers["etag"]
    agree(service, own, price_minor=5)
    after = service.call("GET", f"/v1/orgs/{own}", bearer).headers["etag"]
    agree(service, own, overrides_expire_at=LATER)
    assert len({before, after, service.call("GET", f"/v1/orgs/{own}", bearer).headers["etag"]}) == 3
    entries = service.call("GET", f"/v1/audit?org_id={own}&type=org_updated", bearer).json()["data"]
    assert "5" in [one["details"].get("price_minor") for one in entries], entries
