"""When Stripe is away: how long to leave it alone. Pure but for the stopwatch and the dice that are handed in."""

from collections.abc import Callable
from random import Random, SystemRandom
from typing import Final

FAILURES: Final = 5
"""In a row: a single broken connection is no outage."""

OPEN_S: Final = 15.0
OPEN_MAX_S: Final = 300.0
"""How long nothing is sent, doubled with each failed look: usage that is due waits five minutes at most longer."""

BACKOFF_MS: Final = 2_000
BACKOFF_MAX_MS: Final = 600_000
"""Of one window: doubled with each attempt. Ten minutes leave a hundred attempts within the 23 hours."""

_DOUBLINGS_MAX: Final = 20


class Breaker:
    """Stops sending after failures in a row; after a while the next call looks whether Stripe is back. One a
    process.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._failures = self._openings = 0
        self._closed_at_s: float | None = None

    @property
    def open(self) -> bool:
        """Whether nothing may be sent now."""
        return self._closed_at_s is not None and self._monotonic() < self._closed_at_s

    def ok(self) -> None:
        """Stripe answered, be it with a refusal."""
        self._failures = self._openings = 0
        self._closed_at_s = None

    def failed(self, *, at_once: bool = False) -> None:
        """A call failed. `at_once`: every other would too, as the key does not hold."""
        self._failures += 1
        if not at_once and self._failures < FAILURES and not self._openings:
            return
        pause_s = min(OPEN_MAX_S, OPEN_S * 2 ** min(self._openings, _DOUBLINGS_MAX))
        self._openings += 1
        self._closed_at_s = self._monotonic() + pause_s


def delay_ms(attempts: int, retry_after_s: float | None = None, dice: Random | None = None) -> int:
    """How long a window waits after its attempt number `attempts`: full jitter, on top of what Stripe asked for."""
    most = min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** min(attempts, _DOUBLINGS_MAX))
    asked_ms = 0 if retry_after_s is None else int(retry_after_s * 1000)
    return asked_ms + int((dice or SystemRandom()).uniform(0, most))
