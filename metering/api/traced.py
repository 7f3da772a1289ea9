"""The front door of a worker that traces: a span around every request, and what it is called on the way out.

Wrapped around the front where TRACING is on; where it is off nothing of it is there.
"""

from collections.abc import Callable
from typing import Any

from metering import log as log_setup
from metering.api.access import GONE, METHODS, OTHER, outcome_of
from metering.api.answers import Send
from metering.api.bodies import Receive
from metering.api.front import App
from metering.api.track import TRACK
from metering.clock import Clock
from metering.traces import Traces

Exemplar = Callable[[str, str, int, float, str], None]
"""Takes method, route template, status, seconds and trace id of a request that somebody can look at."""


class Traced:
    """The ASGI application of the service, with a span around it. `exemplar` is told of requests that are sampled."""

    def __init__(self, front: App, traces: Traces, exemplar: Exemplar, clock: Clock) -> None:
        self._front, self._traces, self._exemplar, self._monotonic = front, traces, exemplar, clock.monotonic

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        began, headers = self._monotonic(), dict(scope["headers"])
        with self._traces.request(headers.get(b"traceparent"), headers.get(b"tracestate")) as span:
            noting = _Noting(send, span.traceparent)
            token = log_setup.trace_id.set(span.trace_id)
            try:
                await self._front(scope, receive, noting)
            finally:
                log_setup.trace_id.reset(token)
                method = scope["method"] if scope["method"] in METHODS else OTHER
                route = scope.get("template", TRACK)
                span.tell(method, route, noting.status, outcome_of(scope, noting.status))
                if span.sampled and "streams" not in scope:
                    self._exemplar(method, route, noting.status, self._monotonic() - began, span.trace_id)


class _Noting:
    """`send` that notes the status and names the span to the client."""

    def __init__(self, send: Send, traceparent: str) -> None:
        self._send = send
        self._header = (b"traceparent", traceparent.encode("ascii"))
        self.status = GONE

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], self._header]
        await self._send(message)
