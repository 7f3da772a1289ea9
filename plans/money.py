"""Money: whole minor units of a currency, and the only place that rounds.

Amounts are added and multiplied exactly; where a price is for more than one unit, its share is rounded here, once a
line, halves away from zero.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Final

_DIGITS: Final[Mapping[int, str]] = {
    0: "bif clp djf gnf isk jpy kmf krw pyg rwf ugx uyi vnd vuv xaf xof xpf",
    3: "bhd iqd jod kwd lyd omr tnd",
    4: "clf uyw",
}
"""Currencies whose minor unit is not a hundredth (ISO 4217). The ariary and the ouguiya are divided by five and written
with two digits all the same; Stripe counts isk and ugx in hundredths, which is for whoever talks to Stripe."""

_DIGITS_OF: Final = dict(chain.from_iterable(zip(names.split(), repeat(n)) for n, names in _DIGITS.items()))


def minor_digits(currency: str) -> int:
    """How many decimal digits the minor unit of a currency (ISO 4217, lower case) has: jpy 0, usd 2, kwd 3."""
    return _DIGITS_OF.get(currency, 2)


def shown(amount_minor: int, currency: str) -> str:
    """An amount as people write it: 9900 usd is `99.00 USD`, 9900 jpy `9900 JPY`."""
    digits = minor_digits(currency)
    major, minor = divmod(abs(amount_minor), 10**digits)
    fraction = f".{minor:0{digits}d}" if digits else ""
    return f"{'-' if amount_minor < 0 else ''}{major}{fraction} {currency.upper()}"


def share(amount_minor: int, units: int, per: int) -> int:
    """What `units` cost where `amount_minor` is the price of `per` (1 or more) units; a half is rounded away from zero.

    The same as Stripe rounds a line of an invoice.
    """
    exact = amount_minor * units
    whole, rest = divmod(abs(exact), per)
    rounded = whole + (2 * rest >= per)
    return -rounded if exact < 0 else rounded


def step_of(currency: str) -> int:
    """What every amount that is charged is a multiple of, in minor units: 10 of currencies with three digits.

    https://docs.stripe.com/currencies#three-decimal: the last digit is 0, whatever a price says.
    """
    return 10 if minor_digits(currency) == 3 else 1  # noqa: PLR2004


_FINER: Final = 4
"""Digits that the price of one unit shows beyond the minor unit, at most."""


def unit_price(amount_minor: int, units: int, currency: str) -> str:
    """What one of `units` (1 or more) costs as a decimal number of the major unit: 4500 usd for 500 is `0.090`.

    With at least one digit beyond the minor unit, as prices of small things are written, and at most four; a half is
    rounded away from zero. For people to read: amounts are never made from it.
    """
    digits = minor_digits(currency)
    major, fraction = divmod(share(amount_minor * 10**_FINER, 1, units), 10 ** (digits + _FINER))
    shown_digits = f"{fraction:0{digits + _FINER}d}"
    return f"{major}.{shown_digits[: digits + 1]}{shown_digits[digits + 1 :].rstrip('0')}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a calculation: `units` at `price_minor` per `per` of them, and a fixed `flat_minor`.

    `packages` is how many packages of `per` were begun, where the price is for whole ones only. What it comes to is a
    multiple of `step`, rounded once.
    """

    units: int
    price_minor: int
    per: int = 1
    flat_minor: int = 0
    packages: int | None = None
    step: int = 1

    @property
    def amount_minor(self) -> int:
        """What the line comes to."""
        if self.packages is not None:
            return share(self.packages * self.price_minor + self.flat_minor, 1, self.step) * self.step
        return share(self.price_minor * self.units + self.flat_minor * self.per, 1, self.per * self.step) * self.step

    def __str__(self) -> str:
        """The arithmetic: `250 / 100 -> 3 x 20 = 60`."""
        return "".join(self._words())

    def _words(self) -> Iterator[str]:
        if self.packages is not None:
            yield f"{self.units} / {self.per} -> {self.packages} x {self.price_minor}"
        else:
            yield f"{self.units} x {self.price_minor}"
            yield f" / {self.per}" if self.per > 1 else ""
        yield f" + {self.flat_minor}" if self.flat_minor else ""
        yield f" = {self.amount_minor}"
