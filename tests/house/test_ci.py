"""`.ci/run` brings what is missing, and what could not be brought is seen in the tests."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from metering.store.binaries import Binary
from tests.house.repo import ROOT
from tests.support.fixtures import missing_kinds

NOTES: Final = '#!/bin/sh\necho "$(basename "$0") $* CI=$CI" >> "$NOTES"\n'
"""Stands for a program: writes down how it was called."""

REAL: Final = ("basename", "dirname", "env", "sh")
SERVERS: Final = {name: Binary(Path(f"/{name}-server"), name, "9.0.0", "PATH") for name in ("redis", "valkey")}


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of programs as on a machine that has everything but a store server, and nothing else on its PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in REAL:
        (folder / name).symlink_to(shutil.which(name) or "")
    for name in ("apt-get", "make", "python3.11", "chmod", "rm"):
        (folder / name).write_text(NOTES)
        (folder / name).chmod(0o755)
    _says(folder / "id", "echo 0")
    _says(folder / "tee", "while read -r line; do :; done")
    return folder


def _says(program: Path, line: str) -> None:
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)


def _run(programs: Path) -> tuple[int, list[str]]:
    """Run a copy of the script there: its exit code, and the calls of apt-get and make."""
    script = programs.parent / "clone" / ".ci" / "run"
    script.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / ".ci" / "run", script)
    notes = programs.parent / "notes"
    environment = {"PATH": str(programs), "NOTES": str(notes)}
    bash = shutil.which("bash") or "bash"
    done = subprocess.run([bash, str(script)], env=environment, capture_output=True, text=True, check=False)
    lines = notes.read_text().splitlines()
    return done.returncode, [line for line in lines if line.startswith(("apt-get", "make"))]


def test_a_store_server_and_a_prometheus_that_are_missing_are_installed_before_the_tests(programs: Path) -> None:
    code, calls = _run(programs)
    assert code == 0
    assert [call.split()[1] for call in calls] == ["update", "install", "test"]
    assert calls[1].endswith("redis-server prometheus CI=")


def test_nothing_is_installed_where_all_is_there(programs: Path) -> None:
    for name in ("redis-server", "prometheus", "promtool"):
        _says(programs / name, "true")
    assert _run(programs) == (0, ["make test CI=true"])


def test_after_an_installation_that_failed_the_tests_run_as_on_a_build_machine(programs: Path) -> None:
    _says(programs / "apt-get", "exit 100")
    assert _run(programs) == (0, ["make test CI=true"])


@pytest.mark.parametrize(
    ("here", "ci", "missing"),
    [
        (("valkey",), None, ""),
        (("valkey",), "", ""),
        (("valkey",), "true", "redis"),
        (("redis",), "1", "valkey"),
        ((), "true", "redis or valkey"),
        (("valkey", "valkey"), "true", "redis"),
        (("redis", "valkey"), "true", ""),
    ],
)
def test_a_build_machine_with_one_kind_of_server_fails(here: tuple[str, ...], ci: str | None, missing: str) -> None:
    said = missing_kinds([SERVERS[name] for name in here], ci)
    assert (f"no usable {missing} server" in said) if missing else said == ""
