"""Which billing period holds an instant (being written: signatures are fixed)."""

from dataclasses import dataclass
from enum import StrEnum


class Reset(StrEnum):
    """When a counter starts again at zero."""

    CALENDAR = "calendar"
    ANNIVERSARY = "anniversary"


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open span [start_ms, end_ms) in ms since the epoch, UTC."""

    start_ms: int
    end_ms: int


def period_at(now_ms: int, *, reset: Reset, anchor_ms: int, timezone: str = "UTC") -> Period:
    raise NotImplementedError
