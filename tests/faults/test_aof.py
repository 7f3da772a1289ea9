"""A log cut off at any byte, as a power cut leaves it, gives a data set of whole events; a changed figure shows."""

import asyncio
import random
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from metering.store.connect import connect
from metering.store.conservation import walk
from metering.store.keys import Keys
from metering.store.orgs import OrgChange
from metering.store.violations import Report
from metering.usage import UsageEvent
from plans.catalogue import Override
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, event, move_to, next_year
from tests.support.servers import StoreServer
from tests.support.soak import SEED, often

PARTITIONS: Final = 2
CUTS: Final = often(80, 2)
ORGS: Final = ("org-a", "org-b", "org-c", "a")

KEYS: Final = Keys(PARTITIONS)
FOLDER: Final = "appendonlydir"


# ── a log to spoil ───────────────────────────────────────────────────────────────────────────────────────


async def traffic(ledger: Ledger, drawn: random.Random) -> None:
    """Creations, events of every kind, plan changes and two period ends. Every event has an id and one unit,
    so that ids and units can be counted against each other.
    """
    numbers = iter(range(10_000))
    for month in ("01", "02", "03"):
        await move_to(ledger, await next_year(ledger, f"{month}-20T10:00:00"))
        for _ in range(12):
            events = [_drawn(drawn, next(numbers)) for _ in range(drawn.choice((1, 1, 2, 5, 12)))]
            caller = drawn.choice(ledger.callers)
            await asyncio.gather(*(caller.counters.track(one) for one in events))
            if drawn.random() < 0.2:
                plan, limit = drawn.choice(("free", "pro")), drawn.choice((3, 5))
                change = OrgChange(plan, {"scans": Override(limit=limit)})
                await caller.orgs.update(drawn.choice(ORGS), change, actor="test", create=True)


def _drawn(drawn: random.Random, number: int) -> UsageEvent:
    return event(drawn.choice(ORGS), 1, f"e{number}", drawn.choice(("scans", "open", "checks")))


@pytest.fixture(scope="module")
def spoilable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a log that traffic has filled; written by a server that says it syncs before it answers."""
    place = tmp_path_factory.mktemp("log") / FOLDER
    with StoreServer() as server:
        assert (setting(server, "appendonly"), setting(server, "appendfsync")) == ("yes", "always")
        asyncio.run(_filled(server.url))
        server.kill()
        shutil.copytree(server.folder / FOLDER, place)
    return place


def setting(server: StoreServer, name: str) -> str:
    """What the server itself says of a setting."""
    return server.say("CONFIG", "GET", name).split("\r\n")[4]


async def _filled(url: str) -> None:
    async with calm(url, partitions=PARTITIONS) as ledger:
        await traffic(ledger, random.Random(SEED))
        assert (await ledger.walk()).violations == []


def log_of(place: Path) -> Path:
    """The file that commands are appended to."""
    [log] = place.glob("*.incr.aof")
    return log


@asynccontextmanager
async def started_on(place: Path, content: bytes) -> AsyncIterator[tuple[StoreServer, Any]]:
    """A server that starts with this log, and its client."""
    server = StoreServer()
    shutil.copytree(place, server.folder / FOLDER)
    log_of(server.folder / FOLDER).write_bytes(content)
    with server:
        async with connect(server.url, retries=2) as client:
            yield server, client


# ── cut ──────────────────────────────────────────────────────────────────────────────────────────────────


def cuts(content: bytes) -> list[int]:
    """Where to cut: around the borders of transactions and commands, and anywhere."""
    drawn = random.Random(SEED)
    borders = [match.start() for match in re.finditer(rb"\*1\r\n\$5\r\nMULTI|\*1\r\n\$4\r\nEXEC", content)]
    commands = [match.start() for match in re.finditer(rb"\*\d+\r\n\$\d+\r\n(?:HSET|HINCRBY|SADD|ZADD|XADD)", content)]
    structural = [at + step for at in drawn.sample(borders, CUTS // 10) for step in (-1, 0, 1)]
    structural += [*drawn.sample(commands, CUTS // 2 - len(structural) - 2), 0, len(content)]
    return structural + [drawn.randrange(len(content)) for _ in range(CUTS - len(structural))]


async def test_a_log_cut_off_at_any_byte_holds_whole_events_only(spoilable: Path) -> None:
    """At 80 places: every law holds, each id has both its marks, and as many units are counted as ids are kept."""
    content = log_of(spoilable).read_bytes()
    places, units = cuts(content), set()
    assert len(places) == CUTS
    for at in places:
        async with started_on(spoilable, content[:at]) as (server, client):
            assert setting(server, "appendfsync") == "always"
            report = await walk(client, KEYS)
            told = f"cut at byte {at} of {len(content)} with seed {SEED}"
            assert report.violations == [], f"{told}: {report.violations[:3]}"
            assert await marks(client) == 2 * ever(report), told
            units.add(ever(report))
    assert len(units) > CUTS / 4, "the cuts hardly differ"
    assert min(units) == 0
    assert max(units) > 100


async def marks(client: Any) -> int:
    """Digests kept: two an id."""
    return sum([await client.scard(key) async for key in client.scan_iter(match="*:d:*", count=1000)])


def ever(report: Report) -> int:
    """Units counted in all periods, running and closed."""
    return report.units


async def test_a_log_that_is_whole_gives_every_event_back_however_often_it_is_loaded(spoilable: Path) -> None:
    async with started_on(spoilable, log_of(spoilable).read_bytes()) as (server, client):
        before = await walk(client, KEYS)
        assert before.units > 100
        for _ in range(2):
            server.restart()
            assert await walk(client, KEYS) == before


# ── changed ──────────────────────────────────────────────────────────────────────────────────────────────


def figures(content: bytes) -> list[int]:
    """Where a counter's last digit stands: behind `u:scans` in the writes of a record."""
    found = re.finditer(rb"\$7\r\nu:scans\r\n\$\d+\r\n\d*?(\d)\r\n", content)
    return [match.start(1) for match in found]


async def test_a_digit_that_the_disk_changed_is_found_by_the_walk(spoilable: Path) -> None:
    """The server loads it without a word; the last write of each counter is the one that stays."""
    content = log_of(spoilable).read_bytes()
    at = figures(content)[-1]
    changed = content[:at] + (b"1" if content[at : at + 1] != b"1" else b"2") + content[at + 1 :]
    async with started_on(spoilable, changed) as (_, client):
        laws = {violation.law for violation in (await walk(client, KEYS)).violations}
        assert "used = sum of history" in laws


# ── what a script leaves in the log ──────────────────────────────────────────────────────────────────────


def commands_of(content: bytes) -> list[str]:
    """The commands of a log, by name and key."""
    names, at = [], 0
    while at < len(content):
        if content[at : at + 1] == b"#":  # a time stamp
            at = content.index(b"\r\n", at) + 2
            continue
        end = content.index(b"\r\n", at)
        words, count, at = [], int(content[at + 1 : end]), end + 2
        for _ in range(count):
            end = content.index(b"\r\n", at)
            size = int(content[at + 1 : end])
            words.append(content[end + 2 : end + 2 + size].decode())
            at = end + 2 + size + 2
        names.append(" ".join(words[:2]).upper() if len(words) > 1 else words[0].upper())
    return names


async def effects(server: StoreServer, work: Any) -> list[str]:
    """What one piece of work appended to the log."""
    log = log_of(server.folder / FOLDER)
    size = log.stat().st_size
    await work
    return commands_of(log.read_bytes()[size:])


async def test_the_effects_of_each_script_are_one_transaction_in_the_order_of_its_writes() -> None:
    """History, marks, record, dirty and trail, crossings, totals: so that nothing that can fail comes late.
    A plan change moves the units of both features that were used from one plan to the other.
    """
    with StoreServer() as server:
        async with calm(server.url, partitions=1) as ledger:
            caller = ledger.callers[0]
            await caller.counters.track(event("acme", 6, "e0"))
            await caller.counters.track(event("acme", 1, "e1"))
            day = f"{{P00}}:H:ACME:SCANS:{(await caller_day(ledger))}"
            seen = f"{{P00}}:D:ACME:{(await caller_day(ledger))[:6]}:0:0"
            plain = await effects(server, caller.counters.track(event("acme", 1, "e2", "open")))
            assert plain == [
                "MULTI", f"HINCRBY {day.replace('SCANS', 'OPEN')}", f"PEXPIREAT {day.replace('SCANS', 'OPEN')}",
                f"SADD {seen}", "HSET {P00}:O:ACME", "HINCRBY {P00}:TOTALS", "EXEC",
            ]  # fmt: skip
            dear = await effects(server, caller.counters.track(event("acme", 4, "e3")))
            assert dear == [
                "MULTI", f"HINCRBY {day}", f"HINCRBY {day}", f"SADD {seen}", "HSET {P00}:O:ACME", "ZADD {P00}:DIRTY",
                "XADD {P00}:A:ACME", *["XADD {P00}:CROSSINGS"] * 4, *["HINCRBY {P00}:TOTALS"] * 2, "EXEC",
            ]  # fmt: skip
            assert await effects(server, caller.counters.track(event("acme", 4, "e3"))) == []
            change = caller.orgs.update("acme", OrgChange(plan="pro"), actor="test", create=False)
            assert await effects(server, change) == [
                "MULTI", "HSET {P00}:O:ACME", *["HINCRBY {P00}:O:ACME"] * 4, "HSET {P00}:P:ACME",
                *["HINCRBY {P00}:PLANS"] * 2, "XADD {P00}:A:ACME", "HINCRBY {P00}:TOTALS", "EXEC",
            ]  # fmt: skip
            org = await caller.orgs.get("acme")
            assert org is not None
            await move_to(ledger, org.period.end_ms)
            rolled = await effects(server, caller.orgs.get("acme"))
            assert (rolled[0], rolled[1].split(":U:")[0], rolled[-1]) == ("MULTI", "HSET {P00}", "EXEC")
            assert (rolled.count("MULTI"), rolled.count("EXEC")) == (1, 1)


async def caller_day(ledger: Ledger) -> str:
    """The ledger's day, `yyyymmdd`."""
    [key] = [key async for key in ledger.client.scan_iter(match="*:h:acme:scans:*")]
    return str(key.decode()[-8:])
