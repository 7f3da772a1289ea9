"""Amounts as Stripe counts them: minor units, but for two currencies that have none."""

from typing import Final

_HUNDREDTHS: Final = frozenset({"isk", "ugx"})
"""Have no smaller unit, and Stripe counts hundredths of them all the same: https://docs.stripe.com/currencies."""


def at_stripe(amount_minor: int, currency: str) -> int:
    """An amount in minor units of a currency (ISO 4217, lower case) in the units that Stripe takes and tells."""
    return amount_minor * (100 if currency in _HUNDREDTHS else 1)
