"""Everything fits the screen."""

import ast
from collections.abc import Iterator
from typing import Final

from tests.house.repo import PACKAGES, faults_of, files, report

FUNCTION_LINES_MAX: Final = 40
"""A screen. Most functions stay near ten."""

FILE_LINES_MAX: Final = 400
"""What one noun of the house needs at most; beyond it two nouns share a file."""

CURE: Final = "Find the second thing it does, name it, and give it a function (or file) of its own."


def oversizes(source: str) -> Iterator[str]:
    """Each function, and the file itself, that is too long: its line and its length."""
    file_lines = len(source.splitlines())
    if file_lines > FILE_LINES_MAX:
        yield f"1: the file has {file_lines} lines, at most {FILE_LINES_MAX}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES_MAX}"


def test_functions_and_files_fit_the_screen() -> None:
    found = faults_of(files(*PACKAGES, suffix=".py"), oversizes)
    assert not found, report(found, CURE)


def test_a_function_one_line_too_long_is_seen() -> None:
    body = "    x = 1\n" * (FUNCTION_LINES_MAX - 1)
    assert list(oversizes("def fits():\n" + body)) == []
    assert list(oversizes("async def f():\n" + body + "    x = 1\n")) == ["1: f has 41 lines, at most 40"]


def test_a_file_one_line_too_long_is_seen() -> None:
    assert list(oversizes("\n" * FILE_LINES_MAX)) == []
    assert list(oversizes("\n" * (FILE_LINES_MAX + 1))) == ["1: the file has 401 lines, at most 400"]
