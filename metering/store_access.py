"""The store that the service uses, for commands that run beside it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from metering.errors import Problem
from metering.settings import Settings
from metering.store.connect import PATIENT, StoreError, connect
from metering.store.fields import FieldCodec
from metering.store.folder import Folder, Running
from metering.store.keys import Keys
from metering.store.marker import DataSet, MarkerError, open_dataset
from metering.store.totals import Client

REPLY_S: Final = 5.0
"""Wait for one reply: some megabytes, after half a second in which there was nothing."""


class AccessError(Exception):
    """The store cannot be used. `cure` says what to do."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(reason)
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Access:
    """The store and its data set."""

    client: Client
    keys: Keys
    dataset: DataSet
    codec: FieldCodec


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Access]:
    """The store while the block runs. Raises AccessError, also for problems of the store in the block."""
    try:
        async with connect(_url(settings), retries=PATIENT, reply_timeout_s=REPLY_S) as client:
            codec = FieldCodec(settings.encryption_ring())
            dataset = await open_dataset(client, partitions=settings.partitions, create=False, codec=codec)
            if dataset is None:
                raise AccessError("the store holds no data set", "Start the service on it first.")
            yield Access(client, Keys(dataset.partitions), dataset, codec)
    except (MarkerError, Problem) as error:
        raise AccessError(str(error), error.cure) from error
    except StoreError as error:
        raise AccessError(f"the store does not answer ({error})", "`metering doctor` looks at the store.") from error


def _url(settings: Settings) -> str:
    """Where the store is: at REDIS_URL, or the one that runs in DATA_DIR."""
    if settings.redis_url is not None:
        return settings.store_url()
    running = Running.read(Folder(settings.data_dir.absolute()))
    if running is None:
        raise AccessError("no store runs in DATA_DIR", "Start the service, or set REDIS_URL.")
    return f"unix://{running.socket}?db={settings.redis_db}"
