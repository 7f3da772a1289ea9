"""docs/contract.md: every item names a test that there is, is open, or says why it is otherwise."""

import re
from collections.abc import Iterator
from typing import Final

import pytest

from metering.api.routes import ROUTES
from tests.house.repo import ROOT

PAGE: Final = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")

OPEN: Final = "open"
CHANGED: Final = "changed: "

_ROW: Final = re.compile(r"^\| (.*?) \| (.*) \|$", re.MULTILINE)
_HEAD: Final = ("Item", "Held by")
_TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
_PATH: Final = re.compile(r"`(GET|POST|PUT|DELETE) (/[\w/{}.-]+)`")

SERVED: Final = {(route.method, path) for route in ROUTES for path in (route.path, *route.aliases)}
OLDER: Final = {
    (route.method, path)
    for route in ROUTES
    for path in (*route.aliases, *([route.path] if route.successor else []))
    if not path.startswith("/v1/")
}
"""Paths that are there for clients of other services."""


def items(page: str) -> list[tuple[str, str]]:
    """Every item with what holds it."""
    return [row for row in _ROW.findall(page) if row not in {_HEAD, ("---", "---")}]


def faults(page: str) -> Iterator[str]:
    """Every fault of the page, each with the item it belongs to."""
    for item, held in items(page):
        yield from (f"{item}: {fault}" for fault in _of_row(item, held))


def _of_row(item: str, held: str) -> Iterator[str]:
    changed = held.startswith(CHANGED)
    why, _, tests = held.removeprefix(CHANGED).partition("`tests/") if changed else ("", "", held)
    tests = f"`tests/{tests}" if changed and tests else tests
    if changed and not why.strip():
        yield "a change needs its reason"
    if held != OPEN and tests and not all(_TEST.fullmatch(test) for test in tests.split("; ")):
        yield "a test is named `file::test`, several with a semicolon between them; or it is open, or changed: why"
    yield from (f"there is no {file}::{test}" for file, test in _TEST.findall(tests) if not _holds(file, test))
    if held != OPEN and not changed:
        yield from (f"{' '.join(path)} is not served" for path in _PATH.findall(item) if path not in SERVED)


def _holds(file: str, test: str) -> bool:
    path = ROOT / file
    return path.is_file() and re.search(rf"^(?:async )?def {test}\(", path.read_text(), re.MULTILINE) is not None


def test_every_item_of_the_contract_is_held_by_a_test_or_says_why_not() -> None:
    assert list(faults(PAGE)) == []
    assert len(items(PAGE)) > 120


def test_every_older_path_is_an_item() -> None:
    """A path for clients of another service stands in the contract: add it to its row there."""
    assert OLDER - set(_PATH.findall(PAGE)) - ALSO == set()


ALSO: Final = {("POST", "/usage/track/batch"), ("GET", "/metrics")}
"""Second names of routes that no older client knows."""

GOOD: Final = "| `GET /usage` is there | `tests/house/test_checklist.py::test_a_fault_is_seen` |"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("a_fault_is_seen", "a_fault", "there is no"),
        ("test_checklist.py::", "test_checklists.py::", "there is no"),
        ("`tests/house/test_checklist.py::test_a_fault_is_seen`", "by review", "a test is named"),
        ("a_fault_is_seen`", "a_fault_is_seen`, by review", "a test is named"),
        ("a_fault_is_seen`", "a_fault_is_seen`; `tests/house/test_checklist.py::test_a_fault`", "there is no"),
        ("| `tests", "| changed: `tests", "needs its reason"),
        (
            "| `tests/house/test_checklist.py::test_a_fault_is_seen",
            "| changed: why. `tests/x.py::test_a",
            "there is no",
        ),
        ("GET /usage`", "GET /usages`", "GET /usages is not served"),
    ],
)
def test_a_fault_is_seen(old: str, new: str, fault: str) -> None:
    assert fault in " ".join(faults(GOOD.replace(old, new, 1)))


@pytest.mark.parametrize(
    "held", ["open", "changed: it is `elsewhere` now.", f"changed: why. {GOOD.split(' | ')[1][:-2]}"]
)
def test_a_good_row_is_left_alone(held: str) -> None:
    assert list(faults(GOOD)) == []
    assert list(faults(f"| An item | {held} |")) == []
