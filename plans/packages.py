"""Credits as they are sold: packages, and how much less a credit costs in a larger one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Offer(NamedTuple):
    """So many credits for one price, in minor units."""

    credits: int
    price_minor: int
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Package:
    """An offer in its catalogue's currency.

    `discount_percent` is how much less a credit costs than in the smallest package; whole percent, rounded down, so
    that no more is promised than is given.
    """

    credits: int
    price_minor: int
    title: str
    discount_percent: int


def packages_of(offers: Iterable[Offer]) -> dict[int, Package]:
    """The packages of a catalogue by their number of credits, the smallest first."""
    ordered = sorted(offers, key=lambda offer: offer.credits)
    return {
        one.credits: Package(
            one.credits, one.price_minor, one.title or f"{one.credits} credits", discount_percent(ordered[0], one)
        )
        for one in ordered
    }


def discount_percent(smallest: Offer, other: Offer) -> int:
    """Whole percent that a credit costs less in the other offer than in the smallest; negative: it costs more."""
    undiscounted = smallest.price_minor * other.credits
    return 100 * (undiscounted - other.price_minor * smallest.credits) // undiscounted
