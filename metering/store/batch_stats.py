"""What a worker counts of its own work."""

from dataclasses import dataclass, field
from typing import Final

from metering.tallies import BOUNDS_US, Spread

SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 250)
"""Upper bounds of the buckets of events in one call; no call holds more than the last."""


@dataclass(slots=True)
class BatchStats:
    """What the batcher did since it began, for the metrics: how often, after how many us calls were answered, with how
    many events they went out.
    """

    calls: int = 0
    events: int = 0
    retries: int = 0
    shed: int = 0
    parked: int = 0
    replies_us: Spread = field(default_factory=lambda: Spread(BOUNDS_US))
    sizes: Spread = field(default_factory=lambda: Spread(SIZES))


@dataclass(slots=True)
class QueueStats:
    """What became of the queued events that a worker took, for the metrics."""

    counted: int = 0
    duplicates: int = 0
    refused: int = 0
    given_up: int = 0
