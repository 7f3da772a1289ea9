"""What the log of raw events keeps of an event besides its figures, readable with the organisation's key alone.

The stream is shared by the organisations of a partition, so it names none of them: an entry carries the pseudonym, and
whatever the caller said lies in a box under the data key. Deleting that key makes both unreadable.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from metering.store.boxes import opened as unboxed
from metering.store.boxes import shut
from metering.usage import UsageEvent

_PURPOSE: Final = b"raw event"


@dataclass(frozen=True, slots=True)
class Details:
    """What the caller said of an event besides its figures. `timestamp_ms` is the event's own time, if it had one."""

    event_id: str | None = None
    source: str = ""
    actor: str | None = None
    metadata: Mapping[str, Any] | None = None
    timestamp_ms: int | None = None
    dimensions: Mapping[str, str] = field(default_factory=dict)


def boxed(event: UsageEvent, data_key: bytes) -> str:
    """The details of `event`, AES-256-GCM under the organisation's key, as base64. One that settles a hold has its id.

    `event.details` is the JSON object `{"actor": …, "metadata": …}`, or None.
    """
    said = {
        "event_id": event.event_id or event.hold_id,
        "source": event.source,
        "timestamp": event.timestamp_ms,
        "dimensions": event.dimensions,
        "details": None if event.details is None else orjson.Fragment(event.details),
    }
    return shut(orjson.dumps({name: value for name, value in said.items() if value}), data_key, _PURPOSE)


def opened(box: str | bytes, data_key: bytes) -> Details:
    """The details again. Raises metering.store.boxes.Unreadable."""
    said = orjson.loads(unboxed(box, data_key, _PURPOSE))
    details = said.get("details", {})
    return Details(
        event_id=said.get("event_id"),
        source=said.get("source", ""),
        actor=details.get("actor"),
        metadata=details.get("metadata"),
        timestamp_ms=said.get("timestamp"),
        dimensions=said.get("dimensions", {}),
    )
