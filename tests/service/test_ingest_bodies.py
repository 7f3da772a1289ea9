"""Bodies of events that are compressed, too large, of another type or broken: taken, or refused in words."""

import asyncio
import gzip
import json
import resource
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from metering.api.bodies import read_body
from metering.api.event_bodies import BATCH_BYTES_MAX, EVENT_BYTES_MAX, EventsBody, items_of
from metering.api.gunzip import MEMBERS_MAX, Gunzip
from metering.auth import ADMIN
from metering.errors import MalformedEncoding, TooLarge
from tests.service.batches import CLOUD, CLOUD_BATCH, LINES, MANY, NATIVE, ONE, array, cloud, lines, post, send, usage
from tests.service.running import Running, problem, token
from tests.service.test_bodies import Feed, chunk

EACH: Final = {**MANY, **ONE}
MB: Final = 1024 * 1024


def event(org: str, number: int = 1, **more: Any) -> dict[str, Any]:
    return {"org_id": org, "feature": "scans", "event_id": f"e{number}", "source": "s"} | more


def zipped(service: Running, encoded: tuple[dict[str, str], bytes], coding: str = "gzip") -> Any:
    headers, content = encoded
    return send(service, (headers | {"Content-Encoding": coding}, content))


# ── gzip ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("encode", EACH.values(), ids=EACH)
def test_a_gzip_body_is_taken(service: Running, org: str, encode: Any) -> None:
    headers, content = encode([event(org)])
    assert zipped(service, (headers, gzip.compress(content))).json()["accepted"] == 1
    assert zipped(service, (headers, gzip.compress(content)), "X-GZip").json()["duplicates"] == 1
    assert zipped(service, (headers, content), "identity").json()["duplicates"] == 1


def test_a_gzip_body_of_many_members_is_one_body(service: Running, org: str) -> None:
    headers, content = array([event(org, number) for number in range(40)])
    members = b"".join(gzip.compress(content[at : at + 200]) for at in range(0, len(content), 200))
    assert zipped(service, (headers, members)).json()["accepted"] == 40


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "gzip, gzip", "gzip,identity", "*"])
def test_another_encoding_is_not_taken(service: Running, org: str, coding: str) -> None:
    with service.unchanged():
        answer = zipped(service, array([event(org)]), coding)
        problem(answer, 415, "unsupported-media-type")
    assert answer.headers["accept-encoding"] == "gzip, identity"


WHOLE: Final = gzip.compress(b"[]")
BROKEN: Final = {
    "nothing": b"",
    "no gzip": b"[]",
    "cut off in the header": WHOLE[:5],
    "cut off in the data": WHOLE[:-9],
    "cut off in the checksum": WHOLE[:-1],
    "another checksum": WHOLE[:-8] + b"\0" * 8,
    "zlib": zlib.compress(b"[]"),
    "more behind it": WHOLE + b"[]",
    "second member cut off": WHOLE + WHOLE[:-1],
    "too many members": gzip.compress(b"") * (MEMBERS_MAX + 1),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_what_is_no_whole_gzip_is_malformed(service: Running, content: bytes) -> None:
    with service.unchanged():
        problem(zipped(service, ({"Content-Type": NATIVE}, content)), 400, "malformed-encoding")


def bomb(size: int) -> bytes:
    """A gzip text of `size` blanks."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(b" " * MB) for _ in range(size // MB)) + packer.flush()


@pytest.mark.parametrize("kind", [NATIVE, LINES, CLOUD, CLOUD_BATCH])
def test_a_bomb_is_refused(service: Running, kind: str) -> None:
    packed = bomb(200 * MB)
    assert len(packed) < MB
    with service.unchanged():
        problem(zipped(service, ({"Content-Type": kind}, packed)), 413, "too-large")


async def test_of_a_bomb_hardly_more_than_the_bound_is_unpacked() -> None:
    packed = bomb(500 * MB)
    pieces = [chunk(packed[at : at + 65_536]) for at in range(0, len(packed), 65_536)]
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(TooLarge):
        await read_body({}, Feed(*pieces), bytes_max=MB, sink=Gunzip(MB))
    seconds, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * MB
    assert seconds < 0.5


@pytest.mark.parametrize(("size", "fits"), [(MB - 1, True), (MB, True), (MB + 1, False)])
async def test_the_bound_is_exact_however_the_pieces_come(size: int, fits: bool) -> None:
    for step in (7, 1000, 10**7):
        packed = gzip.compress(b" " * size)
        pieces = [chunk(packed[at : at + step]) for at in range(0, len(packed), step)]
        pieces[-1]["more_body"] = False
        reading = read_body({}, Feed(*pieces), bytes_max=MB, sink=Gunzip(MB))
        if fits:
            assert await reading == b" " * size
        else:
            with pytest.raises(TooLarge):
                await reading


async def test_what_unpacks_to_nothing_for_ever_is_cut_off() -> None:
    empty = gzip.compress(b"")
    with pytest.raises(MalformedEncoding):
        await read_body({}, Feed(*(chunk(empty) for _ in range(1000))), bytes_max=MB, sink=Gunzip(MB))
    packer = zlib.compressobj(wbits=31)
    nothing = packer.compress(b" ") + packer.flush(zlib.Z_FULL_FLUSH)
    block = b"\x00\x00\x00\xff\xff" * 10_000  # stored blocks of no bytes
    with pytest.raises(TooLarge):
        await read_body({}, Feed(chunk(nothing), *(chunk(block) for _ in range(50))), bytes_max=MB, sink=Gunzip(MB))


# ── sizes ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [MB + 1, 2 * MB, 5 * MB])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/v1/events", "/usage/track/batch"])
def test_a_body_above_1_mib_is_too_large(service: Running, path: str, size: int, chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b" " * 10_000 for _ in range(size // 10_000 + 1))

    headers = {"Content-Type": NATIVE}
    with service.unchanged():
        answer = service.call(
            "POST", path, token(None, ADMIN), content=chunks() if chunked else b" " * size, headers=headers
        )
        problem(answer, 413, "too-large")


def test_a_body_of_1_mib_is_read(service: Running, org: str) -> None:
    headers, content = array([event(org, number) for number in range(3)])
    assert send(service, (headers, content.ljust(BATCH_BYTES_MAX))).json()["accepted"] == 3


@pytest.mark.parametrize("encode", MANY.values(), ids=MANY)
def test_a_thousand_events_are_taken_and_one_more_is_not(service: Running, org: str, encode: Any) -> None:
    events = [event(org, number) for number in range(1001)]
    with service.unchanged():
        told = problem(send(service, encode(events)), 413, "too-large")
    assert told["events_max"] == 1000
    assert send(service, encode(events[:1000])).json()["accepted"] == 1000


def test_the_bound_of_events_is_a_setting(org: str) -> None:
    with Running(events_max=3, pending_max=2) as small:
        assert post(small, event(org, 1), event(org, 2)).json()["accepted"] == 2
        told = problem(post(small, event(org, 3), event(org, 4), event(org, 5)), 413, "too-large")
    assert told["events_max"] == 2


def test_half_a_million_values_are_no_batch(service: Running) -> None:
    began = time.process_time()
    with service.unchanged():
        problem(send(service, ({"Content-Type": NATIVE}, b"[" + b"1," * 500_000 + b"1]")), 413, "too-large")
        problem(send(service, ({"Content-Type": LINES}, b"1\n" * 500_000)), 413, "too-large")
    assert time.process_time() - began < 5


def sized(org: str, size: int) -> dict[str, Any]:
    """An event whose compact JSON has `size` bytes; what fills it up is not taken by the event itself."""
    made = event(org) | {"filling": ""}
    made["filling"] = "x" * (size - len(json.dumps(made, separators=(",", ":"))))
    return made


@pytest.mark.parametrize("encode", [array, MANY["events"], ONE["alone"]])
def test_an_event_of_64_kib_is_looked_at_and_one_byte_more_is_not(service: Running, org: str, encode: Any) -> None:
    told = problem(send(service, encode([sized(org, EVENT_BYTES_MAX)])), 422, "validation")
    assert told["errors"][0]["code"] == "unknown-field"
    with service.unchanged():
        problem(send(service, encode([sized(org, EVENT_BYTES_MAX + 1)])), 413, "too-large")


def test_a_line_of_64_kib_is_looked_at_and_one_byte_more_is_not(service: Running, org: str) -> None:
    fits, over = (json.dumps(sized(org, EVENT_BYTES_MAX + more), separators=(",", ":")).encode() for more in (0, 1))
    told = problem(send(service, ({"Content-Type": LINES}, fits)), 422, "validation")
    assert told["errors"][0]["pointer"] == "/0/filling"
    with service.unchanged():
        problem(send(service, ({"Content-Type": LINES}, over)), 413, "too-large")


@pytest.mark.parametrize("kind", [CLOUD, CLOUD_BATCH])
def test_a_cloudevent_above_64_kib_is_too_large(service: Running, org: str, kind: str) -> None:
    big = cloud(event(org)) | {"data": {"a": "x" * EVENT_BYTES_MAX}}
    content = json.dumps(big if kind == CLOUD else [big]).encode()
    with service.unchanged():
        problem(send(service, ({"Content-Type": kind}, content)), 413, "too-large")


# ── types and texts ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/xml",
        "application/jsonx",
        "application/cloudevents",
        "application/cloudevents+avro",
        "application/cloudevents-batch+xml",
        "multipart/form-data",
        "x; charset=utf-8",
        "application/json; charset=utf-16",
        "application/x-ndjson;charset=latin-1",
        'application/cloudevents+json; charset="ISO-8859-1"',
    ],
)
def test_another_type_is_not_taken(service: Running, org: str, kind: str) -> None:
    with service.unchanged():
        answer = send(service, ({"Content-Type": kind}, json.dumps([event(org)]).encode()))
        problem(answer, 415, "unsupported-media-type")
    assert answer.headers["accept"] == f"{NATIVE}, {LINES}, {CLOUD}, {CLOUD_BATCH}"


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON ; Charset=UTF-8", 'application/json;charset="utf-8"', None]
)
def test_json_by_another_spelling_or_none_is_taken(service: Running, org: str, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    assert send(service, (headers, json.dumps([event(org)]).encode())).status_code == 200


MALFORMED: Final[dict[str, bytes]] = {
    "empty": b"",
    "blank": b"  ",
    "cut off": b'[{"feature":"scans"}',
    "byte order mark": b"\xef\xbb\xbf[]",
    "UTF-16": "[]".encode("utf-16"),
    "Latin-1": b'[{"feature":"scans","actor":"\xe9"}]',
    "key twice in an item": b'[{"feature":"scans"},{"feature":"scans","quantity":1,"quantity":2}]',
    "key twice beside a large text": b'[{"feature":"scans","quantity":1,"quantity":2},"' + b"x" * 100_000 + b'"]',
    "key twice in metadata": b'[{"feature":"scans","metadata":{"a":1,"a":2}}]',
    "`events` twice": b'{"events":[],"events":[]}',
    "5,000 deep": b"[" * 5000 + b"]" * 5000,
    "200,000 deep": b"[" * 200_000,
    "NaN": b'[{"feature":"scans","quantity":NaN}]',
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_a_body_that_is_no_json_or_means_two_things_is_malformed(service: Running, content: bytes) -> None:
    for kind in (NATIVE, CLOUD_BATCH):
        with service.unchanged():
            problem(send(service, ({"Content-Type": kind}, content)), 400, "malformed-json")


@pytest.mark.parametrize("name", [name for name in MALFORMED if name not in {"empty", "blank", "200,000 deep"}])
def test_a_line_that_is_no_json_or_means_two_things_spoils_no_other(service: Running, org: str, name: str) -> None:
    good = json.dumps(event(org)).encode()
    bad = MALFORMED[name].strip(b"[]") if name == "key twice in an item" else MALFORMED[name]
    answer = send(service, ({"Content-Type": LINES}, good + b"\n" + bad.replace(b"\n", b"") + b"\n" + good))
    body = answer.json()
    assert (answer.status_code, body["accepted"], body["duplicates"], body["rejected"]) == (207, 1, 1, 1)
    told = body["results"][1]["problem"]
    assert (told["code"], told["status"]) == (
        ("too-large", 413) if len(bad) > EVENT_BYTES_MAX else ("malformed-json", 400)
    )


def test_numbers_and_depths_beyond_the_quick_parser_are_faults_of_their_event(service: Running, org: str) -> None:
    good = json.dumps(event(org))
    deep = '{"a":' * 300 + "1" + "}" * 300
    bad = [
        f'{good[:-1]},"quantity":1e400}}',
        f'{good[:-1]},"metadata":{{"a":1e400}}}}',
        f'{good[:-1]},"metadata":{deep}}}',
    ]
    body = send(service, ({"Content-Type": NATIVE}, f"[{','.join([good, *bad])}]".encode())).json()
    assert (body["accepted"], body["rejected"]) == (1, 3)
    told = [entry["problem"]["errors"][0]["pointer"] for entry in body["results"][1:]]
    assert told == ["/quantity", "/metadata", "/metadata"]


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        (b'{"events":5}', [("/events", "list-type")]),
        (b'{"events":[],"org_id":"a","x":1}', [("/org_id", "unknown-field"), ("/x", "unknown-field")]),
        (b'{"events":{},"x":1}', [("/x", "unknown-field"), ("/events", "list-type")]),
    ],
)
def test_an_object_of_events_holds_nothing_else(
    service: Running, content: bytes, faults: list[tuple[str, str]]
) -> None:
    told = problem(send(service, ({"Content-Type": NATIVE}, content)), 422, "validation")
    assert [(fault["pointer"], fault["code"]) for fault in told["errors"]] == faults


def test_a_line_may_end_in_any_way_and_hold_any_blank(service: Running, org: str) -> None:
    texts = [json.dumps(event(org, number)).encode() for number in range(3)]
    body = texts[0] + b"\r\n\r\n\t\n  " + texts[1] + b"  \n" + texts[2]
    assert send(service, ({"Content-Type": LINES}, body)).json()["accepted"] == 3


async def test_the_worst_body_is_parsed_beside_the_loop() -> None:
    content = b"[" + b'{"a":"\\u003a"},' * 60_000 + b"{}]"
    assert len(content) < MB
    reading = asyncio.ensure_future(items_of(EventsBody(NATIVE, content, []), 1000))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    with pytest.raises(TooLarge):
        reading.result()


# ── memory ────────────────────────────────────────────────────────────────────────────────────────────────


def resident() -> int:
    """Bytes of memory this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_stream_of_batches_leaves_memory_flat(service: Running, org: str) -> None:
    """The service runs in this process."""

    def batch(number: int) -> None:
        events = [event(f"{org}-{at % 20}", number * 1000 + at, metadata={"a": "x" * 600}) for at in range(1000)]
        for encode in (array, lines):
            headers, content = encode(events)
            assert zipped(service, (headers, gzip.compress(content, 1))).status_code == 200

    for number in range(10):
        batch(number)
    before = resident()
    for number in range(10, 40):
        batch(number)
    assert resident() - before < 30 * MB
    assert usage(service, f"{org}-0")["scans"] == 2000
