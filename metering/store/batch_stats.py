"""What a worker counts of its own work."""

from dataclasses import dataclass


@dataclass(slots=True)
class BatchStats:
    """What the batcher did since it began, for the metrics."""

    calls: int = 0
    events: int = 0
    retries: int = 0
    shed: int = 0
    parked: int = 0


@dataclass(slots=True)
class QueueStats:
    """What became of the queued events that a worker took, for the metrics."""

    counted: int = 0
    duplicates: int = 0
    refused: int = 0
    given_up: int = 0
