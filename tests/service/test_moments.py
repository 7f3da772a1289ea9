"""Instants on the wire, and ids that sort by time."""

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.clock import HandClock
from metering.moments import parse_ms, rfc3339, span_s
from metering.ulid import Ulids


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_706_745_600_000, "2024-02-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
    ],
)
def test_an_instant_is_written_in_seconds_with_ms_only_where_there_are_some(at_ms: int, text: str) -> None:
    assert rfc3339(at_ms) == text


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(9999, 1, 1), timezones=st.timezones()))  # noqa: DTZ001 - Hypothesis takes naive bounds
def test_every_instant_comes_back_from_its_text(moment: datetime) -> None:
    moment = moment.astimezone(UTC)
    at_ms = (int(moment.timestamp()) * 1000) + moment.microsecond // 1000
    assert parse_ms(rfc3339(at_ms)) == at_ms


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("0d", 0), ("90s", 90), ("30m", 1800), (" 24h ", 86_400), ("7d", 604_800)]
)
def test_a_length_of_time_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert span_s(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "1w", "-1d", "1.5h", "1d12h", "d", "1 d", "1D", "1000000000s", "\u0661d"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a number and a unit"):
        span_s(text)


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("2024-01-15T10:30:00Z", 1705314600000),
        ("2024-01-15t10:30:00z", 1705314600000),
        ("2024-01-15T10:30:00.9999Z", 1705314600999),
        ("2024-01-15T10:30:00+05:30", 1705294800000),
        ("2024-01-15T10:30:00-00:00", 1705314600000),
        ("2016-12-31T23:59:60Z", 1483228800000),
    ],
)
def test_rfc_3339_is_read(text: str, at_ms: int) -> None:
    assert parse_ms(text) == at_ms


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-15T10:30:00",
        "2024-01-15",
        "2024-W03-1T10:30:00Z",
        "20240115T103000Z",
        "2024-01-15 10:30:00Z",
        "2024-01-15T10:30Z",
        "2024-01-15T10:30:00,5Z",
        "2024-01-15T25:30:00Z",
        "2024-13-15T10:30:00Z",
        "0000-01-15T10:30:00Z",
        "2024-01-15T10:30:00Z\n",
        "9999-12-31T23:59:60Z",
        "9999-12-31T23:59:59-00:01",
        "0001-01-01T00:00:00+00:01",
        "\u0662\u0660\u0662\u0664-01-15T10:30:00Z",
        "1705314600",
        "",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_ms(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"])
def test_the_first_and_the_last_instant_can_be_read_and_written(text: str) -> None:
    assert rfc3339(parse_ms(text)) == text


def test_ids_are_unique_and_sort_by_their_making_also_within_one_ms() -> None:
    clock = HandClock(1_700_000_000_000)
    ulids = Ulids(clock)
    ids = []
    for _ in range(3):
        ids += [ulids.mint() for _ in range(3000)]
        clock.advance(1)
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)
    assert {len(text) for text in ids} == {26}


def test_an_id_begins_with_its_ms() -> None:
    assert Ulids(HandClock(0)).mint().startswith("0000000000")
    assert Ulids(HandClock(1_469_918_176_385)).mint().startswith("01ARYZ6S41")


def test_two_processes_do_not_make_the_same_ids() -> None:
    clock = HandClock(5)
    made = [{ulids.mint() for _ in range(2000)} for ulids in (Ulids(clock), Ulids(clock))]
    assert not made[0] & made[1]


def test_counting_on_within_a_ms_never_overflows_the_highest_random_part() -> None:
    ulids = Ulids(HandClock(5), entropy=lambda size: b"\xff" * size)
    ids = [ulids.mint() for _ in range(5000)]
    assert all(first < second for first, second in itertools.pairwise(ids))
