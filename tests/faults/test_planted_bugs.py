"""Bugs planted in the shipped files: a model test or a crash test, unchanged, catches each within six seeds."""

from pathlib import Path
from typing import Final

import pytest
from redis import Redis

from tests.faults.planted import EVERY_BUG, Bug
from tests.faults.spoilt import ROOT, SHARE, copy, run
from tests.support.servers import StoreServer
from tests.support.soak import SEED, drawn

__all__ = ["copy"]

MODEL_TEST: Final = "tests/lua/test_track_model.py"
REASONS: Final = ("AssertionError", "DID NOT RAISE", "metering.errors.")
"""A wrong figure, a refusal that did not come, one that should not have: not a program that broke."""
SEEDS: Final = tuple(str(SEED + 1000 * turn) for turn in range(6))
"""A bug that shows in one sequence of six is caught: each run of the suite draws others."""


def runs(path: Path, store: StoreServer) -> bool:
    """Whether a spoilt file is still a program: Python that compiles, or a script that the server loads."""
    if path.suffix == ".lua":
        with Redis.from_url(store.url) as client:
            return bool(client.script_load(path.read_text()))
    return bool(compile(path.read_text(), str(path), "exec"))


@pytest.mark.parametrize(("test", "bug"), EVERY_BUG, ids=[bug.name for _, bug in EVERY_BUG])
def test_every_bug_has_its_place_still(test: str, bug: Bug) -> None:
    """Also those that this run does not plant."""
    assert (ROOT / test).exists()
    for path, before, _ in bug.changes:
        assert (ROOT / path).read_text().count(before) == 1, f"{path} has lost what this bug replaces: {before!r}"


def test_model_test_passes_on_the_shipped_files(copy: Path) -> None:
    """Without a planted bug the test is green, so that a red one means the bug."""
    done = run(copy, MODEL_TEST, SOAK="")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "2 passed" in done.stdout


DRAWN: Final = drawn(EVERY_BUG, SHARE)


@pytest.mark.parametrize(("test", "bug"), DRAWN, ids=[bug.name for _, bug in DRAWN])
def test_a_bug_is_caught(copy: Path, test: str, bug: Bug, store: StoreServer) -> None:
    """With the bug planted the same test is red, and for a wrong figure rather than a broken program."""
    shipped = {path: (ROOT / path).read_text() for path, _, _ in bug.changes}
    for path, before, after in bug.changes:
        text = (copy / path).read_text()
        (copy / path).write_text(text.replace(before, after))
        assert runs(copy / path, store), f"{bug.name} is no bug but a broken file: {path} does not load"
    try:
        runs_of = (run(copy, test, MODEL_SEED=seed) for seed in SEEDS)
        done = next((run for run in runs_of if run.returncode), None)
    finally:
        for path, text in shipped.items():
            (copy / path).write_text(text)
    assert done is not None, f"{bug.name} was not caught with MODEL_SEED={' or '.join(SEEDS)}"
    assert any(reason in done.stdout for reason in REASONS), done.stdout[-3000:]
