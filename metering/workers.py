"""The loops beside the requests, under one supervisor: a loop that fails is told and goes on at its next turn."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from random import SystemRandom
from typing import Final, Self

import structlog

from metering.errors import Problem
from metering.tallies import Spread

_JITTER: Final = 0.2
"""Turns are spread by a fifth, so that workers started together do not stay in step."""

LAG_S: Final = 1.0
"""Between two looks at how late the loop is."""

_NAP_S: Final = 0.05
_US_PER_S: Final = 1_000_000

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Loop:
    """One job and how many seconds lie between two turns of it; `woken` set begins the next one at once."""

    name: str
    turn: Callable[[], Awaitable[None]]
    every_s: float
    woken: asyncio.Event | None = None


class Workers:
    """Runs loops while it is entered; leaving ends them between or inside turns, so turns are safe to cut."""

    def __init__(self, *loops: Loop, failures: Counter[str] | None = None) -> None:
        self._loops = loops
        self._failures = Counter[str]() if failures is None else failures
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False
        self._random = SystemRandom()

    async def __aenter__(self) -> Self:
        """Start every loop."""
        self._tasks = [asyncio.create_task(self._run(loop), name=loop.name) for loop in self._loops]
        return self

    async def __aexit__(self, *_: object) -> None:
        """End every loop, also one whose turn mistakes its cancellation for a failure of the store."""
        self._ending = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, loop: Loop) -> None:
        while not self._ending:
            await _pause(loop.every_s * self._random.uniform(1 - _JITTER, 1 + _JITTER), loop.woken)
            try:
                await loop.turn()
            except Problem as problem:  # the store is away: requests say so loudly enough
                self._failures[loop.name] += 1
                log.warning("loop turn failed", loop=loop.name, code=problem.code)
            except Exception:
                self._failures[loop.name] += 1
                log.exception("loop turn failed", loop=loop.name)


async def look_at_lag(spread: Spread) -> None:
    """Sleep shortly, and note by how many us the loop was late to wake: what every request waits for besides."""
    loop = asyncio.get_running_loop()
    due_s = loop.time() + _NAP_S
    await asyncio.sleep(_NAP_S)
    spread.add(max(0, int((loop.time() - due_s) * _US_PER_S)))


async def _pause(seconds: float, woken: asyncio.Event | None) -> None:
    """Wait, or until somebody has work now."""
    if woken is None:
        await asyncio.sleep(seconds)
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await woken.wait()
    woken.clear()
