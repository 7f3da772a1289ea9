"""DATA_DIR as the embedded store uses it: who may use it, where the socket is, who runs there now.

DATA_DIR/lock                 held by the store process itself, so for exactly as long as it lives
DATA_DIR/store/               the append-only file, the server's configuration and log (mode 0700)
DATA_DIR/store/run.json       pid, socket and version of the running store, for other commands
"""

import asyncio
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from metering.clock import Clock

SOCKET_BYTES_MAX: Final = 100
"""Room in `sockaddr_un` is 108 bytes on Linux and 104 on macOS, the closing zero included."""

LOCK_WAIT_S: Final = 20.0
"""A service that is stopping needs up to 15 s; the rest is for its store to close the file."""

_LOCK_PAUSE_S: Final = 0.05


class DataDirError(Exception):
    """DATA_DIR cannot be used. `cure` says what to do."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(reason)
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Folder:
    """The places in one DATA_DIR. Absolute, so that they hold for a child with another working directory."""

    data_dir: Path

    @classmethod
    def at(cls, data_dir: Path) -> Self:
        """The folder at `data_dir`, made if missing. Raises DataDirError when it cannot be written."""
        folder = cls(data_dir.absolute())
        try:
            folder.store.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.store.chmod(0o700)
        except OSError as error:
            raise DataDirError(f"DATA_DIR {data_dir} cannot be used: {error}", _CURE_WRITABLE) from error
        return folder

    @property
    def store(self) -> Path:
        """Where the store keeps its files."""
        return self.data_dir / "store"

    @property
    def lock(self) -> Path:
        """The file whose lock says that a store runs here."""
        return self.data_dir / "lock"

    @property
    def config(self) -> Path:
        """The server's configuration, written at every start."""
        return self.store / "store.conf"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.store / "store.log"

    @property
    def record(self) -> Path:
        """Who runs here now."""
        return self.store / "run.json"

    def socket(self) -> Path:
        """Where the store listens. Raises DataDirError when no private place is short enough."""
        path = self.store / "store.sock"
        return path if len(os.fsencode(path)) <= SOCKET_BYTES_MAX else _private_place(self.data_dir) / "s"


_CURE_WRITABLE: Final = "Set DATA_DIR to a folder this user may write to."


def _private_place(data_dir: Path) -> Path:
    """A short folder for the socket of a DATA_DIR with a long name: the same one at every start."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    place = base / f"metering-{sha256(os.fsencode(data_dir)).hexdigest()[:16]}"
    place.mkdir(mode=0o700, exist_ok=True)
    seen = place.lstat()
    private = stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid() and not seen.st_mode & 0o077
    if not private or len(os.fsencode(place / "s")) > SOCKET_BYTES_MAX:
        raise DataDirError(
            f"{place} cannot hold the store's socket: it belongs to somebody else, or its path is too long",
            "Set DATA_DIR to a shorter path.",
        )
    return place


@dataclass(frozen=True, slots=True)
class Running:
    """The store that runs in a folder."""

    pid: int
    parent: int
    socket: str
    name: str
    version: str

    def write(self, path: Path) -> None:
        """Leave a note of it; readers see the old one or the new one, never half of it."""
        aside = path.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        aside.replace(path)

    @classmethod
    def read(cls, folder: Folder) -> Self | None:
        """The store that runs in `folder`; None when the lock is free, whatever an old note says."""
        try:
            found = json.loads(folder.record.read_text(encoding="utf-8"))
            note = cls(**found)
            if {name: type(value) for name, value in found.items()} != cls.__annotations__:
                return None
        except (OSError, ValueError, TypeError):
            return None
        return note if _is_locked(folder.lock) else None


def _is_locked(path: Path) -> bool:
    """Whether somebody holds the lock; looking takes it for a moment, shared, so two may look at once."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(file)


async def lock(folder: Folder, clock: Clock, tell: Callable[[str], None], *, wait_s: float = LOCK_WAIT_S) -> int:
    """Take the folder's lock and return its open file, waiting for whoever is about to end.

    The store inherits the file and the parent keeps it: the lock is free only when both are gone, so nobody
    comes between two lives of a store. Raises DataDirError naming the holder after `wait_s` seconds.
    """
    file = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline, told = clock.monotonic() + wait_s, False
    while not _taken(file):
        holder = _holder(file)
        if not told:
            tell(f"{folder.data_dir} is in use by {holder}; waiting up to {wait_s:g} s for it to end")
            told = True
        if clock.monotonic() > deadline:
            os.close(file)
            raise DataDirError(
                f"{folder.data_dir} is in use by {holder}", "Stop that service, or set another DATA_DIR for this one."
            )
        await asyncio.sleep(_LOCK_PAUSE_S)
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return file


def _taken(file: int) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _holder(file: int) -> str:
    pid = os.pread(file, 32, 0).decode("ascii", "replace").strip()
    return f"the service with process id {pid}" if pid else "another process"
