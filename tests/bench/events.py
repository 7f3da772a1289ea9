"""Events per CPU-second of `POST /v1/events`, of the service and of the store, for arrays of 1, 100 and 1,000 events.

Beside the service stands a bare ASGI handler that parses the same bodies, beside the store the script's own limit: the
same calls replayed to a copy of the data set with nobody else at it. All of it in one run, in turn, on the same cores;
the ratios count, not the figures. Ids never repeat, any answer but 200 fails the bench, and so do counters that differ
from the ids the store holds. Every write is fsynced.
"""

import asyncio
import os
import secrets
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from metering.clock import SystemClock
from metering.settings import Settings
from metering.tokens import mint
from metering.usage import UsageEvent
from plans.catalogue import Catalogue, parse
from tests.bench.replay import Limit, limit_of, rewritten
from tests.bench.rig import ROUNDS, SECONDS, SECRET, STORE_CORE, Sample, Server, check, floor, load, need_wrk, service
from tests.support.servers import StoreServer

ORGS: Final = 1_000
REPLAYED: Final = int(os.environ.get("BENCH_REPLAYED", "60000"))
"""Events of one replay: about a third of a second of the store in the quickest case."""

COALESCED: Final = 64
"""Single events that share a call when so many connections send them: what the batcher takes at most."""


@dataclass(slots=True)
class Size:
    """Arrays of `events` events over `orgs` organisations, sent by so many connections; what was measured of them."""

    events: int
    orgs: int
    connections: int
    floors: list[Sample] = field(default_factory=list)
    posts: list[Sample] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)


def sizes() -> list[Size]:
    """What is measured. Two connections bring 2,000 events, all that may wait by default (PENDING_MAX)."""
    return [Size(1, 1, 64), Size(100, 10, 16), Size(1_000, 50, 2)]


def main() -> None:
    """Run the bench and print its table."""
    need_wrk()
    measured = sizes()
    with tempfile.TemporaryDirectory() as folder, StoreServer() as store:
        os.sched_setaffinity(store.pid, {STORE_CORE})
        catalogue = unlimited(Path(folder) / "plans.toml")
        environment = {"REDIS_URL": store.url, "JWT_SECRET": SECRET, "DATA_DIR": folder, "DEBUG": "true"}
        # wrk cuts off what is under way as a round ends: it still waits in the service as the next one begins.
        environment |= {"PLANS_FILE": f"{folder}/plans.toml", "PENDING_MAX": "5000"}
        os.environ.update(environment)
        token = mint(Settings.load(), SystemClock(), org="bench", scopes=["admin"], ttl_s=3600)
        with floor() as bare, service(environment) as served:
            for _ in range(ROUNDS + 1):
                for size in measured:
                    one_round(size, bare, served, store, token)
        answered = sum(size.events * sample.requests for size in measured for sample in size.posts)
        under_way = sum(size.events * size.connections for size in measured) * (ROUNDS + 1)
        ids = asyncio.run(check(store, answered, under_way))
        rewritten(store)
        store.stop()
        for _ in range(ROUNDS):
            for size in measured:
                size.limits.append(limit_of(store, catalogue, batches(size)))
    report(measured, ids)


def unlimited(path: Path) -> Catalogue:
    """The shipped catalogue with its unlimited plan as the default, written to `path`: no event is overage."""
    text, name = Settings().plans_text()
    path.write_text(text.replace('default_plan = "free"', 'default_plan = "enterprise"'))
    return parse(path.read_text(), name)


def one_round(size: Size, bare: Server, served: Server, store: StoreServer, token: str) -> None:
    """The bare handler and the service in turn. The first round only warms up: answered, not measured."""
    told = {"token": token, "run": secrets.token_hex(6), "size": str(size.events), "orgs": str(size.orgs)}
    size.floors.append(load(bare, store, "events.lua", size.connections, **told))
    size.posts.append(load(served, store, "events.lua", size.connections, **told))


def batches(size: Size) -> list[list[UsageEvent]]:
    """As many events as are replayed, as the service would bring them to the store: single ones share calls."""
    events, orgs = (size.events, size.orgs) if size.events > 1 else (COALESCED, COALESCED)
    run = secrets.token_hex(6)
    return [
        [
            UsageEvent(f"org-{(first * orgs + n % orgs) % ORGS}", "api_requests", 1, f"{run}-{first}-{n}")
            for n in range(events)
        ]
        for first in range(REPLAYED // events)
    ]


def report(measured: list[Size], ids: int) -> None:
    """Print medians, spreads and ratios."""
    print(
        f"{ROUNDS} rounds of {SECONDS} s in turn, service on one core, store and load on another; {ORGS} organisations"
    )
    for size in measured:
        posts, floors, limits = size.posts[1:], size.floors[1:], size.limits
        print(f"arrays of {size.events} over {size.orgs} organisations, {size.connections} connections")
        row("events per CPU-second of the service", [size.events * s.per_cpu_s for s in posts])
        row("  bare ASGI, the same bodies", [size.events * s.per_cpu_s for s in floors])
        row("  service / bare ASGI", [p.per_cpu_s / f.per_cpu_s for p, f in zip(posts, floors, strict=True)], 2)
        stores = [size.events * sample.requests / sample.store_s for sample in posts]
        row("events per CPU-second of the store", stores)
        row("  the script alone, replayed", [limit.per_cpu_s for limit in limits])
        row("  store / script alone", [s / limit.per_cpu_s for s, limit in zip(stores, limits, strict=True)], 2)
        row("events per second, all on two cores", [size.events * s.requests / s.seconds for s in posts])
        row("p50 of a request, ms", [sample.p50_ms for sample in posts], 2)
        row("p99 of a request, ms", [sample.p99_ms for sample in posts], 2)
        print(f"  events per call in the replay: {limits[0].events / limits[0].calls:.0f}")
    print(f"checked: no answer but 200, {ids} distinct ids = {ids} units counted, appendfsync always, every law holds")


def row(name: str, values: list[float], digits: int = 0) -> None:
    """One line: the median, the lowest and the highest."""
    median, low, high = statistics.median(values), min(values), max(values)
    print(f"  {name:38} {median:10,.{digits}f}  [{low:,.{digits}f}-{high:,.{digits}f}]")


if __name__ == "__main__":
    main()
