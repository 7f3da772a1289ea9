"""docs/stripe-contract.md: every row is whole, its sources and its test are there, and it speaks of this version."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest
import stripe

from tests.house.repo import ROOT

PAGE: Final = (ROOT / "docs" / "stripe-contract.md").read_text(encoding="utf-8")

_ROW: Final = re.compile(r"^\| ([A-MO-Z]\d+) \|(.*)\|$", re.MULTILINE)
_MISTAKE: Final = re.compile(r"^\| (N\d+[a-z]?) \|(.*)\|$", re.MULTILINE)
_TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
_SOURCE: Final = re.compile(r"<https://docs\.stripe\.com/[^>]+>|`(stripe/[\w/]+\.py)`")
_RAN: Final = re.compile(r"never|\d{4}-\d\d-\d\d")


def faults(page: str) -> Iterator[str]:
    """Every fault of the table in `page`, each with the row it stands in."""
    seen: set[str] = set()
    for name, rest in _ROW.findall(page):
        cells = [cell.strip() for cell in rest.split("|")]
        if name in seen:
            yield f"{name}: stands there twice"
        seen.add(name)
        if len(cells) != 4 or not all(cells):
            yield f"{name}: rule, source, test and real account are needed"
        else:
            yield from (f"{name}: {fault}" for fault in _of_row(*cells))


def _of_row(rule: str, sources: str, tests: str, ran: str) -> Iterator[str]:
    if not all(_SOURCE.fullmatch(source) for source in sources.split("; ")):
        yield "a source is a page of docs.stripe.com or a file of the client"
    yield from (f"the client has no {file}" for file in _SOURCE.findall(sources) if file and not _is_there(file))
    if not all(_TEST.fullmatch(test) for test in tests.split("; ")):
        yield "a test is named `file::test`"
    yield from (f"there is no {file}::{test}" for file, test in _TEST.findall(tests) if not _holds(file, test))
    if not _RAN.fullmatch(ran):
        yield "a run against a real account is `never` or its day"


def misplanted(page: str) -> Iterator[str]:
    """Every mistake in `page` that cannot be made as it stands there; tests/faults shows that its test sees it."""
    for name, cells in _MISTAKE.findall(page):
        codes = re.findall(r"`([^`]+)`", cells)[-4:]
        if len(codes) != 4 or len(cells.split(" | ")) != 5:
            yield f"{name}: mistake, test, file and both texts are needed"
        elif not (_TEST.fullmatch(f"`{codes[0]}`") and _holds(*codes[0].split("::"))):
            yield f"{name}: there is no {codes[0]}"
        elif not (ROOT / codes[1]).is_file() or (ROOT / codes[1]).read_text().count(codes[2]) != 1:
            yield f"{name}: {codes[1]} does not hold this text once: {codes[2]}"


def _is_there(file: str) -> bool:
    found = find_spec("stripe")
    return found is not None and (Path(str(found.origin)).parents[1] / file).is_file()


def _holds(file: str, test: str) -> bool:
    path = ROOT / file
    return path.is_file() and re.search(rf"^(?:async )?def {test}\(", path.read_text(), re.MULTILINE) is not None


def test_every_rule_has_its_source_and_its_test() -> None:
    assert list(faults(PAGE)) == []
    assert len(_ROW.findall(PAGE)) > 30


def test_the_contract_speaks_of_the_installed_version() -> None:
    """Read the page again beside Stripe's changelog, then write the new version into it."""
    assert re.findall(r"version `([^`]+)` of Stripe's API", PAGE) == [stripe.api_version]


def test_every_mistake_can_be_made_and_names_its_test() -> None:
    assert list(misplanted(PAGE)) == []
    rows = {int(re.sub(r"\D", "", name)) for name, _ in _MISTAKE.findall(PAGE)}
    assert rows >= {*range(1, 32)}


PLANT: Final = "| N1 | A | `tests/house/test_contract.py::test_a_fault_is_seen` | `plans/money.py` | `2 * rest` | `0` |"


def test_a_mistake_that_can_be_made_is_left_alone() -> None:
    assert list(misplanted(PLANT)) == []


@pytest.mark.parametrize(
    ("old", "new"), [(" | `0` |", " |"), ("a_fault_is", "a_fault"), ("plans/money", "plans/moneys"), ("2 *", "3 *")]
)
def test_a_mistake_that_cannot_be_made_is_seen(old: str, new: str) -> None:
    assert len(list(misplanted(PLANT.replace(old, new)))) == 1


GOOD: Final = "| M1 | Rule | `stripe/_error.py` | `tests/house/test_contract.py::test_a_fault_is_seen` | never |"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (" Rule ", "  ", "are needed"),
        ("never |", "never | more |", "are needed"),
        ("stripe/_error.py", "stripe/_errors.py", "the client has no stripe/_errors.py"),
        ("`stripe/_error.py`", "<https://example.org/a>", "a source is"),
        ("`stripe/_error.py`", "<https://docs.stripe.com/api/errors>, memory", "a source is"),
        ("test_a_fault_is_seen", "test_a_fault", "there is no"),
        ("test_contract.py::", "test_contracts.py::", "there is no"),
        ("a_fault_is_seen`", "a_fault_is_seen`; by review", "a test is named"),
        ("a_fault_is_seen`", "a_fault_is_seen`; `tests/house/test_contract.py::test_a_fault`", "there is no"),
        ("`tests/house/test_contract.py::test_a_fault_is_seen`", "by review", "a test is named"),
        ("never", "once", "its day"),
    ],
)
def test_a_fault_is_seen(old: str, new: str, fault: str) -> None:
    assert fault in " ".join(faults(GOOD.replace(old, new)))


def test_a_good_row_is_left_alone_and_two_of_a_name_are_not() -> None:
    two = "`tests/house/test_contract.py::test_a_fault_is_seen`; `tests/house/test_contract.py::test_a_mistake"
    assert list(faults(GOOD)) == []
    assert list(faults(GOOD.replace("`tests/", f"{two}_that_can_be_made_is_left_alone`; `tests/"))) == []
    assert list(faults(f"{GOOD}\n{GOOD}")) == ["M1: stands there twice"]
