"""`make` explains itself, installs once, and says what it misses."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.house.repo import ROOT, report

TARGETS: Final = (
    "setup run test test-unit test-integration test-cov house lint types check bench lock docker-build docker-run clean"
).split()
"""What the README and the documentation promise."""


def unexplained(makefile: str) -> list[str]:
    """Targets for people without a line of help behind `##`. Those with a `$` or a `.` are files."""
    targets = re.findall(r"(?m)^([a-z][a-z-]*):(.*)$", makefile)
    return [name for name, rest in targets if not re.search(r" ## \S+ \S+", rest)]


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run make as a person would: outside of any other make."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_make_alone_prints_every_target_with_its_help() -> None:
    lines = make().stdout.splitlines()
    found = [target for target in TARGETS if not any(re.match(rf"  make {target} +\w", line) for line in lines)]
    assert not found, report(found, "Give the target a line of help behind ##, then `make` prints it.")


def test_every_target_has_its_help() -> None:
    found = unexplained((ROOT / "Makefile").read_text(encoding="utf-8"))
    assert not found, report(found, "Give the target a line of help behind ##.")


def test_a_target_without_help_is_seen() -> None:
    assert unexplained("help: ## print this\ndeploy: setup\n\t@x\nlint: a b ##\nx := 1\n$(A): b\n") == [
        "deploy",
        "lint",
    ]


PYTHON: Final = """#!/bin/sh
case "$*" in
  *"-m venv"*) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python";;
  *--version) echo "Python 3.11.0";;
esac
echo "$*" >> "$(dirname "$0")/../calls.txt"
"""
"""Stands for Python: makes environments that hold itself, and writes down what it was asked."""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone that has never been set up, in a folder with a space in its name, beside such a Python."""
    folder = tmp_path / "a clone"
    (folder / "bin").mkdir(parents=True)
    for name in ("Makefile", "constraints.txt", "constraints-dev.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / "bin/python").write_text(PYTHON)
    (folder / "bin/python").chmod(0o755)
    return folder


def installs(clone: Path, target: str = "setup") -> list[str]:
    """What `make target` installs there: the lock file, and the project itself as `.`."""
    calls = clone / ".venv/calls.txt"
    calls.unlink(missing_ok=True)
    done = make(target, f"PYTHON={clone}/bin/python", folder=clone)
    assert done.returncode == 0, done.stderr
    asked = calls.read_text().splitlines() if calls.exists() else []
    return [line.split()[-1] for line in asked if " install " in line]


def test_setup_installs_the_lock_with_hashes_and_then_the_project_alone(clone: Path) -> None:
    assert installs(clone) == ["constraints.txt", "."]
    calls = (clone / ".venv/calls.txt").read_text()
    assert re.search(r"install --require-hashes -r constraints.txt\n.* --no-deps --no-build-isolation", calls)


def test_a_second_setup_installs_nothing(clone: Path) -> None:
    installs(clone)
    assert installs(clone) == []


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml"])
def test_a_changed_lock_or_project_file_is_installed(clone: Path, name: str) -> None:
    installs(clone)
    later = (clone / ".venv/.ready").stat().st_mtime + 1
    os.utime(clone / name, (later, later))
    assert installs(clone) == ["constraints.txt", "."]


def test_the_tools_of_the_tests_come_with_the_service(clone: Path) -> None:
    assert installs(clone, "setup-dev") == ["constraints-dev.txt", "."]
    assert installs(clone) == []


def test_a_clone_that_was_moved_makes_its_environment_anew(clone: Path) -> None:
    installs(clone)
    moved = clone.rename(clone.with_name("moved"))
    assert installs(moved) == ["constraints.txt", "."]


def test_an_environment_that_somebody_made_by_hand_is_kept(clone: Path) -> None:
    (clone / ".venv/bin").mkdir(parents=True)
    shutil.copy(clone / "bin/python", clone / ".venv/bin/python")
    (clone / ".venv/mine").touch()
    assert installs(clone) == ["constraints.txt", "."]
    assert (clone / ".venv/mine").exists()


def test_without_a_python_make_says_which_one_it_needs(clone: Path) -> None:
    done = make("setup", "PYTHON=false", folder=clone)
    assert done.returncode != 0
    assert "Python 3.11 or newer" in done.stderr
    assert "make setup PYTHON=" in done.stderr


def test_without_the_venv_module_make_says_what_to_install(clone: Path) -> None:
    (clone / "bin/python").write_text('#!/bin/sh\ncase "$*" in *venv*) exit 1;; esac\n')
    done = make("run", f"PYTHON={clone}/bin/python", folder=clone)
    assert done.returncode != 0
    assert "python3-venv" in done.stderr


def test_a_failed_installation_says_so_and_is_tried_again(clone: Path) -> None:
    good = (clone / "bin/python").read_text()
    (clone / "bin/python").write_text(good.replace("case", 'case "$*" in *install*) exit 1;; esac\ncase', 1))
    done = make("setup", f"PYTHON={clone}/bin/python", folder=clone)
    assert done.returncode != 0
    assert "Then repeat: make setup" in done.stderr
    shutil.copy(clone / "bin/python", clone / ".venv/bin/python")
    (clone / ".venv/bin/python").write_text(good)
    assert installs(clone) == ["constraints.txt", "."]


def test_clean_leaves_the_data(clone: Path) -> None:
    (clone / "var").mkdir()
    installs(clone)
    (clone / "metering").mkdir()
    (clone / ".grimp_cache").mkdir()
    make("clean", folder=clone)
    assert not (clone / ".venv").exists()
    assert not (clone / ".grimp_cache").exists()
    assert (clone / "var").exists()
