"""What a catalogue file may say of credits: `[[credit_packages]]` and `[credits]`, and the faults between them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from plans.limits import LIMIT_MAX
from plans.packages import Offer, Package, discount_percent, packages_of

PACKAGES_MAX: Final = 50
"""Packages of a catalogue: more than any price list that people can read."""

WEIGHT_MAX: Final = 9_000
"""Credits that one unit may cost: the largest quantity of one event at that weight is still an exact double."""

CREDITS_MAX: Final = 10**9
"""Credits of one package: those of all open grants of an organisation add up to an exact double."""

AMOUNT_MAX: Final = 99_999_999
"""The largest amount that Stripe charges at once, in minor units (https://docs.stripe.com/currencies)."""

Fault: TypeAlias = tuple[tuple[str, ...], str, str]
"""A fault between tables: where, what, and how to put it right."""


class PackageTable(BaseModel):
    """One package of credits. What a credit costs in it, and its discount, are worked out."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    credits: int = Field(ge=1, le=CREDITS_MAX, description="a whole number of credits, at least 1")
    price_minor: int = Field(ge=1, le=AMOUNT_MAX, description="a whole number of minor units (cents), at least 1")
    title: str | None = Field(
        default=None, min_length=1, max_length=100, description="a short text to show people, or leave it out"
    )


class CreditsTable(BaseModel):
    """What holds for the credits of all organisations."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    low_mark: int | None = Field(
        default=None, ge=1, le=LIMIT_MAX, description="the number of credits below which a balance is low, at least 1"
    )


def packages_from(tables: Iterable[PackageTable]) -> dict[int, Package]:
    """The packages that checked tables say, by their number of credits."""
    return packages_of(Offer(table.credits, table.price_minor, table.title) for table in tables)


def package_faults(raw: Mapping[str, Any]) -> Iterator[Fault]:
    """Two packages of one size, one that costs more than the smaller ones, or credits that nothing takes.

    What has the wrong shape is told elsewhere.
    """
    tables = raw.get("credit_packages")
    offers = [(n, offer) for n, table in enumerate(_list(tables)) if (offer := _offer(table)) is not None]
    if not offers:
        return
    _, smallest = min(offers, key=lambda one: one[1].credits)
    seen: dict[int, int] = {}
    for number, offer in offers:
        path = ("credit_packages", str(number))
        if (first := seen.setdefault(offer.credits, number)) != number:
            reason = f"{offer.credits} credits are credit_packages.{first} already"
            yield (*path, "credits"), reason, "Give each number of credits one price."
        elif discount_percent(smallest, offer) < 0:
            dearest = smallest.price_minor * offer.credits // smallest.credits
            reason = f"a credit costs more than in the package of {smallest.credits}"
            yield (*path, "price_minor"), reason, f"Charge at most {dearest}: nobody buys it otherwise."
    if not _taken(raw.get("features")):
        cure = "Give a feature the number of credits that one unit costs: credits = 1."
        yield ("credit_packages",), "sells credits that no feature takes", cure


def _offer(table: object) -> Offer | None:
    """The offer of a table that has the right shape."""
    if not isinstance(table, dict):
        return None
    number, price_minor = table.get("credits"), table.get("price_minor")
    if type(number) is not int or type(price_minor) is not int or min(number, price_minor) < 1:
        return None
    return Offer(number, price_minor)


def _taken(features: object) -> bool:
    tables = features.values() if isinstance(features, dict) else ()
    return any(isinstance(table, dict) and "credits" in table for table in tables)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
