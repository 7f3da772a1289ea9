"""One worker: `python -m metering.serve_worker PARENT_PID LISTEN_FD PULSE_FD`, started by `serve`.

It serves the app on the parent's socket, ends with the parent, and beats once a second into the parent's pipe
from its event loop: the first beat says that it serves, silence says that it hangs.
"""

import gc
import os
import resource
import socket
import sys
from contextlib import suppress
from typing import Final

import uvicorn

from metering.settings import SettingsError
from metering.store.launch import die_with_parent
from metering.wire import WireProtocol
from plans.catalogue import CatalogueError

APP: Final = "metering.app:create_app"

BACKLOG: Final = 2048
"""Connections the kernel holds while the loop is busy: two seconds of new ones at 1,000 a second."""

CONNECTIONS_MAX: Final = 4096
"""Open connections or running requests of one worker before it answers 503: each costs about 20 KiB, and the
hot path sheds load by its own, shorter queue long before."""

GRACE_S: Final = 9
"""For requests in flight after SIGTERM. A request has a budget of 2 s; the rest is for slow senders, who must not
hold the end of a service longer than this."""

KEEP_ALIVE_S: Final = 65
"""Idle connections are kept longer than usual balancers keep theirs (60 s), so that never both ends close one at
the same moment and a request is lost between them."""

REFUSED: Final = 3
"""uvicorn's own code for an app that does not start."""

_PULSE_TICKS: Final = 10
"""The server ticks ten times a second."""

_FILES_WANTED: Final = 65_536


def main(arguments: list[str], app: str = APP, *, dated: bool = True) -> None:
    """Serve until SIGTERM. Exits with 3 when the app refuses to start. `dated` False: the app tells its own `Date`."""
    parent, listen_fd, pulse_fd = (int(argument) for argument in arguments)
    die_with_parent(parent)
    gc.disable()  # until it is settled: what a start makes, stays
    _raise_file_limit()
    for fd in (listen_fd, pulse_fd):
        os.set_inheritable(fd, False)
    listener = socket.socket(fileno=listen_fd)
    try:
        PulsingServer(config(app, dated=dated), pulse_fd).run(sockets=[listener])
    except (SettingsError, CatalogueError):
        sys.exit(REFUSED)  # the parent, which runs the same checks, tells every fault with its cure


def config(app: str = APP, *, dated: bool = True) -> uvicorn.Config:
    """How the app is served; nothing is left to what happens to be installed, but uvloop."""
    return uvicorn.Config(
        app,
        factory=True,
        http=WireProtocol,
        ws="none",
        loop="auto",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=dated,
        # Whoever may set X-Forwarded-For may forge an address: a proxy in front is not assumed.
        proxy_headers=False,
        backlog=BACKLOG,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )


class PulsingServer(uvicorn.Server):
    """A server whose event loop tells its parent that it turns."""

    def __init__(self, config: uvicorn.Config, pulse_fd: int) -> None:
        super().__init__(config)
        os.set_blocking(pulse_fd, False)
        self._pulse_fd = pulse_fd

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve, then beat for the first time."""
        await super().startup(sockets=sockets)
        settle()
        self._beat()

    async def on_tick(self, counter: int) -> bool:
        """Beat once a second."""
        if counter % _PULSE_TICKS == 0:
            self._beat()
        return await super().on_tick(counter)

    def _beat(self) -> None:
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._pulse_fd, b".")


def settle() -> None:
    """Leave out of later garbage collections what is there now: modules, models and routes live as long as the worker.

    Walking them over and over found nothing, stopped the worker for 65 ms about twice a second under batches, and took
    a sixth of its CPU.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


def _raise_file_limit() -> None:
    """Take as many open files as this user may have: the usual soft limit of 1024 is below CONNECTIONS_MAX."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, _FILES_WANTED)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    main(sys.argv[1:])
