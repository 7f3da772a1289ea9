"""Bugs planted in the shipped files: a model test, unchanged, catches each within six seeds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from redis import Redis

from tests.faults.planted import ADMIT_BUGS, BUGS, WHOLE_BUGS, Bug
from tests.support.servers import StoreServer

ROOT: Final = Path(__file__).parents[2]
MODEL_TEST: Final = "tests/lua/test_track_model.py"
ADMIT_MODEL_TEST: Final = "tests/lua/test_admit_model.py"
WHOLE_MODEL_TEST: Final = "tests/lua/test_whole_model.py"
REASONS: Final = ("AssertionError", "DID NOT RAISE", "metering.errors.")
"""A wrong figure, a refusal that did not come, one that should not have: not a program that broke."""
SEEDS: Final = tuple(str(int(os.environ["MODEL_SEED"]) + 1000 * turn) for turn in range(6))
"""A bug that shows in one sequence of six is caught: each run of the suite draws others."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's packages and tests, to be spoilt."""
    place = tmp_path_factory.mktemp("planted")
    for name in ("metering", "plans", "webhooks", "tests"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)
    return place


def run_model_test(place: Path, seed: str, test: str = MODEL_TEST) -> subprocess.CompletedProcess[str]:
    """A model test on the packages of `place`."""
    environment = os.environ | {"MODEL_SEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", test]
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=300)


def runs(path: Path, store: StoreServer) -> bool:
    """Whether a spoilt file is still a program: Python that compiles, or a script that the server loads."""
    if path.suffix == ".lua":
        with Redis.from_url(store.url) as client:
            return bool(client.script_load(path.read_text()))
    return bool(compile(path.read_text(), str(path), "exec"))


def test_model_test_passes_on_the_shipped_files(copy: Path) -> None:
    """Without a planted bug the test is green, so that a red one means the bug."""
    done = run_model_test(copy, SEEDS[0])
    assert done.returncode == 0, done.stdout[-3000:]
    assert "5 passed" in done.stdout


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_model_test_catches(copy: Path, bug: Bug, store: StoreServer) -> None:
    """With the bug planted the same test is red, and for a wrong figure rather than a broken program."""
    caught(copy, bug, store, MODEL_TEST)


@pytest.mark.parametrize("bug", ADMIT_BUGS, ids=lambda bug: bug.name)
def test_model_test_of_admit_catches(copy: Path, bug: Bug, store: StoreServer) -> None:
    """The same for the second script."""
    caught(copy, bug, store, ADMIT_MODEL_TEST)


@pytest.mark.parametrize("bug", WHOLE_BUGS, ids=lambda bug: bug.name)
def test_model_test_of_every_verb_catches(copy: Path, bug: Bug, store: StoreServer) -> None:
    """The same for corrections among everything else."""
    caught(copy, bug, store, WHOLE_MODEL_TEST)


def caught(copy: Path, bug: Bug, store: StoreServer, test: str) -> None:
    """Plant the bug, run the test, and take the bug out again."""
    shipped = {path: (ROOT / path).read_text() for path, _, _ in bug.changes}
    for path, before, after in bug.changes:
        text = (copy / path).read_text()
        assert text.count(before) == 1, f"{path} no longer holds the text this bug replaces: {before!r}"
        (copy / path).write_text(text.replace(before, after))
        assert runs(copy / path, store), f"{bug.name} is no bug but a broken file: {path} does not load"
    try:
        runs_of = (run_model_test(copy, seed, test) for seed in SEEDS)
        done = next((run for run in runs_of if run.returncode), None)
    finally:
        for path, text in shipped.items():
            (copy / path).write_text(text)
    assert done is not None, f"{bug.name} was not caught with MODEL_SEED={' or '.join(SEEDS)}"
    assert any(reason in done.stdout for reason in REASONS), done.stdout[-3000:]
