"""How long requests took: one histogram for each route, method and class of status, known beforehand.

The table is fixed when the worker starts, so whatever people type as a path, the number of series stays the same.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from metering.figures import Row

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the buckets, dense around the promise: 95 of 100 requests within 0.1 s."""

OTHER: Final = "other"
"""Method and endpoint of requests that no row fits."""

_CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")
_SUM: Final = len(BOUNDS_S) + 1
"""Where a row holds the sum, in microseconds: after the buckets and the one without a bound."""

_WIDTH: Final = _SUM + 1
_PREFIX: Final = "duration"
_US_PER_S: Final = 1_000_000


class Histogram(NamedTuple):
    """One series: its labels, how many requests each bucket holds (not cumulative), and their sum in us."""

    method: str
    endpoint: str
    status: str
    buckets: list[int]
    sum_us: int


class Latency:
    """The histograms of one worker. `endpoints` are (method, route template); `rows` is what they need of a file."""

    def __init__(self, endpoints: Iterable[tuple[str, str]]) -> None:
        named = dict.fromkeys(endpoints)
        named |= {("HEAD", path): None for method, path in named if method == "GET"}  # a GET answers HEAD as well
        order = [*named, (OTHER, OTHER)]
        self.rows = [
            Row(f"{_PREFIX}|{method}|{endpoint}|{status}", _WIDTH) for method, endpoint in order for status in _CLASSES
        ]
        # One row before an endpoint's first: 200 // 100 is then the place of 2xx among its classes.
        self._at = {endpoint: (number * len(_CLASSES) - 1) * _WIDTH for number, endpoint in enumerate(order)}
        self._other = self._at[OTHER, OTHER]
        self._cells = memoryview(array("q", bytes(8 * _WIDTH * len(self.rows))))

    def count_in(self, cells: "memoryview[int]") -> None:
        """Count in these from now on, which are those of `rows`."""
        self._cells = cells

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Note one request with a status of 100 to 599."""
        cells = self._cells
        at = self._at.get((method, route), self._other) + status // 100 * _WIDTH
        cells[at + bisect_left(BOUNDS_S, seconds)] += 1
        cells[at + _SUM] += int(seconds * _US_PER_S)


def histograms(sums: Mapping[Row, list[int]]) -> Iterator[Histogram]:
    """The series in `sums` that have counted anything."""
    for row, cells in sorted(sums.items()):
        kind, _, labels = row.name.partition("|")
        if kind == _PREFIX and row.width == _WIDTH and any(cells):
            method, endpoint, status = labels.split("|")
            yield Histogram(method, endpoint, status, cells[:_SUM], cells[_SUM])
