"""What is told of every request: one duration for the metrics, one line for the log."""

from collections.abc import Callable
from typing import Final

import structlog

from metering.clock import MS_PER_S

Observe = Callable[[str, str, int, float], None]
"""Takes method, route template (never a path: paths hold ids), status and seconds."""

OTHER: Final = "other"
"""The template and method of requests that no route answers: one series, whatever people type."""

METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
"""Methods told by name; the parser knows thirty more."""

GONE: Final = 499
"""The status noted when the client left before it was answered; it is never sent."""

log = structlog.get_logger("access")

_SERVER_FAULT: Final = 500


def tell(method: str, route: str, status: int, seconds: float, request_id: str, *, quietly: bool = False) -> None:
    """Write the access line: a warning for a fault of the server, debug when `quietly`."""
    level = "warning" if status >= _SERVER_FAULT else "debug" if quietly else "info"
    getattr(log, level)(
        "request",
        method=method,
        route=route,
        status=status,
        duration_ms=round(seconds * MS_PER_S, 3),
        request_id=request_id,
    )
