"""Each mistake of docs/stripe-contract.md, planted in the shipped file, turns the test red that is named beside it."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.faults.spoilt import ROOT, SHARE, copy, run
from tests.support.soak import drawn

__all__ = ["copy"]
PAGE: Final = (ROOT / "docs" / "stripe-contract.md").read_text(encoding="utf-8")
MISTAKES: Final = [
    (number, *re.findall(r"`([^`]+)`", cells)[-4:])
    for number, cells in re.findall(r"^\| (N\d+[a-z]?) \|(.*)\|$", PAGE, re.MULTILINE)
]
DRAWN: Final = drawn(MISTAKES, SHARE)


def test_every_mistake_has_its_place_still() -> None:
    """Also those that this run does not plant."""
    lost = [(number, before) for number, _, file, before, _ in MISTAKES if (ROOT / file).read_text().count(before) != 1]
    assert MISTAKES
    assert not lost, "no longer in the file, or more than once"


@pytest.mark.parametrize(("number", "test", "file", "before", "after"), DRAWN, ids=[row[0] for row in DRAWN])
def test_a_mistake_is_caught(copy: Path, number: str, test: str, file: str, before: str, after: str) -> None:
    shipped = (ROOT / file).read_text()
    (copy / file).write_text(shipped.replace(before, after))
    try:
        done = run(copy, test)
    finally:
        (copy / file).write_text(shipped)
    assert done.returncode == 1, f"{number} was not caught by {test}:\n{done.stdout[-3000:]}"
    assert re.search(r"^FAILED", done.stdout, re.MULTILINE), f"{number}: something else broke:\n{done.stdout[-3000:]}"
