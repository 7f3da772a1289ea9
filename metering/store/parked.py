"""Organisations set aside because their data has a shape no script wrote."""

from collections.abc import Callable
from typing import Final

PARK_S: Final = 10.0
"""How long an organisation with corrupt data is refused without asking the store again."""


class Parked:
    """Who is parked in one worker, and until when. `now` is a stopwatch in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._until: dict[str, float] = {}

    def add(self, org_id: str) -> None:
        """Set an organisation aside for PARK_S from now."""
        self._until[org_id] = self._now() + PARK_S

    def holds(self, org_id: str) -> bool:
        """Whether it is set aside now."""
        if not self._until:
            return False
        until = self._until.get(org_id)
        if until is not None and self._now() >= until:
            del self._until[org_id]
            return False
        return until is not None
