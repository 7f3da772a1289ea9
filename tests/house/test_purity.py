"""`plans` and `webhooks` are pure: no I/O, no await, no clock, no chance."""

import ast
from collections.abc import Iterator
from typing import Final

import pytest

from tests.house.repo import PURE, dotted, faults_of, files, imports, report

CURE: Final = "Make it an argument: what reads, waits or asks the time belongs in metering."

STANDARD_LIBRARY: Final = {
    "__future__",
    "abc",
    "base64",
    "binascii",
    "bisect",
    "calendar",
    "collections",
    "copy",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "itertools",
    "json",
    "math",
    "numbers",
    "operator",
    "re",
    "statistics",
    "string",
    "struct",
    "textwrap",
    "tomllib",
    "types",
    "typing",
    "unicodedata",
    "urllib.parse",
    "zoneinfo",  # reads the rules of time zones, which are data like a catalogue
}
LIBRARIES: Final = {"pydantic", "pydantic_core"}

FORBIDDEN_CALLS: Final = {"open", "print", "input", "eval", "exec", "compile", "__import__", "breakpoint", "globals"}
CLOCKS: Final = {"now", "utcnow", "today"}
_WAITS: Final = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)


def impurities(source: str, package: str) -> Iterator[str]:
    """Every place of a module of `package` that is not pure: its line and what stands there."""
    tree = ast.parse(source)
    allowed = STANDARD_LIBRARY | LIBRARIES | {package}
    for line, name in imports(tree):
        if not any(name == module or name.startswith(f"{module}.") for module in allowed):
            yield f"{line}: imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, _WAITS):
            yield f"{node.lineno}: waits"
        elif isinstance(node, ast.Call) and _acts(node.func):
            yield f"{node.lineno}: calls {ast.unparse(node.func)}"


def _acts(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        return function.attr in CLOCKS
    return dotted(function) in FORBIDDEN_CALLS


@pytest.mark.parametrize("package", PURE)
def test_a_pure_package_neither_reads_nor_waits_nor_asks_the_time(package: str) -> None:
    found = faults_of(files(package, suffix=".py"), lambda source: impurities(source, package))
    assert not found, report(found, CURE)


@pytest.mark.parametrize(
    ("snippet", "fault"),
    [
        ("import time", "1: imports time"),
        ("from random import choice", "1: imports random.choice"),
        ("from urllib import request", "1: imports urllib.request"),
        ("from metering import clock", "1: imports metering.clock"),
        ("from . import limits", "1: imports ..limits"),
        ("import webhooks", "1: imports webhooks"),
        ("def f():\n    import redis", "2: imports redis"),
        ("async def f(): ...", "1: waits"),
        ("open('x')", "1: calls open"),
        ("from datetime import datetime, UTC\ndatetime.now(UTC)", "2: calls datetime.now"),
        ("import datetime as d\nd.date.today()", "2: calls d.date.today"),
    ],
)
def test_an_impurity_is_seen(snippet: str, fault: str) -> None:
    assert list(impurities(snippet, "plans")) == [fault]


def test_the_law_may_use_its_own_package_and_pydantic() -> None:
    good = "from plans.limits import Rule\nfrom pydantic import BaseModel\nfrom urllib.parse import urlsplit\n"
    assert list(impurities(good + "def f(now: int) -> Rule: return Rule(now)", "plans")) == []
