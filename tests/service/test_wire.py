"""The edge of HTTP: sizes and deadlines of heads, trailers, offers of other protocols, clients that half-close."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from metering import wire
from tests.service.running import Running, token

EVENT = json.dumps({"org_id": "org-wire", "feature": "scans"}).encode()


@contextmanager
def line(service: Running) -> Iterator[socket.socket]:
    """A connection, and nothing sent on it yet."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        yield connection


def answer(connection: socket.socket) -> bytes:
    """Everything until the service closes, or until an answer with a body is complete."""
    found = b""
    while chunk := connection.recv(65536):
        found += chunk
        head, end, body = found.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
        if end and length.isdigit() and len(body) >= int(length):
            break
    return found


def post(*headers: bytes, body: bytes = EVENT) -> bytes:
    """A POST of an event with these header lines."""
    lines = [b"POST /usage/track HTTP/1.1", b"Host: x", b"Content-Type: application/json", *headers]
    return b"\r\n".join([*lines, b"", body])


def bearer() -> bytes:
    return f"Authorization: Bearer {token(None, 'admin')}".encode()


def length(body: bytes = EVENT) -> bytes:
    return b"Content-Length: %d" % len(body)


@pytest.mark.parametrize("filler", [b"X-1: " + b"a" * 1000 + b"\r\n", b"a" * 1000])
def test_head_that_never_ends_is_refused_while_it_arrives(service: Running, filler: bytes) -> None:
    """Many header lines or one endless value: 431 and the end of the connection after HEAD_BYTES_MAX."""
    with line(service) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-0: ")
        try:
            for _ in range(wire.HEAD_BYTES_MAX // len(filler) + 200):
                connection.sendall(filler)
        except OSError:
            pass
        try:
            found = answer(connection)
        except ConnectionResetError:
            found = b""
        assert found == b"" or found.startswith(b"HTTP/1.1 431 ")
    assert service.client.get("/health/live").status_code == 200


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /health HTTP/1.1\r\nHost: x\r\n"])
def test_head_that_stays_out_is_answered_408_after_its_deadline(service: Running, hurried: None, sent: bytes) -> None:
    """A silent connection, one byte, half a head: none may hold its place for ever."""
    with line(service) as connection:
        connection.sendall(sent)
        assert answer(connection).startswith(b"HTTP/1.1 408 ")
        assert connection.recv(1) == b""


def test_second_head_on_a_connection_has_a_deadline_too(service: Running, hurried: None) -> None:
    """After an answer, half of the next request."""
    with line(service) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /hea")
        assert answer(connection).startswith(b"HTTP/1.1 408 ")


@pytest.fixture
def hurried() -> Iterator[None]:
    """Deadlines of a fifth of a second."""
    before, wire.HEAD_DEADLINE_S = wire.HEAD_DEADLINE_S, 0.2  # type: ignore[misc]
    yield
    wire.HEAD_DEADLINE_S = before  # type: ignore[misc]


def test_trailers_of_a_chunked_body_are_no_headers(service: Running) -> None:
    """An Authorization that comes as a trailer authorises nothing, and none that came as a header is undone."""
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(EVENT), EVENT)
    forged = post(b"Transfer-Encoding: chunked", body=chunk + bearer() + b"\r\n\r\n")
    undone = post(b"Transfer-Encoding: chunked", bearer(), body=chunk + b"Authorization: Bearer x\r\n\r\n")
    with line(service) as connection:
        connection.sendall(forged)
        assert answer(connection).startswith(b"HTTP/1.1 401 ")
    with line(service) as connection:
        connection.sendall(undone)
        assert answer(connection).startswith(b"HTTP/1.1 200 ")


def test_offer_to_upgrade_to_h2c_is_passed_over(service: Running) -> None:
    """Clients that offer HTTP/2 in clear text (some do by default) are answered, body and all."""
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ")
    with line(service) as connection:
        connection.sendall(post(*offer, bearer(), length()))
        assert answer(connection).startswith(b"HTTP/1.1 200 ")


def test_body_that_speaks_of_h2c_is_left_alone(service: Running) -> None:
    """Only heads are read for the offer."""
    body = json.dumps({"org_id": "org-wire", "feature": "scans", "metadata": {"note": "\r\nUpgrade: h2c\r\n"}}).encode()
    with line(service) as connection:
        connection.sendall(post(bearer(), length(body), body=body))
        assert answer(connection).startswith(b"HTTP/1.1 200 ")


def test_client_that_half_closes_gets_its_answer(service: Running) -> None:
    """All is sent, the way back is open: the answer comes, then the end."""
    with line(service) as connection:
        connection.sendall(post(bearer(), length()))
        connection.shutdown(socket.SHUT_WR)
        assert answer(connection).startswith(b"HTTP/1.1 200 ")
        assert connection.recv(1) == b""


def test_what_is_not_http_is_a_problem_document(service: Running) -> None:
    """400 with a code and a request id, as every refusal."""
    with line(service) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        head, _, body = answer(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"x-request-id" in head.lower()
        assert json.loads(body)["code"] == "malformed-request"
