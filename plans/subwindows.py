"""Limits beside the billing period's: so many units a minute, hour, day or week, and so many events of an organisation.

A sub-window is fixed (cut at UTC minutes, hours, days, and weeks that begin on Monday) or rolling (the last so much
time). Both are hard: what does not fit is refused, or capped where the caller or the plan caps.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

WEEK_OFFSET_MS: Final = 4 * 86_400_000
"""The epoch's first Monday: 1970-01-05."""

ROLLING_PARTS: Final = 60
"""A rolling window is kept in so many parts. A unit leaves it up to one part after its time, so a rolling limit is
never passed and gives way at most 1/60 late."""


class Per(StrEnum):
    """The length of a sub-window."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"

    @property
    def ms(self) -> int:
        """The length in ms."""
        return _MS_OF[self]


_MS_OF: Final = {Per.MINUTE: 60_000, Per.HOUR: 3_600_000, Per.DAY: 86_400_000, Per.WEEK: 604_800_000}


@dataclass(frozen=True, slots=True)
class SubWindow:
    """At most `limit` units in each (or, `rolling`, in the last) `per`."""

    limit: int
    per: Per
    rolling: bool = False

    @property
    def name(self) -> str:
        """How answers name it: `hour`, or `rolling_hour`."""
        return f"rolling_{self.per}" if self.rolling else self.per.value

    def start_ms(self, now_ms: int) -> int:
        """Since when what was used counts: the fixed window's start, or the first instant of the oldest part."""
        if self.rolling:
            part = self.per.ms // ROLLING_PARTS
            return (now_ms // part - ROLLING_PARTS) * part
        shift = WEEK_OFFSET_MS if self.per is Per.WEEK else 0
        return (now_ms - shift) // self.per.ms * self.per.ms + shift


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `events` events of an organisation a `per`, evenly, with up to `burst` of them at once."""

    events: int
    per: Per
    burst: int

    @property
    def interval_us(self) -> int:
        """Microseconds that one event takes: the emission interval of GCRA (ITU-T I.371, ATM Forum TM 4.0)."""
        return max(1, self.per.ms * 1000 // self.events)


def conforming(rate: RateLimit, tat_us: int, now_us: int, events: int = 1) -> int | None:
    """The theoretical arrival time after `events` more, or None where they do not conform now.

    GCRA as virtual scheduling: `tat_us` is when the events so far would have arrived had they kept the rate.
    """
    room_us = rate.burst * rate.interval_us
    after = min(max(tat_us, now_us), now_us + room_us) + events * rate.interval_us
    return after if after - now_us <= room_us else None
