"""A copy of the project in which one bug at a time is planted."""

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
SHARE: Final = 24
"""Of so many planted bugs a run of the suite plants one."""

_PACKAGES: Final = ("metering", "plans", "webhooks", "tests")


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
    """One test on the packages of `place`, as a soak runs it: with `environment` besides ours."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "SOAK": "1", **environment}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", test]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=300)
