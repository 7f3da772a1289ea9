"""Entries of the log of raw events as the script writes them, for tests that need more than an event can leave."""

import itertools
from typing import Any, Final

from metering.store.fields import sealed_name
from metering.store.keys import DATASET, Keys
from metering.store.raw_events import boxed
from metering.usage import UsageEvent

PARTITIONS: Final = 64

_used = itertools.count(1)


def make_dataset(store: Any) -> None:
    """Mark an empty database as a data set."""
    marker = {"schema": 1, "partitions": PARTITIONS, "id": "made", "secret": "00" * 32, "created_ms": 1}
    store.hset(DATASET, mapping=marker)


def fields_of(event: UsageEvent, data_key: bytes, at_ms: int, **figures: int) -> dict[str, str | int]:
    """The fields of an entry, in their order; `figures` in place of plain ones."""
    plain: dict[str, str | int] = {
        "at": at_ms,
        "org": sealed_name(event.org_id, data_key),
        "box": boxed(event, data_key),
        "id": "",
        "feature": event.feature,
        "q": event.quantity,
        "n": event.quantity,
        "x": 0,
        "used": next(_used),
    }
    return plain | figures


def add(store: Any, event: UsageEvent, data_key: bytes, at_ms: int, name: str = "*", **figures: int) -> str:
    """Put an entry into the partition's stream; its name."""
    keys = Keys(PARTITIONS)
    key = keys.shared("events", keys.partition(event.org_id))
    written: bytes = store.xadd(key, fields_of(event, data_key, at_ms, **figures), id=name)
    return written.decode()
