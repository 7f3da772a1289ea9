"""How long what is kept besides the counters is kept."""

from dataclasses import dataclass
from typing import Final

_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Retention:
    """Days of hourly history, hours of minutes (0: none are kept), ms of raw events (0: none are kept)."""

    history_days: int = 770
    minute_hours: int = 0
    events_ms: int = 0

    @property
    def history_s(self) -> int:
        """Seconds of hourly history."""
        return self.history_days * _DAY_S

    @property
    def minutes_s(self) -> int:
        """Seconds of minutes."""
        return self.minute_hours * 3600
