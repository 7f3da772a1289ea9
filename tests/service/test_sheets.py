"""CSV that every reader of RFC 4180 reads back, and that no spreadsheet runs."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.api.sheets import Cell, sheet

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def read(body: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(body.decode(), newline=""), strict=True))


def test_a_sheet_is_its_head_and_rows_ended_by_crlf() -> None:
    assert sheet(("feature", "value"), [("scans", 5), ("calls", None)]) == b"feature,value\r\nscans,5\r\ncalls,\r\n"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_text_that_would_run_has_an_apostrophe_before_it(start: str) -> None:
    text = f"{start}cmd|' /C calc'!A0"
    assert read(sheet(("actor",), [(text,)])) == [["actor"], [f"'{text}"]]


@pytest.mark.parametrize(("cell", "shown"), [(-5, "-5"), (0, "0"), ("a=b", "a=b"), ("'", "'"), ('say "x"', 'say "x"')])
def test_numbers_and_harmless_texts_stay_as_they_are(cell: Cell, shown: str) -> None:
    assert read(sheet(("a", "b"), [(cell, 1)]))[1] == [shown, "1"]


@given(st.lists(st.tuples(TEXTS, st.integers(), TEXTS), min_size=1))
def test_every_cell_is_read_back(rows: list[tuple[str, int, str]]) -> None:
    found = read(sheet(("one", "two", "three"), rows))[1:]
    assert [[one.removeprefix("'"), two, three.removeprefix("'")] for one, two, three in found] == [
        [one.removeprefix("'"), str(two), three.removeprefix("'")] for one, two, three in rows
    ]
    assert not any(cell[:1] in set("=+-@\t\r") for row in found for cell in (row[0], row[2]))
