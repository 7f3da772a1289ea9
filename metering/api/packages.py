"""The price list of credits: GET /v1/credits/packages."""

from typing import Any

from metering.api.route import Call, Reply, json_reply
from plans.money import shown, unit_price
from plans.packages import Package


async def list_packages(call: Call) -> Reply:
    """The packages on sale."""
    catalogue = call.services.catalogue
    views = [_view(one, catalogue.currency) for one in catalogue.packages.values()]
    return json_reply({"currency": catalogue.currency, "data": views})


def older_list(told: dict[str, Any]) -> dict[str, Any]:
    """The answer at `/billing/credit-packages`."""
    return {"currency": told["currency"], "packages": told["data"]}


def _view(package: Package, currency: str) -> dict[str, Any]:
    return {
        "credits": package.credits,
        "title": package.title,
        "price_minor": package.price_minor,
        "price": shown(package.price_minor, currency),
        "price_per_credit": unit_price(package.price_minor, package.credits, currency),
        "discount_percent": package.discount_percent,
    }
