"""Projection and what-if: figures from history, arithmetic that adds up, and nothing written."""

import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from metering.api.preview import Usage, preview_view
from metering.api.projection import projection_view
from metering.auth import ADMIN, BILLING_READ
from metering.store.claim import Claim
from metering.store.frames import day_text
from metering.store.keys import Keys
from metering.store.org import FeatureUsage, Org, Profile
from plans.catalogue import Override, parse
from plans.forecast import Seen
from plans.limits import OnLimit, Rule
from plans.periods import Period, Reset
from plans.windows import HOUR_MS
from tests.service.running import Running, problem, token

DAY: Final = 24 * HOUR_MS
MONTH: Final = Period(0, 30 * DAY)
NOW: Final = 10 * DAY

TEXT: Final = """
version = 1
currency = "usd"
default_plan = "free"
default_feature = "scans"

[features.scans]
title = "Scans"
unit = "scan"
overage_model = "graduated"
overage_tiers = [{ up_to = 10, price_minor = 50 }, { price_minor = 25, flat_minor = 100 }]
[features.calls]
title = "Calls"
unit = "call"
overage_price_minor = 20
overage_per = 100
[features.exports]
title = "Exports"
unit = "export"

[plans.free]
title = "Free"
reset = "calendar"
price_minor = 0
on_limit = "overage"
features = { scans = { limit = 10 }, calls = { limit = 100 }, exports = { limit = 1 } }

[plans.strict]
title = "Strict"
reset = "calendar"
price_minor = 4900
on_limit = "block"
features = { scans = { limit = 20 }, calls = { limit = 1000 }, exports = { enabled = false } }

[plans.own]
title = "Own"
reset = "calendar"
price_minor = "custom"
on_limit = "overage"
features = { scans = { limit = "unlimited" }, calls = { limit = "unlimited" }, exports = { limit = "unlimited" } }
"""
CATALOGUE: Final = parse(TEXT, "plans.toml")


def org_of(plan: str = "free", *, overrides: dict[str, Override] | None = None, **figures: tuple[int, int]) -> Org:
    """An organisation with these units and overage of each feature."""
    rules = CATALOGUE.plans[plan].rules
    features = {name: FeatureUsage(rule, *figures.get(name, (0, 0))) for name, rule in rules.items()}
    profile = Profile(Reset.CALENDAR, "UTC", 0, b"", 0, 0, overrides or {})
    return Org("org-1", plan, MONTH, Claim(0, "197001", "0", "", 1, 1), features, profile)


def seen_of(org: Org, recent: int = 0) -> dict[str, Seen]:
    return {name: Seen(usage.used, MONTH, NOW, recent, 7 * DAY) for name, usage in org.features.items()}


def test_a_projection_shows_two_estimates_and_what_they_cost_line_by_line() -> None:
    org = org_of(scans=(15, 5))
    view = projection_view(org, CATALOGUE, seen_of(org, recent=7))
    scans = view["features"]["scans"]
    assert scans["estimates"] == {"by_period": 45, "by_last_7_days": 35}
    assert scans["projected"] == {"low": 35, "expected": 40, "high": 45}
    assert scans["overage"] == {"now": 5, "low": 25, "expected": 30, "high": 35}
    assert [line["text"] for line in scans["price"]["expected"]["lines"]] == ["10 x 50 = 500", "20 x 25 + 100 = 600"]
    assert (scans["price"]["expected"]["amount_minor"], scans["price"]["expected"]["amount"]) == (1100, "11.00 USD")
    assert scans["price"]["now"]["lines"][0]["text"] == "5 x 50 = 250"
    assert (scans["limit_reached_at"], scans["blocked"]) == (None, "no")
    assert view["bill"]["now"] == {"plan_minor": 0, "overage_minor": 250, "total_minor": 250}
    assert view["basis"] == {"elapsed_s": 864_000, "period_s": 2_592_000, "recent_s": 604_800}
    assert view["as_of"] == "1970-01-11T00:00:00Z"


def test_a_projection_says_when_a_limit_is_reached_and_what_is_turned_away() -> None:
    org = org_of("strict", scans=(10, 0), exports=(3, 0))
    view = projection_view(org, CATALOGUE, seen_of(org, recent=7))
    scans, exports = view["features"]["scans"], view["features"]["exports"]
    assert scans["projected"] == {"low": 20, "expected": 20, "high": 20}  # 30 are expected, 20 fit
    assert (scans["blocked"], scans["limit_reached_at"]) == ("later", "1970-01-21T00:00:00Z")
    assert (exports["blocked"], exports["projected"]["high"], exports["enabled"]) == ("now", 3, False)
    assert view["bill"]["expected"] == {"plan_minor": 4900, "overage_minor": 0, "total_minor": 4900}


def test_what_reservations_keep_is_room_that_nobody_else_has() -> None:
    org = org_of("strict", scans=(10, 0))
    held = replace(org, features={"scans": replace(org.features["scans"], held=10)})
    assert projection_view(held, CATALOGUE, seen_of(held, recent=7))["features"]["scans"]["blocked"] == "now"
    side = previewed(held, "own", scans=Usage(10, 0, 30, held=10))["features"]["scans"]["present"]
    assert (side["remaining"], side["blocked"]) == (0, "now")


def test_what_is_not_sold_or_by_agreement_has_no_price() -> None:
    org = org_of("own", exports=(5, 2))
    view = projection_view(org, CATALOGUE, seen_of(org))
    assert view["features"]["exports"]["price"] is None
    assert view["bill"]["now"] == {"plan_minor": None, "overage_minor": 0, "total_minor": None}


def test_an_organisation_on_a_plan_that_the_catalogue_dropped_is_projected_all_the_same() -> None:
    org = org_of(scans=(15, 5))
    gone = Org(org.org_id, "gone", org.period, org.claim, {"old": FeatureUsage(Rule(5), 9, 4)}, org.profile)
    view = projection_view(gone, CATALOGUE, {"old": Seen(9, MONTH, NOW, 0, 7 * DAY)})
    assert view["features"]["old"]["price"] is None
    assert view["bill"]["now"]["plan_minor"] is None
    empty = Org(org.org_id, "free", org.period, org.claim, {}, org.profile)
    assert projection_view(empty, CATALOGUE, {})["features"] == {}


def test_amounts_beyond_what_json_holds_exactly_are_left_out() -> None:
    huge = 2**53 - 1
    org = org_of(scans=(huge, huge - 10))
    view = projection_view(org, CATALOGUE, seen_of(org))
    price = view["features"]["scans"]["price"]["now"]
    assert (price["amount_minor"], price["lines"][1]["amount_minor"]) == (None, None)
    assert price["lines"][0]["amount_minor"] == 500
    assert view["bill"]["now"]["total_minor"] is None


def previewed(org: Org, plan: str, *supposed: str, **usages: Usage) -> dict[str, Any]:
    return preview_view(org, CATALOGUE.plans[plan], CATALOGUE, usages, supposed)


def test_a_preview_holds_usage_against_the_other_plan() -> None:
    org = org_of(scans=(15, 5), exports=(3, 2), overrides={"scans": Override(10)})
    view = previewed(org, "strict", scans=Usage(15, 5, 40), calls=Usage(0, 0, 250), exports=Usage(3, 2, 3))
    scans = view["features"]["scans"]
    picked = {
        side: {name: scans[side][name] for name in ("limit", "remaining", "blocked", "projected", "overage")}
        for side in ("present", "changed", "full_period")
    }
    assert picked == {
        "present": {"limit": 10, "remaining": 0, "blocked": "no", "projected": 40, "overage": 30},
        # What has accrued stays; the new plan refuses what does not fit.
        "changed": {"limit": 20, "remaining": 5, "blocked": "later", "projected": 20, "overage": 5},
        "full_period": {"limit": 20, "remaining": 5, "blocked": "later", "projected": 20, "overage": 0},
    }
    assert [line["text"] for line in scans["changed"]["price"]["lines"]] == ["5 x 50 = 250"]
    assert [line["text"] for line in view["features"]["calls"]["present"]["price"]["lines"]] == [
        "150 / 100 -> 2 x 20 = 40"
    ]
    assert (view["blocked"], view["drops_own_limits"]) == (["exports"], True)
    assert view["bill"] == {
        "present": {"plan_minor": 0, "overage_minor": 1140, "total_minor": 1140},
        "changed": {"plan_minor": 4900, "overage_minor": 250, "total_minor": 5150},
        "full_period": {"plan_minor": 4900, "overage_minor": 0, "total_minor": 4900},
    }


def test_a_preview_of_the_present_plan_keeps_the_organisations_own_limits() -> None:
    org = org_of(scans=(15, 5), overrides={"scans": Override(limit=12)})
    own = Org(
        org.org_id, "free", MONTH, org.claim, {"scans": FeatureUsage(Rule(12, OnLimit.OVERAGE), 15, 3)}, org.profile
    )
    view = previewed(own, "free", scans=Usage(15, 3, 15))
    assert view["features"]["scans"]["changed"]["limit"] == 12
    assert view["drops_own_limits"] is False


def test_supposed_quantities_are_a_whole_period_under_each_plan() -> None:
    view = previewed(org_of(scans=(15, 5)), "own", "scans", scans=Usage(30, 0, 30))
    scans = view["features"]["scans"]
    assert (scans["present"]["overage"], scans["changed"]["overage"], scans["changed"]["remaining"]) == (20, 0, None)
    assert view["bill"]["present"]["total_minor"] == 500 + 350
    assert view["bill"]["changed"]["total_minor"] is None


# ── over HTTP ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with the catalogue above."""
    plans: Path = tmp_path_factory.mktemp("plans") / "plans.toml"
    plans.write_text(TEXT)
    with Running(plans_file=plans) as running:
        yield running


@pytest.fixture
def used(priced: Running, org: str) -> str:
    """An organisation with 15 scans of 10, and a week of history from before this hour."""
    assert priced.track(org_id=org, feature="scans", quantity=15).status_code == 200
    hour = int(time.time()) * 1000 // HOUR_MS - 48
    key = Keys(64).history(org, "scans", day_text(hour // 24))
    priced.store.hincrby(key, f"{hour % 24:02d}", 70)
    record = Keys(64).profile(org)
    created = int(priced.store.hget(record, "created") or 0)
    priced.store.hset(record, "created", str(created - 30 * DAY))
    return org


def preview(service: Running, bearer: str, plan: str, **body: Any) -> httpx2.Response:
    return service.call("POST", f"/v1/plans/{plan}/preview", bearer, json=body)


def test_a_projection_is_made_from_history(priced: Running, used: str) -> None:
    with priced.unchanged():
        view = priced.call("GET", "/v1/billing/projection", token(used, BILLING_READ)).json()
    scans = view["features"]["scans"]
    assert (scans["used"], scans["overage"]["now"]) == (15, 5)
    left_s = view["basis"]["period_s"] - view["basis"]["elapsed_s"]
    about = 15 + 85 * left_s / view["basis"]["recent_s"]
    assert abs(scans["estimates"]["by_last_7_days"] - about) <= 2
    assert 7 * 86_400 <= view["basis"]["recent_s"] < 7 * 86_400 + 3600
    for end in ("now", "low", "expected", "high"):
        price = scans["price"][end]
        assert price["amount_minor"] == sum(line["amount_minor"] for line in price["lines"])
        assert price["units"] == sum(line["units"] for line in price["lines"]) == scans["overage"][end]
        assert view["bill"][end]["overage_minor"] == price["amount_minor"]
    assert datetime.fromisoformat(view["as_of"]) <= datetime.fromisoformat(view["period"]["end"])


def test_a_young_organisation_has_an_estimate_only_when_there_is_an_hour_to_go_by(priced: Running, org: str) -> None:
    priced.track(org_id=org, feature="scans", quantity=3)
    view = priced.call("GET", f"/v1/billing/projection?org_id={org}", token(None, ADMIN)).json()
    assert view["features"]["scans"]["estimates"]["by_last_7_days"] is None
    assert view["basis"]["recent_s"] < 600


def test_a_preview_changes_nothing(priced: Running, used: str) -> None:
    with priced.unchanged():
        view = preview(priced, token(used, BILLING_READ), "strict").json()
    assert (view["plan"], view["plan_previewed"], view["blocked"]) == ("free", "strict", ["exports"])
    assert view["features"]["scans"]["present"]["overage"] >= 5
    assert priced.call("GET", f"/usage/{used}", token(used)).json()["plan"] == "free"


def test_a_preview_takes_quantities_instead(priced: Running, used: str) -> None:
    view = preview(priced, token(used), "own", quantities={"scans": 30, "calls": 0}).json()
    assert view["features"]["scans"]["present"]["price"]["amount_minor"] == 850
    assert view["features"]["calls"]["expected"] == 0


def test_a_preview_that_cannot_be_is_told(priced: Running, used: str) -> None:
    body = problem(preview(priced, token(used), "stricht"), 404, "plan-unknown")
    assert body["nearest"] == "strict"
    told = problem(preview(priced, token(used), "strict", quantities={"scnas": 1, "calls": 2}), 422, "validation")
    assert [(fault["pointer"], fault["code"]) for fault in told["errors"]] == [("/quantities/scnas", "feature-unknown")]
    for quantity in (-1, 2**53, 1.5, "5"):
        problem(preview(priced, token(used), "strict", quantities={"scans": quantity}), 422, "validation")
    problem(preview(priced, token(None, ADMIN), "strict", org_id=f"org-{secrets.token_hex(6)}"), 404, "org-not-found")


def test_the_catalogue_shows_how_overage_is_priced(priced: Running, used: str) -> None:
    shown = {one["name"]: one for one in priced.call("GET", "/v1/plans", token(used)).json()["features"]}
    assert shown["scans"]["overage_model"] == "graduated"
    assert shown["scans"]["overage_tiers"] == [
        {"up_to": 10, "price_minor": 50, "per": 1, "flat_minor": 0},
        {"up_to": None, "price_minor": 25, "per": 1, "flat_minor": 100},
    ]
    assert (shown["calls"]["overage_model"], shown["calls"]["overage_tiers"]) == ("package", [])
    assert shown["exports"]["overage_model"] is None
