"""Where settings come from, and names that look like ours but are not.

A misspelt name is the worst kind of setting: `REDIS_UR` would start an empty store and count into it.
"""

import difflib
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dotenv.parser import Binding, parse_stream
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    SecretsSettingsSource,
)

SECRETS_FOLDER: Final = Path("/run/secrets")
"""Where Docker and Podman mount secrets: one file a setting, named as the setting."""

_NEAR: Final = 0.85
"""difflib's measure above which a name is taken for a slip: one letter of eight, or two of fourteen."""

_NAME_LENGTH_MIN: Final = 8
"""Shorter names (HOST, PORT, DEBUG) have innocent neighbours in any environment, HOSTNAME first of all."""

_SUFFIX_MAX: Final = 4
"""JWT_SECRET_KEY, DATA_DIRS: a known name with this much more is a slip as well."""

_PREFIX: Final = "METERING_"
_ORCHESTRATOR: Final = re.compile(r"METERING_(SERVICE_(HOST|PORT)|PORT)(_.*)?$")
"""Kubernetes puts these into every pod beside a service called `metering`."""

_OTHERS: Final = ("COMPOSE_", "DOCKER_", "PYTHON", "UVICORN_", "VITE_", "REACT_APP_", "VALKEY_", "GRAFANA_")
"""First letters of names that other tools read from the same `.env`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the settings: what was found (secrets masked), why it cannot be, and the cure."""

    name: str
    found: str
    reason: str
    cure: str
    source: str = ""


@dataclass(slots=True)
class Found:
    """What the sources said: values by field name, the source of each, and faults of the sources themselves."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def add(self, source: str, values: Mapping[str, Any], known: Iterable[str]) -> None:
        """Take over what no stronger source has said."""
        for name in known:
            value = values.get(name)
            if value not in (None, "") and name not in self.values:
                self.values[name] = value
                self.sources[name] = source


def find(cls: type[BaseSettings], env_file: Path, secrets_dir: Path | None, options: Mapping[str, Any]) -> Found:
    """Read options, environment, `env_file` and the files of `secrets_dir`; the first that speaks wins."""
    known = tuple(cls.model_fields)
    found = Found()
    found.add("option", options, known)
    found.add("env", EnvSettingsSource(cls)(), known)
    found.faults += _strangers(os.environ, known, "env")
    try:
        found.faults += _line_faults(env_file, known)
        found.add(str(env_file), DotEnvSettingsSource(cls, env_file=env_file)(), known)
    except (OSError, UnicodeDecodeError) as error:
        found.faults.append(_unreadable(env_file, error))
    if secrets_dir is not None:
        found.add("file", SecretsSettingsSource(cls, secrets_dir=secrets_dir)(), known)
    return found


def secrets_folder() -> Path | None:
    """The folder of secret files, where there is one."""
    return SECRETS_FOLDER if SECRETS_FOLDER.is_dir() else None


def _unreadable(path: Path, error: Exception) -> Fault:
    return Fault(str(path), "", f"cannot be read ({error})", "Make it a readable text file in UTF-8, or remove it.")


def _line_faults(env_file: Path, known: tuple[str, ...]) -> Iterator[Fault]:
    """What is wrong with the lines of a `.env` file: unreadable ones, and names nothing here reads."""
    if not env_file.exists():
        return
    with env_file.open(encoding="utf-8") as text:
        bindings = list(parse_stream(text))
    for binding in bindings:
        if binding.error:
            yield _broken(env_file, binding)
    names = (binding.key for binding in bindings if binding.key and not binding.error)
    yield from _strangers(names, known, str(env_file))


def _broken(env_file: Path, binding: Binding) -> Fault:
    line = binding.original.line
    return Fault(f"{env_file}:{line}", "", "the line is not NAME=value", "Write NAME=value, or begin it with '#'.")


def _strangers(names: Iterable[str], known: tuple[str, ...], source: str) -> Iterator[Fault]:
    """Names that nobody reads: in the environment only those that look like ours, in `.env` all but others'."""
    ours = {name.upper() for name in known}
    for name in sorted({name.upper() for name in names} - ours):
        meant = _meant(name, ours, every=source != "env")
        if meant:
            cure = f"Rename it to {meant}, or remove it."
            yield Fault(name, "", "nothing reads this setting", cure, source)
        elif _claimed(name, source):
            yield Fault(name, "", "nothing reads this setting", "Remove it; `metering config check` lists all.", source)


def _claimed(name: str, source: str) -> bool:
    """Whether an unknown name without a likely meaning is still ours to complain about."""
    if name.startswith(_PREFIX):
        return not _ORCHESTRATOR.match(name)
    return source != "env" and not name.startswith(_OTHERS)


def _meant(name: str, ours: set[str], *, every: bool) -> str | None:
    """The setting that an unknown name was probably meant to be."""
    if not every and len(name) < _NAME_LENGTH_MIN:
        return None
    candidates = sorted(known for known in ours if every or len(known) >= _NAME_LENGTH_MIN)
    for known in candidates:
        grown = name.startswith(known) and len(name) - len(known) <= _SUFFIX_MAX
        if known.startswith(name) or grown:
            return known
    return next(iter(difflib.get_close_matches(name, candidates, 1, _NEAR)), None)


def secret_at(path: Path, *, bytes_min: int, name: str = "JWT_SECRET", prefix: str = "") -> str | Fault:
    """The secret of the setting `name` kept in `path`; a Fault when it cannot be trusted.

    If there is none it is made there (mode 0600), with `prefix` before it.

    Two processes that come at once end with the same secret: it is written aside and linked into place,
    which only the first can do.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            keep_new_secret(path, prefix)
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        return Fault(name, "", f"{path} cannot be used ({error})", f"Set {name}, or make DATA_DIR writable.")
    if len(secret) < bytes_min or not secret.startswith(prefix):
        lacks = f"fewer than {bytes_min} bytes" if len(secret) < bytes_min else f"nothing that begins with {prefix}"
        reason = f"{path} holds {lacks}"
        return Fault(name, "****", reason, f"Remove {path}: the next start makes a new one.")
    return secret


def keep_new_secret(path: Path, prefix: str = "") -> None:
    """Write a new secret to `path` (mode 0600) unless somebody was quicker."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(prefix + secrets.token_urlsafe(48) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(aside)
    except FileExistsError:
        pass
    finally:
        aside.unlink()
