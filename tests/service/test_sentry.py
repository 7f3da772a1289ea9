"""Errors for Sentry: what nobody foresaw arrives once, with ids and without anybody's data; nothing else does."""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import redis.asyncio
import structlog
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr

from metering import log, sentry
from metering.auth import ADMIN
from metering.clock import HandClock, SystemClock
from metering.doctor import examine
from metering.org_marks import OrgMarks, is_mark
from metering.otel import OtelTraces
from metering.sentry import PER_MINUTE, TOLD, SentryReports
from metering.settings import Settings, SettingsError
from metering.store.connect import normalise_url
from metering.store.keys import Keys
from metering.store.watch import Watch
from metering.watching import reports_of
from tests.service.running import Recorder, Running, token
from tests.support.sentry_sink import KEY, Sink, sentry_sink
from tests.support.servers import free_port
from tests.support.service import ROOT, clean_environment
from tests.support.wait import wait_until

FAULTY: Final = 613
"""Events of so many units meet a fault of ours."""

STRIPE_KEY: Final = "sk_test_" + "Canary51" * 3


class Failing(Recorder):
    """Metrics with a fault, told in words that hold what nobody may see."""

    def counted(self, org_id: str, units: int) -> None:
        local_secret = STRIPE_KEY + org_id
        if units == FAULTY:
            raise RuntimeError(f"no room for {org_id} with {local_secret}")

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        raise LookupError(accept)


@dataclass(frozen=True)
class Watched:
    """A service whose errors are told to a sink."""

    service: Running
    sink: Sink

    def fail(self, org: str, **headers: str) -> httpx2.Response:
        body = {"org_id": org, "feature": "scans", "quantity": FAULTY, "actor": "ann-canary"}
        given = {"Cookie": "session=cookie-canary", **headers}
        return self.service.call("POST", "/usage/track?q=query-canary", token(None, ADMIN), headers=given, json=body)


@contextmanager
def watched_service(sink: Sink, **settings: Any) -> Iterator[Watched]:
    traces = OtelTraces("test", one_in=1, exporter=InMemorySpanExporter())
    service = Running(traces=traces, sentry_dsn=sink.dsn, stripe_secret_key=STRIPE_KEY, **settings)
    service.recorder = Failing()
    with service:
        yield Watched(service, sink)
    log.configure("ERROR")


@pytest.fixture(scope="module")
def all_of_it() -> Iterator[Watched]:
    with sentry_sink() as sink, watched_service(sink, log_level="CRITICAL", log_orgs="id") as watched:
        yield watched


@pytest.fixture
def watched(all_of_it: Watched) -> Watched:
    all_of_it.sink.clear()
    return all_of_it


def test_an_error_that_nobody_foresaw_arrives_once_with_the_ids_that_find_it(watched: Watched, org: str) -> None:
    answer = watched.fail(org)
    assert answer.status_code == 500
    watched.service.call("GET", "/metrics", headers={"Accept": "accept-canary"})
    counting, asking = watched.sink.wait(2)
    assert counting["tags"] == {
        "request_id": answer.headers["x-request-id"],
        "trace_id": answer.headers["traceparent"].split("-")[1],
    }
    assert asking["tags"].keys() == {"request_id", "trace_id", "route"}
    assert asking["tags"]["route"] == "/metrics"
    kinds = [[value["type"] for value in event["exception"]["values"]] for event in (counting, asking)]
    assert kinds == [["RuntimeError"], ["LookupError"]]
    assert counting["exception"]["values"][0]["stacktrace"]["frames"][-1]["function"] == "counted"
    assert (counting["level"], counting["release"], counting["environment"]) == ("error", "0.1.0", "production")


def test_what_leaves_holds_no_secret_and_nothing_of_what_was_sent(watched: Watched, org: str) -> None:
    watched.fail(org, **{"X-Canary": "header-canary"})
    watched.service.call("GET", "/metrics?accept-canary=1", headers={"Accept": "accept-canary"})
    watched.sink.wait(2)
    bearer = token(None, ADMIN).split(".")[0]
    text = "".join(watched.sink.texts).replace(KEY, "", 2 * len(watched.sink.texts))
    for secret in (org, bearer, STRIPE_KEY, "Canary51", "ann-", "cookie-c", "query-c", "header-c", "accept-c"):
        assert secret not in text
    assert watched.sink.kinds == ["event", "event"]
    for event in watched.sink.events:
        assert not event.keys() & {"request", "user", "extra", "breadcrumbs", "modules"}
        frames = [frame for value in event["exception"]["values"] for frame in value["stacktrace"]["frames"]]
        assert not [frame for frame in frames if "vars" in frame]


def test_what_was_foreseen_does_not_arrive(watched: Watched, org: str) -> None:
    for body in (
        {"org_id": org, "feature": "nope"},
        {"org_id": org},
        {"org_id": org, "feature": "scans", "quantity": -1},
    ):
        assert 400 <= watched.service.track(**body).status_code < 500
    assert watched.service.call("GET", "/nowhere", token(None, ADMIN)).status_code == 404
    assert watched.service.call("GET", f"/usage/{org}").status_code == 401
    structlog.get_logger().error("Stripe's sum differs", org=org)
    watched.fail(org)  # reports leave in order, so nothing that was told before is still on its way
    assert len(watched.sink.wait(1)) == 1


async def test_sums_that_do_not_hold_arrive_with_the_mark_of_the_organisation(watched: Watched, org: str) -> None:
    watched.service.track(org_id=org, feature="scans")
    keys = Keys(64)
    async with redis.asyncio.Redis.from_url(normalise_url(watched.service.server_store.url, database=2)) as client:
        await client.hincrby(keys.record(org), "u:scans", 5)
        await Watch(client, keys, ("scans",), Counter(), history_days=770).look(org)
    event = watched.sink.wait(1)[0]
    assert event["logentry"]["message"] == "conservation violated"
    assert event["tags"].keys() == {"law", "org"}
    assert is_mark(event["tags"]["org"])
    assert org not in "".join(watched.sink.texts)


@pytest.mark.parametrize("name", sorted(TOLD))
def test_what_is_told_without_an_exception_is_a_line_of_the_log(name: str) -> None:
    assert [path for path in Path(ROOT, "metering").rglob("*.py") if f'log.error("{name}"' in path.read_text()]


def reports(dsn: str, clock: HandClock | None = None, **given: Any) -> SentryReports:
    fixed: dict[str, Any] = {"release": "1", "environment": "test", "secrets": ["configured-canary"]}
    marks = OrgMarks("none")
    return SentryReports(dsn, orgs=marks, monotonic=(clock or HandClock(0)).monotonic, **(fixed | given))


def fault() -> dict[str, Any]:
    """A line of the log about an exception that was raised."""
    try:
        _ = 1 // 0
    except ZeroDivisionError as error:
        return {"event": "unexpected error", "exc_info": error}
    return {}


def test_an_exception_is_told_once_however_many_tell_it_and_however_it_is_handed_on() -> None:
    with sentry_sink() as sink:
        told = reports(sink.dsn)
        line = fault()
        told(line)
        told({**line, "exc_info": (ZeroDivisionError, line["exc_info"], None)})
        try:
            int("x")
        except ValueError:
            told({"event": "loop turn failed", "exc_info": True, "loop": "sweep"})
        told({"event": "not an error", "exc_info": True})
        told.close()
    assert [event["exception"]["values"][0]["type"] for event in sink.events] == ["ZeroDivisionError", "ValueError"]
    assert sink.events[1]["tags"] == {"loop": "sweep"}


def test_secrets_in_what_is_sent_are_masked_and_no_organisation_is_named_where_none_is_to_be() -> None:
    with sentry_sink() as sink:
        told = reports(sink.dsn)
        dsn = f"https://{'a1' * 16}@sentry.example/7"
        told(
            {"event": "stripe event given up", "type": f"{STRIPE_KEY} configured-canary", "entry": dsn, "org": "org-x"}
        )
        told.close()
    [event] = sink.events
    assert event["tags"] == {"type": "[redacted] [redacted]", "entry": "https://[redacted]@sentry.example/7"}


def test_a_storm_of_errors_is_told_as_far_as_a_minute_holds() -> None:
    clock = HandClock(0)
    with sentry_sink() as sink:
        told = reports(sink.dsn, clock)
        for _ in range(PER_MINUTE + 5):
            told(fault())
        clock.advance(60_000)
        told(fault())
        told.close()
    assert len(sink.events) == PER_MINUTE + 1


def test_a_sink_that_never_answers_holds_up_neither_requests_nor_the_end(org: str) -> None:
    with sentry_sink() as sink:
        sink.open.clear()
        with watched_service(sink) as watched:
            for _ in range(3):
                assert watched.fail(org).status_code == 500
            assert sink.asked.wait(20)
            assert watched.service.track(org_id=org, feature="scans").status_code == 200
        assert not sink.open.is_set()
        assert sink.texts == []


def test_a_sink_that_is_not_there_changes_no_answer_and_reports_end_with_the_service(org: str) -> None:
    before = set(threading.enumerate())
    with watched_service(Sink(free_port())) as watched:
        assert watched.fail(org).status_code == 500
        assert watched.service.track(org_id=org, feature="scans").status_code == 200
        [sending] = [one for one in set(threading.enumerate()) - before if "sentry" in one.name]
    wait_until(lambda: not sending.is_alive(), timeout_s=20, what="the thread that sends reports ended")


def test_a_report_that_fails_itself_is_a_line_of_the_log_and_no_fault() -> None:
    seen: list[str] = []
    log.configure("DEBUG", write=seen.append)
    told = reports(Sink(1).dsn)
    told({})
    told.close()
    log.configure("ERROR")
    assert [json.loads(line)["event"] for line in seen] == ["report not sent"]


def test_without_a_dsn_nothing_is_told() -> None:
    assert reports_of(Settings(debug=True), "1", secrets=(), orgs=OrgMarks(), clock=SystemClock()) is None


@pytest.mark.parametrize("dsn", ["https://no-key.example/7", "https://key@no-project.example", "nonsense"])
async def test_a_dsn_that_is_none_is_a_fault_of_the_settings_with_a_cure(tmp_path: Path, dsn: str) -> None:
    settings = Settings(debug=True, sentry_dsn=SecretStr(dsn), data_dir=tmp_path)
    with pytest.raises(SettingsError) as caught:
        reports_of(settings, "1", secrets=(), orgs=OrgMarks(), clock=SystemClock())
    assert str(caught.value) == "SENTRY_DSN: it is no DSN"
    found = {check.name: check for check in await examine(settings, SystemClock())}
    assert (found["SENTRY_DSN"].ok, found["SENTRY_DSN"].cure[:7]) == (False, "Copy it")


def test_without_the_extra_the_start_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['sentry_sdk'] = None\n"
        "from metering.app import create_app; from metering.settings import Settings, SettingsError\n"
        f"try:\n    create_app(Settings(debug=True, sentry_dsn={Sink(1).dsn!r}))\n"
        "except SettingsError as error:\n    print(error, error.faults[0].cure)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("SENTRY_DSN: Sentry's SDK is not installed")
    assert "'usage-metering[sentry]'" in done.stdout
    assert KEY not in done.stdout


def test_the_options_that_send_more_are_off() -> None:
    told = reports(Sink(1).dsn)
    options = told._client.options  # noqa: SLF001 - what the SDK makes of the arguments is the point
    off = ("send_default_pii", "include_local_variables", "default_integrations", "auto_enabling_integrations")
    assert [name for name in off if options[name]] == []
    assert told._client.integrations == {}  # noqa: SLF001
    told.close()
    assert sentry.CLOSE_S < 5
