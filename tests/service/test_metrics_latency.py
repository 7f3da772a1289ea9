"""The histograms of request durations, against the definition."""

from array import array
from collections import Counter
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.figures import Row
from metering.latency import BOUNDS_S, OTHER, Latency, histograms

ENDPOINTS: Final = (("POST", "/usage/track"), ("GET", "/usage/{org_id}"), ("GET", "/health"))


class Book:
    """A table that counts in cells of its own, and its figures."""

    def __init__(self) -> None:
        self.latency = Latency(ENDPOINTS)
        self.cells = memoryview(array("q", bytes(8 * sum(row.width for row in self.latency.rows))))
        self.latency.count_in(self.cells)

    def sums(self) -> dict[Row, list[int]]:
        found, at = {}, 0
        for row in self.latency.rows:
            found[row] = self.cells[at : at + row.width].tolist()
            at += row.width
        return found

    def counts(self) -> dict[tuple[str, str, str], int]:
        return {(h.method, h.endpoint, h.status): sum(h.buckets) for h in histograms(self.sums())}


REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(ENDPOINTS),
        st.sampled_from([200, 201, 404, 403, 499, 500, 503]),
        st.one_of(st.sampled_from([0.0, *BOUNDS_S]), st.floats(0, 10)),
    )
)


@given(REQUESTS)
def test_every_request_is_in_its_series_and_in_its_bucket(requests: list[tuple[tuple[str, str], int, float]]) -> None:
    book = Book()
    expected = Counter[tuple[str, str, str, int]]()
    for (method, route), status, seconds in requests:
        book.latency.observe(method, route, status, seconds)
        bucket = sum(1 for bound in BOUNDS_S if seconds > bound)
        expected[method, route, f"{status // 100}xx", bucket] += 1
    found = {
        (h.method, h.endpoint, h.status, bucket): count
        for h in histograms(book.sums())
        for bucket, count in enumerate(h.buckets)
        if count
    }
    assert found == expected


@given(st.lists(st.floats(0, 100), max_size=50))
def test_the_sum_is_that_of_the_durations_in_whole_microseconds(durations: list[float]) -> None:
    book = Book()
    for seconds in durations:
        book.latency.observe("GET", "/health", 200, seconds)
    found = sum(h.sum_us for h in histograms(book.sums()))
    assert found == sum(int(seconds * 1e6) for seconds in durations)


@pytest.mark.parametrize(
    ("method", "route"),
    [("GET", OTHER), (OTHER, OTHER), ("GET", "/nowhere"), ("DELETE", "/usage/track"), (OTHER, "/usage/track")],
)
def test_what_the_table_does_not_have_is_one_series(method: str, route: str) -> None:
    book = Book()
    book.latency.observe(method, route, 404, 0.01)
    assert book.counts() == {(OTHER, OTHER, "4xx"): 1}


def test_a_get_is_also_answered_without_its_body() -> None:
    book = Book()
    book.latency.observe("HEAD", "/health", 200, 0.01)
    book.latency.observe("HEAD", "/usage/track", 405, 0.01)
    assert book.counts() == {("HEAD", "/health", "2xx"): 1, (OTHER, OTHER, "4xx"): 1}


def test_what_was_never_asked_has_no_series() -> None:
    assert Book().counts() == {}


def test_durations_before_the_cells_are_there_harm_nobody() -> None:
    latency = Latency(ENDPOINTS)
    latency.observe("GET", "/health", 599, 1e9)
    latency.observe(OTHER, OTHER, 599, 1e9)


def test_rows_of_another_kind_or_shape_are_no_histograms() -> None:
    width = Latency(()).rows[0].width
    sums = {Row("batch|calls", 1): [3], Row("duration|GET|/old|2xx", width + 2): [1] * (width + 2)}
    assert list(histograms(sums)) == []
