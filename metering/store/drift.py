"""What the last reconciliation found, for all workers: one place of the data set."""

from dataclasses import dataclass
from typing import Any, Final

from metering.store.connect import answered
from metering.store.keys import Keys
from metering.store.totals import Client

_PLACE: Final = 0
"""The partition that holds what belongs to the data set as a whole."""

FIELDS: Final = ("drift_units", "drift_lanes", "reconciled")


@dataclass(frozen=True, slots=True)
class Drift:
    """Units by which Stripe differs, in how many lanes and periods, and when that was found out (ms; 0: never)."""

    units: int
    lanes: int
    at_ms: int


class DriftBook:
    """The place of one data set. Errors of the store come out as 503 problems."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client: Any = client
        self._key = keys.shared("stripe", _PLACE)

    async def read(self) -> Drift:
        """What was found last."""
        return drift_of(await answered(self._client.hmget(self._key, FIELDS)))

    async def note(self, drift: Drift) -> None:
        """Keep what was found."""
        row = dict(zip(FIELDS, (drift.units, drift.lanes, drift.at_ms), strict=True))
        await answered(self._client.hset(self._key, mapping=row))


def drift_of(found: list[Any]) -> Drift:
    """What these fields say."""
    return Drift(*(int(value or 0) for value in found))
