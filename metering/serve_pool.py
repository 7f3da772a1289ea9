"""A worker as its parent sees it: a process, and a pipe in which its event loop beats."""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from metering.children import Backoff, end, spawn
from metering.clock import Clock

MODULE: Final = "metering.serve_worker"

END_S: Final = 12.0
"""9 s for requests in flight, 3 s for the app to close what it opened. Of the 15 s after which an orchestrator
may kill everything, 2 s are left for the store and 1 s for the parent itself."""

SILENCE_S: Final = 30.0
"""A worker whose event loop has not turned for so long hangs: nothing on it may take longer than milliseconds."""

START_S: Final = 60.0
"""A worker serves within 2 s; the rest is for a machine that swaps."""

Tell = Callable[[str], None]


class Worker:
    """One process that answers requests, and its heartbeat."""

    def __init__(
        self,
        listener: socket.socket,
        environment: Mapping[str, str],
        clock: Clock,
        tell: Tell,
        *,
        module: str = MODULE,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._listener = listener
        self._environment = environment
        self._clock = clock
        self._tell = tell
        self._module = module
        self._silence_s = silence_s
        self._process: Process | None = None
        self._pulse = asyncio.StreamReader()
        self._pipe: asyncio.BaseTransport | None = None
        self._started_s = 0.0

    async def start(self) -> bool:
        """Start the process; True as soon as it serves, False when it ended before."""
        beats, beating = os.pipe()
        try:
            files = (self._listener.fileno(), beating)
            arguments = (str(os.getpid()), *map(str, files))
            command = (sys.executable, "-m", self._module, *arguments)
            self._started_s = self._clock.monotonic()
            self._process = await spawn(command, environment=self._environment, files=files)
        finally:
            os.close(beating)
        self._pulse, self._pipe = await _reader(beats)
        return await self._beat(START_S)

    async def keep(self) -> None:
        """Start another process whenever this one dies or hangs; runs until cancelled."""
        backoff = Backoff()
        while True:
            while await self._beat(self._silence_s):
                pass
            code = await self._ended()
            self._tell(f"a worker ended with code {code}; starting another")
            await asyncio.sleep(backoff.delay_s(self._clock.monotonic() - self._started_s))
            if await self.start():
                self._tell(f"a new worker serves (pid {self.pid})")

    async def stop(self) -> None:
        """Let it finish what it has in hand, but not longer than END_S."""
        if self._process is not None:
            await end(self._process, grace_s=END_S)
        if self._pipe is not None:
            self._pipe.close()

    @property
    def pid(self) -> int:
        """The process id, as of its last start."""
        return self._process.pid if self._process else -1

    async def _beat(self, within_s: float) -> bool:
        """Whether a heartbeat came: False when the process ended, or was silent too long and was killed."""
        try:
            async with asyncio.timeout(within_s):
                return bool(await self._pulse.read(1024))
        except TimeoutError:
            self._tell(f"the worker (pid {self.pid}) has not answered for {within_s:g} s; killing it")
            await self._ended(kill=True)
            return False

    async def _ended(self, *, kill: bool = False) -> int:
        """The exit code of the process, which has closed its pipe or is about to be killed."""
        assert self._process is not None  # noqa: S101 - only called after start
        if kill:
            with suppress(ProcessLookupError):
                self._process.kill()
        return await self._process.wait()


async def _reader(fd: int) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    """The reading end of a pipe as a stream, and what closes it."""
    reader = asyncio.StreamReader()
    pipe = os.fdopen(fd, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return reader, transport
