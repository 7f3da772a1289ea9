"""The windows that history is shown in: minutes, hours, days and months of a time zone.

Windows are cut where the zone's wall clock says so: a day runs from one local midnight to the next and has 23 or 25
hours where clocks change. Usage is kept by UTC hour; in a zone whose offset is no whole hour, such an hour can lie in
two windows, and `Windows.split` says so.
"""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

from plans.periods import Period, Reset, instant_of, local_time, period_at, zone_of

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS

_DAY: Final = timedelta(days=1)


class Window(StrEnum):
    """What history is shown by."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class Windows:
    """All windows of one kind in one zone. They touch without gap or overlap, and none is empty.

    An hour in which the zone's offset changes by part of an hour ends at the change. A date that the zone skipped has
    no window. Raises TimezoneError; its methods InstantError.
    """

    def __init__(self, window: Window, timezone: str) -> None:
        self.window = window
        self.timezone = timezone
        self._zone = zone_of(timezone)
        self._last = Period(0, 0)

    def at(self, instant_ms: int) -> Period:
        """The window that holds the instant."""
        if not self._last.contains(instant_ms):
            self._last = self._found(instant_ms)
        return self._last

    def between(self, span: Period) -> Iterator[Period]:
        """The windows that `span` touches, in order, the first and the last cut to it."""
        at_ms = span.start_ms
        while at_ms < span.end_ms:
            found = clipped(self.at(at_ms), span)
            yield found
            at_ms = found.end_ms

    def split(self, span: Period) -> bool:
        """Whether `span` lies in more than one window."""
        return self.at(span.start_ms).end_ms < span.end_ms

    def _found(self, instant_ms: int) -> Period:
        if self.window is Window.MONTH:
            return period_at(instant_ms, reset=Reset.CALENDAR, anchor_ms=0, timezone=self.timezone)
        if self.window is Window.DAY:
            return self._day(instant_ms)
        return self._even(instant_ms, HOUR_MS if self.window is Window.HOUR else MINUTE_MS)

    def _day(self, instant_ms: int) -> Period:
        """From local midnight to local midnight; a midnight that comes twice is the first of the two."""
        day = local_time(instant_ms, self._zone).date()
        while instant_ms < self._midnight(day):
            day -= _DAY
        while instant_ms >= self._midnight(day + _DAY):
            day += _DAY
        return Period(self._midnight(day), self._midnight(day + _DAY))

    def _midnight(self, day: date) -> int:
        return instant_of(datetime(day.year, day.month, day.day, tzinfo=self._zone))

    def _even(self, instant_ms: int, length_ms: int) -> Period:
        """The window of a fixed length that the wall clock shows, cut where a change inside it moves its borders."""
        offset_ms = self._offset_ms(instant_ms)
        start_ms = (instant_ms + offset_ms) // length_ms * length_ms - offset_ms
        end_ms = start_ms + length_ms
        if (self._offset_ms(start_ms) - offset_ms) % length_ms:
            start_ms = self._change(start_ms, instant_ms)
        if (self._offset_ms(end_ms - 1) - offset_ms) % length_ms:
            end_ms = self._change(instant_ms, end_ms - 1)
        return Period(start_ms, end_ms)

    def _change(self, before_ms: int, after_ms: int) -> int:
        """The first instant with the offset of `after_ms`; the offset changes once between the two."""
        offset_ms = self._offset_ms(after_ms)
        while after_ms - before_ms > 1:
            middle_ms = (before_ms + after_ms) // 2
            if self._offset_ms(middle_ms) == offset_ms:
                after_ms = middle_ms
            else:
                before_ms = middle_ms
        return after_ms

    def _offset_ms(self, instant_ms: int) -> int:
        offset = local_time(instant_ms, self._zone).utcoffset()
        return 0 if offset is None else offset // timedelta(milliseconds=1)


def clipped(period: Period, span: Period) -> Period:
    """The part of `period` that lies in `span`, which it touches."""
    return Period(max(period.start_ms, span.start_ms), min(period.end_ms, span.end_ms))
