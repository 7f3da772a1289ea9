"""How far Stripe's events were read: one place for all workers."""

from dataclasses import dataclass
from typing import Any, Final

from metering.store.connect import answered
from metering.store.keys import Keys
from metering.store.totals import Client

_PLACE: Final = 0
"""The partition that holds what belongs to the data set as a whole."""


@dataclass(frozen=True, slots=True)
class Read:
    """Up to which second (Stripe's clock) events are in; None: none ever was. `at_ms` is when that was found out."""

    until_s: int | None
    at_ms: int


class EventCursor:
    """The cursor of one data set. Errors of the store are the 503 problems.

    It is written after the events are in, and read events may be read again, so that a writer that comes late and sets
    it back does no harm.
    """

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client: Any = client
        self._key = keys.shared("stripe", _PLACE)

    async def read(self) -> Read:
        """Where it stands."""
        until, at = await answered(self._client.hmget(self._key, "events_s", "events_at"))
        return Read(int(until) if until else None, int(at or 0))

    async def move(self, until_s: int) -> None:
        """All events up to this second are in."""
        await answered(self._client.hset(self._key, "events_s", until_s))

    async def done(self, at_ms: int) -> None:
        """All that Stripe had at `at_ms` is in."""
        await answered(self._client.hset(self._key, "events_at", at_ms))
