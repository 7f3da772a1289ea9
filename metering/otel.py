"""Traces for OpenTelemetry: one span for each request, one for each call of the store with links to its requests.

The one module that imports it (the extra `otel`), and itself imported with TRACING alone. Where spans go is said by
OpenTelemetry's own variables: https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, cast

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link as SpanLink
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from metering.traces import End, Link

SERVICE: Final = "usage-metering"

LINKS_MAX: Final = 256
"""Of one span: a call of the store holds 250 events, each perhaps of another request. OpenTelemetry's own is 128."""

EXPORT_S: Final = 5
"""For one batch of spans to leave: the service ends within 15 s, also where nobody takes them."""

_SERVER_FAULT: Final = 500


@dataclass(frozen=True, slots=True)
class _Request:
    """The span of a request that is open."""

    span: Span
    context: SpanContext

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.context.span_id:016x}-{int(self.context.trace_flags):02x}"

    @property
    def trace_id(self) -> str:
        return f"{self.context.trace_id:032x}"

    @property
    def sampled(self) -> bool:
        return self.context.trace_flags.sampled

    def tell(self, method: str, route: str, status: int, outcome: str) -> None:
        """Names of https://opentelemetry.io/docs/specs/semconv/http/http-spans/. No path: it holds ids."""
        self.span.update_name(f"{method} {route}")
        self.span.set_attribute("http.request.method", method)
        self.span.set_attribute("http.route", route)
        self.span.set_attribute("http.response.status_code", status)
        self.span.set_attribute("metering.outcome", outcome)
        if status >= _SERVER_FAULT:
            self.span.set_attribute("error.type", outcome)
            self.span.set_status(Status(StatusCode.ERROR))


class OtelTraces:
    """Spans of one worker; `close` lets what is left go out. Of requests that come without a trace one in `one_in`."""

    def __init__(self, version: str, *, one_in: int, exporter: SpanExporter | None = None) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME") or SERVICE
        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: name, SERVICE_VERSION: version}),
            sampler=ParentBased(TraceIdRatioBased(1 / one_in)),
            span_limits=SpanLimits(max_links=LINKS_MAX),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(timeout=EXPORT_S)))
        self._tracer = self._provider.get_tracer(SERVICE, version)
        self._words = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Send what is left, and end. Blocks, for seconds where nobody takes it."""
        self._provider.shutdown()

    def flush(self) -> None:
        """Send what is there. Blocks."""
        self._provider.force_flush(EXPORT_S * 1000)

    @contextmanager
    def request(self, traceparent: bytes | None, tracestate: bytes | None) -> Iterator[_Request]:
        """As `metering.traces.Traces`. Headers that are none of W3C's begin a trace of their own."""
        given = {"traceparent": traceparent, "tracestate": tracestate}
        carrier = {name: value.decode("latin-1") for name, value in given.items() if value is not None}
        parent = self._words.extract(carrier)
        with self._tracer.start_as_current_span(
            "request", context=parent, kind=SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:
            yield _Request(span, span.get_span_context())

    def current(self) -> Link | None:
        """As `metering.traces.Traces`."""
        span = trace.get_current_span()
        return span if span.is_recording() else None

    def call(self, events: int, orgs: int, links: Sequence[Link]) -> End:
        """As `metering.traces.Traces`. It has no parent: it works for all of its requests alike."""
        span = self._tracer.start_span(
            "store call",
            context=trace.set_span_in_context(trace.INVALID_SPAN),
            kind=SpanKind.CLIENT,
            links=[SpanLink(cast(Span, link).get_span_context()) for link in links],
            attributes={"db.system.name": "redis", "db.operation.batch.size": events, "metering.organisations": orgs},
        )

        def end(went_well: bool) -> None:
            if not went_well:
                span.set_status(Status(StatusCode.ERROR))
            span.end()

        return end
