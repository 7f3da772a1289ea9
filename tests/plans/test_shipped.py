"""The shipped catalogues grant and cost what is promised of each, figure by figure."""

from pathlib import Path
from typing import Any

import pytest

from metering.catalogues import DEFAULT, NUMBERED, SHIPPED, text_of
from plans.catalogue import Catalogue, parse
from plans.limits import OnLimit
from plans.periods import Reset


def shipped(name: str) -> Catalogue:
    return parse(*text_of(Path(name)))


def limits(catalogue: Catalogue) -> dict[str, dict[str, int | None]]:
    """Plan by plan, the limit of every feature."""
    return {
        name: {feature: rule.limit for feature, rule in plan.rules.items()} for name, plan in catalogue.plans.items()
    }


def prices(catalogue: Catalogue) -> dict[str, tuple[int | None, int | None]]:
    """Plan by plan, what a month and a year cost."""
    return {
        name: (plan.price_minor, plan.yearly.price_minor if plan.yearly else None)
        for name, plan in catalogue.plans.items()
    }


def variables(catalogue: Catalogue) -> list[str]:
    """The variables that name the monthly prices."""
    return [plan.stripe_price_env for plan in catalogue.plans.values() if plan.stripe_price_env]


def test_usage_based_has_four_tiers_in_euro() -> None:
    found = shipped("usage-based")
    assert found.currency == "eur"
    assert limits(found) == {
        "free": {"api_requests": 1_000},
        "growth": {"api_requests": 100_000},
        "scale": {"api_requests": 1_000_000},
        "enterprise": {"api_requests": None},
    }
    assert prices(found) == {
        "free": (0, None),
        "growth": (900, 9_000),
        "scale": (7_900, 79_000),
        "enterprise": (None, None),
    }
    assert found.packages
    assert found.plans["free"].includes == ("Basic API access",)


def test_automation_includes_tokens_calls_and_tasks() -> None:
    found = shipped("automation")
    unlimited: dict[str, Any] = dict.fromkeys(("tokens", "api_calls", "scraping_tasks"))
    assert limits(found) == {
        "unsubscribed": {"tokens": 0, "api_calls": 0, "scraping_tasks": 0},
        "basic": {"tokens": 100_000, "api_calls": 1_000, "scraping_tasks": 100},
        "pro": {"tokens": 1_000_000, "api_calls": 10_000, "scraping_tasks": 1_000},
        "enterprise": unlimited,
    }
    assert variables(found) == ["STRIPE_PRICE_BASIC", "STRIPE_PRICE_PRO", "STRIPE_PRICE_ENTERPRISE"]


def test_threatalytics_sells_calls_by_four_plans() -> None:
    found = shipped("threatalytics")
    assert limits(found) == {
        "free": {"api_requests": 100},
        "starter": {"api_requests": 500},
        "professional": {"api_requests": 5_000},
        "enterprise": {"api_requests": None},
    }
    assert [month for month, _ in prices(found).values()] == [0, 2_900, 9_900, 49_900]
    assert variables(found) == [f"VITE_STRIPE_PRICE_ID_{name}" for name in ("STARTER", "PROFESSIONAL", "ENTERPRISE")]
    assert "Priority support" in found.plans["starter"].includes
    assert found.plans["professional"].includes[1:] == ("Analytics", "Team collaboration", "API access")


def test_unillm_sells_credits_that_pay_for_every_request() -> None:
    found = shipped("unillm")
    assert [(one.credits, one.price_minor, one.discount_percent) for one in found.packages.values()] == [
        (100, 1_000, 0),
        (500, 4_500, 10),
        (1_000, 8_000, 20),
        (2_000, 15_000, 25),
        (5_000, 35_000, 30),
    ]
    assert found.features["api_requests"].credits == 1
    assert limits(found) == {"pay_as_you_go": {"api_requests": 0}}


@pytest.mark.parametrize("name", ["usage-based", "automation", "threatalytics", "unillm"])
def test_all_but_the_default_refuse_what_is_above_a_limit_and_count_by_calendar_month(name: str) -> None:
    found = shipped(name)
    rules = [rule for plan in found.plans.values() for rule in plan.rules.values()]
    assert {rule.on_limit for rule in rules} == {OnLimit.BLOCK}
    assert {plan.reset for plan in found.plans.values()} == {Reset.CALENDAR}


def test_each_goes_by_a_number_as_well() -> None:
    assert list(NUMBERED) == ["s0", "s1", "s2", "s3", "s4"]
    assert [NUMBERED[number] for number in NUMBERED] == list(SHIPPED)
    for number, name in NUMBERED.items():
        assert text_of(Path(number)) == text_of(Path(name))
    assert text_of(None) == text_of(Path(DEFAULT)) == text_of(Path("s2"))


def test_every_shipped_file_has_a_name() -> None:
    files = {file.stem for file in (Path(__file__).parents[2] / "plans" / "catalogs").glob("*.toml")}
    assert files == set(SHIPPED)
