"""Bodies that are wrong, odd or hostile: refused in words, quickly, and nothing is written."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from metering.api.bodies import BODY_BYTES_MAX, ClientGone, parse_json, read_body, within
from metering.auth import ADMIN
from metering.errors import MalformedJson, RequestTimeout, TooLarge
from tests.service.running import Running, problem, token


def post(service: Running, body: bytes, kind: str | None = "application/json") -> Any:
    headers = {} if kind is None else {"Content-Type": kind}
    return service.call("POST", "/usage/track", token(None, ADMIN), content=body, headers=headers)


@pytest.mark.parametrize(
    ("quantity", "status"),
    [
        ("0", 422),
        ("-1", 422),
        ("1.5", 422),
        ("5.5", 422),
        ("true", 422),
        ("false", 422),
        ('"5"', 422),
        ("null", 422),
        ("[5]", 422),
        ("{}", 422),
        ("1e400", 422),
        ("-1e400", 422),
        ("9223372036854775808", 422),
        ("18446744073709551616", 422),
        ("1000000000001", 422),
        ("1" + "0" * 5000, 422),
        ("0.0", 422),
        ("-0", 422),
        ("NaN", 400),
        ("Infinity", 400),
        ("0x10", 400),
        ("05", 400),
        ("+5", 400),
        ("5_0", 400),
        ("1000000000000", 200),
        ("1e12", 200),
        ("5.0", 200),
        ("5", 200),
    ],
)
def test_quantity(service: Running, org: str, quantity: str, status: int) -> None:
    body = f'{{"org_id":"{org}","feature":"scans","quantity":{quantity}}}'.encode()
    before = service.snapshot()
    response = post(service, body)
    assert response.status_code == status
    if status == 200:
        assert response.json()["recorded"] == int(float(quantity))
        return
    assert service.snapshot() == before
    if status == 422:
        assert [fault["pointer"] for fault in problem(response, 422, "validation")["errors"]] == ["/quantity"]
    else:
        problem(response, 400, "malformed-json")


MALFORMED = {
    "empty": b"",
    "blank": b"  ",
    "not json": b"org_id=a",
    "cut off": b'{"feature":"scans"',
    "two values": b"{}{}",
    "trailing comma": b'{"feature":"scans",}',
    "single quotes": b"{'feature':'scans'}",
    "comment": b'{"feature":"scans"}//',
    "byte order mark": b'\xef\xbb\xbf{"feature":"scans"}',
    "UTF-16": '{"feature":"scans"}'.encode("utf-16"),
    "Latin-1": b'{"feature":"scans","actor":"\xe9"}',
    "half a surrogate pair": b'{"feature":"scans","actor":"\\ud800"}',
    "control character": b'{"feature":"scans","actor":"\x01"}',
    "NUL": b'{"feature":"scans"}\x00',
    "key twice": b'{"feature":"scans","quantity":1,"quantity":1}',
    "key twice, once escaped": b'{"feature":"scans","quantit\\u0079":1,"quantity":2}',
    "key twice, spaced": b'{"feature" :"scans","quantity" :1,"quantity":1}',
    "key twice beside a string of colons": b'{"feature":"scans","actor":":::","quantity":1,"quantity":1}',
    "key twice hidden by an escaped colon": b'{"feature":"scans","actor":"\\u003a","quantity":1,"quantity":1}',
    "key twice hidden by \\u003A": b'{"feature":"scans","actor":"\\u003A","quantity":1,"quantity":1}',
    "key twice, first value dropped with its colons": b'{"feature":"scans","actor":"a:b","actor":"cd"}',
    "key twice in metadata": b'{"feature":"scans","metadata":{"a":{"b":1,"b":2}}}',
    "5,000 deep": b'{"feature":"scans","metadata":' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
    "30,000 deep": b"[" * 30_000,
    "64 KiB of zeros": b"0" * BODY_BYTES_MAX,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_json_or_means_two_things_is_malformed(service: Running, body: bytes) -> None:
    with service.unchanged():
        problem(post(service, body), 400, "malformed-json")


ODD_BUT_FINE = {
    "escaped slash": b'{"feature":"scans","metadata":{"url":"http:\\/\\/a.b:80\\/"}}',
    "escaped letters": b'{"featur\\u0065":"sc\\u0061ns"}',
    "colons in strings": b'{"feature":"scans","source":":a:b:","metadata":{":":":"}}',
    "escaped colon": b'{"feature":"scans","source":"a\\u003ab"}',
    "white space": b' \r\n\t{ "feature" :\n"scans" , "quantity"\t: 2 } ',
    "same key at two levels": b'{"feature":"scans","metadata":{"feature":{"feature":1}}}',
    "astral": '{"feature":"scans","actor":"\U0001f600","metadata":{"é":"\\ud83d\\ude00"}}'.encode(),
    "nulls": b'{"feature":"scans","event_id":null,"source":null,"timestamp":null,"actor":null,"metadata":null}',
}


@pytest.mark.parametrize("body", ODD_BUT_FINE.values(), ids=ODD_BUT_FINE)
def test_what_is_odd_but_json_is_taken(service: Running, org: str, body: bytes) -> None:
    response = service.call("POST", "/usage/track", token(org), content=body)
    assert (response.status_code, response.json().get("feature")) == (200, "scans")


DEEP = {"a": {"b": {"c": 1}}}
FAULTY: dict[str, tuple[Any, list[tuple[str, str]]]] = {
    "array": ([], [("", "model-type")]),
    "string": ("x", [("", "model-type")]),
    "null": (None, [("", "model-type")]),
    "nothing": ({}, [("/org_id", "missing"), ("/feature", "missing")]),
    "unknown fields": (
        {"org_id": "a", "feature": "scans", "plan": "x", "is_admin": True},
        [("/plan", "unknown-field"), ("/is_admin", "unknown-field")],
    ),
    "pointer with tilde and slash": ({"org_id": "a", "feature": "scans", "a/b~c": 1}, [("/a~1b~0c", "unknown-field")]),
    "all at once": (
        {"org_id": "a b", "feature": "Scans", "quantity": 0, "event_id": "", "timestamp": "now", "x": 1},
        [
            ("/org_id", "string-pattern-mismatch"),
            ("/feature", "string-pattern-mismatch"),
            ("/quantity", "greater-than-equal"),
            ("/event_id", "string-too-short"),
            ("/timestamp", "timestamp"),
            ("/x", "unknown-field"),
        ],
    ),
    "null where a value is needed": (
        {"org_id": "a", "feature": None, "quantity": None},
        [("/feature", "string-type"), ("/quantity", "int-type")],
    ),
    "metadata too deep": (
        {"org_id": "a", "feature": "scans", "metadata": {"a": {"b": {"c": 1, "d": {}}}}},
        [("/metadata", "metadata-depth")],
    ),
    "metadata too deep in arrays": (
        {"org_id": "a", "feature": "scans", "metadata": {"a": [[[]]]}},
        [("/metadata", "metadata-depth")],
    ),
    "a number too large in metadata": (
        b'{"org_id":"a","feature":"scans","metadata":{"a":1e400}}',
        [("/metadata", "metadata-number")],
    ),
    "51 keys": (
        {"org_id": "a", "feature": "scans", "metadata": dict.fromkeys(map(str, range(51)))},
        [("/metadata", "metadata-keys")],
    ),
    "metadata over 8 KiB": (
        {"org_id": "a", "feature": "scans", "metadata": {"a": "x" * 8185}},
        [("/metadata", "metadata-size")],
    ),
    "metadata that is none": ({"org_id": "a", "feature": "scans", "metadata": []}, [("/metadata", "dict-type")]),
    "event_id too long": (
        {"org_id": "a", "feature": "scans", "event_id": "x" * 256},
        [("/event_id", "string-too-long")],
    ),
    "no such day": (
        {"org_id": "a", "feature": "scans", "timestamp": "2024-02-30T00:00:00Z"},
        [("/timestamp", "timestamp")],
    ),
    "no offset": (
        {"org_id": "a", "feature": "scans", "timestamp": "2024-02-03T00:00:00"},
        [("/timestamp", "timestamp")],
    ),
}


@pytest.mark.parametrize(("body", "faults"), FAULTY.values(), ids=FAULTY)
def test_every_fault_is_told_with_its_pointer(service: Running, body: Any, faults: list[tuple[str, str]]) -> None:
    with service.unchanged():
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        errors = problem(post(service, sent), 422, "validation")["errors"]
    assert [(fault["pointer"], fault["code"]) for fault in errors] == faults
    assert all(fault["detail"] for fault in errors)


@pytest.mark.parametrize(
    "metadata",
    [DEEP, {"a": [[1, None]]}, dict.fromkeys(map(str, range(50))), {"a": "x" * 8184}, {}],
    ids=["3 levels", "arrays", "50 keys", "8 KiB", "empty"],
)
def test_metadata_at_its_bounds_is_taken(service: Running, org: str, metadata: dict[str, Any]) -> None:
    assert service.track(org_id=org, feature="scans", metadata=metadata).status_code == 200


def test_a_misspelt_field_gets_a_suggestion(service: Running) -> None:
    body = problem(service.track(org_id="a", feature="scans", quantitty=1), 422, "validation")
    assert "quantity" in body["errors"][0]["detail"]


def test_ten_thousand_faults_are_told_in_short(service: Running) -> None:
    body = b"{" + b",".join(b'"k%d":1' % n for n in range(5000)) + b"}"
    with service.unchanged():
        errors = problem(post(service, body), 422, "validation")["errors"]
    assert 50 <= len(errors) <= 52


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", "application/xml"],
)
def test_another_content_type_is_not_taken(service: Running, org: str, kind: str) -> None:
    with service.unchanged():
        response = post(service, f'{{"org_id":"{org}","feature":"scans"}}'.encode(), kind)
    problem(response, 415, "unsupported-media-type")
    assert response.headers["accept"] == "application/json"


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", None])
def test_json_by_another_spelling_or_none_is_taken(service: Running, org: str, kind: str | None) -> None:
    assert post(service, f'{{"org_id":"{org}","feature":"scans"}}'.encode(), kind).status_code == 200


def test_a_compressed_body_is_not_taken(service: Running) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    with service.unchanged():
        response = service.call("POST", "/usage/track", token(None, ADMIN), content=b"\x1f\x8b", headers=headers)
    problem(response, 415, "unsupported-media-type")
    assert response.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("path", ["/usage/track", "/billing/update"])
@pytest.mark.parametrize("size", [BODY_BYTES_MAX + 1, 2 * BODY_BYTES_MAX, 5_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_413(service: Running, path: str, size: int, chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b" " * 10_000 for _ in range(size // 10_000 + 1))

    content = chunks() if chunked else b" " * size
    headers = {"Content-Type": "application/json"}
    with service.unchanged():
        response = service.call("POST", path, token(None, ADMIN), content=content, headers=headers)
    problem(response, 413, "too-large")


def test_a_body_of_64_kib_is_read(service: Running, org: str) -> None:
    body = f'{{"org_id":"{org}","feature":"scans"}}'.encode().ljust(BODY_BYTES_MAX)
    assert post(service, body).status_code == 200


def test_after_a_small_excess_the_connection_goes_on(service: Running) -> None:
    bearer = token(None, ADMIN)
    body = b" " * (BODY_BYTES_MAX + 10)
    head = f"POST /usage/track HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as line:
        for _ in range(2):
            line.sendall(request)
            assert line.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_an_endless_body_is_answered_after_128_kib_and_cut_off(service: Running) -> None:
    bearer = token(None, ADMIN)
    head = (
        f"POST /usage/track HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bearer}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as line:
        line.sendall(head.encode())
        line.sendall((b"1000\r\n" + b" " * 4096 + b"\r\n") * 32)
        answer = line.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer
        assert 0 < sent_until_cut_off(line) < 20_000_000


def sent_until_cut_off(line: socket.socket) -> int:
    """How many more bytes of a chunked body `line` takes, at most 50 MB."""
    sent = 0
    with suppress(OSError):  # reset or broken pipe, as the kernel likes
        while sent < 50_000_000:
            sent += line.send((b"1000\r\n" + b" " * 4096 + b"\r\n") * 32)
    return sent


@pytest.mark.parametrize(
    "body", [MALFORMED["5,000 deep"], MALFORMED["64 KiB of zeros"], b'{"a":"' + b"\\u003a" * 10_000]
)
def test_the_worst_body_costs_little(body: bytes) -> None:
    began = time.process_time()
    with pytest.raises(MalformedJson):
        parse_json(body)
    assert time.process_time() - began < 0.03


class Feed:
    """An ASGI receive that hands out `messages` and then waits for ever."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = list(messages)
        self.taken = 0

    async def __call__(self) -> dict[str, Any]:
        self.taken += 1
        if self._messages:
            return self._messages.pop(0)
        await asyncio.get_running_loop().create_future()
        raise AssertionError


def chunk(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_in_pieces_is_put_together() -> None:
    assert await read_body({}, Feed(chunk(b"ab"), chunk(b""), chunk(b"c", more=False))) == b"abc"


@pytest.mark.parametrize("first", [[], [chunk(b"{")]])
async def test_a_body_that_stops_coming_times_out_and_closes(first: list[dict[str, Any]]) -> None:
    with pytest.raises(RequestTimeout) as told:
        await read_body({}, Feed(*first), deadline_s=0.02)
    assert told.value.headers["Connection"] == "close"


async def test_a_client_that_leaves_is_not_answered() -> None:
    with pytest.raises(ClientGone):
        await read_body({}, Feed(chunk(b"{"), {"type": "http.disconnect"}))


async def test_nothing_of_a_declared_giant_is_read() -> None:
    feed = Feed()
    with pytest.raises(TooLarge):
        await read_body({b"content-length": b"52428800"}, feed)
    assert feed.taken == 0


async def test_a_length_that_is_no_number_is_refused() -> None:
    with pytest.raises(TooLarge):
        await read_body({b"content-length": b"1_000_000"}, Feed())


async def test_within_gives_the_result_with_and_without_waiting() -> None:
    async def at_once() -> int:
        return 1

    async def after_a_turn() -> int:
        await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, int), 5)
        return 2

    assert await within(5, at_once()) == 1
    assert await within(5, after_a_turn()) == 2


async def test_within_passes_errors_on_and_ends_what_it_cuts_off() -> None:
    ended = []

    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError

    async def hangs() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    with pytest.raises(KeyError):
        await within(5, fails())
    with pytest.raises(TimeoutError):
        await within(0.01, hangs())
    assert ended == [True]
