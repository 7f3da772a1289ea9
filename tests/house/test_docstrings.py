"""What is public says what it is."""

import ast
from collections.abc import Iterator
from typing import Final

import pytest

from tests.house.repo import PACKAGES, faults_of, files, report

CURE: Final = "Say what it gives: shapes, units, the errors it raises, where a number comes from."

_Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def undocumented(source: str) -> Iterator[str]:
    """Every public module, class, function and method without a docstring: its line and name."""
    tree = ast.parse(source)
    if tree.body and not ast.get_docstring(tree):
        yield "1: the module"
    yield from (f"{node.lineno}: {node.name}" for node in _public(tree.body) if not _says(node))


def _public(body: list[ast.stmt]) -> Iterator[_Documented]:
    for node in body:
        if isinstance(node, _Documented) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body)


def _says(node: _Documented) -> bool:
    """A docstring, or what stands for one: an error's title, or the method it overrides."""
    if ast.get_docstring(node):
        return True
    if isinstance(node, ast.ClassDef):
        return any("title" in ast.unparse(line.targets[0]) for line in node.body if isinstance(line, ast.Assign))
    return any(ast.unparse(mark).endswith(("override", "overload", ".setter")) for mark in node.decorator_list)


def test_what_is_public_has_a_docstring() -> None:
    found = faults_of(files(*PACKAGES, suffix=".py"), undocumented)
    assert not found, report(found, CURE)


@pytest.mark.parametrize(
    ("snippet", "name"),
    [
        ("x = 1", "1: the module"),
        ("'''doc'''\ndef f(): ...", "2: f"),
        ("'''doc'''\nasync def f(): ...", "2: f"),
        ("'''doc'''\nclass A: ...", "2: A"),
        ("'''doc'''\nclass A:\n    '''doc'''\n    def f(self): ...", "4: f"),
    ],
)
def test_a_missing_docstring_is_seen(snippet: str, name: str) -> None:
    assert list(undocumented(snippet)) == [name]


@pytest.mark.parametrize(
    "snippet",
    [
        "",
        "'''doc'''\ndef _f(): ...\nclass _A:\n    def f(self): ...",
        "'''doc'''\nclass A(Problem):\n    status, title = 404, 'Not found'",
        "'''doc'''\nclass A:\n    '''doc'''\n    @override\n    def f(self): ...\n    def __len__(self): ...",
    ],
)
def test_what_is_private_or_speaks_for_itself_needs_none(snippet: str) -> None:
    assert list(undocumented(snippet)) == []
