"""Pages of history, held against the uses they were made from: in every zone, window and grouping, cut anywhere."""

import asyncio
import itertools
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metering.clock import SystemClock
from metering.errors import OrgCorrupt, StorageUnavailable
from metering.store.connect import connect
from metering.store.frames import bucket_of, day_text
from metering.store.keys import Keys
from metering.store.lookback import PAGE_COST, Lookback, Page, Place, Question, Row
from metering.store.timing import StoreTime
from plans.periods import Period
from plans.windows import HOUR_MS, MINUTE_MS, Window, Windows
from tests.lua.scenes import DAY_MS, instant
from tests.support.servers import StoreServer
from tests.support.soak import often

KEYS: Final = Keys(64)
NOW: Final = instant("2024-11-02T10:20:30")
BORDER: Final = instant("2024-10-27T00:34:56") + 789
"""A period began inside an hour, on the night in which Europe's clocks went back."""

FIRST: Final = instant("2024-10-20T00:00:00")

WHOLE_ZONES: Final = (
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "Africa/Cairo",
    "Pacific/Auckland",
    "America/Sao_Paulo",
)
HALF_ZONES: Final = ("Asia/Kolkata", "Asia/Kathmandu", "Australia/Darwin", "America/St_Johns")

Use = tuple[int, int, int, str | None]
"""When, units, overage, actor."""


def lookback(client: Any, *, minute_hours: int = 0, now_ms: int = NOW) -> Lookback:
    """A view of the data set at `now_ms`."""
    time = StoreTime(SystemClock())
    time.learn(now_ms)
    return Lookback(client, KEYS, time, days=770, minute_hours=minute_hours)


async def seed(client: Any, org: str, uses: Iterable[Use], *, minutes: bool = False, feature: str = "scans") -> None:
    """Write what these uses leave in history."""
    pipe = client.pipeline(transaction=False)
    for at_ms, units, overage, actor in uses:
        bucket = bucket_of(at_ms, BORDER if at_ms >= BORDER else 0)
        day = day_text(at_ms // DAY_MS)
        pipe.hincrby(KEYS.history(org, feature, day), bucket, units)
        if overage:
            pipe.hincrby(KEYS.history(org, feature, day), f"x{bucket}", overage)
        if actor is not None:
            pipe.hincrby(KEYS.groups(org, feature, "actor", day), f"{bucket}|{actor}", units)
        if minutes:
            key = KEYS.minutes(org, feature, f"{day}{at_ms // HOUR_MS % 24:02d}")
            pipe.hincrby(key, f"{at_ms // MINUTE_MS % 60:02d}", units)
            pipe.hincrby(key, f"x{at_ms // MINUTE_MS % 60:02d}", overage)
    await pipe.execute()


async def pages(look: Lookback, question: Question, limit: int) -> list[Page]:
    """Every page of a walk."""
    found: list[Page] = []
    begin: Place | None = None
    while not found or begin is not None:
        page = Page()
        await look.extend(page, question, begin, limit)
        begin = page.following
        found.append(page)
    return found


def ask(span: Period, window: Window, timezone: str, org: str = "acme", **more: Any) -> Question:
    return Question((org,), ("scans",), span, Windows(window, timezone), borders_ms=frozenset({BORDER}), **more)


def rows_of(found: list[Page]) -> list[Row]:
    return [row for page in found for row in page.rows]


@st.composite
def instants(draw: st.DrawFn) -> int:
    """Anywhere in the two weeks, or close to what cuts them."""
    near = draw(st.sampled_from([BORDER, instant("2024-10-27T01:00:00"), instant("2024-11-01T00:00:00"), FIRST]))
    return draw(st.integers(FIRST, NOW) | st.integers(-2, 2).map(lambda n: near + n) | st.just(near + HOUR_MS // 2))


USES: Final = st.lists(
    st.tuples(instants(), st.integers(1, 5), st.integers(0, 1), st.sampled_from([None, "ann", "bob", "other"])),
    min_size=1,
    max_size=40,
)
SPANS: Final = st.sampled_from(
    [Period(FIRST - DAY_MS, NOW + DAY_MS), Period(BORDER, NOW + DAY_MS), Period(FIRST - DAY_MS, BORDER)]
)


@settings(max_examples=often(150, 4), deadline=None)
@given(
    USES, SPANS, st.sampled_from([Window.HOUR, Window.DAY, Window.MONTH]), st.sampled_from(WHOLE_ZONES),
    st.sampled_from([1, 2, 7, 500]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_each_window_holds_what_was_used_in_it_however_the_walk_is_cut(
    store_session: StoreServer,
    uses: list[Use], span: Period, window: Window, timezone: str, limit: int, grouped: bool, fill: bool,
) -> None:  # fmt: skip
    org = f"org-{secrets.token_hex(6)}"
    question = ask(span, window, timezone, org, dim="actor" if grouped else None, fill=fill)

    async def look() -> list[Page]:
        async with connect(store_session.url) as client:
            await seed(client, org, uses)
            return await pages(lookback(client), question, limit)

    found = asyncio.run(look())
    expected = expected_of(uses, question)
    shown = {(row.span, row.value): (row.units, row.overage) for row in rows_of(found) if row.units or row.overage}
    assert shown == expected
    assert all(page.aligned for page in found)
    check_order(found, question)


def expected_of(uses: list[Use], question: Question) -> dict[tuple[Period, str | None], tuple[int, int | None]]:
    """The rows that these uses make."""
    units: Counter[tuple[Period, str | None]] = Counter()
    extra: Counter[tuple[Period, str | None]] = Counter()
    for at_ms, n, overage, actor in uses:
        if question.span.contains(at_ms):
            window = question.windows.at(at_ms)
            cut = Period(max(window.start_ms, question.span.start_ms), min(window.end_ms, question.span.end_ms))
            place = (cut, actor if question.dim else None)
            units[place] += n
            extra[place] += overage
    return {place: (n, None if question.dim else extra[place]) for place, n in units.items()}


def check_order(found: list[Page], question: Question) -> None:
    """Rows go forward in time, each once; a filled walk shows every window up to now."""
    rows = rows_of(found)
    places = [(row.span.start_ms, row.value is None, row.value or "") for row in rows]
    assert places == sorted(places)
    assert len(set(places)) == len(places)
    if question.fill:
        end_ms = min(question.span.end_ms, question.windows.at(NOW).end_ms)
        shown = list(dict.fromkeys(row.span for row in rows if row.span.start_ms < end_ms))
        assert shown == list(question.windows.between(Period(question.span.start_ms, end_ms)))


@settings(max_examples=often(100, 4), deadline=None)
@given(
    USES, SPANS, st.sampled_from(Window), st.sampled_from([*HALF_ZONES, "Europe/Paris"]), st.sampled_from([1, 7, 500]),
    st.booleans(),
)  # fmt: skip
@example([(BORDER, 1, 0, None), (BORDER - 1, 2, 1, None)], Period(BORDER, NOW), Window.MINUTE, "UTC", 1, True)
def test_where_minutes_are_kept_they_cut_hours_as_the_zone_does(
    store_session: StoreServer,
    uses: list[Use], span: Period, window: Window, timezone: str, limit: int, kept: bool,
) -> None:  # fmt: skip
    """Without minutes an hour stands where it began, the answer says so, and no unit is lost."""
    org = f"org-{secrets.token_hex(6)}"
    question = ask(span, window, timezone, org)
    minute_hours = 24 * 30 if kept or window is Window.MINUTE else 0

    async def look() -> list[Page]:
        async with connect(store_session.url) as client:
            await seed(client, org, uses, minutes=kept)
            return await pages(lookback(client, minute_hours=minute_hours), question, limit)

    found = asyncio.run(look())
    total = sum(units for at_ms, units, _, _ in uses if span.contains(at_ms))
    assert sum(row.units for row in rows_of(found)) == total
    if kept:
        shown = {(row.span, row.value): (row.units, row.overage) for row in rows_of(found)}
        assert shown == expected_of(uses, question)
        assert all(page.aligned for page in found)
    elif window is Window.MINUTE:
        # Every row says honestly in which hour its units were used.
        assert all(row.span.end_ms - row.span.start_ms > MINUTE_MS for row in rows_of(found))
        assert all(page.aligned for page in found)


@pytest.mark.parametrize(
    ("timezone", "window", "aligned"),
    [
        ("UTC", Window.HOUR, True),
        ("Europe/Paris", Window.DAY, True),
        ("Asia/Kolkata", Window.HOUR, False),
        ("Asia/Kolkata", Window.DAY, True),  # none of these hours holds a local midnight
    ],
)
async def test_an_answer_says_whether_an_hour_lies_in_two_windows(
    client: Any, timezone: str, window: Window, aligned: bool
) -> None:
    await seed(client, "acme", [(instant("2024-10-29T03:10:00"), 1, 0, None)])
    (page,) = await pages(lookback(client), ask(Period(FIRST, NOW), window, timezone), 500)
    assert page.aligned is aligned


@pytest.mark.parametrize(
    ("start", "end", "units", "aligned"),
    [
        ("2024-10-29T03:00:00", "2024-10-29T04:00:00", 1, True),
        ("2024-10-29T03:05:00", "2024-10-29T04:00:00", 0, False),
        ("2024-10-29T03:00:00", "2024-10-29T03:05:00", 1, False),
        ("2024-10-29T04:00:00", "2024-10-29T05:00:00", 0, True),
    ],
)
async def test_a_span_that_cuts_an_hour_takes_it_where_it_began_and_says_so(
    client: Any, start: str, end: str, units: int, aligned: bool
) -> None:
    await seed(client, "acme", [(instant("2024-10-29T03:10:00"), 1, 0, None)])
    span = Period(instant(start), instant(end))
    (page,) = await pages(lookback(client), ask(span, Window.HOUR, "UTC"), 500)
    assert (sum(row.units for row in page.rows), page.aligned) == (units, aligned)


async def test_several_organisations_are_added_up_by_feature(client: Any) -> None:
    at_ms = instant("2024-10-29T03:10:00")
    for org, units in (("acme", 1), ("bell", 2), ("cern", 4)):
        await seed(client, org, [(at_ms, units, 0, None)])
        await seed(client, org, [(at_ms, 10 * units, 0, org)], feature="calls")
    question = replace(
        ask(Period(FIRST, NOW), Window.DAY, "UTC"), orgs=("acme", "bell"), features=("calls", "scans"), dim="actor"
    )
    found = rows_of(await pages(lookback(client), question, 1))
    assert [(row.feature, row.value, row.units) for row in found] == [
        ("calls", "acme", 10), ("calls", "bell", 20), ("scans", None, 3),
    ]  # fmt: skip


async def test_one_value_can_be_asked_for_alone(client: Any) -> None:
    at_ms = instant("2024-10-29T03:10:00")
    await seed(client, "acme", [(at_ms, 1, 0, "ann"), (at_ms, 2, 0, "bob"), (at_ms, 4, 0, None)])
    question = ask(Period(FIRST, NOW), Window.DAY, "UTC", dim="actor", value="bob")
    assert [(row.value, row.units) for row in rows_of(await pages(lookback(client), question, 9))] == [("bob", 2)]


@pytest.mark.parametrize("name", ["seven|ann", "|ann", "ann"])
async def test_a_group_under_no_bucket_is_the_organisations_fault(client: Any, name: str) -> None:
    await client.hset(KEYS.groups("acme", "scans", "actor", "20241029"), name, 1)
    with pytest.raises(OrgCorrupt):
        await pages(lookback(client), ask(Period(FIRST, NOW), Window.DAY, "UTC", dim="actor"), 9)


async def test_a_value_may_be_any_text(client: Any) -> None:
    at_ms = instant("2024-10-29T03:10:00")
    await seed(client, "acme", [(at_ms, 1, 0, "a|b+c"), (at_ms, 2, 0, "\u00fc"), (at_ms, 4, 0, "x07")])
    found = rows_of(await pages(lookback(client), ask(Period(FIRST, NOW), Window.DAY, "UTC", dim="actor"), 9))
    assert {row.value: row.units for row in found} == {"a|b+c": 1, "\u00fc": 2, "x07": 4}
    await client.hset(KEYS.groups("acme", "scans", "actor", "20241029"), b"03|\xff", 1)
    found = rows_of(await pages(lookback(client), ask(Period(FIRST, NOW), Window.DAY, "UTC", dim="actor"), 9))
    assert "\ufffd" in {row.value for row in found}


async def test_what_was_corrected_beyond_its_groups_is_a_rest_below_zero(client: Any) -> None:
    at_ms = instant("2024-10-29T03:10:00")
    await seed(client, "acme", [(at_ms, 5, 0, "ann"), (at_ms, -2, 0, None)])
    question = ask(Period(FIRST, NOW), Window.DAY, "UTC", dim="actor")
    found = rows_of(await pages(lookback(client), question, 9))
    assert [(row.value, row.units) for row in found] == [("ann", 5), (None, -2)]


async def test_a_page_reads_no_more_than_its_cost_whatever_the_span(client: Any) -> None:
    span = Period(NOW - 769 * DAY_MS, NOW)
    question = replace(ask(span, Window.DAY, "UTC"), features=("calls", "checks", "scans"))
    await seed(client, "acme", [(NOW - 700 * DAY_MS, 1, 0, None), (NOW - HOUR_MS, 2, 0, None)])
    found = await pages(lookback(client), question, 500)
    assert [page.cost <= PAGE_COST + 64 for page in found] == [True] * 3
    assert [row.units for row in rows_of(found)] == [1, 2]
    assert not found[0].rows


async def test_a_page_asks_for_no_hash_of_days_to_come(client: Any) -> None:
    (page,) = await pages(lookback(client), ask(Period(NOW, NOW + 9000 * DAY_MS), Window.DAY, "UTC"), 500)
    assert (page.cost, page.rows) == (1, [])


async def test_units_are_those_of_the_hours_that_begin_in_a_span(client: Any) -> None:
    at_ms = instant("2024-10-29T03:10:00")
    await seed(client, "acme", [(at_ms, 1, 0, None), (at_ms + HOUR_MS, 2, 0, None), (at_ms + 30 * HOUR_MS, 4, 0, None)])
    span = Period(instant("2024-10-29T04:00:00"), instant("2024-10-30T09:30:00"))
    assert await lookback(client).units("acme", ("scans", "calls"), span) == {"scans": 6, "calls": 0}


async def test_organisations_are_listed_from_a_name_on(client: Any) -> None:
    names = [f"org-{number}" for number in range(40)]
    for name in names:
        await client.zadd(KEYS.shared("orgs", KEYS.partition(name)), {name: 0})
    look = lookback(client)
    everyone = await look.orgs(None, 100)
    assert sorted(everyone) == sorted(names)
    walked = await look.orgs(None, 7)
    while len(walked) < 40:
        step = await look.orgs(walked[-1], 8)
        assert step[0] == walked[-1]
        walked += step[1:]
    assert walked == everyone


async def test_a_store_that_is_away_is_said_so() -> None:
    async with connect("redis://127.0.0.1:1") as client:
        with pytest.raises(StorageUnavailable):
            await lookback(client).orgs(None, 1)


def test_the_zones_here_are_whole_and_half_as_they_say() -> None:
    hours = range(FIRST, NOW, HOUR_MS)
    for timezone, whole in itertools.chain(((z, True) for z in WHOLE_ZONES), ((z, False) for z in HALF_ZONES)):
        windows = Windows(Window.HOUR, timezone)
        assert all(not windows.split(Period(at_ms, at_ms + HOUR_MS)) for at_ms in hours) is whole, timezone
