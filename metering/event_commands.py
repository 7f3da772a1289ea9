"""What `metering events` does, on the store that the service uses. Every failure is a SinkError with its cure."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from metering.clock import Clock
from metering.errors import Problem
from metering.settings import Settings
from metering.sink import DayFiles, Sink, SinkError
from metering.store.connect import PATIENT, StoreError, connect
from metering.store.fields import FieldCodec
from metering.store.folder import Folder, Running
from metering.store.keys import Keys
from metering.store.marker import MarkerError, open_dataset
from metering.store.queue_dead import retry_dead
from metering.store.raw_feed import Feed
from metering.store.raw_names import Names
from metering.store.totals import Client

REPLY_S: Final = 5.0
"""Wait for one reply: some megabytes, after half a second in which there was nothing."""


async def copy_events(settings: Settings, clock: Clock, folder: Path, *, group: str, name: str, once: bool) -> int:
    """Run a sink until it is told to end, with `once` until nothing is left; how many lines it wrote."""
    async with _store(settings) as (client, keys):
        names = Names(client, keys, FieldCodec(), clock.monotonic)
        with DayFiles(folder) as files:
            sink = Sink(Feed(client, keys, group, name), names, files, clock.monotonic)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, sink.end.set)
            await sink.run(once=once)
            return sink.written


async def retry_events(settings: Settings) -> int:
    """Put the events that were given up back into their queues; how many."""
    async with _store(settings) as (client, keys):
        return await retry_dead(client, keys)


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[tuple[Client, Keys]]:
    """The store and its data set."""
    try:
        async with connect(_url(settings), retries=PATIENT, reply_timeout_s=REPLY_S) as client:
            dataset = await open_dataset(client, partitions=settings.partitions, create=False)
            if dataset is None:
                raise SinkError("the store holds no data set", "Start the service on it first.")
            yield client, Keys(dataset.partitions)
    except (MarkerError, Problem) as error:
        raise SinkError(str(error), error.cure) from error
    except StoreError as error:
        raise SinkError(f"the store does not answer ({error})", "`metering doctor` looks at the store.") from error


def _url(settings: Settings) -> str:
    """Where the store is: at REDIS_URL, or the one that runs in DATA_DIR."""
    if settings.redis_url is not None:
        return settings.store_url()
    running = Running.read(Folder(settings.data_dir.absolute()))
    if running is None:
        raise SinkError("no store runs in DATA_DIR", "Start the service, or set REDIS_URL.")
    return f"unix://{running.socket}?db={settings.redis_db}"
