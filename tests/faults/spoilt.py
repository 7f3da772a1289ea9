"""A copy of the project in which one bug at a time is planted, and which of the bugs a run of the suite plants."""

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeVar

import pytest

ROOT: Final = Path(__file__).parents[2]
SHARE: Final = 3
"""Of so many planted bugs a run of `make test` draws one, by its seed; `make soak` plants them all."""

_PACKAGES: Final = ("metering", "plans", "webhooks", "tests")
_Item = TypeVar("_Item")


def drawn(bugs: Sequence[_Item]) -> list[_Item]:
    """The planted bugs of this run: each stands in one of three runs, by its seed, and in none there are none."""
    if os.environ.get("SOAK"):
        return list(bugs)
    return list(bugs[int(os.environ["MODEL_SEED"]) % min(SHARE, len(bugs)) :: SHARE])


def _copy_to(place: Path) -> None:
    """What is compiled here once is taken by every run, but for the file that a bug was planted in: it is told by its
    content, as one that changes within a second and keeps its size has the time and size of the shipped one.
    """
    for name in _PACKAGES:
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(place / name, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    shutil.copy(ROOT / "pyproject.toml", place)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's packages and tests, to be spoilt."""
    place = tmp_path_factory.mktemp("spoilt")
    _copy_to(place)
    return place


def run(place: Path, test: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One test on the packages of `place`, with `environment` besides ours."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", test]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=300)
