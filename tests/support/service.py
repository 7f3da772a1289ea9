"""A service as people start it: the command line in a process of its own, with a folder of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from metering.clock import SystemClock
from metering.settings import Settings
from metering.tokens import mint
from tests.support.servers import free_port
from tests.support.wait import wait_until

ROOT: Final = Path(__file__).parents[2]

START_S: Final = 60.0
"""A start takes two seconds; the rest is for a machine that runs other tests too."""

END_S: Final = 15.0
"""What the service promises after SIGTERM."""

REAL: Final = "metering.cli"
TINY: Final = "tests.support.tiny_service"

_KEPT: Final = ("PATH", "HOME", "TMPDIR", "LANG", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
"""What a service under test inherits: nobody's REDIS_URL."""


def clean_environment(**settings: str) -> dict[str, str]:
    """An environment with these settings (NAME="value") and nothing else of ours."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), **settings}


def call(
    url: str, body: object = None, *, token: str = "", headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """GET, or POST `body` as JSON; the status and the answer (JSON where it is JSON). Raises OSError."""
    sent = dict(headers or {})
    if token:
        sent["Authorization"] = f"Bearer {token}"
    data = None
    if body is not None:
        sent["Content-Type"] = "application/json"
        data = json.dumps(body).encode()
    try:
        with urlopen(Request(url, data, sent), timeout=10) as answer:  # noqa: S310 - loopback, made by the test
            return answer.status, _read(answer.read())
    except HTTPError as refusal:
        with refusal:
            return refusal.code, _read(refusal.read())


def _read(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode()


def children(pid: int) -> dict[int, str]:
    """The living child processes of `pid` with their command lines."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and _parent(folder) == pid:
            found[int(folder.name)] = _command(folder)
    return found


def _parent(folder: Path) -> int:
    try:
        state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return -1
    return -1 if state == "Z" else int(parent)


def _command(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def gone(pid: int) -> bool:
    """Whether no process `pid` lives; one that nobody has buried yet is dead too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


class ServiceProcess:
    """`metering serve` on a free port. `with ServiceProcess() as service:` waits until it is healthy.

    `entry` is the module to run: REAL, or TINY with a small app that counts (`/count`) and hangs (`/hang`).
    `data_dir` is kept when given, else made and removed. `settings` are environment variables.
    """

    def __init__(
        self,
        *options: str,
        data_dir: Path | None = None,
        port: int | None = None,
        entry: str = REAL,
        ready: str = "/health",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._own = None if data_dir else Path(tempfile.mkdtemp(prefix="service-"))
        self.data_dir = data_dir or self._own or Path()
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = (sys.executable, "-m", entry, "serve", "--port", str(self.port), *options)
        self.environment = clean_environment(DATA_DIR=str(self.data_dir), **(settings or {}))
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None
        with tempfile.NamedTemporaryFile(prefix="service-", suffix=".log", delete=False) as log:
            self._log = Path(log.name)

    def start(self, *, healthy: bool = True) -> Self:
        """Start it; with `healthy` wait until it answers. Raises AssertionError with its output."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self.environment,
                cwd=self.data_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if healthy:
            wait_until(self.answers, timeout_s=START_S, what=f"the service at {self.url} answers")
        return self

    def answers(self) -> bool:
        """Whether it answers; fails where it ended."""
        assert self.running(), f"the service ended: {self.output()}"
        try:
            return call(f"{self.url}{self._ready}")[0] == 200
        except OSError:
            return False

    @property
    def pid(self) -> int:
        """The parent's process id."""
        assert self._process is not None, "the service was not started"
        return self._process.pid

    def running(self) -> bool:
        """Whether the parent lives."""
        return self._process is not None and self._process.poll() is None

    def output(self) -> str:
        """Everything it printed so far."""
        return self._log.read_text()

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        return [pid for pid, command in children(self.pid).items() if f"_worker {self.pid} " in command]

    def stores(self) -> list[int]:
        """The process ids of the store: one, or none."""
        return [pid for pid, command in children(self.pid).items() if command.partition(" ")[0].endswith("-server")]

    def token(self, *scopes: str, org: str = "org-123") -> str:
        """A token for an hour, signed as `metering token` would."""
        secret = {name.lower(): value for name, value in self.environment.items() if name == "JWT_SECRET"}
        settings = Settings.model_validate({"data_dir": self.data_dir, **secret}).with_secret_kept()
        return mint(settings, SystemClock(), org=org, scopes=scopes or ("admin",), ttl_s=3600)

    def call(self, path: str, body: object = None, *, token: str = "") -> tuple[int, Any]:
        """One request to it: GET, or POST with a body."""
        return call(f"{self.url}{path}", body, token=token)

    def kill(self) -> None:
        """SIGKILL to the parent alone, as the kernel does when memory runs out."""
        self._signal(signal.SIGKILL)
        self.wait()

    def kill_everything(self) -> None:
        """SIGKILL to store, workers and parent, each by its id: the children have process groups of their own.

        The parent comes last, so that its children die of their own signal and not of its end.
        """
        for pid in (*self.stores(), *self.workers(), self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait()

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self._signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s: float = END_S) -> int:
        """The exit code, once it has ended. Raises subprocess.TimeoutExpired."""
        assert self._process is not None, "the service was not started"
        return self._process.wait(timeout=timeout_s)

    def _signal(self, sign: signal.Signals) -> None:
        if self.running():
            os.kill(self.pid, sign)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it and everything it started, and remove what it left."""
        if self.running():
            family = children(self.pid)
            self.kill()
            wait_until(lambda: all(map(gone, family)), timeout_s=END_S, what="the children of a killed parent end")
        self._log.unlink(missing_ok=True)
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)
