"""The repository as the house rules see it: its files, without what tools and runs leave behind."""

import ast
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ("metering", "plans", "webhooks")
PURE: Final = ("plans", "webhooks")

_LEFT_BEHIND: Final = {
    ".git",
    ".venv",
    "var",
    "build",
    "dist",
    "htmlcov",
    "node_modules",
    "__pycache__",
    ".hypothesis",
    ".import_linter_cache",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
}


def files(*folders: str, suffix: str = "") -> list[Path]:
    """The files of `folders` (default: the whole repository) whose name ends in `suffix`."""
    starts = [ROOT / folder for folder in folders] or [ROOT]
    return sorted(path for start in starts for path in _walk(start) if path.name.endswith(suffix))


def _walk(start: Path) -> Iterator[Path]:
    for path in start.iterdir() if start.is_dir() else ():
        if path.name in _LEFT_BEHIND:  # `.git` is a file in a linked work tree
            continue
        if path.is_dir() and not path.name.endswith(".egg-info"):
            yield from _walk(path)
        elif path.is_file() and not path.name.startswith(".coverage"):
            yield path


def short(path: Path) -> str:
    """The path as people write it: from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


def faults_of(paths: Iterable[Path], rule: Callable[[str], Iterable[str]]) -> list[str]:
    """Every fault `rule` finds in the text of `paths`, each with the file it stands in."""
    return [f"{short(path)}:{fault}" for path in paths for fault in rule(path.read_text(encoding="utf-8"))]


def report(faults: list[str], cure: str) -> str:
    """The message of a broken rule: the cure first, then every place."""
    return "\n".join([cure, *faults])


def pyproject() -> dict[str, Any]:
    """The project file."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def dotted(node: ast.AST) -> str:
    """`a.b.c` for such an expression, '' for any other (a call in the middle keeps its tail: `.c`)."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every imported name with its line: `a.b` for `import a.b`, `a.b.c` for `from a.b import c`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)
