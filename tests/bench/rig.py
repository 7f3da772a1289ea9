"""What every bench stands on: servers on cores of their own, load from wrk, CPU seconds, the check of the counts."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import urlopen

from metering.serve_worker import BACKLOG
from metering.store.connect import connect
from metering.store.conservation import walk
from metering.store.keys import Keys
from tests.support.servers import StoreServer, free_port
from tests.support.wait import wait_until

ROUNDS: Final = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS: Final = int(os.environ.get("BENCH_SECONDS", "4"))
FOLDER: Final = Path(__file__).parent
FLOOR: Final = "tests.bench.floor:app"
SECRET: Final = "a secret that only this bench ever used"
SERVICE_CORE: Final = 0
STORE_CORE: Final = 1
"""The load shares the store's core: what is measured are CPU seconds of a process, not the clock."""


@dataclass(frozen=True, slots=True)
class Server:
    """A process that is measured, and the port it listens on."""

    pid: int
    port: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One round against one server: answers, CPU seconds of the server and of the store, latencies."""

    requests: int
    cpu_s: float
    store_s: float
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_cpu_s(self) -> float:
        """Requests per CPU-second of the server."""
        return self.requests / self.cpu_s


def need_wrk() -> None:
    """End the bench where the load generator is missing."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt-get install wrk (it makes the load, so that Python does not measure itself)")


def cpu_s(pid: int) -> float:
    """CPU seconds that all threads of a process used so far (nanoseconds in schedstat)."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


@contextmanager
def floor() -> Iterator[Server]:
    """The bare handler, one process of uvicorn."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", FLOOR, "--port", str(port), "--loop", "uvloop", "--http", "httptools"]
    command += ["--no-access-log", "--no-proxy-headers", "--log-level", "warning"]
    with measured(subprocess.Popen(command, stdout=subprocess.DEVNULL), port) as running:
        yield running


@contextmanager
def service(environment: Mapping[str, str]) -> Iterator[Server]:
    """One worker of the service, as `metering serve` starts it."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        pulse, beats = os.pipe()
        fds = (listener.fileno(), beats)
        command = [sys.executable, "-m", "metering.serve_worker", str(os.getpid()), *map(str, fds)]
        process = subprocess.Popen(command, env=os.environ | dict(environment), pass_fds=fds, stdout=subprocess.DEVNULL)
        with measured(process, listener.getsockname()[1]) as running:
            yield running
        os.close(pulse)
        os.close(beats)


@contextmanager
def measured(process: subprocess.Popen[bytes], port: int) -> Iterator[Server]:
    """A server process, held on the first core, once it answers; ended afterwards."""
    os.sched_setaffinity(process.pid, {SERVICE_CORE})
    try:
        wait_until(lambda: answers(port), timeout_s=20, what=f"a server answers on port {port}")
        yield Server(process.pid, port)
    finally:
        process.terminate()
        process.wait(20)


def answers(port: int) -> bool:
    """Whether an HTTP server answers at all, with whatever status."""
    try:
        urlopen(f"http://127.0.0.1:{port}/health/live", timeout=1).close()
    except HTTPError:
        return True
    except OSError:
        return False
    return True


def load(target: Server, store: StoreServer, script: str, connections: int, **told: str) -> Sample:
    """One round of wrk from the second core; `told` is what its script reads from the environment."""
    environment = os.environ | {f"BENCH_{name.upper()}": value for name, value in told.items()}
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "-s", str(FOLDER / script)]
    before, store_before = cpu_s(target.pid), cpu_s(store.pid)
    done = subprocess.run(
        ["taskset", "-c", str(STORE_CORE), *command, f"http://127.0.0.1:{target.port}"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    used, store_used = cpu_s(target.pid) - before, cpu_s(store.pid) - store_before
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["bad"] == 0 and found["errors"] == 0, f"answers that are not as they should be: {found}"  # noqa: PT018
    return Sample(found["requests"], used, store_used, found["seconds"], found["p50_ms"], found["p99_ms"])


async def check(store: StoreServer, accepted: int, under_way: int) -> int:
    """Counters equal the ids the store holds: those answered, and up to `under_way` that wrk cut off as it stopped."""
    assert "always" in store.say("CONFIG", "GET", "appendfsync"), "the bench is only honest with appendfsync always"
    units, ids = await counted(store)
    assert units == ids, f"{units} units counted for {ids} ids"
    assert accepted <= ids <= accepted + under_way, f"{ids} ids for {accepted} events in answers"
    return ids


async def counted(store: StoreServer) -> tuple[int, int]:
    """Units counted and ids seen in a whole data set, every law of conservation checked."""
    async with connect(store.url, database=2) as client:
        redis: Any = client
        report = await walk(client, Keys(64))
        assert not report.violations, report.violations[:3]
        ids = 0
        async for key in redis.scan_iter(match="*:d:*", count=1000):
            ids += await redis.scard(key) // 2
    return report.units, ids
