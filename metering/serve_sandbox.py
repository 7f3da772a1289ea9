"""The stand-in for Stripe beside a running service: started before the workers, watched, and ended with them."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Final, Self

from metering.children import end, spawn
from metering.clock import Clock
from metering.sandbox_place import Answering, Place
from metering.serve_pool import Worker
from metering.settings import Settings

MODULE: Final = "metering.sandbox_worker"

SETUP_S: Final = 30.0
"""The set-up asks a few dozen things of a process on this machine."""

_END_S: Final = 1.0

Tell = Callable[[str], None]


class SandboxError(Exception):
    """The stand-in does not come up. `cure` says what to do."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(reason)
        self.cure = cure


class Sandbox:
    """One stand-in."""

    def __init__(self, worker: Worker, place: Place, url: str, tell: Tell) -> None:
        self._worker = worker
        self._place = place
        self._tell = tell
        self.url = url

    @property
    def settings(self) -> dict[str, str]:
        """What the service's workers are told of it: settings by name, in lower case."""
        return self._place.settings(self.url)

    @classmethod
    async def open(
        cls,
        stack: AsyncExitStack,
        settings: Settings,
        environment: Mapping[str, str],
        clock: Clock,
        tell: Tell,
        *,
        module: str = MODULE,
    ) -> Self:
        """Start it on a port of loopback; `stack` ends it. `environment` names the store whose clock it follows.

        Raises SandboxError, or SettingsError for secrets that cannot be kept.
        """
        listener = stack.enter_context(_bound(settings.stripe_sandbox_port))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        place = Place(settings.data_dir.absolute())
        told = {name.upper(): value for name, value in place.settings(url).items()}
        worker = Worker(listener, {**environment, **told}, clock, tell, module=module)
        stack.push_async_callback(worker.stop)
        if not await worker.start():
            raise SandboxError("the sandbox Stripe ended before it answered", "Its own lines above say why.")
        Answering(os.getpid(), url).write(place)
        stack.callback(place.note.unlink, missing_ok=True)
        return cls(worker, place, url, tell)

    async def keep(self) -> None:
        """Start it again whenever it dies; runs until cancelled."""
        await self._worker.keep()

    async def set_up(self, environment: Mapping[str, str], webhook_url: str) -> None:
        """Make there what the catalogue needs. What goes wrong is told: the service itself does not need it."""
        options = ("--yes", "--quiet", "--secrets-to", str(self._place.secrets), "--url", webhook_url)
        command = (sys.executable, "-m", "metering.cli", "stripe", "setup", *options)
        process = await spawn(command, environment=environment)
        try:
            async with asyncio.timeout(SETUP_S):
                code = await process.wait()
        except TimeoutError:
            code = -1
        finally:
            await end(process, grace_s=_END_S)
        if code != 0:
            self._tell("the sandbox Stripe could not be set up; `metering stripe setup` tries again and says why")


def _bound(port: int) -> socket.socket:
    """A socket on loopback: nobody else's money, and nobody else's business."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        cure = "Stop what listens there, or set STRIPE_SANDBOX_PORT to another port (0 takes any)."
        raise SandboxError(f"the sandbox Stripe cannot listen on port {port} ({error.strerror})", cure) from error
    return listener
