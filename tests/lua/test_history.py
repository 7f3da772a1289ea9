"""What history's fields mean, and that reading them is bounded."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.clock import SystemClock
from metering.errors import OrgCorrupt, StorageUnavailable
from metering.store.connect import connect
from metering.store.frames import bucket_of
from metering.store.history import PIPELINE_KEYS, Bucket, History, by_minute, hour_buckets
from metering.store.keys import Keys
from metering.store.timing import StoreTime
from plans.periods import Period
from plans.windows import HOUR_MS, MINUTE_MS, Window

DAY = 19_782  # 2024-02-29
DAY_MS = 24 * HOUR_MS
MIDNIGHT = DAY * DAY_MS


def span(start_ms: int, end_ms: int) -> Period:
    return Period(MIDNIGHT + start_ms, MIDNIGHT + end_ms)


def history(client: Any, *, minute_hours: int = 48, days: int = 770) -> History:
    return History(client, Keys(64), StoreTime(SystemClock()), days=days, minute_hours=minute_hours)


@pytest.mark.parametrize(
    ("figures", "borders", "buckets"),
    [
        ({}, (), []),
        ({b"00": 3}, (), [Bucket(span(0, HOUR_MS), 3)]),
        ({b"23": 3, b"x23": 2, b"07": 1}, (), [
            Bucket(span(7 * HOUR_MS, 8 * HOUR_MS), 1), Bucket(span(23 * HOUR_MS, 24 * HOUR_MS), 3, 2),
        ]),
        ({b"07": 1, b"07+1500": 5, b"x07+1500": -1}, (), [
            Bucket(span(7 * HOUR_MS, 7 * HOUR_MS + 1500), 1),
            Bucket(span(7 * HOUR_MS + 1500, 8 * HOUR_MS), 5, -1),
        ]),
        ({b"07": 1}, (MIDNIGHT + 7 * HOUR_MS + 9,), [Bucket(span(7 * HOUR_MS, 7 * HOUR_MS + 9), 1)]),
        ({b"07": 1}, (MIDNIGHT + 7 * HOUR_MS, MIDNIGHT + 8 * HOUR_MS), [Bucket(span(7 * HOUR_MS, 8 * HOUR_MS), 1)]),
    ],
)  # fmt: skip
def test_a_days_fields_are_buckets_that_end_with_their_hour_or_at_a_border(
    figures: dict[bytes, int], borders: tuple[int, ...], buckets: list[Bucket]
) -> None:
    assert hour_buckets(DAY, figures, borders) == buckets


@pytest.mark.parametrize("name", [b"", b"x", b"seven", b"07+x", b"\xff"])
def test_a_bucket_that_is_none_is_the_organisations_fault(name: bytes) -> None:
    with pytest.raises(OrgCorrupt):
        hour_buckets(DAY, {name: 1})


Use = tuple[int, int, int]
"""When (ms of the hour), units, overage."""

USES = st.lists(st.tuples(st.integers(0, HOUR_MS - 1), st.integers(1, 9), st.integers(0, 1)), min_size=1, max_size=30)


def hashes(uses: list[Use], border_ms: int) -> tuple[dict[bytes, int], dict[bytes, int]]:
    """The hours and the minutes that these uses of the hour after midnight leave; `border_ms` 0: no period begins."""
    hours: dict[bytes, int] = {}
    minutes: dict[bytes, int] = {}
    for at_ms, units, overage in uses:
        inside = 0 < border_ms <= at_ms
        bucket = bucket_of(MIDNIGHT + at_ms, MIDNIGHT + border_ms if inside else 0).encode()
        minute = b"%02d" % (at_ms // MINUTE_MS)
        for found, name in ((hours, bucket), (minutes, minute)):
            found[name] = found.get(name, 0) + units
            if overage:
                found[b"x" + name] = found.get(b"x" + name, 0) + overage
    return hours, minutes


@given(USES, st.sampled_from([0, 1, 90_000, 30 * MINUTE_MS, HOUR_MS - 1]))
def test_an_hour_cut_into_minutes_keeps_every_unit_in_its_minute_and_period(uses: list[Use], border_ms: int) -> None:
    hours, minutes = hashes(uses, border_ms)
    pieces = by_minute(hour_buckets(DAY, hours, {MIDNIGHT + border_ms}), minutes)
    assert {piece.span: (piece.units, piece.overage) for piece in pieces} == _expected(uses, border_ms)


def _expected(uses: list[Use], border_ms: int) -> dict[Period, tuple[int, int]]:
    found: dict[Period, tuple[int, int]] = {}
    for at_ms, units, overage in uses:
        start_ms = at_ms // MINUTE_MS * MINUTE_MS
        end_ms = start_ms + MINUTE_MS
        if 0 < border_ms <= at_ms:
            start_ms = max(start_ms, border_ms)
        elif border_ms:
            end_ms = min(end_ms, border_ms)
        place = span(start_ms, end_ms)
        before = found.get(place, (0, 0))
        found[place] = (before[0] + units, before[1] + overage)
    return found


@given(USES, USES, st.sampled_from([0, 90_000]), st.integers(-3, 3))
def test_whatever_the_minutes_hold_an_hour_cut_into_minutes_adds_up_to_it(
    uses: list[Use], others: list[Use], border_ms: int, corrected: int
) -> None:
    hours, _ = hashes(uses, border_ms)
    _, minutes = hashes(others, 0)
    hours[b"00"] = hours.get(b"00", 0) + corrected
    buckets = hour_buckets(DAY, hours)
    pieces = by_minute(buckets, minutes)
    assert sum(piece.units for piece in pieces) == sum(bucket.units for bucket in buckets)
    assert sum(piece.overage for piece in pieces) == sum(bucket.overage for bucket in buckets)


@pytest.mark.parametrize(
    ("hours", "pieces"),
    [
        ({b"00": 5}, [(MINUTE_MS, 3), (HOUR_MS, 2)]),  # two units were put in
        ({b"00": 3}, [(MINUTE_MS, 3)]),
        ({b"00": 2}, [(HOUR_MS, 2)]),  # one was taken out
    ],
)
def test_an_hour_is_not_cut_where_units_were_taken_out(hours: dict[bytes, int], pieces: list[tuple[int, int]]) -> None:
    found = by_minute(hour_buckets(DAY, hours), {b"07": 3})
    assert [(piece.span.end_ms - piece.span.start_ms, piece.units) for piece in found] == pieces


def test_an_hour_in_which_two_periods_began_is_not_cut() -> None:
    buckets = hour_buckets(DAY, {b"00": 1, b"00+90000": 1, b"00+180000": 1})
    assert by_minute(buckets, {b"00": 1, b"01": 1, b"03": 1}) == buckets


async def test_hashes_are_read_in_their_order_by_bounded_pipelines(client: Any) -> None:
    keys, days = Keys(64), range(DAY, DAY + 3 * PIPELINE_KEYS)
    await client.hset(keys.history("acme", "scans", "20240229"), mapping={"07": 3, "x07": 1})
    await client.hset(keys.history("acme", "scans", "20240301"), "00", "5")
    found = await history(client).days([("acme", "scans", day) for day in days])
    assert found[:2] == [{b"07": 3, b"x07": 1}, {b"00": 5}]
    assert found[2:] == [{}] * (len(days) - 2)
    await client.hset(keys.minutes("acme", "scans", "2024022907"), "59", "2")
    assert await history(client).minutes([("acme", "scans", DAY * 24 + 7)]) == [{b"59": 2}]


async def test_a_large_hash_comes_in_steps_each_field_once(client: Any) -> None:
    key = Keys(64).groups("acme", "scans", "actor", "20240229")
    sent = {f"{hour:02d}|user-{number}": hour + number for hour in range(24) for number in range(200)}
    await client.hset(key, mapping=sent)
    steps = [step async for step in history(client).groups("acme", "scans", "actor", DAY)]
    assert len(steps) > 3
    names = [name for step in steps for name in step]
    assert len(names) == len(set(names)) == len(sent)
    assert {name.decode(): units for step in steps for name, units in step.items()} == sent


async def test_a_figure_that_is_no_number_or_a_key_of_another_type_is_the_organisations_fault(client: Any) -> None:
    keys = Keys(64)
    await client.hset(keys.history("acme", "scans", "20240229"), "07", "many")
    await client.set(keys.history("acme", "calls", "20240229"), "1")
    await client.set(keys.groups("acme", "calls", "actor", "20240229"), "1")
    for feature in ("scans", "calls"):
        with pytest.raises(OrgCorrupt):
            await history(client).days([("acme", feature, DAY)])
    with pytest.raises(OrgCorrupt):
        _ = [step async for step in history(client).groups("acme", "calls", "actor", DAY)]


async def test_a_store_that_is_away_is_said_so() -> None:
    async with connect("redis://127.0.0.1:1") as client:
        with pytest.raises(StorageUnavailable):
            await history(client).days([("acme", "scans", DAY)])
        with pytest.raises(StorageUnavailable):
            _ = [step async for step in history(client).groups("acme", "calls", "actor", DAY)]


def test_history_is_whole_from_the_first_border_on_that_no_event_can_have_lost() -> None:
    found = history(None, minute_hours=48, days=100)
    now_ms = found.now_ms()
    days_ms, hours_ms = found.oldest_ms(Window.DAY), found.oldest_ms(Window.MINUTE)
    assert days_ms is not None
    assert hours_ms is not None
    assert days_ms % DAY_MS == hours_ms % HOUR_MS == 0
    assert 0 <= days_ms - (now_ms - 100 * DAY_MS) <= DAY_MS + 5 * MINUTE_MS + 1000
    assert 0 <= hours_ms - (now_ms - 48 * HOUR_MS) <= HOUR_MS + 5 * MINUTE_MS + 1000
    assert found.oldest_ms(Window.HOUR) == found.oldest_ms(Window.MONTH) == days_ms
    assert history(None, minute_hours=0).oldest_ms(Window.MINUTE) is None
