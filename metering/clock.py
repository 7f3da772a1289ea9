"""The only clock, and its hand-set twin. Nothing else in the project asks what time it is."""

import time
from typing import Final, Protocol

MS_PER_S: Final = 1000
_NS_PER_MS: Final = 1_000_000


class Clock(Protocol):
    """What the service knows of time: a wall that people read, and a stopwatch that never goes back."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch (UTC). May jump; never used to measure how long something took."""
        ...

    def monotonic(self) -> float:
        """Seconds on a stopwatch of unknown start, never decreasing. For timeouts and durations."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """The machine's wall time in ms since the epoch."""
        return time.time_ns() // _NS_PER_MS

    def monotonic(self) -> float:
        """The machine's stopwatch in seconds."""
        return time.monotonic()


class HandClock:
    """A clock that stands still until it is told to move: for tests and for the sandbox."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._elapsed_ms = 0

    def now_ms(self) -> int:
        """The time it was set to, in ms since the epoch."""
        return self._now_ms

    def monotonic(self) -> float:
        """Seconds advanced since it was made; setting the wall does not touch them."""
        return self._elapsed_ms / MS_PER_S

    def advance(self, ms: int) -> None:
        """Let `ms` milliseconds pass. Raises ValueError when negative: time passes forwards only."""
        if ms < 0:
            raise ValueError(f"time passes forwards only, got {ms} ms; use set() to move the wall back")
        self._now_ms += ms
        self._elapsed_ms += ms

    def set(self, now_ms: int) -> None:
        """Move the wall to `now_ms`, also backwards, as a badly kept machine does; no time passes."""
        self._now_ms = now_ms
