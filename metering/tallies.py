"""What a worker counts of its own work as it goes, by name or by size; the metrics show it."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

BOUNDS_US: Final = (500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000)
"""Upper bounds for durations in microseconds: a call of the store takes about one millisecond."""


class Spread:
    """How values spread: how many lie in each bucket, up to its bound, and above the last one; and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[int]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0

    def add(self, value: int) -> None:
        """Count one value of 0 or more."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def cells(self) -> list[int]:
        """Values of each bucket (not cumulative), then the sum."""
        return [*self._counts, self._sum]


@dataclass(slots=True)
class Tallies:
    """Counts by name, each of what it says; `lag_us` is how late the loop of this worker was when it looked."""

    events: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    webhooks: Counter[str] = field(default_factory=Counter)
    stripe_calls: Counter[str] = field(default_factory=Counter)
    conservation: Counter[str] = field(default_factory=Counter)
    job_failures: Counter[str] = field(default_factory=Counter)
    lag_us: Spread = field(default_factory=lambda: Spread(BOUNDS_US))
