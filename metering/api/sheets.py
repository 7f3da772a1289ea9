"""Tables as CSV (RFC 4180) that a spreadsheet opens without running anything."""

import csv
import io
from collections.abc import Iterable
from typing import Final

Cell = str | int | None

_STARTS_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What spreadsheets take for the beginning of a formula (OWASP, CSV injection)."""


def sheet(head: Iterable[str], rows: Iterable[Iterable[Cell]]) -> bytes:
    """A header and rows in UTF-8, lines ended by CRLF. None is an empty cell; numbers stay numbers, also below zero.

    A text that a spreadsheet would run gets an apostrophe before it.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows([_harmless(cell) for cell in row] for row in rows)
    return text.getvalue().encode()


def _harmless(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_STARTS_FORMULA) else cell
