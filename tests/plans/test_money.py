"""Money: digits of currencies, the one rounding, and the lines of a calculation."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plans.limits import TOTAL_MAX
from plans.money import Line, minor_digits, share, shown


@pytest.mark.parametrize(
    ("currency", "digits"),
    [("usd", 2), ("eur", 2), ("jpy", 0), ("krw", 0), ("xof", 0), ("kwd", 3), ("bhd", 3), ("mga", 2), ("clf", 4)],
)
def test_a_minor_unit_has_the_digits_of_its_currency(currency: str, digits: int) -> None:
    assert minor_digits(currency) == digits


@pytest.mark.parametrize(
    ("amount_minor", "currency", "text"),
    [
        (9900, "usd", "99.00 USD"),
        (5, "eur", "0.05 EUR"),
        (-5, "eur", "-0.05 EUR"),
        (-1234, "usd", "-12.34 USD"),
        (9900, "jpy", "9900 JPY"),
        (0, "jpy", "0 JPY"),
        (1234, "kwd", "1.234 KWD"),
        (12, "kwd", "0.012 KWD"),
    ],
)
def test_an_amount_is_written_with_the_digits_of_its_currency(amount_minor: int, currency: str, text: str) -> None:
    assert shown(amount_minor, currency) == text


@pytest.mark.parametrize(
    ("amount_minor", "units", "per", "cost"),
    [
        (5, 30, 100, 2),  # 1.5: a half goes away from zero, where Python's own rounding would give 2 of 1.5 and 2.5
        (5, 50, 100, 3),
        (1, 49, 100, 0),
        (1, 50, 100, 1),
        (1, 1, 3, 0),
        (2, 1, 3, 1),
        (-1, 50, 100, -1),
        (1, -50, 100, -1),
        (7, 3, 1, 21),
        (0, 10**15, 7, 0),
    ],
)
def test_a_share_is_rounded_once_and_a_half_away_from_zero(amount_minor: int, units: int, per: int, cost: int) -> None:
    assert share(amount_minor, units, per) == cost


@given(st.integers(-TOTAL_MAX, TOTAL_MAX), st.integers(0, TOTAL_MAX), st.integers(1, TOTAL_MAX))
def test_a_share_is_never_off_by_more_than_a_half(amount_minor: int, units: int, per: int) -> None:
    exact = Fraction(amount_minor * units, per)
    found = share(amount_minor, units, per)
    assert abs(found - exact) <= Fraction(1, 2)
    assert share(-amount_minor, units, per) == -found


@pytest.mark.parametrize(
    ("line", "amount_minor", "text"),
    [
        (Line(7, 25), 175, "7 x 25 = 175"),
        (Line(250, 20, 100), 50, "250 x 20 / 100 = 50"),
        (Line(250, 20, 100, packages=3), 60, "250 / 100 -> 3 x 20 = 60"),
        (Line(10, 2, flat_minor=500), 520, "10 x 2 + 500 = 520"),
    ],
)
def test_a_line_shows_its_arithmetic(line: Line, amount_minor: int, text: str) -> None:
    assert (line.amount_minor, str(line)) == (amount_minor, text)
