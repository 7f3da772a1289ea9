"""What the metrics are to those who are measured."""

from collections.abc import Awaitable
from typing import Protocol


class Measures(Protocol):
    """The metrics (`metering.metrics.Metrics`)."""

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Note one request. `route` is a template of the table, or `other`."""
        ...

    def counted(self, org_id: str, units: int) -> None:
        """Note an event that counted."""
        ...

    def exemplar(self, method: str, route: str, status: int, seconds: float, trace_id: str) -> None:
        """Note a request that somebody can look at by its trace."""
        ...

    def flush(self) -> Awaitable[None]:
        """Bring what only this worker knows to where all see it; called every few seconds."""
        ...

    def exposition(self, accept: str) -> Awaitable[tuple[bytes, str]]:
        """The page and its content type, as the scraper's Accept header prefers."""
        ...
