"""A durable store that the service starts, keeps alive and ends: nothing to install, nothing to lose."""

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

from metering.children import Backoff, end, spawn
from metering.clock import Clock
from metering.store import launch
from metering.store.binaries import Binary, find_binary
from metering.store.folder import DataDirError, Folder, Running, lock

DATABASES: Final = 16

END_S: Final = 2.0
"""The store has nothing left to save (AOF always) and ends in 20 ms; the rest is for a rewrite that it stops."""

SILENCE_S: Final = 30.0
"""A new server answers something (PONG or LOADING) within 0.1 s, and on a machine that swaps within seconds."""

_NEWS_S: Final = 2.0
"""A start that takes longer is worth a word."""

_REPLY_S: Final = 1.0
_PAUSE_S: Final = 0.01
_LOG_LINES: Final = 5


class StoreStartError(Exception):
    """The embedded store does not come up. `cure` says where to look."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(reason)
        self.cure = cure


def config_text(folder: Folder, socket: Path, *, databases: int) -> str:
    """The server's configuration: every acknowledged write is on disk, nothing is ever dropped to make room."""
    lines = (
        "port 0",
        f"unixsocket {_quoted(socket)}",
        "unixsocketperm 700",
        f"dir {_quoted(folder.store)}",
        f"logfile {_quoted(folder.log)}",
        "daemonize no",
        f"databases {databases}",
        "appendonly yes",
        "appendfsync always",
        "no-appendfsync-on-rewrite no",
        "aof-load-truncated yes",
        'save ""',
        "maxmemory-policy noeviction",
    )
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    """A path as the server's configuration reads it."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


class EmbeddedStore:
    """One store process over one DATA_DIR. `tell` takes a line for people.

    Open it, run `keep()` beside the service, `close()` it last. The kernel ends the process when this one is
    killed (see `launch`), and the lock on the folder is free again in the same moment.
    """

    def __init__(
        self,
        folder: Folder,
        binary: Binary,
        *,
        databases: int,
        clock: Clock,
        tell: Callable[[str], None],
        silence_s: float = SILENCE_S,
    ) -> None:
        self.folder = folder
        self.binary = binary
        self.socket = folder.socket()
        self._databases = databases
        self._clock = clock
        self._tell = tell
        self._silence_s = silence_s
        self._lock = -1
        self._process: Process | None = None
        self._started_s = 0.0

    @classmethod
    async def open(
        cls,
        data_dir: Path,
        *,
        clock: Clock,
        tell: Callable[[str], None],
        databases: int = DATABASES,
        silence_s: float = SILENCE_S,
    ) -> Self:
        """Find a server, take the folder, start, and return when it answers.

        Raises NoServerError, DataDirError or StoreStartError.
        """
        folder, binary = Folder.at(data_dir), find_binary()
        store = cls(folder, binary, databases=databases, clock=clock, tell=tell, silence_s=silence_s)
        store._lock = await lock(store.folder, clock, tell)
        try:
            await store._start()
        except BaseException:
            await store.close()
            raise
        return store

    def url(self, database: int) -> str:
        """Where the store answers."""
        return f"unix://{quote(str(self.socket))}?db={database}"

    @property
    def pid(self) -> int:
        """The process id of the store, as of its last start."""
        return self._process.pid if self._process else -1

    async def keep(self) -> None:
        """Start the store again whenever it dies, on the same socket; runs until cancelled."""
        backoff = Backoff()
        while True:
            code = await self._process.wait() if self._process else "none"
            lived_s = self._clock.monotonic() - self._started_s
            self._tell(f"the store (pid {self.pid}) ended with code {code}; starting it again")
            await asyncio.sleep(backoff.delay_s(lived_s))
            try:
                await self._start()
            except StoreStartError as error:
                self._tell(f"{error}. {error.cure}")
            except OSError as error:  # a full disk: the next turn may find room
                self._tell(f"the store cannot be started: {error}")
            else:
                self._tell(f"the store answers again (pid {self.pid})")

    async def close(self) -> None:
        """End the store cleanly and give the folder free."""
        if self._process is not None:
            await end(self._process, grace_s=END_S)
        for leftover in (self.folder.record, self.socket):
            leftover.unlink(missing_ok=True)
        with suppress(OSError):
            os.close(self._lock)

    async def _start(self) -> None:
        """Start the process and wait until it answers. Raises StoreStartError."""
        text = config_text(self.folder, self.socket, databases=self._databases)
        self.folder.config.write_text(text, encoding="utf-8")
        # -I -S: the launcher needs nothing but the standard library and is on the way of every start.
        python = (sys.executable, "-I", "-S", launch.__file__, str(os.getpid()))
        server = (str(self.binary.path), str(self.folder.config))
        self._started_s = self._clock.monotonic()
        self._process = await spawn((*python, *server), files=(self._lock,))
        await self._answers(self._process)
        binary = self.binary
        Running(self.pid, os.getpid(), str(self.socket), binary.name, binary.version).write(self.folder.record)

    async def _answers(self, process: Process) -> None:
        """Wait for PONG; LOADING may take as long as the data set is large. Raises StoreStartError."""
        heard_s, told = self._clock.monotonic(), False
        while (answer := await _ping(self.socket)) != b"+PONG\r\n":
            now_s = self._clock.monotonic()
            if process.returncode is not None:
                raise self._failed(f"the store ended with code {process.returncode} while starting")
            if answer:
                heard_s = now_s
            if not told and now_s - self._started_s > _NEWS_S:
                told = True
                self._tell("the store is reading its data set")
            if now_s - heard_s > self._silence_s:
                # Whoever starts the next one waits for the end of this one, which would never come by itself.
                await end(process, grace_s=0)
                raise self._failed(f"the store did not answer for {self._silence_s:g} s")
            await asyncio.sleep(_PAUSE_S)

    def _failed(self, reason: str) -> StoreStartError:
        """What went wrong, with the server's own last words."""
        log = self.folder.log
        last = log.read_text(errors="replace").splitlines()[-_LOG_LINES:] if log.exists() else []
        return StoreStartError("\n  ".join((reason, *last)), f"Read {log}; the data in {log.parent} was not touched.")


async def _ping(socket: Path) -> bytes:
    """One line of answer to PING; nothing when nobody answers."""
    writer = None
    try:
        async with asyncio.timeout(_REPLY_S):
            reader, writer = await asyncio.open_unix_connection(socket)
            writer.write(b"PING\r\n")
            return await reader.readline()
    except (OSError, TimeoutError):
        return b""
    finally:
        if writer is not None:
            writer.close()


__all__ = ["DataDirError", "EmbeddedStore", "StoreStartError", "config_text"]
