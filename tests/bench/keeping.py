"""What minutes, dimensions, raw events, sub-windows, rates and holds cost an event, beside a plain one, in one run.

The counters are driven in this process, 64 events at once over 100 organisations, on a store that fsyncs every write.
CPU of the store is what it says of its scripts (`commandstats`), CPU of the service this process's own.
"""

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from metering.store.retention import Retention
from metering.usage import UsageEvent
from tests.lua.ledger import Ledger
from tests.support.servers import StoreServer

EVENTS: Final = int(os.environ.get("BENCH_EVENTS", "6400"))
ROUNDS: Final = int(os.environ.get("BENCH_ROUNDS", "5"))
AT_ONCE: Final = 64
ORGS: Final = 100
ACTORS: Final = 50

CATALOGUE: Final = """
version = 1
currency = "usd"
default_plan = "free"
default_feature = "calls"
[dimensions]
actor = 100
[features]
calls = { title = "Calls", unit = "call" }
[plans.free]
title = "Free"
reset = "calendar"
on_limit = "overage"
price_minor = 0
RATE
[plans.free.features]
calls = { limit = "unlimited" WINDOWS }
"""

_NONE: Final = Retention()
_HOUR: Final = Retention(minute_hours=48)
_RAW: Final = Retention(events_ms=86_400_000)


@dataclass(frozen=True, slots=True)
class Case:
    """One way to count: the retention, whether events name an actor, what the plan says besides."""

    name: str
    retention: Retention = _NONE
    actor: bool = False
    windows: str = ""
    rate: str = ""
    holds: bool = False


CASES: Final = (
    Case("plain"),
    Case("minutes", _HOUR),
    Case("one dimension", actor=True),
    Case("raw events", _RAW),
    Case("fixed window", windows=', windows = [{ limit = 1000000000, per = "hour" }]'),
    Case("rolling window", windows=', windows = [{ limit = 1000000000, per = "hour", rolling = true }]'),
    Case("rate limit", rate='rate_limit = { events = 1000000000, per = "hour", burst = 1000000 }'),
    Case("an open hold", holds=True),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one event: store CPU and service CPU in us, bytes of append-only file and of memory."""

    store_us: float
    service_us: float
    file_bytes: float
    memory_bytes: float


@asynccontextmanager
async def opened(case: Case, store: StoreServer) -> AsyncIterator[Ledger]:
    """An empty data set for a case, its organisations known and warm."""
    store.say("FLUSHALL", "SYNC")
    text = CATALOGUE.replace("WINDOWS", case.windows).replace("RATE", case.rate)
    options: dict[str, Any] = {"catalogue": text, "retention": case.retention, "test_clock": False, "partitions": 64}
    async with Ledger(store.url, callers=1, **options) as ledger:
        caller = ledger.callers[0]
        for number in range(ORGS):
            if case.holds:
                await caller.holds.place(f"org-{number}", "r", "calls", 1, 3_600_000, charged=False)
            await caller.counters.track(UsageEvent(f"org-{number}", "calls", 1, "warm"))
        yield ledger


async def measure(case: Case, store: StoreServer) -> Cost:
    """One round of a case."""
    async with opened(case, store) as ledger:
        before = await figures(ledger.client)
        await ledger.client.config_resetstat()
        began = time.process_time()
        await asyncio.gather(*(worker(case, ledger, number) for number in range(AT_ONCE)))
        service_s = time.process_time() - began
        stats = await ledger.client.info("commandstats")
        after = await figures(ledger.client)
    return Cost(
        stats["cmdstat_evalsha"]["usec"] / EVENTS,
        service_s * 1e6 / EVENTS,
        (after[0] - before[0]) / EVENTS,
        (after[1] - before[1]) / EVENTS,
    )


async def figures(client: Any) -> tuple[int, int]:
    """Bytes of append-only file and of memory."""
    info = await client.info()
    assert (await client.config_get("appendfsync"))["appendfsync"] == "always"
    return int(info["aof_current_size"]), int(info["used_memory"])


async def worker(case: Case, ledger: Ledger, number: int) -> None:
    """One of those that send at once; every answer must be a yes."""
    counters = ledger.callers[0].counters
    for turn in range(EVENTS // AT_ONCE):
        event = UsageEvent(f"org-{(number * 7 + turn) % ORGS}", "calls", 1, f"{number}-{turn}")
        if case.actor:
            event.dimensions = {"actor": f"user-{(number + turn) % ACTORS}"}
        if case.retention.events_ms:
            event.details = b'{"actor":"user-7","metadata":{"chain":"ethereum","contract":"0x123"}}'
        assert (await counters.track(event)).recorded == 1


def main() -> None:
    """Run every case in turn, as often as ROUNDS says, and print medians."""
    found: dict[str, list[Cost]] = {case.name: [] for case in CASES}
    with StoreServer() as store:
        for _ in range(ROUNDS):
            for case in CASES:
                found[case.name].append(asyncio.run(measure(case, store)))
    print(f"{EVENTS} events, {AT_ONCE} at once, {ORGS} organisations, medians of {ROUNDS} rounds in turn")
    print(f"{'':16}{'store us':>10}{'service us':>12}{'file B':>9}{'memory B':>10}   store, service beside plain")
    plain = middle(found["plain"])
    for name, costs in found.items():
        cost = middle(costs)
        ratio = f"{cost.store_us / plain.store_us:.2f} x, {cost.service_us / plain.service_us:.2f} x"
        figures_shown = f"{cost.store_us:10.1f}{cost.service_us:12.1f}{cost.file_bytes:9.0f}{cost.memory_bytes:10.0f}"
        print(f"{name:16}{figures_shown}   {ratio}")


def middle(costs: list[Cost]) -> Cost:
    """The median of each figure."""
    names = ("store_us", "service_us", "file_bytes", "memory_bytes")
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in names))


if __name__ == "__main__":
    main()
