"""What `metering events` does, on the store that the service uses. Every failure is a SinkError with its cure."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from metering.clock import Clock
from metering.settings import Settings
from metering.sink import DayFiles, Sink, SinkError
from metering.store.queue_dead import retry_dead
from metering.store.raw_feed import Feed
from metering.store.raw_names import Names
from metering.store_access import Access, AccessError, opened


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
