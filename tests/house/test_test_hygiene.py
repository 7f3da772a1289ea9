"""Tests neither sleep nor patch nor look away."""

import ast
from collections.abc import Iterator
from functools import cache
from typing import Final

import pytest

from tests.house.repo import dotted, faults_of, files, imports, report

MAY_SLEEP: Final = "tests/support/wait.py"

CURES: Final = {
    "sleeps": f"Poll with `wait_until` or `await_until` of {MAY_SLEEP}.",
    "patches": "Hand the test's own object in through the constructor; a fake is a product with tests of its own.",
    "looks away": "A test passes or fails. Repair it, or delete it with the promise it made.",
}

_SLEEPS: Final = {"time.sleep", "asyncio.sleep", "anyio.sleep", "trio.sleep"}
_MOCKS: Final = ("unittest.mock", "mock", "pytest_mock")
_PATCHES: Final = {"setattr", "delattr"}
_LOOKS_AWAY: Final = {
    "pytest.skip",
    "pytest.xfail",
    "pytest.importorskip",
    "pytest.mark.skip",
    "pytest.mark.skipif",
    "pytest.mark.xfail",
    "pytest.mark.flaky",
    "unittest.skip",
    "unittest.SkipTest",
}


@cache
def bad_habits(source: str) -> tuple[str, ...]:
    """Every bad habit of a test file: its line, its kind and what stands there."""
    return tuple(_bad_habits(source))


def _bad_habits(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    for line, name in imports(tree):
        kind = _kind_of_import(name)
        if kind:
            yield f"{line}: {kind}: {name}"
    yields = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and _only_yields(node)}
    for node in ast.walk(tree):
        kind = _kind_of_use(node) if isinstance(node, ast.Attribute) and id(node) not in yields else ""
        if kind:
            yield f"{node.lineno}: {kind}: {ast.unparse(node)}"  # type: ignore[attr-defined]


def _kind_of_import(name: str) -> str:
    if name in _SLEEPS:
        return "sleeps"
    if name.startswith(_MOCKS):
        return "patches"
    return "looks away" if name in _LOOKS_AWAY else ""


def _kind_of_use(node: ast.Attribute) -> str:
    name = dotted(node)
    if name in _SLEEPS:
        return "sleeps"
    if name in _LOOKS_AWAY:
        return "looks away"
    return "patches" if node.attr in _PATCHES else ""


def _only_yields(node: ast.Call) -> bool:
    """`asyncio.sleep(0)` lets other tasks run once and waits for nothing."""
    return dotted(node.func) == "asyncio.sleep" and [ast.unparse(argument) for argument in node.args] == ["0"]


@pytest.mark.parametrize("kind", CURES)
def test_no_test_has_a_bad_habit(kind: str) -> None:
    found = [
        fault
        for fault in faults_of(files("tests", suffix=".py"), bad_habits)
        if f" {kind}: " in fault and not (kind == "sleeps" and fault.startswith(MAY_SLEEP))
    ]
    assert not found, report(found, CURES[kind])


@pytest.mark.parametrize(
    ("snippet", "kind"),
    [
        ("import time\ntime.sleep(1)", "sleeps"),
        ("from time import sleep", "sleeps"),
        ("import asyncio\nasync def f(): await asyncio.sleep(0.1)", "sleeps"),
        ("import asyncio\npause = asyncio.sleep", "sleeps"),
        ("from unittest import mock", "patches"),
        ("from unittest.mock import patch", "patches"),
        ("def test(monkeypatch): monkeypatch.setattr('a.b', 1)", "patches"),
        ("def test(mp): mp.delattr(a, 'b')", "patches"),
        ("import pytest\n@pytest.mark.skipif(True, reason='')\ndef test(): ...", "looks away"),
        ("import pytest\npytestmark = pytest.mark.xfail", "looks away"),
        ("import pytest\ndef test(): pytest.skip('later')", "looks away"),
        ("from pytest import importorskip", "looks away"),
    ],
)
def test_a_bad_habit_is_seen(snippet: str, kind: str) -> None:
    faults = list(bad_habits(snippet))
    assert len(faults) == 1
    assert f": {kind}: " in faults[0]


@pytest.mark.parametrize(
    "snippet",
    [
        "import asyncio\nasync def f(): await asyncio.sleep(0)",
        "def test(monkeypatch): monkeypatch.setenv('PORT', '1')",
        "import pytest\n@pytest.mark.parametrize('a', [1])\ndef test(a): ...",
    ],
)
def test_a_good_habit_is_left_alone(snippet: str) -> None:
    assert list(bad_habits(snippet)) == []
