"""What a scrape of the metrics costs with few organisations and with many, in one run: it must be the same.

The first ones are made by the scripts that make them for everybody, an event each, the others are copies of them with
all their keys, and the sets of the highest are as full as they get. The page is made in this process, so no background
job is measured with it: CPU is this process's own, and that of the store's threads. A million organisations take two
gigabytes of memory.
"""

import asyncio
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from metering.metrics import Build, Counted, Metrics
from metering.settings import Settings
from metering.store.top import TopOrgs
from metering.usage import UsageEvent
from tests.bench.keeping import CATALOGUE
from tests.bench.rig import cpu_s
from tests.lua.ledger import Ledger
from tests.service.exposition import Page
from tests.support.servers import StoreServer

SIZES: Final = tuple(int(size) for size in os.environ.get("BENCH_ORGS", "1000,10000,1000000").split(","))
ROUNDS: Final = int(os.environ.get("BENCH_ROUNDS", "9"))
SCRAPES: Final = 30
MADE: Final = 1000
"""Organisations that the scripts make: some in every partition."""

AT_ONCE: Final = 100
COPIED_AT_ONCE: Final = 20_000
BUILD: Final = Build("bench", (("POST", "/usage/track"),), lossy=False)

COPY: Final = """
local tag, template, kept = ARGV[3], ARGV[1], tonumber(ARGV[2])
local plan = redis.call('HGET', tag .. ':o:' .. template, 'plan')
local units = tonumber(redis.call('HGET', tag .. ':o:' .. template, 'u:calls'))
local due = redis.call('ZSCORE', tag .. ':due', template)
for i = 4, #ARGV do
  for _, key in ipairs(KEYS) do
    local at = string.find(key, template, 1, true)
    redis.call('COPY', key, string.sub(key, 1, at - 1) .. ARGV[i] .. string.sub(key, at + #template))
  end
  redis.call('ZADD', tag .. ':orgs', 0, ARGV[i])
  redis.call('ZADD', tag .. ':due', due, ARGV[i])
  redis.call('ZADD', tag .. ':top', units, ARGV[i])
end
redis.call('HINCRBY', tag .. ':plans', plan, #ARGV - 3)
redis.call('HINCRBY', tag .. ':totals', 'u:' .. plan .. ':calls', units * (#ARGV - 3))
redis.call('HINCRBY', tag .. ':totals', 'e:org_created', #ARGV - 3)
redis.call('ZREMRANGEBYRANK', tag .. ':top', 0, -kept - 1)
"""
"""Makes organisations of one partition with all that the template has, in its lists and sums too."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one scrape: CPU of the service and of the store in us, commands (those of scripts too), bytes of the page."""

    service_us: float
    store_us: float
    commands: float
    page_bytes: int


async def begin(counters: Counted, shown: Metrics) -> None:
    """Let the first organisations come, each with an event."""
    for low in range(0, MADE, AT_ONCE):
        events = [UsageEvent(name_of(n), "calls", 1 + n % 97, "first") for n in range(low, low + AT_ONCE)]
        outcomes = await asyncio.gather(*map(counters.track, events))
        assert all(outcome.recorded for outcome in outcomes)
        await shown.flush()


async def grow(ledger: Ledger, first: int, size: int) -> None:
    """Let more come until there are `size`: copies of one of their partition, made in the store."""
    kept = TopOrgs(ledger.client, ledger.keys, Settings().metrics_top_orgs).kept
    keys, copy = ledger.keys, ledger.client.register_script(COPY)
    templates = {keys.partition(name_of(number)): name_of(number) for number in range(MADE)}
    own = {name: [key async for key in ledger.client.scan_iter(match=f"*:{name}*")] for name in templates.values()}
    for low in range(first, size, COPIED_AT_ONCE):
        groups: dict[int, list[str]] = {}
        for number in range(low, min(size, low + COPIED_AT_ONCE)):
            groups.setdefault(keys.partition(name_of(number)), []).append(name_of(number))
        for partition, names in groups.items():
            template, tag = templates[partition], keys.shared("", partition)[:-1]
            await copy(keys=own[template], args=[template, kept, tag, *names])


def name_of(number: int) -> str:
    """An organisation's name."""
    return f"org-{number:07}"


async def measure(ledger: Ledger, shown: Metrics, store: StoreServer) -> Cost:
    """One round: some scrapes."""
    commands, store_began, began = await asked(ledger), cpu_s(store.pid), time.process_time()
    for _ in range(SCRAPES):
        page, _ = await shown.exposition("")
    service_s, store_s = time.process_time() - began, cpu_s(store.pid) - store_began
    made = await asked(ledger) - commands - 1  # less the question itself
    return Cost(service_s * 1e6 / SCRAPES, store_s * 1e6 / SCRAPES, made / SCRAPES, len(page))


async def asked(ledger: Ledger) -> int:
    """Commands that the store has had."""
    return int((await ledger.client.info("stats"))["total_commands_processed"])


async def bench(store: StoreServer, folder: Path) -> dict[int, list[Cost]]:
    """The costs at each size."""
    found: dict[int, list[Cost]] = {}
    text = CATALOGUE.replace("WINDOWS", "").replace("RATE", "")
    async with Ledger(store.url, callers=1, catalogue=text, test_clock=False, partitions=64) as ledger:
        assert (await ledger.client.config_get("appendfsync"))["appendfsync"] == "always"
        one = ledger.callers[0].counters
        with Metrics(Settings(metrics_dir=folder), ledger.client, ledger.keys, one.stats, BUILD) as shown:
            await begin(Counted(one, shown.counted), shown)
            for first, size in pairwise((MADE, *SIZES)):
                await grow(ledger, first, size)
                page, _ = await shown.exposition("")
                assert Page(page.decode())["scorpius_total_organizations"] == size
                found[size] = [await measure(ledger, shown, store) for _ in range(ROUNDS)]
                memory = (await ledger.client.info("memory"))["used_memory"]
                print(f"{size} organisations: {memory / 1e6:.0f} MB in the store")
    return found


def main() -> None:
    """Run it and print medians, and each size beside the first."""
    with tempfile.TemporaryDirectory() as folder, StoreServer() as store:
        found = asyncio.run(bench(store, Path(folder)))
    print(f"medians of {ROUNDS} rounds of {SCRAPES} scrapes")
    print(
        f"{'organisations':>14}{'service us':>12}{'store us':>10}{'commands':>10}{'page bytes':>12}   beside the first"
    )
    costs = {size: middle(rounds) for size, rounds in found.items()}
    least = costs[SIZES[0]]
    for size, cost in costs.items():
        figures = f"{cost.service_us:12.0f}{cost.store_us:10.0f}{cost.commands:10.0f}{cost.page_bytes:8}"
        ratio = f"service {cost.service_us / least.service_us:.2f} x, store {cost.store_us / least.store_us:.2f} x"
        print(f"{size:14}{figures}   {ratio}")
        assert cost.commands == least.commands, "a scrape asks as much however many organisations there are"


def middle(rounds: list[Cost]) -> Cost:
    """The median of each figure."""
    service, store = (statistics.median(getattr(cost, name) for cost in rounds) for name in ("service_us", "store_us"))
    return Cost(service, store, rounds[0].commands, rounds[0].page_bytes)


if __name__ == "__main__":
    main()
