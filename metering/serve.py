"""The parent of a running service: it opens the store, starts the workers, watches both, and ends them in order.

It holds no request and no connection to the store, so there is little in it that can fail. Whatever ends it,
SIGKILL included, ends its children as well (on Linux; see `store.launch`).
"""

import asyncio
import errno
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from metering.address import masked_url
from metering.children import alive
from metering.clock import Clock
from metering.serve_pool import MODULE, Worker
from metering.serve_sandbox import MODULE as SANDBOX_MODULE
from metering.serve_sandbox import Sandbox
from metering.setting_kinds import StripeMode
from metering.settings import Settings, StoreKind
from metering.store.embedded import DATABASES, EmbeddedStore
from metering.store.ephemeral import ephemeral_store

Tell = Callable[[str], None]

STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

_STRIPE: Final = {
    StripeMode.NONE: "not configured: overage is counted and not billed",
    StripeMode.SANDBOX: "a sandbox at STRIPE_API_BASE, no money moves",
    StripeMode.TEST: "Stripe itself in test mode, no money moves",
    StripeMode.LIVE: "Stripe itself, LIVE: money moves",
}
"""How the service is paid, in words."""

PORT_PAUSE_S: Final = 0.1
PORT_TURNS: Final = 50
"""A child that was starting when its parent was killed holds the port until it has looked for its parent: the time that
a Python process takes to begin, a second or so on a busy machine."""

_SIGNAL_CODE: Final = 128
"""A shell's exit code for a death by signal starts here."""


class ServeError(Exception):
    """The service does not start. `cure` says what to do."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(reason)
        self.cure = cure


class PortTakenError(ServeError):
    """Somebody listens on the address."""


@dataclass(frozen=True, slots=True)
class OpenStore:
    """A store that can be reached. `keep`, where there is one, has to run beside the service."""

    kind: StoreKind
    url: str
    text: str
    keep: Callable[[], Coroutine[Any, Any, None]] | None = None


class Service:
    """A store, its workers and their common end. `tell` takes lines for people."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        tell: Tell,
        *,
        ephemeral: bool = False,
        show_token: bool = False,
        sandbox: bool = False,
        worker_module: str = MODULE,
        sandbox_module: str = SANDBOX_MODULE,
    ) -> None:
        self._settings = settings.with_secret_kept()
        self._clock = clock
        self._tell = tell
        self._ephemeral = ephemeral
        self._show_token = show_token
        self._sandbox = sandbox
        self._worker_module = worker_module
        self._sandbox_module = sandbox_module

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP. Raises what keeps the service from starting."""
        with cancelled_by_signals(), suppress(asyncio.CancelledError):
            async with AsyncExitStack() as stack:
                listener = await self._listener(stack)
                store = await self._open_store(stack)
                environment = self._environment(stack, store, listener)
                sandbox = await self._open_sandbox(stack, environment, listener)
                environment |= _named(sandbox)
                workers = self._workers(listener, environment)
                stack.push_async_callback(self._stop, workers, listener)
                await self._serve(store, sandbox, workers, listener)

    async def _listener(self, stack: AsyncExitStack) -> socket.socket:
        """The socket to serve on. A service that was killed while a child of it started lets go of its port late."""
        host, port = self._settings.host, self._settings.port
        for turn in range(PORT_TURNS):
            try:
                return stack.enter_context(bound(host, port))
            except PortTakenError:
                if turn == 0:
                    self._tell(f"{host}:{port} is taken; waiting up to {PORT_TURNS * PORT_PAUSE_S:.0f} s for it ...")
                await asyncio.sleep(PORT_PAUSE_S)
        return stack.enter_context(bound(host, port))

    async def _open_store(self, stack: AsyncExitStack) -> OpenStore:
        """The store that was asked for: in memory, the one at REDIS_URL, or our own."""
        settings = self._settings
        if self._ephemeral:
            url = f"{stack.enter_context(ephemeral_store())}/{settings.redis_db}"
            return OpenStore(StoreKind.EPHEMERAL, url, "in memory (fakeredis): DATA IS LOST ON EXIT")
        if settings.redis_url is not None:
            url = settings.store_url()
            return OpenStore(StoreKind.EXTERNAL, url, f"{masked_url(url)} (REDIS_URL)")
        databases = max(DATABASES, settings.redis_db + 1)
        store = await EmbeddedStore.open(settings.data_dir, clock=self._clock, tell=self._tell, databases=databases)
        stack.push_async_callback(store.close)
        text = f"{store.binary.name} {store.binary.version}, embedded; every event is on disk before it is answered"
        return OpenStore(StoreKind.EMBEDDED, store.url(settings.redis_db), text, store.keep)

    def _environment(self, stack: AsyncExitStack, store: OpenStore, listener: socket.socket) -> dict[str, str]:
        """What the workers are told, over what they would read by themselves."""
        settings = self._settings
        figures = settings.metrics_dir or stack.enter_context(figures_folder(settings.data_dir))
        return settings.environment(
            redis_url=store.url,
            store_kind=store.kind.value,
            jwt_secret=settings.jwt_secret.get_secret_value(),
            metrics_dir=str(figures),
            host=str(listener.getsockname()[0]),
            port=str(listener.getsockname()[1]),
            workers=str(settings.workers),
            data_dir=str(settings.data_dir),
        )

    async def _open_sandbox(
        self, stack: AsyncExitStack, environment: dict[str, str], listener: socket.socket
    ) -> Sandbox | None:
        """A stand-in for Stripe, set up for the catalogue, where one was asked for and has business here."""
        settings = self._settings
        if not self._sandbox or settings.stripe_mode() is not StripeMode.NONE:
            return None
        if settings.redis_url is not None and not settings.debug:
            return None
        sandbox = await Sandbox.open(stack, settings, environment, self._clock, self._tell, module=self._sandbox_module)
        await sandbox.set_up(environment | _named(sandbox), f"{_address(settings, listener)}/webhooks/stripe")
        return sandbox

    def _workers(self, listener: socket.socket, environment: dict[str, str]) -> list[Worker]:
        """The workers, not yet started. A store in memory is too slow for more than one."""
        number = 1 if self._ephemeral else self._settings.workers
        module = self._worker_module
        return [Worker(listener, environment, self._clock, self._tell, module=module) for _ in range(number)]

    async def _serve(
        self, store: OpenStore, sandbox: Sandbox | None, workers: list[Worker], listener: socket.socket
    ) -> None:
        """Start the workers, say so, and keep everything alive; runs until cancelled.

        The first one goes alone: what keeps it from starting is said once, not once a worker.
        """
        async with asyncio.TaskGroup() as group:
            if store.keep is not None:
                group.create_task(store.keep())
            if sandbox is not None:
                group.create_task(sandbox.keep())
            pilot, *others = workers
            if not await pilot.start():
                raise await self._refusal(store)
            group.create_task(pilot.keep())
            for worker in others:
                group.create_task(_started(worker))
            self._greet(store, sandbox, listener)

    async def _refusal(self, store: OpenStore) -> ServeError:
        """Why the first worker did not serve: the gate's lines if it is the gate, else its own log."""
        from metering.doctor import gate_report  # noqa: PLC0415 - the store's driver, needed only to explain

        report = await gate_report(self._settings, store.url, store.kind, self._clock)
        if not report.failures:
            return ServeError("the worker ended before it served", "Its own lines above say why.")
        lines = (f"{check.name}: {check.found}\n    {check.cure}" for check in report.failures)
        return ServeError("the service does not start:\n  " + "\n  ".join(lines), "")

    def _greet(self, store: OpenStore, sandbox: Sandbox | None, listener: socket.socket) -> None:
        """Print what was chosen and how to try it."""
        from metering.welcome import Welcome  # noqa: PLC0415 - brings cryptography: while the worker starts

        host, port = listener.getsockname()[:2]
        settings = self._settings.model_copy(update={"host": host, "port": port, "store_kind": store.kind})
        paid = _STRIPE[settings.stripe_mode()] if sandbox is None else f"SANDBOX at {sandbox.url}, no money moves"
        welcome = Welcome(settings, self._clock, store.text, paid, show_token=self._show_token, program=sys.argv[0])
        for line in welcome.lines():
            self._tell(line)

    async def _stop(self, workers: list[Worker], listener: socket.socket) -> None:
        """Take no new connection, let the workers finish. What the parent holds last is the store."""
        self._tell("stopping")
        listener.close()
        await asyncio.gather(*(worker.stop() for worker in workers))


def _named(sandbox: Sandbox | None) -> dict[str, str]:
    """What the stand-in has the service told, as an environment."""
    return {} if sandbox is None else {name.upper(): value for name, value in sandbox.settings.items()}


def _address(settings: Settings, listener: socket.socket) -> str:
    """Where the service is reached from this machine."""
    host, port = listener.getsockname()[:2]
    return settings.model_copy(update={"host": host, "port": port}).service_url()


async def _started(worker: Worker) -> None:
    """Start a worker and keep it; one that does not come up at once is tried again."""
    await worker.start()
    await worker.keep()


@contextmanager
def cancelled_by_signals() -> Iterator[None]:
    """Cancel the present task at the first signal to stop, and leave at once at the second.

    Leaving at once is safe: the kernel takes the children along, and what was answered is on disk.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 - always so inside a coroutine

    def stop(sign: signal.Signals) -> None:
        if task.cancelling():
            os._exit(_SIGNAL_CODE + sign)
        task.cancel()

    # What was ignored when we started stays so: that is how nohup works.
    heard = [sign for sign in STOPPING if signal.getsignal(sign) is not signal.SIG_IGN]
    for sign in heard:
        loop.add_signal_handler(sign, stop, sign)
    try:
        yield
    finally:
        for sign in heard:
            loop.remove_signal_handler(sign)


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket on the address; the workers listen, so nobody is let in before somebody can answer.

    Raises ServeError when the address cannot be had.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        listener = socket.socket(family, kind)
    except OSError as error:
        raise ServeError(f"HOST {host} is no address here ({error})", "Set HOST or --host.") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            cure = "Stop what listens there, or choose another port: --port 9000 (0 takes any free one)."
            kind_of = PortTakenError if error.errno == errno.EADDRINUSE else ServeError
            raise kind_of(f"cannot listen on {host}:{port} ({error.strerror})", cure) from error
        yield listener


@contextmanager
def figures_folder(data_dir: Path) -> Iterator[Path]:
    """A fresh private folder for the workers' figures, removed afterwards; so are those of killed services."""
    base = data_dir.absolute() / "metrics"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in base.iterdir():
        pid = old.name.partition("-")[0]
        if not pid.isdigit() or int(pid) == os.getpid() or not alive(int(pid)):
            shutil.rmtree(old, ignore_errors=True)
    folder = base / f"{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
