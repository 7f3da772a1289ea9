"""Periods by literal cases: every expected border was worked out by hand from the clocks of that place."""

from datetime import UTC, datetime, timedelta
from zoneinfo import available_timezones

import pytest

from plans.periods import (
    AHEAD_MAX_MS,
    INSTANT_MAX_MS,
    INSTANT_MIN_MS,
    InstantError,
    Period,
    Reset,
    TimezoneError,
    month_span_utc,
    month_utc,
    oldest_accepted_ms,
    period_at,
    previous_month,
    zone_known,
)

CALENDAR, ANNIVERSARY = Reset.CALENDAR, Reset.ANNIVERSARY
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ms(text: str) -> int:
    """Milliseconds of an ISO time; without an offset it is UTC."""
    moment = datetime.fromisoformat(text)
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // timedelta(milliseconds=1)


def span(start: str, end: str) -> Period:
    return Period(ms(start), ms(end))


@pytest.mark.parametrize(
    ("now", "timezone", "start", "end"),
    [
        ("2024-01-15T10:30", "UTC", "2024-01-01", "2024-02-01"),
        ("2024-01-31T23:59:59.999", "UTC", "2024-01-01", "2024-02-01"),
        ("2024-02-01", "UTC", "2024-02-01", "2024-03-01"),
        ("2024-12-31T23:59:59.999", "UTC", "2024-12-01", "2025-01-01"),
        ("2025-01-01", "UTC", "2025-01-01", "2025-02-01"),
        ("2100-02-28", "UTC", "2100-02-01", "2100-03-01"),
        ("1970-01-01", "America/New_York", "1969-12-01T05:00", "1970-01-01T05:00"),
        ("2024-01-31T18:29:59.999", "Asia/Kolkata", "2023-12-31T18:30", "2024-01-31T18:30"),
        ("2024-01-31T18:30", "Asia/Kolkata", "2024-01-31T18:30", "2024-02-29T18:30"),
        ("2024-03-20", "Europe/Paris", "2024-02-29T23:00", "2024-03-31T22:00"),
        ("2024-10-31", "Europe/Paris", "2024-09-30T22:00", "2024-10-31T23:00"),
        ("2024-04-02", "Pacific/Chatham", "2024-03-31T10:15", "2024-04-30T11:15"),
        ("2024-07-01", "Pacific/Kiritimati", "2024-06-30T10:00", "2024-07-31T10:00"),
        ("2017-10-15", "America/Asuncion", "2017-10-01T04:00", "2017-11-01T03:00"),
        ("2009-11-01T02:29:59.999", "America/St_Johns", "2009-10-01T02:30", "2009-11-01T02:30"),
        ("2009-11-01T02:30", "America/St_Johns", "2009-11-01T02:30", "2009-12-01T03:30"),
        ("2009-11-01T03:00", "America/St_Johns", "2009-11-01T02:30", "2009-12-01T03:30"),
    ],
    ids=[
        "the first documented reset date",
        "the last millisecond of a month",
        "the first millisecond of a month",
        "the last millisecond of a year",
        "the first millisecond of a year",
        "2100 is no leap year",
        "the epoch lies in December 1969 there",
        "+5:30, before local midnight",
        "+5:30, at local midnight",
        "summer time begins: a month of 743 hours",
        "summer time ends: a month of 745 hours",
        "+13:45 turns to +12:45",
        "+14:00, the first to begin a month",
        "midnight of the 1st is skipped: the month begins at 01:00",
        "midnight comes twice: still before the first",
        "midnight comes twice: the first is the border",
        "midnight comes twice: back in local October, the new month goes on",
    ],
)
def test_a_calendar_month_runs_between_local_midnights_of_the_1st(
    now: str, timezone: str, start: str, end: str
) -> None:
    assert period_at(ms(now), reset=CALENDAR, anchor_ms=0, timezone=timezone) == span(start, end)


@pytest.mark.parametrize(
    ("anchor", "now", "timezone", "start", "end"),
    [
        ("2024-01-15T10:30", "2024-01-15T10:30", "UTC", "2024-01-15T10:30", "2024-02-15T10:30"),
        (
            "2024-01-15T10:30:00.001",
            "2024-02-15T10:30",
            "UTC",
            "2024-01-15T10:30:00.001",
            "2024-02-15T10:30:00.001",
        ),
        ("2023-01-31", "2023-02-01", "UTC", "2023-01-31", "2023-02-28"),
        ("2023-01-31", "2023-03-30", "UTC", "2023-02-28", "2023-03-31"),
        ("2024-01-31", "2024-02-29", "UTC", "2024-02-29", "2024-03-31"),
        ("2024-01-30", "2024-02-29", "UTC", "2024-02-29", "2024-03-30"),
        ("2024-02-29", "2025-02-28", "UTC", "2025-02-28", "2025-03-29"),
        ("2024-02-29", "2028-03-01", "UTC", "2028-02-29", "2028-03-29"),
        ("2024-03-31", "2100-03-01", "UTC", "2100-02-28", "2100-03-31"),
        ("2024-12-31", "2025-01-01", "UTC", "2024-12-31", "2025-01-31"),
        ("2024-03-31", "2024-02-10", "UTC", "2024-01-31", "2024-02-29"),
        ("2024-03-31", "2023-12-31", "UTC", "2023-12-31", "2024-01-31"),
        ("2024-01-10T07:30", "2024-03-11", "America/New_York", "2024-03-10T07:30", "2024-04-10T06:30"),
        ("2024-10-03T05:30", "2024-11-04", "America/New_York", "2024-11-03T05:30", "2024-12-03T06:30"),
        ("2024-11-03T06:30", "2024-11-03T06:30", "America/New_York", "2024-11-03T06:30", "2024-12-03T06:30"),
        ("2024-11-03T06:30", "2024-11-03T06:29", "America/New_York", "2024-10-03T05:30", "2024-11-03T06:30"),
        ("2024-11-03T06:30", "2030-11-04", "America/New_York", "2030-11-03T05:30", "2030-12-03T06:30"),
        ("2011-11-30T22:00", "2011-12-30T22:00", "Pacific/Apia", "2011-12-30T22:00", "2012-01-29T22:00"),
        ("1995-01-30T12:00", "1994-12-31T11:00", "Pacific/Kanton", "1994-11-30T12:00", "1994-12-31T12:00"),
        ("2024-01-31T18:00", "2024-02-15", "Asia/Kolkata", "2024-01-31T18:00", "2024-02-29T18:00"),
        ("2024-01-31T19:00", "2024-02-29T19:00", "Asia/Kolkata", "2024-02-29T19:00", "2024-03-31T19:00"),
    ],
    ids=[
        "the anchor starts its own period",
        "to the millisecond",
        "31 January, then 28 February",
        "28 February, then 31 March again",
        "31 January, then 29 February",
        "30 January, then 29 February",
        "29 February, then 28 February",
        "29 February, and 29 again four years on",
        "the 31st in February 2100",
        "across the year's end",
        "before the anchor, short month",
        "before the anchor, across the year's end",
        "02:30 is skipped on 10 March: 03:30 summer time",
        "01:30 comes twice on 3 November: the first",
        "an anchor at the second 01:30 starts its own period",
        "and the instant before belongs to the period before",
        "but years later, when 01:30 comes twice again, the first counts",
        "30 December 2011 was skipped: the same hour of the 31st",
        "31 December 1994 was skipped: local January, still before its border",
        "+5:30, 31 January 23:30 local",
        "+5:30, 1 February 00:30 local",
    ],
)
def test_an_anniversary_period_runs_between_months_of_its_anchor(
    anchor: str, now: str, timezone: str, start: str, end: str
) -> None:
    period = period_at(ms(now), reset=ANNIVERSARY, anchor_ms=ms(anchor), timezone=timezone)
    assert period == span(start, end)


def test_the_31st_gives_the_last_day_of_every_month_of_a_leap_year() -> None:
    starts = [
        period_at(ms(f"2024-{month:02}-15"), reset=ANNIVERSARY, anchor_ms=ms("2023-08-31")).end_ms
        for month in range(1, 13)
    ]
    days = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    assert starts == [ms(f"2024-{month:02}-{day}") for month, day in enumerate(days, 1)]


def test_without_a_time_zone_a_period_is_in_utc() -> None:
    assert period_at(ms("2024-01-15"), reset=CALENDAR, anchor_ms=0) == span("2024-01-01", "2024-02-01")


def test_a_period_holds_its_start_and_not_its_end() -> None:
    period = Period(1000, 2000)
    held = [instant for instant in (999, 1000, 1999, 2000) if period.contains(instant)]
    assert held == [1000, 1999]


@pytest.mark.parametrize(
    "name",
    [
        *["", " ", "Nope", "Nope/Zone", "europe/paris", "Europe/Paris ", "Europe/Paris\n", "é", "UTC+1"],
        *["Europe", "Europe/", "/etc/localtime", "../UTC", "Europe/../UTC", "tzdata.zi", "zone.tab", "a\0b"],
        *["localtime", "posixrules", "Factory", "right/UTC", "posix/Europe/Paris", "leapseconds", "A" * 300],
    ],
)
def test_a_name_that_is_no_zone_everywhere_is_refused_with_the_cure(name: str) -> None:
    assert not zone_known(name)
    with pytest.raises(TimezoneError, match="give an IANA name such as 'Europe/Paris'"):
        period_at(0, reset=CALENDAR, anchor_ms=0, timezone=name)


def test_a_very_long_zone_name_is_not_repeated_whole() -> None:
    with pytest.raises(TimezoneError) as caught:
        period_at(0, reset=CALENDAR, anchor_ms=0, timezone="A" * 10_000)
    assert len(str(caught.value)) < 200


def test_every_zone_of_the_tz_database_is_known() -> None:
    names = available_timezones() - {"localtime", "Factory"}
    assert len(names) > 400
    assert [name for name in names if not zone_known(name)] == []


@pytest.mark.parametrize("reset", Reset)
@pytest.mark.parametrize("timezone", ["UTC", "Pacific/Kiritimati", "America/Los_Angeles"])
@pytest.mark.parametrize("now_ms", [INSTANT_MIN_MS, INSTANT_MAX_MS])
def test_a_period_exists_at_both_ends_of_the_range(reset: Reset, timezone: str, now_ms: int) -> None:
    assert period_at(now_ms, reset=reset, anchor_ms=ms("2024-01-31"), timezone=timezone).contains(now_ms)


@pytest.mark.parametrize("instant_ms", [INSTANT_MIN_MS - 1, INSTANT_MAX_MS + 1, 10**30])
def test_an_instant_out_of_range_is_refused_with_the_cure(instant_ms: int) -> None:
    with pytest.raises(InstantError, match="give milliseconds"):
        period_at(instant_ms, reset=CALENDAR, anchor_ms=0)
    with pytest.raises(InstantError, match="give milliseconds"):
        period_at(0, reset=ANNIVERSARY, anchor_ms=instant_ms)


@pytest.mark.parametrize(
    ("instant", "month"),
    [
        ("2024-01-31T23:59:59.999", "202401"),
        ("2024-02-01", "202402"),
        ("1970-01-01", "197001"),
        ("1969-12-31T23:59:59.999", "196912"),
        ("2099-12-31T23:59:59.999", "209912"),
    ],
)
def test_an_instant_has_this_utc_month(instant: str, month: str) -> None:
    assert month_utc(ms(instant)) == month


def test_the_span_of_a_utc_month_is_that_calendar_month() -> None:
    assert month_span_utc(ms("2024-02-29T12:00")) == span("2024-02-01", "2024-03-01")


@pytest.mark.parametrize(("month", "before"), [("202402", "202401"), ("202401", "202312"), ("210010", "210009")])
def test_the_month_before_is(month: str, before: str) -> None:
    assert previous_month(month) == before


@pytest.mark.parametrize(
    "month",
    ["", "2024", "20241", "202400", "202413", "2024-1", "2024011", "000001", "2024０1"],  # noqa: RUF001 - a digit of another script
)
def test_what_is_no_month_is_refused(month: str) -> None:
    with pytest.raises(ValueError, match="give yyyymm"):
        previous_month(month)


@pytest.mark.parametrize(
    ("now", "oldest"),
    [
        ("2024-03-01", "2024-02-01T00:05"),
        ("2024-03-31T12:00", "2024-02-25T12:00"),
        ("2024-03-07T00:05", "2024-02-01T00:05"),
        ("2024-03-07T00:05:00.001", "2024-02-01T00:05:00.001"),
        ("2024-01-01", "2023-12-01T00:05"),
        ("2024-02-29T23:59:59.999", "2024-01-25T23:59:59.999"),
    ],
    ids=[
        "the previous month cuts it short",
        "35 days, late in a month",
        "the two meet",
        "and part",
        "across the year's end",
        "35 days reach the previous month only",
    ],
)
def test_the_oldest_accepted_timestamp_is(now: str, oldest: str) -> None:
    assert oldest_accepted_ms(ms(now)) == ms(oldest)


def test_the_newest_accepted_timestamp_is_five_minutes_ahead() -> None:
    assert AHEAD_MAX_MS == 300_000
