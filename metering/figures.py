"""Numbers that outlive the worker that counted them: one memory-mapped file a worker, summed by whoever asks.

Every worker of a service maps a file of its own in one folder and adds to its cells in place. A worker killed in
the middle of a request leaves its sums behind, and the next one takes its file over and goes on counting in it:
so no sum over the folder ever goes back, and there are never more files than workers ran at once.
"""

import fcntl
import json
import mmap
import os
import secrets
import shutil
import stat
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from pathlib import Path
from typing import Final, NamedTuple, Self

from metering.children import alive

CELL_BYTES: Final = 8
"""A signed 64-bit cell, aligned: the machine stores it at once, so a reader never sees half a number."""

_SUFFIX: Final = ".figures"
_LENGTH_BYTES: Final = 8
_FOLDER: Final = "usage-metering"


class FiguresError(Exception):
    """The folder cannot be used. `cure` says what to do."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"{folder} cannot hold the figures: {reason}")
        self.cure = "Set METRICS_DIR to a folder that only this service's user can write."


class Row(NamedTuple):
    """A run of `width` cells with a name that is the same in every version that counts the same thing."""

    name: str
    width: int


class Figures:
    """The cells of one worker, and the sums over all workers of its folder. A context manager.

    `cells` are those of `rows`, one row after the other, as 64-bit integers. Raises FiguresError when `folder` cannot
    be used.
    """

    def __init__(self, folder: Path, rows: Sequence[Row]) -> None:
        self._folder = folder
        head = _head(rows)
        size = len(head) + CELL_BYTES * sum(row.width for row in rows)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = _abandoned(folder, head, size) or _fresh(folder, head, size)
            mapped = mmap.mmap(self._fd, size)
        except OSError as error:
            raise FiguresError(folder, error.strerror or str(error)) from error
        self.cells: memoryview[int] = memoryview(mapped)[len(head) :].cast("q")

    def __enter__(self) -> Self:
        """The cells can be used at once."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the file to the next worker: `cells` is a copy from now on, which nobody sees."""
        self.cells = memoryview(array("q", self.cells.tolist()))
        fcntl.flock(self._fd, fcntl.LOCK_UN)  # the mapping holds a copy of the descriptor, and so the lock
        os.close(self._fd)

    def sums(self) -> dict[Row, list[int]]:
        """Each row's cells summed over all files. Rows that only other versions count are there as well."""
        sums: dict[Row, list[int]] = {}
        for path in self._folder.glob(f"*{_SUFFIX}"):
            for row, cells in _read(path):
                before = sums.get(row)
                sums[row] = cells if before is None else [a + b for a, b in zip(before, cells, strict=True)]
        return sums


def _head(rows: Sequence[Row]) -> bytes:
    """What a file says of itself: the length of the rows' names as JSON, then those, padded to whole cells."""
    text = json.dumps(rows).encode()
    text += b" " * (-len(text) % CELL_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def _abandoned(folder: Path, head: bytes, size: int) -> int | None:
    """A file of the same rows whose worker has ended, open and locked; None when there is none."""
    for path in folder.glob(f"*{_SUFFIX}"):
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_size == size and os.pread(fd, len(head), 0) == head:
                return fd
        os.close(fd)
    return None


def _fresh(folder: Path, head: bytes, size: int) -> int:
    """A new file, open and locked. It gets its name when it is whole, so that nobody reads half of one."""
    name = folder / secrets.token_hex(8)
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(head + bytes(size - len(head)))  # not only made long: a full disk is told here, in words
    except OSError:
        name.unlink()
        raise
    name.rename(name.with_suffix(_SUFFIX))
    return fd


def _read(path: Path) -> Iterator[tuple[Row, list[int]]]:
    """The rows of one file as they stand now."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        length = int.from_bytes(content[:_LENGTH_BYTES], "little") + _LENGTH_BYTES
        rows = [Row(*row) for row in json.loads(content[_LENGTH_BYTES:length])]
        with memoryview(content) as whole, whole[length:] as cells, cells.cast("q") as numbers:
            at = 0
            for row in rows:
                yield row, numbers[at : at + row.width].tolist()
                at += row.width


# ── the folder where none is named ───────────────────────────────────────────────────────────────────────


@contextmanager
def shared_folder(base: Path | None = None) -> Iterator[Path]:
    """A private folder that the workers of one `uvicorn` share, removed when the last of them ends.

    It lies in `base`, by default where temporary files do. Workers know each other by the process that started them
    all; a server without workers has it for itself. Other supervisors (which fork) name a folder in METRICS_DIR
    instead. Raises FiguresError.
    """
    try:
        place = base or Path(tempfile.gettempdir())
        _sweep(place)
        parent = parent_process()
        folder = place / f"{_FOLDER}-{os.getuid()}-{os.getpid() if parent is None else parent.pid}"
        fd = _joined(folder)
    except OSError as error:
        raise FiguresError(base or Path("the temporary folder"), error.strerror or str(error)) from error
    try:
        yield folder
    finally:
        _left(folder, fd)


def _joined(folder: Path) -> int:
    """Make the folder, or join those who are in it: a shared lock on it. Raises FiguresError."""
    while True:
        with suppress(FileNotFoundError):  # the last of those who were in it removed it meanwhile
            fd = _entered(folder)
            if os.path.samestat(os.fstat(fd), folder.lstat()):
                return fd
            os.close(fd)


def _entered(folder: Path) -> int:
    """The folder, open and locked, if it is ours alone."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise FiguresError(folder, "it is not private to this user")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def _left(folder: Path, fd: int) -> None:
    """Let go of the folder; whoever is the last removes it."""
    with suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    os.close(fd)


def _sweep(base: Path) -> None:
    """Remove the folders of services that were killed: nobody is in them and their first process is gone."""
    for folder in base.glob(f"{_FOLDER}-{os.getuid()}-*"):
        pid = folder.name.rpartition("-")[2]
        if pid.isdigit() and not alive(int(pid)):
            with suppress(OSError):
                _left(folder, os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
