"""Child processes that are watched, ended in order, and never outlive their parent by more than they must."""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

STEADY_S: Final = 10.0
"""A child that lived this long was healthy: its next death is a new story and is answered at once."""

_DELAY_FIRST_S: Final = 0.1
_DELAY_MAX_S: Final = 5.0
"""Often enough that a repaired disk is noticed soon, rarely enough not to fill a log."""


class Backoff:
    """How long to wait before a dead child is started again: not at all, then longer each time."""

    def __init__(self) -> None:
        self._deaths = 0

    def delay_s(self, lived_s: float) -> float:
        """The wait after a child that lived `lived_s` seconds."""
        self._deaths = 0 if lived_s >= STEADY_S else self._deaths + 1
        if self._deaths <= 1:
            return 0.0
        doublings = min(self._deaths - 2, 10)
        return float(min(_DELAY_FIRST_S * 2**doublings, _DELAY_MAX_S))


async def spawn(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, files: tuple[int, ...] = ()
) -> Process:
    """Start `command` in a process group of its own, with the open `files` and the standard streams.

    The group keeps a Ctrl-C in a terminal from reaching it: the parent alone says who ends, and when. Call it
    from the main thread, because PR_SET_PDEATHSIG follows the thread that forked.
    """
    return await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, env=environment, pass_fds=files, process_group=0
    )


async def end(process: Process, *, grace_s: float) -> None:
    """End a child: SIGTERM, and SIGKILL when it is still there after `grace_s` seconds."""
    for sign, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, None)):
        if process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(sign)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await process.wait()


def alive(pid: int) -> bool:
    """Whether a process with this id exists (its end not yet noticed by its parent counts)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
