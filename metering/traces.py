"""What the house knows of tracing: spans of requests and of calls to the store, whoever takes them.

`metering.otel` is the one that does. Without it nothing of this is there: who traces is wrapped around what works.
"""

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

Link = Hashable
"""Names the span of a request, for the spans of calls that carry its events."""

End = Callable[[bool], None]
"""Ends a span; takes whether it went well."""


class RequestSpan(Protocol):
    """The span of one request."""

    @property
    def traceparent(self) -> str:
        """Names it, as https://www.w3.org/TR/trace-context/ says."""
        ...

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        ...

    @property
    def sampled(self) -> bool:
        """Whether anybody will see it."""
        ...

    def tell(self, method: str, route: str, status: int, outcome: str) -> None:
        """What became of the request; a status of 500 and more is an error."""
        ...


class Traces(Protocol):
    """Whoever takes spans."""

    def request(self, traceparent: bytes | None, tracestate: bytes | None) -> AbstractContextManager[RequestSpan]:
        """The span of a request, a child of what the headers name where they name anything. Open while it runs."""
        ...

    def current(self) -> Link | None:
        """The request in hand, where its span is seen by anybody."""
        ...

    def call(self, events: int, orgs: int, links: Sequence[Link]) -> End:
        """The span of a call of the store that carries events of these requests."""
        ...

    def close(self) -> None:
        """Send what is left. Blocks, for seconds where nobody takes it."""
        ...
