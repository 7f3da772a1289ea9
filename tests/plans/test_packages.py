"""Credits as they are sold: what a credit costs in each package, and what a file may say of them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.catalogue import Catalogue, CatalogueError, parse
from plans.comparison import terms_of
from plans.money import unit_price
from plans.packages import Offer, Package, packages_of
from tests.house.repo import ROOT

HEAD = """
version = 1
currency = "usd"
default_plan = "free"
default_feature = "calls"
[features.calls]
title = "Calls"
unit = "call"
credits = 2
[features.notes]
title = "Notes"
unit = "note"
[plans.free]
title = "Free"
reset = "calendar"
on_limit = "block"
price_minor = 0
features = { calls = { limit = 0 }, notes = { limit = 5 } }
"""

SOLD = f"""{HEAD}
[[credit_packages]]
credits = 500
price_minor = 4500
[[credit_packages]]
credits = 100
price_minor = 1000
title = "Starter pack"
[credits]
low_mark = 50
"""

PRICE_LIST = [
    (100, 1_000, "0.100", 0),
    (500, 4_500, "0.090", 10),
    (1_000, 8_000, "0.080", 20),
    (2_000, 15_000, "0.075", 25),
    (5_000, 35_000, "0.070", 30),
]
"""Credits, price in cents, dollars a credit, percent less than in the smallest package."""


def read(text: str = SOLD) -> Catalogue:
    return parse(text, "plans.toml")


@pytest.mark.parametrize(("number", "price_minor", "each", "percent"), PRICE_LIST)
def test_a_larger_package_shows_what_a_credit_costs_and_how_much_less(
    number: int, price_minor: int, each: str, percent: int
) -> None:
    packages = packages_of(Offer(*row[:2]) for row in PRICE_LIST)
    assert packages[number] == Package(number, price_minor, f"{number} credits", percent)
    assert unit_price(price_minor, number, "usd") == each


@pytest.mark.parametrize(
    ("price_minor", "number", "currency", "each"),
    [
        (1_000, 100, "usd", "0.100"),
        (1_000, 3, "usd", "3.333333"),
        (2_000, 3, "usd", "6.666667"),
        (1, 20_000, "usd", "0.000001"),  # half a millionth, rounded up
        (1, 20_001, "usd", "0.000"),
        (999, 1, "usd", "9.990"),
        (15, 2, "jpy", "7.5"),
        (100, 100, "jpy", "1.0"),
        (1_000, 100, "kwd", "0.0100"),
    ],
)
def test_the_price_of_one_credit_is_a_decimal_of_the_major_unit(
    price_minor: int, number: int, currency: str, each: str
) -> None:
    assert unit_price(price_minor, number, currency) == each


AMOUNTS = st.integers(1, 10**8)


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=1, max_size=6, unique_by=lambda one: one[0]))
def test_no_more_discount_is_promised_than_is_given_and_less_than_one_percent_is_kept_back(
    rows: list[tuple[int, int]],
) -> None:
    packages = packages_of(Offer(*row) for row in rows)
    assert list(packages) == sorted(packages)
    smallest = next(iter(packages.values()))
    for one in packages.values():
        undiscounted, paid = smallest.price_minor * one.credits, one.price_minor * smallest.credits
        assert undiscounted * (100 - one.discount_percent) >= paid * 100
        assert undiscounted * (100 - one.discount_percent - 1) < paid * 100


def test_a_file_sells_packages_and_says_what_a_unit_costs_in_credits() -> None:
    catalogue = read()
    assert dict(catalogue.packages) == {
        100: Package(100, 1_000, "Starter pack", 0),
        500: Package(500, 4_500, "500 credits", 10),
    }
    assert catalogue.low_credits == 50
    assert {name: feature.credits for name, feature in catalogue.features.items()} == {"calls": 2, "notes": None}


def test_a_file_without_credits_sells_none() -> None:
    catalogue = read(HEAD)
    assert dict(catalogue.packages) == {}
    assert catalogue.low_credits is None


@pytest.mark.parametrize(
    ("before", "after"),
    [("credits = 2", "credits = 3"), ("credits = 500", "credits = 600"), ("= 4500", "= 4400"), ("= 50\n", "= 51\n")],
)
def test_what_a_file_says_of_credits_is_in_its_digest(before: str, after: str) -> None:
    assert before in SOLD
    assert read(SOLD.replace(before, after, 1)).digest != read().digest


def test_the_packages_that_the_handbook_shows_are_read() -> None:
    handbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (shown,) = (part for part in re.findall(r"```toml\n(.*?)```", handbook, re.DOTALL) if "credit_packages" in part)
    head = (
        HEAD.replace("features.calls]", "features.scans]").replace('"calls"', '"scans"').replace("calls =", "scans =")
    )
    text = head.replace("credits = 2\n", "").replace("[features.scans]", "[features.scans]\ncredits = 2", 1)
    catalogue = read(text + shown.split("\n\n", 1)[1])
    assert shown.startswith("[features.scans]\ncredits = 2 ")
    assert {one.credits: one.discount_percent for one in catalogue.packages.values()} == {100: 0, 500: 10}
    assert catalogue.packages[500].title == "Team pack"


def test_an_empty_table_of_credits_does_not_change_the_digest() -> None:
    assert read(f"{HEAD}[credits]\n").digest == read(HEAD).digest


def test_weights_and_packages_are_among_the_terms_that_versions_are_compared_by() -> None:
    terms = terms_of(read())
    assert terms["features.calls.credits"] == "2"
    assert "features.notes.credits" not in terms
    assert terms["credit_packages.500.price_minor"] == "4500"
    assert terms["credits.low_mark"] == "50"


@pytest.mark.parametrize(
    ("before", "after", "key", "reason", "cure"),
    [
        ("credits = 2", "credits = 0", "features.calls.credits", "0 is less than 1", "that one unit costs"),
        ("credits = 2", "credits = 9001", "features.calls.credits", "is more than 9000", "that one unit costs"),
        ("credits = 2", "credits = 0.5", "features.calls.credits", "0.5 is not a whole", "that one unit costs"),
        ("credits = 2", "credit = 2", "features.calls.credit", "is not a known key", "Did you mean credits?"),
        ("credits = 500", "", "credit_packages.0.credits", "is missing", "at least 1"),
        ("credits = 500", "credits = 0", "credit_packages.0.credits", "0 is less than 1", "at least 1"),
        ("credits = 500", f"credits = {10**9 + 1}", "credit_packages.0.credits", "is more than", "at least 1"),
        ("credits = 500", "credits = 100", "credit_packages.1.credits", "credit_packages.0 already", "one price"),
        ("price_minor = 4500", "", "credit_packages.0.price_minor", "is missing", "minor units"),
        ("= 4500", "= 45.0", "credit_packages.0.price_minor", "45.0 is not a whole", "minor units"),
        ("= 4500", "= 0", "credit_packages.0.price_minor", "0 is less than 1", "minor units"),
        ("= 4500", "= 100000000", "credit_packages.0.price_minor", "is more than 99999999", "minor units"),
        ("= 4500", "= 5001", "credit_packages.0.price_minor", "costs more than in the package of 100", "at most 5000"),
        ("= 4500", "= 4500\nprice = 4500", "credit_packages.0.price", "is not a known key", "price_minor?"),
        ('"Starter pack"', '""', "credit_packages.1.title", "'' is empty", "a short text"),
        ("low_mark = 50", "low_mark = 0", "credits.low_mark", "0 is less than 1", "balance is low"),
        ("low_mark = 50", "low = 50", "credits.low", "is not a known key", "Did you mean low_mark?"),
    ],
)
def test_what_cannot_be_sold_is_told(before: str, after: str, key: str, reason: str, cure: str) -> None:
    assert before in SOLD
    fault = refused(SOLD.replace(before, after, 1)).faults[0]
    assert fault.key == key
    assert reason in fault.reason
    assert cure in fault.cure


def test_credits_that_no_feature_takes_are_not_sold() -> None:
    (fault,) = refused(SOLD.replace("credits = 2\n", "", 1)).faults
    assert (fault.key, fault.reason) == ("credit_packages", "sells credits that no feature takes")


@pytest.mark.parametrize("odd", ["3", '"x"', "[3]", "{ credits = 1 }"])
def test_packages_of_the_wrong_shape_are_a_fault_of_the_file(odd: str) -> None:
    (fault,) = refused(f"credit_packages = {odd}\n{HEAD}").faults[:1]
    assert fault.key.startswith("credit_packages")


def test_all_faults_of_credits_are_told_at_once() -> None:
    bad = SOLD.replace("= 4500", "= 0").replace("low_mark = 50", "low_mark = -1").replace("credits = 2", "credits = 0")
    assert [fault.key for fault in refused(bad).faults] == [
        "features.calls.credits",
        "credit_packages.0.price_minor",
        "credits.low_mark",
    ]


def refused(text: str) -> CatalogueError:
    with pytest.raises(CatalogueError) as caught:
        read(text)
    return caught.value
