"""What a quantity costs: flat, by packages, or by tiers. All arithmetic is exact; `money` rounds once a line.

The models are those that Stripe sells by (per unit, package, graduated, volume).
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from plans.money import Line, step_of


class PriceModel(StrEnum):
    """How the price of a quantity is found."""

    FLAT = "flat"  # each unit its share of the price
    PACKAGE = "package"  # whole packages; one that is begun is paid
    GRADUATED = "graduated"  # each unit the price of the tier it lies in
    VOLUME = "volume"  # all units the price of the tier that the quantity reaches


@dataclass(frozen=True, slots=True)
class Tier:
    """Units up to and including `up_to` (None: all above) cost `price_minor` per `per`, and `flat_minor` once."""

    up_to: int | None
    price_minor: int
    per: int = 1
    flat_minor: int = 0


@dataclass(frozen=True, slots=True)
class Pricing:
    """A price. `tiers` ascend and the last has no end; FLAT and PACKAGE have that one alone."""

    model: PriceModel
    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class Charge:
    """What a quantity costs, in minor units, and the lines that add up to it."""

    units: int
    lines: tuple[Line, ...]

    @property
    def amount_minor(self) -> int:
        """The sum of the lines."""
        return sum(line.amount_minor for line in self.lines)


def charge(pricing: Pricing, units: int, currency: str) -> Charge:
    """What `units` (0 or more) cost in a currency. Raises ValueError.

    Nothing costs nothing: no line, and no tier's flat amount.
    """
    if units < 0:
        raise ValueError(f"{units} units have no price; give 0 or more")
    return Charge(units, _lines(pricing, units, step_of(currency)) if units else ())


def _lines(pricing: Pricing, units: int, step: int) -> tuple[Line, ...]:
    if pricing.model is PriceModel.GRADUATED:
        return _graduated(pricing.tiers, units, step)
    tier = next(tier for tier in pricing.tiers if tier.up_to is None or units <= tier.up_to)
    line = _line(tier, units, step)
    if pricing.model is PriceModel.PACKAGE:
        return (replace(line, packages=-(-units // tier.per)),)
    return (line,)


def _graduated(tiers: tuple[Tier, ...], units: int, step: int) -> tuple[Line, ...]:
    lines = []
    below = 0
    for tier in tiers:
        inside = (units if tier.up_to is None else min(units, tier.up_to)) - below
        if inside <= 0:
            break
        lines.append(_line(tier, inside, step))
        below += inside
    return tuple(lines)


def _line(tier: Tier, units: int, step: int) -> Line:
    return Line(units, tier.price_minor, tier.per, tier.flat_minor, step=step)
