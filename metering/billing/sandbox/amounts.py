"""What a quantity costs by a price of Stripe's, as the lines that an invoice would show.

Everything is exact until a line is done; then it is rounded once, halves away from zero
(https://docs.stripe.com/billing/subscriptions/usage-based/pricing-models). A price is a plain dict as Stripe's API has
it (https://docs.stripe.com/api/prices/object), its tiers included.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from plans.money import minor_digits, share

_TENS: Final = frozenset({"bhd", "jod", "kwd", "omr", "tnd"})
"""Three-decimal currencies: Stripe takes amounts whose last digit is 0 (https://docs.stripe.com/currencies)."""

_HUNDREDS: Final = frozenset({"isk", "ugx"})
"""Currencies without decimals that Stripe counts in hundredths all the same; amounts are whole hundreds."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One line of an invoice: units, what it comes to in minor units, and the price of one unit where there is one."""

    quantity: int
    amount: int
    unit_amount_decimal: str | None
    words: str = ""


def pieces(price: Mapping[str, Any], quantity: int) -> list[Piece]:
    """The lines for `quantity` units (0 or more). No units are no line: flexible billing shows none of nothing."""
    if quantity <= 0:
        return []
    if price["billing_scheme"] == "per_unit":
        return [_plain(price, quantity)]
    if price["tiers_mode"] == "volume":
        return [_volume(price, quantity)]
    return list(_graduated(price, quantity))


def rounded(exact: Fraction, currency: str) -> int:
    """An exact amount of minor units as one that Stripe would charge; halves away from zero."""
    step = 10 if currency in _TENS else 100 if currency in _HUNDREDS else 1
    return share(exact.numerator, 1, exact.denominator * step) * step


def part(amount: int, seconds: int, whole: int, currency: str) -> int:
    """The share of `amount` that `seconds` of `whole` seconds have: a first period that is cut short."""
    return rounded(Fraction(amount * seconds, whole), currency)


def written(amount: int, currency: str) -> str:
    """An amount as a page shows it: `99.00 USD`."""
    digits = 2 if currency in _HUNDREDS else minor_digits(currency)
    major, minor = divmod(abs(amount), 10**digits)
    fraction = f".{minor:0{digits}d}" if digits else ""
    return f"{'-' if amount < 0 else ''}{major}{fraction} {currency.upper()}"


def _plain(price: Mapping[str, Any], quantity: int) -> Piece:
    """Each unit its price, or each package of units where the price is for packages."""
    unit = _decimal(price, "unit_amount")
    packed = price.get("transform_quantity")
    units = quantity
    if packed:
        size = int(packed["divide_by"])
        units = -(-quantity // size) if packed["round"] == "up" else quantity // size
    return Piece(quantity, rounded(unit * units, price["currency"]), price.get("unit_amount_decimal"))


def _volume(price: Mapping[str, Any], quantity: int) -> Piece:
    """All units the price of the tier that the quantity reaches, and its flat amount."""
    tier = next(tier for tier in price["tiers"] if tier["up_to"] is None or quantity <= tier["up_to"])
    exact = _decimal(tier, "unit_amount") * quantity + _decimal(tier, "flat_amount")
    return Piece(quantity, rounded(exact, price["currency"]), tier.get("unit_amount_decimal"))


def _graduated(price: Mapping[str, Any], quantity: int) -> Iterator[Piece]:
    """A line for each tier that the quantity enters, with the units in it and its flat amount."""
    below = 0
    for number, tier in enumerate(price["tiers"], 1):
        inside = (quantity if tier["up_to"] is None else min(quantity, tier["up_to"])) - below
        if inside <= 0:
            return
        exact = _decimal(tier, "unit_amount") * inside + _decimal(tier, "flat_amount")
        amount = rounded(exact, price["currency"])
        yield Piece(inside, amount, tier.get("unit_amount_decimal"), f"Tier {number}")
        below += inside


def _decimal(holder: Mapping[str, Any], name: str) -> Fraction:
    """An amount by its exact text of up to twelve decimals, or else by its whole number; 0 where neither is there."""
    text = holder.get(f"{name}_decimal")
    return Fraction(str(text)) if text is not None else Fraction(holder.get(name) or 0)
