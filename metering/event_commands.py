"""What `metering events` does, on the store that the service uses. Every failure is a SinkError with its cure."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from metering.clock import Clock
from metering.settings import Settings, SettingsError
from metering.sink import DayFiles, Sink, SinkError
from metering.store.orgs import Orgs
from metering.store.queue_dead import retry_dead
from metering.store.raw_feed import Feed
from metering.store.raw_names import Names
from metering.store.tail import Seen, Tail, Watched
from metering.store.timing import StoreTime, settled_offset
from metering.store_access import Access, AccessError, opened
from plans.catalogue import CatalogueError, parse


async def copy_events(settings: Settings, clock: Clock, folder: Path, *, group: str, name: str, once: bool) -> int:
    """Run a sink until it is told to end, with `once` until nothing is left; how many lines it wrote."""
    async with _store(settings) as access:
        client, keys = access.client, access.keys
        names = Names(client, keys, access.codec, clock.monotonic)
        with DayFiles(folder) as files:
            sink = Sink(Feed(client, keys, group, name), names, files, clock.monotonic)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, sink.end.set)
            await sink.run(once=once)
            return sink.written


async def follow_events(
    settings: Settings, clock: Clock, tell: Callable[[Seen], None], *, org_id: str | None, feature: str | None,
    back_ms: int, for_s: float,
) -> None:  # fmt: skip
    """Tell raw events as they are counted, from `back_ms` ago, for `for_s` seconds. Raises SinkError."""
    if not settings.event_retention_ms():
        raise SinkError("raw events are not kept", "Set EVENT_RETENTION, such as 24h, for the service and here.")
    try:
        catalogue = parse(*settings.plans_text())
    except (SettingsError, CatalogueError) as error:
        raise SinkError(str(error), "`metering plans check FILE` says more.") from error
    async with _store(settings) as access:
        client, keys, codec = access.client, access.keys, access.codec
        time = StoreTime(clock, await settled_offset(client, keys, test_clock=settings.test_clock))
        orgs = Orgs(client, keys, catalogue, time, codec, fake=False)
        org = None if org_id is None else await orgs.get(org_id)
        if org is None and org_id is not None:
            raise SinkError(f"no organisation {org_id}", "Check the id, and that REDIS_URL names the right data set.")
        async for some in Tail(client, keys, codec, clock).follow(Watched(org, feature, back_ms, for_s)):
            for seen in some:
                tell(seen)


async def retry_events(settings: Settings) -> int:
    """Put the events that were given up back into their queues; how many."""
    async with _store(settings) as access:
        return await retry_dead(access.client, access.keys)


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[Access]:
    """The store and its data set."""
    try:
        async with opened(settings) as access:
            yield access
    except AccessError as error:
        raise SinkError(str(error), error.cure) from error
