"""What many script tests begin with: a calm instant, an event, a call below the service, figures of the server."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

from metering.store.calls import CallMaker, Group, Pending
from metering.store.frames import EMPTY, Frame, bulk, integer
from metering.store.retention import Retention
from metering.store.scripts import script
from metering.usage import UsageEvent
from tests.lua.ledger import Caller, Ledger
from tests.lua.raw import words_of

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

CALM: Final = "01-10T12:30:05"
"""In January: far from the border of any minute, hour, day, month or period of a new organisation."""

_NOT_OURS: Final = {"evalsha", "eval", "config|resetstat", "info", "script|load", "client|setname", "client|setinfo"}


def instant(text: str) -> int:
    """ms since the epoch of an ISO time in UTC: `2031-01-31T10:20:30`."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


async def move_to(ledger: Ledger, at_ms: int) -> None:
    """Set the store's time to `at_ms` and let every caller know, so that its next call needs no second turn."""
    await ledger.jump_to(at_ms)
    for caller in ledger.callers:
        caller.time.test_offset_ms = ledger.offset_ms
        caller.time.learn(await ledger.now_ms())


@asynccontextmanager
async def calm(url: str, *, at: str = CALM, **options: Any) -> AsyncIterator[Ledger]:
    """A ledger at `at` of next year (UTC, ISO without the year)."""
    async with Ledger(url, **options) as ledger:
        await move_to(ledger, await next_year(ledger, at))
        yield ledger


async def next_year(ledger: Ledger, at: str) -> int:
    """The instant `at` (UTC, ISO without the year) of the year after the real one."""
    seconds, _ = await ledger.client.time()
    return instant(f"{datetime.fromtimestamp(seconds, UTC).year + 1}-{at}")


def event(
    org_id: str,
    quantity: int = 1,
    event_id: str | None = None,
    feature: str = "scans",
    timestamp_ms: int | None = None,
) -> UsageEvent:
    """An event as the service accepted it."""
    return UsageEvent(org_id, feature, quantity, event_id, timestamp_ms=timestamp_ms)


def waiting(
    org_id: str,
    quantity: str = "1",
    *,
    digest: int | None = None,
    content: int = 0,
    name: str = "m1.0",
    feature: str = "scans",
    at_ms: int | None = None,
) -> Pending:
    """An event as a call takes it, its quantity any text: with a client's digests, or with a minted name."""
    ids = bulk(name.encode()) + EMPTY if digest is None else integer(digest) + integer(content)
    tail = bulk(feature.encode()) + bulk(quantity.encode()) + ids
    # Nobody waits for its answer: the call is made by hand.
    return Pending(org_id, feature, 1, digest, tail, at_ms, None, 0.0)  # type: ignore[arg-type]


async def ask(ledger: Ledger, caller: Caller, *groups: tuple[Frame, Sequence[Pending]]) -> list[int]:
    """Run track.lua for these events under these frames, as they are, and give its whole reply."""
    return await send(ledger, words(ledger, caller, *groups))


def words(ledger: Ledger, caller: Caller, *groups: tuple[Frame, Sequence[Pending]]) -> list[bytes]:
    """KEYS count, KEYS and ARGV of such a call."""
    maker = CallMaker("0" * 40, ledger.keys, caller.time, Retention(history_days=1))
    made: list[Group] = [(frame, list(events)) for frame, events in groups]
    return words_of(maker.make(made).payload)[2:]


async def send(ledger: Ledger, arguments: list[bytes]) -> list[int]:
    """Run track.lua with these words."""
    reply: list[int] = await ledger.client.execute_command("EVAL", script("track").text, *arguments)
    return reply


async def keys_of(ledger: Ledger, org_id: str) -> dict[str, bytes]:
    """The serialised value of every key that names the organisation."""
    return {key: value for key, value in (await ledger.dump()).items() if org_id in key.split(":")}


async def commands(ledger: Ledger) -> Counter[str]:
    """How often each command ran since the last `CONFIG RESETSTAT`, scripts' own calls included."""
    stats = await ledger.client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): figures["calls"] for name, figures in stats.items()})


def inside_scripts(counts: Counter[str]) -> int:
    """Those calls that only a script makes here."""
    return sum(count for name, count in counts.items() if name not in _NOT_OURS)


async def lawful(ledger: Ledger) -> None:
    """Every conservation law holds over every key."""
    report = await ledger.walk()
    assert not report.violations, "\n".join(map(str, report.violations))
