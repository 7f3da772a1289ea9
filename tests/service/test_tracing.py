"""Traces: a span for each request, one for each call of the store with links to its requests, and nothing when off."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import httpx2
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from metering import log
from metering.auth import ADMIN
from metering.clock import HandClock
from metering.exemplars import Exemplars
from metering.otel import OtelTraces
from metering.store.batcher import CALL_EVENTS_MAX
from metering.traces import Link
from tests.service.running import Running, token
from tests.support.service import ROOT, clean_environment

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
PARENT: Final = "b7ad6b7169203331"
SAMPLED: Final = f"00-{TRACE}-{PARENT}-01"
NOT_SAMPLED: Final = f"00-{TRACE}-{PARENT}-00"
TRACEPARENT: Final = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-0[0-3]")


@dataclass(frozen=True)
class Traced:
    """A service that traces, and where its spans go."""

    service: Running
    traces: OtelTraces
    exporter: InMemorySpanExporter

    def spans(self) -> Sequence[ReadableSpan]:
        """Those that ended since the last look."""
        self.traces.flush()
        found = self.exporter.get_finished_spans()
        self.exporter.clear()
        return found

    def track(self, headers: dict[str, str] | None = None, **body: object) -> httpx2.Response:
        bearer = token(None, ADMIN)
        return self.service.call("POST", "/usage/track", bearer, headers=headers, json={"feature": "scans"} | body)


@pytest.fixture(scope="module")
def all_of_it() -> Iterator[Traced]:
    exporter = InMemorySpanExporter()
    traces = OtelTraces("test", one_in=1, exporter=exporter)
    with Running(traces=traces, event_retention="1d") as service:
        yield Traced(service, traces, exporter)


@pytest.fixture
def traced(all_of_it: Traced, org: str) -> Traced:
    """The service, with no span left of others, and an organisation that is known."""
    assert all_of_it.track(org_id=org).status_code == 200
    all_of_it.spans()
    all_of_it.service.recorder.exemplars.clear()
    return all_of_it


def context(span: ReadableSpan) -> SpanContext:
    found = span.get_span_context()
    assert found is not None
    return found


def test_a_request_and_its_call_of_the_store_are_spans_and_the_call_links_to_the_request(
    traced: Traced, org: str
) -> None:
    traced.track(org_id=org)
    call, request = sorted(traced.spans(), key=lambda span: span.name != "store call")
    assert (request.name, request.kind, request.parent) == ("POST /usage/track", SpanKind.SERVER, None)
    assert (call.name, call.kind, call.parent) == ("store call", SpanKind.CLIENT, None)
    assert [link.context for link in call.links] == [context(request)]
    assert dict(call.attributes or {})["db.operation.batch.size"] == 1
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/usage/track",
        "http.response.status_code": 200,
        "metering.outcome": "recorded",
    }


def test_a_call_links_to_every_request_whose_events_it_carries_once(traced: Traced, org: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: traced.track(org_id=org).raise_for_status(), range(40)))
    batch = [{"org_id": org, "feature": "scans"} for _ in range(300)]
    traced.service.call("POST", "/v1/events", token(None, ADMIN), json=batch)
    spans = traced.spans()
    requests = {context(span).span_id for span in spans if span.kind is SpanKind.SERVER}
    calls = [span for span in spans if span.name == "store call"]
    linked = [[link.context.span_id for link in span.links] for span in calls]
    assert {one for links in linked for one in links} == requests
    assert all(len(links) == len(set(links)) for links in linked)
    assert sum(dict(span.attributes or {})["db.operation.batch.size"] for span in calls) == 340  # type: ignore[misc]


def test_a_call_that_is_full_has_all_its_links(traced: Traced) -> None:
    links: list[Link] = []
    for _ in range(CALL_EVENTS_MAX):
        with traced.traces.request(None, None):
            link = traced.traces.current()
            assert link is not None
            links.append(link)
    traced.spans()
    traced.traces.call(CALL_EVENTS_MAX, 1, links)(True)
    [call] = traced.spans()
    assert len(call.links) == CALL_EVENTS_MAX


@pytest.mark.parametrize(("one_in", "kept"), [(1, 2**64 - 1), (100, 2**64 // 100 - 2), (1_000_000, 2**44)])
def test_of_requests_without_a_trace_one_in_so_many_is_traced(one_in: int, kept: int) -> None:
    traces = OtelTraces("test", one_in=one_in, exporter=InMemorySpanExporter())
    decide = traces._provider.sampler.should_sample  # noqa: SLF001 - the ids of real requests are drawn
    decided = [decide(None, trace_id, "x").decision for trace_id in (0, kept, 2**64 - 1)]
    dropped = Decision.RECORD_AND_SAMPLE if one_in == 1 else Decision.DROP
    assert decided == [Decision.RECORD_AND_SAMPLE, Decision.RECORD_AND_SAMPLE, dropped]
    traces.close()


def test_a_trace_that_comes_in_goes_on_and_is_named_on_the_way_out(traced: Traced, org: str) -> None:
    answer = traced.track({"traceparent": SAMPLED, "tracestate": "a=1"}, org_id=org)
    request = next(span for span in traced.spans() if span.kind is SpanKind.SERVER)
    assert request.parent is not None
    assert (f"{request.parent.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, PARENT)
    assert context(request).trace_state.to_header() == "a=1"
    assert answer.headers["traceparent"] == f"00-{TRACE}-{context(request).span_id:016x}-01"


def test_what_the_sender_does_not_trace_is_not_traced(traced: Traced, org: str) -> None:
    answer = traced.track({"traceparent": NOT_SAMPLED}, org_id=org)
    assert (answer.status_code, traced.spans()) == (200, ())
    assert answer.headers["traceparent"].endswith("-00")
    assert traced.service.recorder.exemplars == []


@pytest.mark.parametrize("given", ["", "x", SAMPLED[:-1], SAMPLED.upper(), f"00-{'0' * 32}-{PARENT}-01", "\xff" * 55])
def test_a_header_that_is_no_trace_begins_a_new_one(traced: Traced, org: str, given: str) -> None:
    answer = traced.service.client.post(
        "/usage/track",
        headers=[
            (b"traceparent", given.encode("latin-1")),
            (b"authorization", f"Bearer {token(None, ADMIN)}".encode()),
        ],
        json={"org_id": org, "feature": "scans"},
    )
    found = TRACEPARENT.fullmatch(answer.headers["traceparent"])
    assert answer.status_code == 200
    assert found is not None
    assert found[1] != TRACE
    traced.spans()


def test_refusals_say_why_and_faults_are_errors(traced: Traced) -> None:
    traced.track(org_id="org-x", feature="nope")
    traced.service.call("GET", "/nowhere", token(None, ADMIN))
    spans = [span for span in traced.spans() if span.kind is SpanKind.SERVER]
    told = [(span.name, dict(span.attributes or {})["metering.outcome"]) for span in spans]
    assert told == [("POST /usage/track", "feature-unknown"), ("GET other", "not-found")]
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}
    with traced.traces.request(None, None) as open_span:
        open_span.tell("GET", "/x", 503, "overloaded")
    [failed] = traced.spans()
    assert (failed.status.status_code, dict(failed.attributes or {})["error.type"]) == (StatusCode.ERROR, "overloaded")


def test_a_call_that_the_store_refuses_is_an_error(traced: Traced, org: str) -> None:
    traced.service.store.config_set("maxmemory", 1)
    try:
        assert traced.track(org_id=org).status_code == 503
    finally:
        traced.service.store.config_set("maxmemory", 0)
    status = {span.name: span.status.status_code for span in traced.spans()}
    assert status == {"store call": StatusCode.ERROR, "POST /usage/track": StatusCode.ERROR}
    assert traced.track(org_id=org).status_code == 200
    status = {span.name: span.status.status_code for span in traced.spans()}
    assert status == {"store call": StatusCode.UNSET, "POST /usage/track": StatusCode.UNSET}


def test_no_span_holds_an_id_of_anybody(traced: Traced, org: str) -> None:
    traced.track(org_id=org, event_id="evt-canary", actor="ann")
    traced.service.call("GET", f"/usage/{org}", token(org, ADMIN))
    spans = traced.spans()
    assert len(spans) == 3
    assert not [
        span for span in spans if org in span.to_json() or "canary" in span.to_json() or "ann" in span.to_json()
    ]


def test_lines_of_the_log_name_the_trace(traced: Traced, org: str) -> None:
    seen: list[str] = []
    log.configure("DEBUG", write=seen.append)
    answer = traced.service.call("GET", f"/usage/{org}", token(org))
    log.configure("ERROR")
    [line] = [entry for entry in map(json.loads, seen) if entry["event"] == "request"]
    assert line["trace_id"] == answer.headers["traceparent"].split("-")[1]
    traced.spans()


def test_a_traced_request_is_an_exemplar(traced: Traced, org: str) -> None:
    answer = traced.track(org_id=org)
    trace_id = answer.headers["traceparent"].split("-")[1]
    assert traced.service.recorder.exemplars == [("POST", "/usage/track", 200, trace_id)]


def test_what_streams_is_no_exemplar_as_it_lasts_until_somebody_ends_it(traced: Traced) -> None:
    answer = traced.service.call("GET", "/v1/admin/events", token(None, ADMIN), params={"for_s": 0})
    assert answer.status_code == 200
    [span] = traced.spans()
    assert span.name == "GET /v1/admin/events"
    assert traced.service.recorder.exemplars == []


def test_the_last_of_each_bucket_is_kept_and_unknown_routes_are_one_series() -> None:
    kept = Exemplars([("GET", "/x")], HandClock(5_000).now_ms)
    for method, route, seconds, trace in (
        ("GET", "/x", 0.002, "a"),
        ("GET", "/x", 0.002, "b"),
        ("PUT", "/y", 9.0, "c"),
    ):
        kept.note(method, route, 200, seconds, trace)
    found = {
        series: [(n, one.trace_id, one.at_s) for n, one in enumerate(seen) if one]
        for series, seen in kept.all().items()
    }
    assert found == {("GET", "/x", "2xx"): [(1, "b", 5.0)], ("other", "other", "2xx"): [(12, "c", 5.0)]}


def test_a_service_that_does_not_trace_imports_nothing_of_it_and_says_nothing(org: str) -> None:
    code = (
        "import sys; from metering.app import create_app; from metering.settings import Settings;"
        "create_app(Settings(debug=True));"
        "print([name for name in sys.modules if name in ('opentelemetry.sdk.trace', 'sentry_sdk', 'metering.otel')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_without_the_extra_the_start_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from metering.app import create_app; from metering.settings import Settings, SettingsError\n"
        "try:\n    create_app(Settings(debug=True, tracing=True))\n"
        "except SettingsError as error:\n    print(error, error.faults[0].cure)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("TRACING: OpenTelemetry is not installed")
    assert "usage-metering[otel]" in done.stdout
