"""What is told of every request: one duration for the metrics, one line for the log.

Whoever answers a request leaves in its scope what only they know: `template` (the route), `org` (the organisation it is
about), `refused` (the code of a problem), `outcome` (what became of an event), `streams` (it goes on until somebody
ends it, so that how long it took says nothing).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from metering.clock import MS_PER_S
from metering.names import is_org_id

Observe = Callable[[str, str, int, float], None]
"""Takes method, route template (never a path: paths hold ids), status and seconds."""

OTHER: Final = "other"
"""The template and method of requests that no route answers: one series, whatever people type."""

METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
"""Methods told by name; the parser knows thirty more."""

GONE: Final = 499
"""The status noted when the client left before it was answered; it is never sent."""

log = structlog.get_logger("access")

_OK: Final = 200
_REFUSED: Final = 400
_SERVER_FAULT: Final = 500

_NEVER_S: Final = float("inf")

_CLIENT_GONE: Final = "client_gone"
_ANSWERED: Final = "ok"


class AccessLog:
    """Writes the lines. Every request has one, but of counted events on the hot path only one in `every` (0: none; a
    worker that logs at DEBUG tells `all_of_them`, quietly). One that took `slow_ms` or more is told as slow (0: none).
    """

    def __init__(self, *, slow_ms: int = 0, every: int = 0, all_of_them: bool = False) -> None:
        self.slow_s = slow_ms / MS_PER_S if slow_ms else _NEVER_S
        self._every = every
        self._left = every
        self._all = all_of_them

    def counted(self, scope: Any, route: str, seconds: float, request_id: str) -> None:
        """Tell of an event that counted, if its turn has come or it was slow."""
        self._left -= 1
        sampled = self._left == 0
        if sampled:
            self._left = self._every
        elif not self._all and seconds < self.slow_s:
            return
        more = {"one_in": self._every} if sampled and not self._all else {}
        self.tell(scope, "POST", route, _OK, seconds, request_id, more=more, quietly=not more)

    def tell(
        self,
        scope: Any,
        method: str,
        route: str,
        status: int,
        seconds: float,
        request_id: str,
        *,
        more: Mapping[str, object] | None = None,
        quietly: bool = False,
    ) -> None:
        """Write the line: a warning for a fault of the server and for what was slow, debug when `quietly`."""
        slow = seconds >= self.slow_s and "streams" not in scope
        level = "warning" if slow or status >= _SERVER_FAULT else "debug" if quietly else "info"
        fields: dict[str, object] = {} if more is None else {**more}
        if slow:
            fields["slow"] = True
        org = scope.get("org")
        if org is not None and is_org_id(org):
            fields["org"] = org
        getattr(log, level)(
            "request",
            method=method,
            route=route,
            status=status,
            outcome=outcome_of(scope, status),
            duration_ms=round(seconds * MS_PER_S, 3),
            request_id=request_id,
            **fields,
        )


def outcome_of(scope: Any, status: int) -> str:
    """What became of a request, in one word."""
    if status == GONE:
        return _CLIENT_GONE
    if status >= _REFUSED:
        return str(scope.get("refused", "failed" if status >= _SERVER_FAULT else "refused"))
    return str(scope.get("outcome", _ANSWERED))
