"""Requests per CPU-second of `POST /usage/track`, beside a bare ASGI handler in the same run.

Machines are shared and noisy, so only the ratio counts: both servers are measured in turn, on the same core, with the
same load, and the medians are compared. The load comes from wrk (no Python), ids never repeat, any answer that is not
2xx fails the bench, and so do counters that differ from the ids the store holds. The store fsyncs every write.
"""

import asyncio
import os
import statistics
import tempfile
import time
from typing import Final

from metering.clock import SystemClock
from metering.settings import Settings
from metering.tokens import mint
from tests.bench.rig import ROUNDS, SECONDS, SECRET, STORE_CORE, Sample, Server, check, floor, load, need_wrk, service
from tests.support.servers import StoreServer

CONNECTIONS: Final = 64


def main() -> None:
    """Run the bench and print its table."""
    need_wrk()
    with tempfile.TemporaryDirectory() as folder, StoreServer() as store:
        os.sched_setaffinity(store.pid, {STORE_CORE})
        environment = {"REDIS_URL": store.url, "JWT_SECRET": SECRET, "DATA_DIR": folder, "DEBUG": "true"}
        os.environ.update(environment)
        token = mint(Settings.load(), SystemClock(), org="bench", scopes=["admin"], ttl_s=3600)
        with floor() as bare, service(environment) as served:
            floors, tracks = rounds(bare, served, store, token)
        answered = sum(sample.requests for sample in tracks)
        ids = asyncio.run(check(store, answered, CONNECTIONS * (ROUNDS + 1)))
    report(floors, tracks, ids)


def rounds(bare: Server, served: Server, store: StoreServer, token: str) -> tuple[list[Sample], list[Sample]]:
    """Both servers in turn; the first round only warms up and is counted as answered, not as measured."""
    floors, tracks = [], []
    for number in range(ROUNDS + 1):
        run = f"r{number}-{time.time_ns():x}"
        floors.append(load(bare, store, "track.lua", CONNECTIONS, token=token, run="floor"))
        tracks.append(load(served, store, "track.lua", CONNECTIONS, token=token, run=run))
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
