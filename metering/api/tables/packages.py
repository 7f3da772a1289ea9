"""The price list of credits."""

from typing import Any, Final

from metering.api.alias import Alias
from metering.api.models.packages import OlderPackageList, PackageList
from metering.api.packages import list_packages, older_list
from metering.api.route import OPEN, Route

_PACKAGES: Final[list[dict[str, Any]]] = [
    {
        "credits": 100, "title": "100 credits", "price_minor": 1000, "price": "10.00 USD",
        "price_per_credit": "0.100", "discount_percent": 0,
    },
    {
        "credits": 500, "title": "500 credits", "price_minor": 4500, "price": "45.00 USD",
        "price_per_credit": "0.090", "discount_percent": 10,
    },
]  # fmt: skip

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/v1/credits/packages", "Packages of credits on sale", OPEN, "credits", list_packages,
        {200: PackageList},
        shows={"currency": "usd", "data": _PACKAGES},
        about="A price list: it needs no credentials.",
    ),
)  # fmt: skip

OLDER: Final = Alias(
    "GET", "/billing/credit-packages", "GET /v1/credits/packages",
    tells=older_list, answers={200: OlderPackageList}, shows={"currency": "usd", "packages": _PACKAGES},
)  # fmt: skip
