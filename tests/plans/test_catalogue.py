"""Catalogues: what a good file becomes, how plans are looked up, and that the shipped files are what they say."""

import re
from dataclasses import FrozenInstanceError
from importlib import resources
from random import Random
from typing import Any, Final

import pytest

from plans.catalogue import (
    KEEP,
    Catalogue,
    CatalogueError,
    Feature,
    Override,
    nearest,
    parse,
    plan_with_room,
    rules_with,
)
from plans.limits import OnLimit, Rule
from plans.periods import Reset
from plans.subwindows import Per, RateLimit, SubWindow
from plans.tiers import PriceModel, Pricing, Tier
from tests.house.repo import ROOT

SHIPPED = sorted(
    entry.name for entry in resources.files("plans").joinpath("catalogs").iterdir() if entry.name.endswith(".toml")
)

SMALL = """
version = 3
currency = "eur"
default_plan = "basic"
default_feature = "calls"

[features.calls]
title = "Calls"
unit = "call"
stripe_meter_event = "calls_over"
overage_price_minor = 5
overage_per = 100

[features.exports]
title = "Exports"
unit = "export"

[plans.basic]
title = "Basic"
reset = "anniversary"
on_limit = "block"
price_minor = 0
features.calls = { limit = 100 }
features.exports = { enabled = false }

[plans.large]
title = "Large"
reset = "calendar"
on_limit = "overage"
price_minor = 9900
stripe_price_id = "price_large_monthly"
features.calls = { limit = 1000 }
features.exports = { limit = 10, on_limit = "cap" }

[plans.medium]
title = "Medium"
reset = "calendar"
on_limit = "overage"
price_minor = 4900
stripe_price_env = "STRIPE_PRICE_MEDIUM"
features.calls = { limit = 500 }
features.exports = { limit = 0 }

[plans.own]
title = "Own"
reset = "calendar"
on_limit = "overage"
price_minor = "custom"
features.calls = { limit = "unlimited" }
features.exports = { limit = "unlimited", enabled = true }
"""


def shipped(name: str) -> Catalogue:
    return parse(resources.files("plans").joinpath("catalogs", name).read_text(encoding="utf-8"), name)


def small(text: str = SMALL) -> Catalogue:
    return parse(text, "small.toml")


def test_a_file_becomes_features_with_their_prices() -> None:
    assert dict(small().features) == {
        "calls": Feature(
            "calls", "Calls", "call", "calls_over", overage_price_minor=5, overage_per=100,
            pricing=Pricing(PriceModel.PACKAGE, (Tier(None, 5, 100),)),
        ),
        "exports": Feature("exports", "Exports", "export"),
    }  # fmt: skip


def test_a_file_becomes_plans_with_a_rule_for_each_feature() -> None:
    plans = {name: (plan.reset, dict(plan.rules)) for name, plan in small().plans.items()}
    overage, block, cap = OnLimit.OVERAGE, OnLimit.BLOCK, OnLimit.CAP
    calendar = Reset.CALENDAR
    assert plans == {
        "basic": (
            Reset.ANNIVERSARY,
            {"calls": Rule(100, block), "exports": Rule(0, block, enabled=False)},
        ),
        "large": (calendar, {"calls": Rule(1000, overage), "exports": Rule(10, cap)}),
        "medium": (calendar, {"calls": Rule(500, overage), "exports": Rule(0, overage)}),
        "own": (calendar, {"calls": Rule(None, overage), "exports": Rule(None, overage)}),
    }


def test_a_plan_has_its_price_and_where_stripe_has_it() -> None:
    prices = {
        plan.name: (plan.title, plan.price_minor, plan.stripe_price_env, plan.stripe_price_id)
        for plan in small().plans.values()
    }
    assert prices == {
        "basic": ("Basic", 0, None, None),
        "large": ("Large", 9900, None, "price_large_monthly"),
        "medium": ("Medium", 4900, "STRIPE_PRICE_MEDIUM", None),
        "own": ("Own", None, None, None),
    }


def test_a_file_says_its_version_currency_and_defaults() -> None:
    catalogue = small()
    head = (catalogue.version, catalogue.currency, catalogue.default_plan, catalogue.default_feature)
    assert head == (3, "eur", "basic", "calls")


def test_a_byte_order_mark_before_the_text_is_no_fault() -> None:
    assert small("\ufeff" + SMALL) == small()


@pytest.mark.parametrize("attribute", ["features", "plans"])
def test_a_catalogue_takes_no_new_entries(attribute: str) -> None:
    with pytest.raises(TypeError):
        getattr(small(), attribute)["new"] = None


def test_a_plan_takes_no_other_rules() -> None:
    plan: Any = small().plans["basic"]
    with pytest.raises(TypeError):
        plan.rules["calls"] = Rule(None)
    with pytest.raises(FrozenInstanceError):
        plan.price_minor = 1


def _shuffled(text: str, seed: int) -> str:
    """The same content: tables in another order, keys too, other layout, comments everywhere."""
    random = Random(seed)
    head, *tables = [block.strip().splitlines() for block in text.strip().split("\n\n")]
    random.shuffle(tables)
    for block in (head, *tables):
        first = block[:1] if block[0].startswith("[") else []
        lines = block[len(first) :]
        random.shuffle(lines)
        block[:] = [*first, *lines]
    return "\n# a comment\n\n".join("\n".join(f"  {line} # said" for line in block) for block in (head, *tables))


@pytest.mark.parametrize("seed", range(5))
def test_comments_layout_and_order_do_not_change_the_digest(seed: int) -> None:
    other = _shuffled(SMALL, seed)
    assert other != SMALL
    assert small(other).digest == small().digest


def test_a_default_written_out_does_not_change_the_digest() -> None:
    assert small(SMALL.replace("{ limit = 100 }", "{ limit = 100, enabled = true }")).digest == small().digest


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("version = 3", "version = 4"),
        ('"eur"', '"usd"'),
        ('default_plan = "basic"', 'default_plan = "own"'),
        ('default_feature = "calls"', 'default_feature = "exports"'),
        ('title = "Calls"', 'title = "Requests"'),
        ("overage_price_minor = 5", "overage_price_minor = 6"),
        ("overage_per = 100", "overage_per = 10"),
        ("calls_over", "calls_above"),
        ("{ limit = 100 }", "{ limit = 101 }"),
        ("{ limit = 100 }", '{ limit = "unlimited" }'),
        ("{ limit = 100 }", "{ limit = 100, enabled = false }"),
        ('"cap"', '"block"'),
        ('"anniversary"', '"calendar"'),
        ('on_limit = "block"', 'on_limit = "overage"'),
        ("price_minor = 9900", "price_minor = 9901"),
        ('"custom"', "0"),
        ("price_large_monthly", "price_large_yearly"),
        ("STRIPE_PRICE_MEDIUM", "STRIPE_PRICE_PRO"),
        ("[plans.own]", "[plans.own_terms]"),
    ],
)
def test_whatever_the_file_says_is_in_the_digest(before: str, after: str) -> None:
    changed = SMALL.replace(before, after)
    assert changed != SMALL
    assert small(changed).digest != small().digest


def test_the_digest_of_a_file_stays_what_earlier_releases_stored() -> None:
    assert small().digest == "90b398fbc1e2103ed86235783b54da39dc8befab394d40c537797aeda1fe1034"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_catalogue_parses(name: str) -> None:
    assert shipped(name).plans


def test_the_default_catalogue_grants_what_is_documented() -> None:
    plans = {
        name: {feature: rule.limit for feature, rule in plan.rules.items()}
        for name, plan in shipped("scorpius.toml").plans.items()
    }
    assert plans == {
        "free": {"scans": 10, "wallet_checks": 100, "api_requests": 1_000},
        "professional": {"scans": 1_000, "wallet_checks": 10_000, "api_requests": 50_000},
        "enterprise": {"scans": None, "wallet_checks": None, "api_requests": None},
    }


def test_the_default_catalogue_counts_and_bills_what_is_above_a_limit() -> None:
    catalogue = shipped("scorpius.toml")
    rules = [rule for plan in catalogue.plans.values() for rule in plan.rules.values()]
    assert {(rule.on_limit, rule.enabled) for rule in rules} == {(OnLimit.OVERAGE, True)}
    for feature in catalogue.features.values():
        assert feature.stripe_meter_event
        assert feature.overage_price_minor


def test_the_default_catalogue_resets_by_calendar_month_and_starts_free() -> None:
    catalogue = shipped("scorpius.toml")
    assert {plan.reset for plan in catalogue.plans.values()} == {Reset.CALENDAR}
    assert (catalogue.default_plan, catalogue.default_feature) == ("free", "api_requests")
    assert catalogue.plans["free"].price_minor == 0


def test_without_overrides_the_rules_are_the_plans() -> None:
    plan = small().plans["large"]
    assert rules_with(plan, {}) == dict(plan.rules)


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        (Override(), Rule(10, OnLimit.CAP)),
        (Override(limit=25), Rule(25, OnLimit.CAP)),
        (Override(limit=0), Rule(0, OnLimit.CAP)),
        (Override(limit=None), Rule(None, OnLimit.CAP)),
        (Override(limit=KEEP, on_limit=OnLimit.BLOCK), Rule(10, OnLimit.BLOCK)),
        (Override(enabled=False), Rule(10, OnLimit.CAP, enabled=False)),
        (Override(5, OnLimit.OVERAGE, enabled=True), Rule(5, OnLimit.OVERAGE)),
    ],
)
def test_an_override_replaces_only_what_it_names(override: Override, rule: Rule) -> None:
    plan = small().plans["large"]
    assert rules_with(plan, {"exports": override}) == {"calls": Rule(1000, OnLimit.OVERAGE), "exports": rule}


def test_an_override_can_switch_a_feature_on() -> None:
    rules = rules_with(small().plans["basic"], {"exports": Override(limit=5, enabled=True)})
    assert rules["exports"] == Rule(5, OnLimit.BLOCK, enabled=True)


def test_an_override_of_a_feature_the_plan_does_not_know_has_no_effect() -> None:
    plan = small().plans["large"]
    assert rules_with(plan, {"gone": Override(limit=5)}) == dict(plan.rules)


@pytest.mark.parametrize(
    ("plan", "feature", "used", "other"),
    [
        ("basic", "calls", 100, "medium"),
        ("basic", "calls", 499, "medium"),
        ("basic", "calls", 500, "large"),
        ("medium", "calls", 500, "large"),
        ("medium", "calls", 50, "basic"),
        ("large", "calls", 1000, "own"),
        ("own", "calls", 1000, None),
        ("basic", "exports", 0, "large"),
        ("basic", "exports", 10, "own"),
        ("basic", "gone", 0, None),
        ("gone", "calls", 0, "basic"),
    ],
    ids=[
        "the cheapest with room",
        "room for one more unit",
        "no room for one more",
        "not the plan itself",
        "a cheaper plan, where it has room",
        "a custom price comes last",
        "nobody has room",
        "not where the feature is off or the limit is 0",
        "capped plans have no room above the cap",
        "a feature nobody knows",
        "a plan that is gone",
    ],
)
def test_the_plan_to_move_to_is_the_cheapest_other_with_room(
    plan: str, feature: str, used: int, other: str | None
) -> None:
    assert plan_with_room(small(), plan, feature, used) == other


def test_a_plan_has_room_when_all_of_the_units_fit() -> None:
    assert plan_with_room(small(), "basic", "calls", 5, 495) == "medium"
    assert plan_with_room(small(), "basic", "calls", 5, 496) == "large"


def test_of_plans_at_one_price_the_first_name_is_the_one_to_move_to() -> None:
    catalogue = small(SMALL.replace("9900", "4900").replace("[plans.large]", "[plans.the_first_one]"))
    assert plan_with_room(catalogue, "basic", "calls", 100) == "medium"


def test_a_plan_that_leaves_the_feature_out_has_no_room_whatever_its_limit() -> None:
    catalogue = small(SMALL.replace("{ limit = 0 }", "{ limit = 50, enabled = false }"))
    assert plan_with_room(catalogue, "basic", "exports", 0) == "large"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("scan", "scans"),
        ("SCANS", "scans"),
        ("scnas", "scans"),
        ("api", "api_requests"),
        ("api_request", "api_requests"),
        ("wallet-checks", "wallet_checks"),
        ("tokens", None),
        ("", None),
        ("x" * 100_000, None),
    ],
)
def test_a_misspelt_name_has_this_nearest(name: str, meant: str | None) -> None:
    assert nearest(name, ["scans", "wallet_checks", "api_requests"]) == meant


def test_no_names_have_no_nearest() -> None:
    assert nearest("scans", []) is None


def test_nearest_gives_the_name_as_it_is_spelt() -> None:
    assert nearest("utc", ["UTC", "Europe/Paris"]) == "UTC"


def test_a_refused_catalogue_is_a_value_error_that_shows_every_fault() -> None:
    with pytest.raises(CatalogueError) as caught:
        small("version = 0")
    assert isinstance(caught.value, ValueError)
    assert str(caught.value).splitlines() == [str(fault) for fault in caught.value.faults]
    assert str(caught.value).splitlines()[0] == (
        "small.toml: version: 0 is less than 1. Give a whole number from 1, raised with every change."
    )


HANDBOOK: Final = re.findall(
    r"```toml\n(.*?)```", (ROOT / "docs" / "operations.md").read_text(encoding="utf-8"), re.DOTALL
)
"""Every catalogue that the handbook shows a part of."""


def shown_with(word: str) -> str:
    """The part that speaks of `word`."""
    (part,) = (part for part in HANDBOOK if word in part)
    return str(part)


def test_the_prices_that_the_handbook_shows_are_read() -> None:
    shown = shown_with("overage_model")
    named = re.sub(r"^(\[features\.(\w+)\])$", r'\1\ntitle = "\2"\nunit = "unit"', shown, flags=re.MULTILINE)
    head = 'version = 1\ncurrency = "usd"\ndefault_plan = "one"\ndefault_feature = "scans"\n'
    rules = '[plans.one]\ntitle = "One"\nreset = "calendar"\non_limit = "overage"\nprice_minor = 0\n'
    rules += "features = { scans = { limit = 1 }, tokens = { limit = 1 } }\n"
    models = {name: one.pricing.model for name, one in small(head + named + rules).features.items() if one.pricing}
    assert models == {"scans": PriceModel.PACKAGE, "tokens": PriceModel.GRADUATED}


def test_the_windows_rates_and_dimensions_that_the_handbook_shows_are_read() -> None:
    plan = 'title = "Free"\nreset = "calendar"\non_limit = "overage"\nprice_minor = 0\n'
    shown = shown_with("windows = ").replace("[plans.free]\n", f"[plans.free]\n{plan}")
    head = 'version = 1\ncurrency = "usd"\ndefault_plan = "free"\ndefault_feature = "scans"\n'
    catalogue = small(f'{head}[features.scans]\ntitle = "Scans"\nunit = "scan"\n{shown}')
    free = catalogue.plans["free"]
    assert dict(catalogue.dimensions) == {"actor": 200, "chain": 20}
    assert free.rate_limit == RateLimit(600, Per.MINUTE, 50)
    assert free.rules["scans"].windows == (SubWindow(100, Per.HOUR), SubWindow(500, Per.DAY, rolling=True))
