"""The locks fit the project file and name no place on the network."""

import re
from collections.abc import Iterator
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.repo import ROOT, pyproject, report

CURE: Final = "Run `make lock`: it writes both files from pyproject.toml, with hashes and without hosts."

RUN: Final = "constraints.txt"
DEV: Final = "constraints-dev.txt"


def pins(lock: str) -> dict[str, str]:
    """The packages of a lock with their versions."""
    return {canonicalize_name(name): version for name, version in re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", lock)}


def unhashed(lock: str) -> list[str]:
    """Packages of a lock that any file of their name would satisfy."""
    entries = re.split(r"(?m)^(?=[\w.-]+==)", lock)[1:]
    return [entry.split("==")[0] for entry in entries if "--hash=sha256:" not in entry]


def places(lock: str) -> list[str]:
    """Lines of a lock that name a host, a file or an option."""
    return [line for line in lock.splitlines() if re.search(r"://|^\s*-(?!-hash=)|@ |\.\w+/", line)]


def misfits(requirements: list[str], lock: str) -> Iterator[str]:
    """Requirements that the lock does not hold, or holds in another version."""
    held = pins(lock)
    for line in requirements:
        requirement = Requirement(line)
        version = held.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version):
            yield f"{line}: {version or 'not there'}"


APART: Final = {"otel", "sentry"}
"""Extras that whoever wants them installs: what is there already takes time at every start, wanted or not."""


def required(*, dev: bool) -> list[str]:
    """What the project file asks for: to run, to build and, with `dev`, to test."""
    project, groups = pyproject()["project"], pyproject()["dependency-groups"]
    wanted = project["optional-dependencies"].items()
    extras = [line for name, lines in wanted for line in lines if dev or name not in APART]
    return [*project["dependencies"], *extras, *groups["build"], *(groups["dev"] if dev else [])]


def text(name: str) -> str:
    """The lock `name`."""
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [RUN, DEV])
def test_a_lock_holds_what_the_project_file_asks_for(name: str) -> None:
    found = list(misfits(required(dev=name == DEV), text(name)))
    assert not found, report(found, CURE)


@pytest.mark.parametrize("name", [RUN, DEV])
def test_a_lock_names_no_place(name: str) -> None:
    assert not places(text(name)), report(places(text(name)), CURE)


@pytest.mark.parametrize("name", [RUN, DEV])
def test_every_package_of_a_lock_has_hashes(name: str) -> None:
    assert not unhashed(text(name)), report(unhashed(text(name)), CURE)


def test_the_development_lock_holds_all_of_the_other() -> None:
    missing = pins(text(RUN)).items() - pins(text(DEV)).items()
    assert not missing, report([f"{name}=={version}" for name, version in missing], CURE)


def test_there_is_no_uv_lock() -> None:
    assert not (ROOT / "uv.lock").exists(), f"Remove uv.lock, it is full of hosts. {CURE}"


LOCK: Final = "redis==8.1.0 ; python_version > '3' \\\n    --hash=sha256:00\n    # via fakeredis\ntyper==0.29.2\n"


def test_a_lock_that_does_not_fit_is_seen() -> None:
    assert list(misfits(["redis[hiredis]~=8.1", "typer~=0.30", "orjson"], LOCK)) == [
        "typer~=0.30: 0.29.2",
        "orjson: not there",
    ]


def test_a_package_without_a_hash_is_seen() -> None:
    assert unhashed(LOCK) == ["typer"]


@pytest.mark.parametrize(
    "line",
    ["--index-url https://example.org/simple", "-e .", "a @ file:///a.whl", "    # from example.org/simple", "-r b"],
)
def test_a_place_in_a_lock_is_seen(line: str) -> None:
    assert places(LOCK) == []
    assert places(LOCK + line + "\n") == [line]
