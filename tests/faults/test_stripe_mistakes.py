"""Each mistake of docs/stripe-contract.md, planted in the shipped file, turns the test red that is named beside it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "stripe-contract.md").read_text(encoding="utf-8")
MISTAKES: Final = [
    (number, *re.findall(r"`([^`]+)`", cells)[-4:])
    for number, cells in re.findall(r"^\| (N\d+[a-z]?) \|(.*)\|$", PAGE, re.MULTILINE)
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's packages and tests, to be spoilt."""
    place = tmp_path_factory.mktemp("mistakes")
    for name in ("metering", "plans", "webhooks", "tests"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)
    return place


@pytest.mark.parametrize(("number", "test", "file", "before", "after"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_caught(copy: Path, number: str, test: str, file: str, before: str, after: str) -> None:
    shipped = (ROOT / file).read_text()
    assert shipped.count(before) == 1, f"{number}: {file} no longer holds the text that is replaced: {before}"
    (copy / file).write_text(shipped.replace(before, after))
    try:
        done = run(copy, test)
    finally:
        (copy / file).write_text(shipped)
    assert done.returncode == 1, f"{number} was not caught by {test}:\n{done.stdout[-3000:]}"
    assert re.search(r"^FAILED", done.stdout, re.MULTILINE), f"{number}: something else broke:\n{done.stdout[-3000:]}"


def run(place: Path, test: str) -> subprocess.CompletedProcess[str]:
    """One test on the packages of `place`."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", test]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=120)
