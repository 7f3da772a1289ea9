"""Run one program that ends when its parent ends: `python -m metering.store.launch PARENT_PID PROGRAM [ARG...]`.

A server whose parent was killed with SIGKILL lives on by default. Linux can be asked to take it along; the
request has to come from the child itself, so this module is what the parent starts, and it then becomes
the server (same pid, same inherited files). Only the standard library: it is on the way of every start.
"""

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


class Orphaned(SystemExit):
    """The parent ended before the child could ask to be taken along."""


def die_with_parent(parent: int) -> None:
    """Have the kernel send SIGKILL to this process when the thread that started it ends (Linux only).

    SIGKILL is safe for the store, because every acknowledged write is on disk (AOF always), and for a worker,
    because it holds nothing that the store does not. Raises Orphaned when process `parent` is gone already:
    the kernel tells only of deaths after the request.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        raise Orphaned(f"process {parent} ended while its child was starting")


def main(arguments: list[str]) -> None:
    """Bind this process's life to its parent's and become the program."""
    parent, program, *rest = arguments
    die_with_parent(int(parent))
    os.execv(program, [program, *rest])  # noqa: S606 - the caller names a server binary by its full path


if __name__ == "__main__":
    main(sys.argv[1:])
