"""An event as it waits in a queue: whole, so that nothing of it is lost, and in a box, because queues are shared."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Final

import orjson

from metering.usage import UsageEvent
from plans.limits import OnLimit

BOXED: Final = b"queued event"
"""The purpose of its box."""

_ELSEWHERE: Final = {"org_id", "dry_run", "accepted_ms", "hold_id"}
"""Whose it is and when it was accepted stand beside the box; trials and settlements of holds are decided at once."""

_CARRIED: Final = tuple(field for field in fields(UsageEvent) if field.name not in _ELSEWHERE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted event as the stream holds it. `name` orders entries; `accepted_ms` is the store's effective time."""

    name: str
    accepted_ms: int
    fields: Mapping[bytes, bytes]


def entry_of(name: bytes, values: Mapping[bytes, bytes]) -> Entry:
    """An entry: its own name says when the store took it, real time; a test clock's offset stands beside."""
    ms, _, _ = name.partition(b"-")
    offset = values.get(b"offset", b"")
    return Entry(name.decode(), int(ms) + (int(offset) if offset.isdigit() else 0), values)


def text_of(event: UsageEvent) -> bytes:
    """The event as JSON; what has its default is left out."""
    said: dict[str, Any] = {}
    for field in _CARRIED:
        value = getattr(event, field.name)
        if field.default is MISSING or value != field.default:
            said[field.name] = value.decode() if isinstance(value, bytes) else value
    return orjson.dumps(said)


def event_of(org_id: str, text: bytes) -> UsageEvent:
    """The event again. Raises ValueError, TypeError or KeyError for a text that `text_of` did not write."""
    said = orjson.loads(text)
    if (mode := said.get("mode")) is not None:
        said["mode"] = OnLimit(mode)
    if (details := said.get("details")) is not None:
        said["details"] = details.encode()
    if (also := said.get("also")) is not None:
        said["also"] = tuple((feature, quantity) for feature, quantity in also)
    return UsageEvent(org_id=org_id, **said)
