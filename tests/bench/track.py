"""Requests per CPU-second of `POST /usage/track`, beside a bare ASGI handler in the same run.

Machines are shared and noisy, so only the ratio counts: both servers are measured in turn, on the same core, with the
same load, and the medians are compared. The load comes from wrk (no Python), ids never repeat, any answer that is not
2xx fails the bench, and so do counters that differ from the ids the store holds. The store fsyncs every write.
"""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from metering.clock import SystemClock
from metering.settings import Settings
from metering.store.connect import connect
from metering.store.conservation import walk
from metering.store.keys import Keys
from metering.tokens import mint
from tests.support.servers import StoreServer, free_port
from tests.support.wait import wait_until

ROUNDS: Final = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS: Final = int(os.environ.get("BENCH_SECONDS", "4"))
CONNECTIONS: Final = 64
FOLDER: Final = Path(__file__).parent
WIRE: Final = "metering.wire:WireProtocol"
SECRET: Final = "a secret that only this bench ever used"


@dataclass(frozen=True, slots=True)
class Sample:
    """One round against one server: answers, CPU seconds of the server's process, latencies."""

    requests: int
    cpu_s: float
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_cpu_s(self) -> float:
        """Requests per CPU-second."""
        return self.requests / self.cpu_s


def cpu_s(pid: int) -> float:
    """CPU seconds that all threads of a process used so far (nanoseconds in schedstat)."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


@contextmanager
def server(app: str, *options: str, environment: dict[str, str]) -> Iterator[tuple[int, int]]:
    """A uvicorn process on the first core; gives (pid, port)."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--port", str(port), "--loop", "uvloop"]
    command += ["--no-access-log", "--no-proxy-headers", "--log-level", "warning", *options]
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    os.sched_setaffinity(process.pid, {0})
    try:
        wait_until(lambda: answers(port), timeout_s=20, what=f"{app} on port {port}")
        yield process.pid, port
    finally:
        process.terminate()
        process.wait(20)


def answers(port: int) -> bool:
    """Whether an HTTP server answers at all, with whatever status."""
    try:
        urlopen(f"http://127.0.0.1:{port}/health/live", timeout=1).close()
    except HTTPError:
        return True
    except URLError:
        return False
    return True


def load(pid: int, port: int, token: str, run: str) -> Sample:
    """One round of wrk from the second core."""
    environment = os.environ | {"BENCH_TOKEN": token, "BENCH_RUN": run}
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", str(FOLDER / "track.lua")]
    before = cpu_s(pid)
    done = subprocess.run(
        ["taskset", "-c", "1", *command, f"http://127.0.0.1:{port}"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    used = cpu_s(pid) - before
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["bad"] == 0 and found["errors"] == 0, f"answers that are not 2xx, or errors: {found}"  # noqa: PT018
    return Sample(found["requests"], used, found["seconds"], found["p50_ms"], found["p99_ms"])


async def check(store: StoreServer, accepted: int, rounds: int) -> int:
    """Counters equal the ids the store holds, which are those answered and those still under way as wrk stopped."""
    assert "always" in store.say("CONFIG", "GET", "appendfsync"), "the bench is only honest with appendfsync always"
    async with connect(store.url, database=2) as client:
        redis: Any = client
        report = await walk(client, Keys(64))
        assert not report.violations, report.violations[:3]
        ids = 0
        async for key in redis.scan_iter(match="*:d:*", count=1000):
            ids += await redis.scard(key) // 2
    assert report.units == ids, f"{report.units} units counted for {ids} ids"
    assert accepted <= ids <= accepted + CONNECTIONS * rounds, f"{ids} ids for {accepted} answers"
    return ids


def main() -> None:
    """Run the bench and print its table."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt-get install wrk (it makes the load, so that Python does not measure itself)")
    with tempfile.TemporaryDirectory() as folder, StoreServer() as store:
        os.sched_setaffinity(store.pid, {1})
        environment = {"REDIS_URL": store.url, "JWT_SECRET": SECRET, "DATA_DIR": folder, "DEBUG": "true"}
        os.environ.update(environment)
        token = mint(Settings.load(), SystemClock(), org="bench", scopes=["admin"], ttl_s=3600)
        with (
            server("tests.bench.floor:app", "--http", "httptools", environment={}) as floor,
            server("metering.app:create_app", "--factory", "--http", WIRE, environment=environment) as service,
        ):
            floors, tracks = rounds(floor, service, token)
        ids = asyncio.run(check(store, sum(sample.requests for sample in tracks), ROUNDS + 1))
    report(floors, tracks, ids)


def rounds(floor: tuple[int, int], service: tuple[int, int], token: str) -> tuple[list[Sample], list[Sample]]:
    """Both servers in turn; the first round only warms up and is counted as answered, not as measured."""
    floors, tracks = [], []
    for number in range(ROUNDS + 1):
        floors.append(load(*floor, token, "floor"))
        tracks.append(load(*service, token, f"r{number}-{time.time_ns():x}"))
    return floors, tracks


def report(floors: list[Sample], tracks: list[Sample], ids: int) -> None:
    """Print medians, spreads and the ratio."""
    print(f"{CONNECTIONS} connections, {ROUNDS} rounds of {SECONDS} s in turn, server on one core")
    for name, samples in (("bare ASGI, JSON in and out", floors[1:]), ("POST /usage/track", tracks[1:])):
        per = sorted(sample.per_cpu_s for sample in samples)
        p50, p99 = (statistics.median(getattr(s, name) for s in samples) for name in ("p50_ms", "p99_ms"))
        rate = statistics.median(s.requests / s.seconds for s in samples)
        print(
            f"{name:28} {statistics.median(per):8.0f} req per CPU-second [{per[0]:.0f}-{per[-1]:.0f}]"
            f"   {rate:8.0f} req/s   p50 {p50:.2f} ms   p99 {p99:.2f} ms"
        )
    ratios = [track.per_cpu_s / floor.per_cpu_s for track, floor in zip(tracks[1:], floors[1:], strict=True)]
    median, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(f"track / bare ASGI, round by round: median {median:.2f}  [{low:.2f}-{high:.2f}]")
    print(f"checked: no answer but 2xx, {ids} distinct ids = {ids} units counted, appendfsync always, every law holds")


if __name__ == "__main__":
    main()
