"""What a batcher counts of its own work."""

from dataclasses import dataclass


@dataclass(slots=True)
class BatchStats:
    """What the batcher did since it began, for the metrics."""

    calls: int = 0
    events: int = 0
    retries: int = 0
    shed: int = 0
    parked: int = 0
