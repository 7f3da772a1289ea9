"""Which trace to look at for a bucket of the latency histogram: of each the last request that was traced, by worker."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from metering.latency import BOUNDS_S, OTHER

_HUNDRED: Final = 100
_MS_PER_S: Final = 1_000

Series = tuple[str, str, str]
"""Method, endpoint and class of status."""


class Traced(NamedTuple):
    """A request that somebody can look at: its trace, how long it took, and when it ended, since the epoch."""

    trace_id: str
    seconds: float
    at_s: float


TracedRequests = Mapping[Series, Sequence[Traced | None]]
"""By series, one of each bucket (None: none was traced)."""


class Exemplars:
    """Of requests with these (method, route template). `now_ms` is the time of day."""

    def __init__(self, endpoints: Sequence[tuple[str, str]], now_ms: Callable[[], int]) -> None:
        self._known = {*endpoints, *(("HEAD", path) for method, path in endpoints if method == "GET")}
        self._now_ms = now_ms
        self._last: dict[Series, list[Traced | None]] = {}

    def note(self, method: str, route: str, status: int, seconds: float, trace_id: str) -> None:
        """Remember one request."""
        named = (method, route) if (method, route) in self._known else (OTHER, OTHER)
        series = (*named, f"{status // _HUNDRED}xx")
        buckets = self._last.setdefault(series, [None] * (len(BOUNDS_S) + 1))
        buckets[bisect_left(BOUNDS_S, seconds)] = Traced(trace_id, seconds, self._now_ms() / _MS_PER_S)

    def all(self) -> TracedRequests:
        """What was noted."""
        return self._last
