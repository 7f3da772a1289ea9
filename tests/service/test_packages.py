"""The price list of credits: open to everybody, with what a credit costs and how much less that is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from metering.settings import Settings
from tests.plans.test_packages import PRICE_LIST
from tests.service.running import Running

SHOWN = [
    {
        "credits": number,
        "title": f"{number} credits",
        "price_minor": price_minor,
        "price": f"{price_minor // 100}.00 USD",
        "price_per_credit": each,
        "discount_percent": percent,
    }
    for number, price_minor, each, percent in PRICE_LIST
]


@pytest.fixture(scope="module")
def sold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service that sells credits."""
    text, _ = Settings().plans_text()
    text = text.replace('unit = "scan"', 'unit = "scan"\ncredits = 1', 1)
    for number, price_minor, _, _ in reversed(PRICE_LIST):
        text += f"\n[[credit_packages]]\ncredits = {number}\nprice_minor = {price_minor}\n"
    file: Path = tmp_path_factory.mktemp("plans") / "plans.toml"
    file.write_text(text, encoding="utf-8")
    with Running(plans_file=file) as service:
        yield service


def test_everybody_sees_what_credits_cost(sold: Running) -> None:
    answer = sold.call("GET", "/v1/credits/packages")
    assert (answer.status_code, answer.json()) == (200, {"currency": "usd", "data": SHOWN})


def test_the_older_path_shows_the_same_as_packages(sold: Running) -> None:
    answer = sold.call("GET", "/billing/credit-packages")
    assert (answer.status_code, answer.json()) == (200, {"currency": "usd", "packages": SHOWN})
    assert answer.headers["link"] == '</v1/credits/packages>; rel="successor-version"'


def test_without_packages_the_list_is_empty(service: Running) -> None:
    assert service.call("GET", "/v1/credits/packages").json() == {"currency": "usd", "data": []}
