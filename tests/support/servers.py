"""Real store servers for tests: durable as in production (AOF always), private, ended with the test."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from metering.store.binaries import Binary, binaries, find_binary
from tests.support.wait import wait_until

__all__ = ["StoreServer", "binaries", "free_port", "speak"]

START_S: Final = 10.0
"""A server answers after 0.1 s; the rest is for a machine that runs other tests too."""


def free_port() -> int:
    """A loopback port that nobody listens on now. It lies below those that connections go out from: a server that is
    started again finds it free, however many clients tried to reach it in between.
    """
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def speak(address: str | tuple[str, int], *words: str) -> str:
    """Send one command to the store at a socket path or (host, port); the raw reply. '' when nobody answers."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as line:
        line.settimeout(2)
        try:
            line.connect(address)
            line.sendall(" ".join(words).encode() + b"\r\n")
            return line.recv(65536).decode()
        except OSError:
            return ""


class StoreServer:
    """One server process. `with StoreServer() as server:` gives `.url`; the folder goes with it.

    `tcp=True` listens on a free loopback port instead of a socket; `cluster=True` is a cluster of one node
    that holds all slots (TCP, database 0 only). `settings` are extra configuration lines, later ones win.
    """

    def __init__(
        self,
        binary: Binary | None = None,
        *,
        tcp: bool = False,
        cluster: bool = False,
        settings: tuple[str, ...] = (),
        appendfsync: str = "always",
    ) -> None:
        self.binary = binary or find_binary()
        self.cluster = cluster
        self.folder = Path(tempfile.mkdtemp(prefix="store-"))
        self.socket = self.folder / "s"
        self.port = free_port() if tcp or cluster else 0
        self._settings = (*self._lines(appendfsync), *settings)
        self._process: subprocess.Popen[bytes] | None = None

    def _lines(self, appendfsync: str) -> list[str]:
        lines = ["appendonly yes", f"appendfsync {appendfsync}", 'save ""', "maxmemory-policy noeviction"]
        lines += ["no-appendfsync-on-rewrite no", f'dir "{self.folder}"', f'logfile "{self.folder}/log"']
        lines += ["bind 127.0.0.1", f"port {self.port}"]
        if not self.port:
            lines += [f'unixsocket "{self.socket}"', "unixsocketperm 700"]
        if self.cluster:
            lines += ["cluster-enabled yes", f"cluster-port {free_port()}", "cluster-require-full-coverage yes"]
        return lines

    @property
    def url(self) -> str:
        """The server's URL without a database."""
        return f"redis://127.0.0.1:{self.port}" if self.port else f"unix://{self.socket}"

    @property
    def address(self) -> str | tuple[str, int]:
        """What `socket.connect` takes."""
        return ("127.0.0.1", self.port) if self.port else str(self.socket)

    @property
    def pid(self) -> int:
        """The running server's process id."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """What the server wrote so far."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def say(self, *words: str) -> str:
        """Send one command, give the raw reply."""
        return speak(self.address, *words)

    def start(self) -> Self:
        """Start it and wait until it answers."""
        config = self.folder / "conf"
        config.write_text("\n".join(self._settings) + "\n")
        launch = (sys.executable, "-m", "metering.store.launch", str(os.getpid()))
        self._process = subprocess.Popen([*launch, str(self.binary.path), str(config)])
        wait_until(lambda: self.say("PING").startswith("+PONG"), timeout_s=START_S, what=f"PONG; {self.log()}")
        if self.cluster and "cluster_state:ok" not in self.say("CLUSTER", "INFO"):
            self.say("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            wait_until(
                lambda: "cluster_state:ok" in self.say("CLUSTER", "INFO"), timeout_s=START_S, what="all slots held"
            )
        return self

    def kill(self) -> None:
        """SIGKILL, as a crash does."""
        self._end(kill=True)

    def stop(self) -> None:
        """A clean end."""
        self._end(kill=False)

    def restart(self) -> None:
        """Start again on the same data, after `kill` or `stop`, or as a clean restart."""
        self.stop()
        self.start()

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill() if kill else process.terminate()
        process.wait(timeout=START_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
