"""An example sink: copies every raw event out of the store into files of JSON lines, one a UTC day.

At least once: a line is on disk before its entry is acknowledged, so whatever is killed in between is written again.
Each line has `partition` and `id`, which together name the entry: a reader drops what it has seen.
"""

import asyncio
import fcntl
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final, Self

import orjson
import structlog

from metering.errors import Problem
from metering.store.boxes import Unreadable
from metering.store.raw_events import opened
from metering.store.raw_feed import Feed, Item
from metering.store.raw_log import entry_of, shown
from metering.store.raw_names import Names

BLOCK_MS: Final = 500
"""How long one read waits for something to come; a sink that is told to end does so within it."""

LOOK_S: Final = 30.0
"""Between two looks for entries of sinks that died and for what retention ended unread."""

PAUSE_S: Final = 1.0
"""Before the store is asked again after it did not answer."""

_DATE_CHARS: Final = len("2026-11-25")

log = structlog.get_logger(__name__)


class SinkError(Exception):
    """The sink cannot work. `cure` says what to do."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(reason)
        self.cure = cure


class DayFiles:
    """Files `events-<day>.jsonl` in one folder, for one process at a time. A context manager; raises SinkError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Take the folder, made where it is missing."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SinkError(f"{self._folder} is written by another sink", "Give each sink a folder.") from error
        except OSError as error:
            raise _unusable(self._folder, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def append(self, lines: dict[str, list[bytes]]) -> None:
        """Write whole lines by day, and see them on disk."""
        for day, some in lines.items():
            path = self._folder / f"events-{day}.jsonl"
            try:
                with path.open("ab+") as file:
                    _cut_torn(file)
                    file.write(b"".join(some))
                    file.flush()
                    os.fsync(file.fileno())
                self._sync_folder()
            except OSError as error:
                raise _unusable(path, error) from error

    def _sync_folder(self) -> None:
        """A new file's name is part of the folder."""
        fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _unusable(path: Path, error: OSError) -> SinkError:
    return SinkError(f"{path} cannot be written: {error.strerror}", "Give a folder with room that this user may write.")


def _cut_torn(file: BinaryIO) -> None:
    """Drop what a killed sink left of its last line: it was not acknowledged, so it comes again."""
    size = file.seek(0, os.SEEK_END)
    end = size
    while end > 0:
        file.seek(end - 1)
        if file.read(1) == b"\n":
            break
        end -= 1
    if end < size:
        file.truncate(end)


class Sink:
    """Copies entries from a feed into files. `monotonic` is a stopwatch in seconds."""

    def __init__(self, feed: Feed, names: Names, files: DayFiles, monotonic: Callable[[], float]) -> None:
        self._feed, self._names, self._files, self._monotonic = feed, names, files, monotonic
        self._looked_s = float("-inf")
        self.written = 0
        self.end = asyncio.Event()

    async def run(self, *, once: bool = False) -> None:
        """Copy until `end` is set; with `once` until there is nothing left. Raises SinkError, and 503s with `once`."""
        begun = False
        while not self.end.is_set():
            try:
                if not begun:
                    await self._begin()
                    begun = True
                await self._look_after()
                items = await self._feed.unread(None if once else BLOCK_MS)
                await self._copy(items)
            except Problem as problem:
                if once:
                    raise
                log.warning("store away", code=problem.code)
                begun = False
                await asyncio.sleep(PAUSE_S)
                continue
            if once and not items:
                return

    async def _begin(self) -> None:
        """Make the group where it is missing, and copy what was handed to this sink before."""
        await self._feed.open()
        while items := await self._feed.mine():
            await self._copy(items)

    async def _look_after(self) -> None:
        """Now and then: tell what was missed, and take over from sinks that died."""
        now_s = self._monotonic()
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        for partition, missed in (await self._feed.missed()).items():
            log.error(
                "raw events missed: retention ended them before they were read", partition=partition, missed=missed
            )
        while items := await self._feed.left():
            await self._copy(items)

    async def _copy(self, items: Sequence[Item]) -> None:
        """Write these, then acknowledge them."""
        if not items:
            return
        lines: dict[str, list[bytes]] = defaultdict(list)
        for item in items:
            line = await self._line(item)
            if line is not None:
                lines[line[0]].append(line[1])
        self._files.append(lines)
        await self._feed.acknowledge(items)
        self.written += sum(map(len, lines.values()))

    async def _line(self, item: Item) -> tuple[str, bytes] | None:
        """The day and the line of an entry; None where there is nothing to write."""
        if item.fields is None:
            log.error("raw event missed: retention ended it unwritten", entry=item.name)
            return None
        try:
            entry = entry_of(item.name, item.fields)
            name = item.fields[b"org"].decode().partition(".")[0]
        except (KeyError, ValueError):
            log.warning("raw event of no known shape", partition=item.partition, entry=item.name)
            return None
        known = await self._names.of(item.partition, name)
        if known is not None:
            try:
                entry = replace(entry, details=opened(item.fields.get(b"box", b""), known.data_key))
            except Unreadable:
                log.warning("a raw event whose details cannot be read", partition=item.partition, entry=item.name)
        view = {"partition": item.partition, **shown(entry, None if known is None else known.org_id)}
        return view["at"][:_DATE_CHARS], orjson.dumps(view) + b"\n"
