"""Stripe's word comes in: believed by its signature alone, kept once, answered before anything is done."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import httpx2
import pytest
from structlog.testing import capture_logs

from metering.api.webhooks import BODY_BYTES_MAX
from tests.service.running import Running, problem
from tests.support.service import call as posted
from tests.support.stripe_mail import NEXT_SECRET, SECRET, body_of, header, snapshot, thin
from tests.support.wait import wait_until
from webhooks.stripe_events import TYPES

PATHS: Final = ("/webhooks/stripe", "/api/webhook/stripe", "/api/billing/webhook", "/billing/webhook")

TAKEN: Final = {"received": True, "duplicate": False, "ignored": None}


@pytest.fixture(scope="module")
def service() -> Iterator[Running]:
    """A service that knows two secrets, as while one is rolled, and has a key that moves no real money."""
    secrets = f"{SECRET},{NEXT_SECRET}"
    with Running(stripe_webhook_secret=secrets, stripe_secret_key="sk_test_0123456789") as running:
        yield running


@pytest.fixture(autouse=True)
def emptied(service: Running) -> None:
    """Nothing came in yet."""
    for key in [*service.store.scan_iter("*:n:*"), *service.store.scan_iter("*:inbox")]:
        service.store.delete(key)


def send(service: Running, body: bytes, path: str = PATHS[0], **headers: str) -> httpx2.Response:
    """One delivery; signed well unless `headers` say otherwise."""
    return service.call("POST", path, content=body, headers=headers or header(body))


def kept(service: Running) -> list[str]:
    """The ids of the events in the inbox."""
    found: list[Any] = []
    for key in service.store.scan_iter("*:inbox"):
        found += service.store.xrange(key)
    return sorted(fields[b"event"].decode() for _, fields in found)


@pytest.mark.parametrize("path", PATHS)
def test_an_event_is_kept_under_every_path(service: Running, path: str) -> None:
    answer = send(service, body_of(snapshot()), path)
    assert (answer.status_code, answer.json()) == (200, TAKEN)
    assert kept(service) == ["evt_1"]
    assert ("Deprecation" in answer.headers) == (path != PATHS[0])


def test_both_kinds_of_one_event_are_kept_once(service: Running) -> None:
    assert send(service, body_of(thin(snapshot_event="evt_1"))).json() == TAKEN
    assert send(service, body_of(snapshot("evt_1"))).json() == TAKEN | {"duplicate": True}
    assert kept(service) == ["evt_1"]


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_the_table_is_kept_in_both_kinds(service: Running, kind: str) -> None:
    assert send(service, body_of(snapshot("evt_1", kind))).json() == TAKEN
    assert send(service, body_of(thin("evt_2", kind))).json() == TAKEN
    assert kept(service) == ["evt_1", "evt_2"]


def test_what_is_none_of_ours_is_received_and_not_kept(service: Running) -> None:
    for event in (snapshot(kind="price.created"), thin(kind="price.created"), thin() | {"type": "v2.core.x.closed"}):
        assert send(service, body_of(event)).json() == TAKEN | {"ignored": "not ours"}
    assert kept(service) == []


# ── row 16: once ─────────────────────────────────────────────────────────────────────────────────────────


def test_row_16_twenty_deliveries_at_once_are_one_event(service: Running) -> None:
    """Red when the mark is looked up before and set after the entry is written."""
    body = body_of(snapshot("evt_twenty"))
    with ThreadPoolExecutor(20) as senders:
        said = list(senders.map(lambda _: send(service, body).json(), range(20)))
    assert sorted(answer["duplicate"] for answer in said) == [False] + [True] * 19
    assert kept(service) == ["evt_twenty"]


def test_row_16_an_event_is_not_taken_in_again_after_its_effect(service: Running) -> None:
    body = body_of(snapshot())
    send(service, body)
    for key in service.store.scan_iter("*:inbox"):
        service.store.delete(key)
    assert send(service, body).json() == TAKEN | {"duplicate": True}
    assert kept(service) == []


# ── row 18: who says so ──────────────────────────────────────────────────────────────────────────────────


def refused(service: Running, body: bytes, **headers: str) -> str:
    """The detail of the refusal of a delivery, which must leave no trace."""
    with service.unchanged():
        said = problem(send(service, body, **headers), 400, "signature-invalid")
    return str(said["detail"])


def test_row_18_the_bytes_are_signed_and_not_what_they_say(service: Running) -> None:
    """Red when the body is parsed and written again before it is checked."""
    body = body_of(snapshot())
    assert b"\n  " in body
    assert send(service, body).status_code == 200
    compact = json.dumps(json.loads(body)).encode()
    assert "none of the secrets" in refused(service, compact, **header(body))


@pytest.mark.parametrize("secrets", [(SECRET,), (NEXT_SECRET,), (SECRET, NEXT_SECRET), ("whsec_unknown", SECRET)])
def test_row_18_no_event_is_lost_while_a_secret_is_rolled(service: Running, secrets: tuple[str, ...]) -> None:
    """Red when only the first secret, or only the first signature, is looked at."""
    body = body_of(snapshot())
    assert send(service, body, **header(body, *secrets)).json() == TAKEN


@pytest.mark.parametrize(
    ("ahead_s", "why"), [(-3600, "300 s ago"), (-310, "300 s ago"), (310, "ahead of our clock"), (3600, "ahead")]
)
def test_rows_18_25_another_time_is_not_believed_and_an_operator_hears_of_it(
    service: Running, ahead_s: int, why: str
) -> None:
    """Red when only the past is looked at, as Stripe's own library does, or when a wrong clock alarms nobody."""
    body = body_of(snapshot())
    with capture_logs() as told:
        assert why in refused(service, body, **header(body, ahead_s=ahead_s))
    verdict = "stale" if ahead_s < 0 else "early"
    assert [(line["event"], line["verdict"]) for line in told if line["log_level"] == "error"] == [
        ("webhook refused", verdict)
    ]


@pytest.mark.parametrize("ahead_s", [-290, 290])
def test_row_18_clocks_may_be_five_minutes_apart(service: Running, ahead_s: int) -> None:
    body = body_of(snapshot())
    assert send(service, body, **header(body, ahead_s=ahead_s)).status_code == 200


@pytest.mark.parametrize(
    "value", ["", "nonsense", "t=1", "v1=00", "t=1,v1=", "t=soon,v1=00", "t=1,v0=00", "t=1," + "v1=00," * 1000]
)
def test_row_18_a_header_of_another_shape_is_a_400(service: Running, value: str) -> None:
    refused(service, body_of(snapshot()), **{"Stripe-Signature": value})


def test_row_18_without_a_header_nothing_is_believed(service: Running) -> None:
    assert "missing" in refused(service, body_of(snapshot()), Accept="*/*")


def raw(service: Running, head: bytes, body: bytes) -> bytes:
    """The status line of a request whose header is bytes that no client would send."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as line:
        line.sendall(
            b"POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n" % len(body)
            + b"Stripe-Signature: %s\r\n\r\n%s" % (head, body)
        )
        answer = b""
        while piece := line.recv(65536):
            answer += piece
    return answer.split(b"\r\n")[0]


@pytest.mark.parametrize("head", ["t=1,v1=é".encode(), "t=1,v1=é".encode("latin-1"), b"t=\xff,v1=\xfe"])
def test_row_18_a_header_that_is_no_ascii_is_a_400(service: Running, head: bytes) -> None:
    """Red when the signatures are compared as texts: compare_digest takes none that are not ASCII."""
    assert b" 400 " in raw(service, head, body_of(snapshot()))


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"", b"{", b'{"id":"evt_1","id":"evt_2"}', b"[" * 100_000])
def test_row_18_a_signed_body_that_is_no_json_is_a_400(service: Running, body: bytes) -> None:
    """Red when the body is decoded before it is checked, or two equal keys are let be."""
    with service.unchanged():
        problem(send(service, body), 400, "malformed-json")
        problem(send(service, body, **{"Stripe-Signature": "t=1,v1=00"}), 400, "signature-invalid")


@pytest.mark.parametrize("value", [[], 7, {}, {"object": "event"}, snapshot("sub_1"), snapshot(livemode=None)])
def test_row_18_a_signed_body_that_is_no_event_is_told(service: Running, value: object) -> None:
    with service.unchanged():
        said = problem(send(service, body_of(value)), 422, "validation")
    assert [fault["code"] for fault in said["errors"]] == ["stripe-event"]


@pytest.mark.parametrize(("size", "status"), [(BODY_BYTES_MAX, 200), (BODY_BYTES_MAX + 1, 413), (8_000_000, 413)])
def test_row_18_a_body_of_512_kib_is_read_and_none_that_is_larger(service: Running, size: int, status: int) -> None:
    body = body_of(snapshot(padding=""))
    body = body.replace(b'"padding": ""', b'"padding": "' + b"x" * (size - len(body)) + b'"')
    assert len(body) == size
    answer = send(service, body)
    assert answer.status_code == status
    assert status == 200 or problem(answer, 413, "too-large")


# ── row 26: which Stripe ─────────────────────────────────────────────────────────────────────────────────


def test_row_26_an_event_of_the_other_mode_is_answered_and_ignored(service: Running) -> None:
    """Red when `livemode` is not looked at."""
    with service.unchanged():
        for event in (snapshot(livemode=True), thin(livemode=True)):
            answer = send(service, body_of(event))
            assert (answer.status_code, answer.json()) == (200, TAKEN | {"ignored": "other mode"})


def test_row_26_a_live_service_ignores_test_events() -> None:
    with Running(stripe_webhook_secret=SECRET, stripe_secret_key="rk_live_0123") as live:
        assert send(live, body_of(snapshot(livemode=False))).json() == TAKEN | {"ignored": "other mode"}
        assert send(live, body_of(snapshot(livemode=True))).json() == TAKEN
        assert kept(live) == ["evt_1"]


def test_an_event_of_a_connected_account_is_answered_and_ignored(service: Running) -> None:
    with service.unchanged():
        for event in (snapshot(account="acct_2"), thin(context="acct_2")):
            answer = send(service, body_of(event))
            assert (answer.status_code, answer.json()) == (200, TAKEN | {"ignored": "other account"})


def test_an_event_of_another_version_counts(service: Running) -> None:
    assert send(service, body_of(snapshot(api_version="2025-03-31.basil"))).json() == TAKEN
    assert kept(service) == ["evt_1"]


# ── row 19: durable, or not answered ─────────────────────────────────────────────────────────────────────


def test_row_19_while_the_store_is_away_stripe_is_told_to_come_again() -> None:
    """Red when the answer does not wait for the store."""
    with Running(stripe_webhook_secret=SECRET) as service:
        body = body_of(snapshot())
        service.server_store.kill()
        said = problem(send(service, body), 503, "storage-unavailable")
        assert said["retryable"]
        service.server_store.start()
        answer = send(service, body)
        assert (answer.status_code, answer.json()) == (200, TAKEN)
        assert kept(service) == ["evt_1"]


# ── without a secret ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", PATHS)
def test_without_a_secret_there_is_no_such_route(path: str) -> None:
    with Running() as service:
        body = body_of(snapshot())
        problem(send(service, body, path), 404, "not-found")
        assert posted(f"http://127.0.0.1:{service.port}{path}", {})[0] == 404


# ── all of it ────────────────────────────────────────────────────────────────────────────────────────────


class _Nothing(BaseHTTPRequestHandler):
    """A Stripe that has no object and no event."""

    def do_GET(self) -> None:
        listed = self.path.startswith("/v1/events")
        missing = {"error": {"type": "invalid_request_error", "code": "resource_missing", "message": "no such thing"}}
        body = json.dumps({"object": "list", "data": [], "has_more": False} if listed else missing).encode()
        self.send_response(200 if listed else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def nothing_at_stripe() -> Iterator[str]:
    """The address of a Stripe that has nothing."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Nothing) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_an_event_takes_effect_after_its_answer_and_an_event_of_nobody_is_counted_once() -> None:
    with (
        nothing_at_stripe() as url,
        Running(
            tidies=True, stripe_webhook_secret=SECRET, stripe_secret_key="sk_test_0123", stripe_api_base=url
        ) as running,
    ):
        for number in range(6):
            body = body_of(snapshot(f"evt_{number // 2}"))
            assert send(running, body).json()["duplicate"] == bool(number % 2)
        wait_until(lambda: not kept(running), timeout_s=20, what="the inbox is empty")
        totals = [running.store.hgetall(key) for key in running.store.scan_iter("*:totals")]
        assert sum(int(one.get(b"e:customer.subscription.updated", 0)) for one in totals) == 3
