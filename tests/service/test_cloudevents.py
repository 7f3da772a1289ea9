"""CloudEvents 1.0 in all three HTTP modes: what the official SDK sends is counted, what is none is told."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx2
import pytest
from cloudevents.core.bindings.http import HTTPMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import example, given
from hypothesis import strategies as st

from metering.api.cloud_headers import decoded
from metering.api.cloudevents import _checked, cloud_event
from metering.auth import Caller
from metering.errors import Problem
from metering.settings import Settings
from metering.usage import UsageEvent
from plans.catalogue import parse
from tests.service.batches import CLOUD, CLOUD_BATCH, send, usage
from tests.service.running import Running, problem, token

RULES: Final = """
[dimensions]
chain = 100
[[meters]]
type = "llm.completion"
features = [ { feature = "scans", quantity = "$.usage.tokens" }, { feature = "api_requests" } ]
"""
CATALOGUE: Final = parse(Settings().plans_text()[0] + RULES, "plans.toml")


def made(org: str, number: int = 1, data: Any = None, **more: Any) -> CloudEvent:
    """An event of the SDK's."""
    attributes = {"id": f"e{number}", "source": "/svc/a", "type": "usage.scans", "subject": org}
    return CloudEvent(attributes=attributes | more, data={"quantity": 2} if data is None else data)


def deliver(service: Running, message: HTTPMessage, bearer: str | None = None) -> httpx2.Response:
    return send(service, (message.headers, message.body), bearer)


def batched(*events: CloudEvent) -> HTTPMessage:
    """The SDK writes single events; a batch is the array of them (JSON format 1.0.2, 4)."""
    parts = [to_structured_event(event).body for event in events]
    return HTTPMessage({"content-type": CLOUD_BATCH}, b"[" + b",".join(parts) + b"]")


MODES: Final[dict[str, Any]] = {"structured": to_structured_event, "binary": to_binary_event, "batched": batched}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_what_the_sdk_sends_is_counted(service: Running, org: str, mode: Any) -> None:
    answer = deliver(service, mode(made(org)))
    assert answer.status_code == 200
    (only,) = answer.json()["results"]
    assert [only[name] for name in ("id", "status", "org_id", "feature", "recorded")] == [
        "e1",
        "recorded",
        org,
        "scans",
        2,
    ]


def test_the_three_modes_are_one_event(service: Running, org: str) -> None:
    statuses = [deliver(service, mode(made(org))).json()["results"][0]["status"] for mode in MODES.values()]
    assert statuses == ["recorded", "duplicate", "duplicate"]
    same = service.track(org_id=org, feature="scans", quantity=2, event_id="e1", source="/svc/a")
    assert same.json()["duplicate"] is True


ODD: Final[dict[str, dict[str, Any]]] = {
    "content type of the data": {"datacontenttype": "application/json"},
    "content type with parameters": {"datacontenttype": "application/json; charset=utf-8"},
    "content type of another JSON": {"datacontenttype": "application/vnd.acme+json"},
    "schema": {"dataschema": "https://example.org/schema.json"},
    "extensions": {"traceparent": "00-abc-def-01", "partitionkey": "a", "sequence": 5, "sampled": True},
    "actor": {"actor": 'Zoë \U0001f600 "quoted" 100%'},
    "text in ids": {"id": 'naïve %41 \\"', "source": "urn:ex:ä%20b?c=d&e"},
    "time": {"time": datetime.now(UTC) - timedelta(minutes=1)},
    "time elsewhere": {"time": datetime.now(UTC).astimezone().replace(microsecond=0)},
}


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("more", ODD.values(), ids=ODD)
def test_whatever_attributes_the_sdk_writes_are_read(
    service: Running, org: str, mode: Any, more: dict[str, Any]
) -> None:
    answer = deliver(service, mode(made(org, 1, {"quantity": 3, "chain": "ethereum"}, **more)))
    assert answer.status_code == 200, answer.text
    (only,) = answer.json()["results"]
    assert (only["id"], only["recorded"]) == (more.get("id", "e1"), 3)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_an_event_without_data_counts_one(service: Running, org: str, mode: Any) -> None:
    event = CloudEvent({"id": "e1", "source": "s", "type": "usage.wallet_checks", "subject": org}, None)
    assert deliver(service, mode(event)).json()["results"][0]["recorded"] == 1


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_without_a_subject_it_is_the_tokens_organisation(service: Running, org: str, mode: Any) -> None:
    event = CloudEvent({"id": "e1", "source": "s", "type": "usage.scans"}, {"quantity": 2})
    assert deliver(service, mode(event), token(org)).json()["results"][0]["org_id"] == org
    told = deliver(service, mode(event)).json()
    faults = told["errors"]
    assert [fault["pointer"] for fault in faults] == ["/0/subject" if mode is batched else "/subject"]


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_bytes_are_no_data(service: Running, org: str, mode: Any) -> None:
    event = made(org, 1, b"\x00\xff", datacontenttype="application/octet-stream")
    with service.unchanged():
        told = problem(deliver(service, mode(event)), 422, "validation")
    places = {fault["pointer"].removeprefix("/0") for fault in told["errors"]}
    assert places == ({"/datacontenttype"} if mode is to_binary_event else {"/datacontenttype", "/data_base64"})


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_text_is_no_data(service: Running, org: str, mode: Any) -> None:
    event = made(org, 1, "<a/>", datacontenttype="text/xml")
    with service.unchanged():
        told = problem(deliver(service, mode(event)), 422, "validation")
    places = {fault["pointer"].removeprefix("/0") for fault in told["errors"]}
    assert places == ({"/datacontenttype"} if mode is to_binary_event else {"/datacontenttype", "/data"})


FAULTY: Final[dict[str, tuple[Any, list[tuple[str, str]]]]] = {
    "no attributes": ({}, [(f"/{name}", "missing") for name in ("specversion", "id", "source", "type")]),
    "another version": ({"specversion": "0.3"}, [("/specversion", "literal-error")]),
    "id of the wrong type": ({"id": 5}, [("/id", "string-type")]),
    "id without a character": ({"id": ""}, [("/id", "string-too-short")]),
    "source of null": ({"source": None}, [("/source", "string-type")]),
    "type too long": ({"type": "x" * 256}, [("/type", "string-too-long")]),
    "subject of no organisation": ({"subject": "a/b"}, [("/subject", "string-pattern-mismatch")]),
    "time of no instant": ({"time": "yesterday"}, [("/time", "timestamp")]),
    "attribute in capitals": ({"orgId": "x"}, [("/orgId", "string-pattern-mismatch")]),
    "extension of an object": ({"more": {}}, [("/more", "extension")]),
    "extensions of numbers no float holds": (
        {"a": 2**53, "b": -(2**63) - 1},
        [("/a", "extension"), ("/b", "extension")],
    ),
    "data of an array": ({"data": [1]}, [("/data", "dict-type")]),
    "bytes": ({"data_base64": "AAE="}, [("/data_base64", "data-base64")]),
    "content type of none": ({"datacontenttype": "json"}, [("/datacontenttype", "string-pattern-mismatch")]),
    "quantity of null": ({"data": {"quantity": None}}, [("/data/quantity", "meter-quantity")]),
    "all at once": (
        {"id": "", "data": {"quantity": 0, "a": {"b": {"c": {}}}}, "subject": "a b"},
        [
            ("/id", "string-too-short"),
            ("/subject", "string-pattern-mismatch"),
            ("/data/quantity", "meter-quantity"),
            ("/data", "metadata-depth"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("wrong", "faults"), FAULTY.values(), ids=FAULTY)
def test_every_fault_is_told_by_the_attributes_own_name(
    service: Running, org: str, wrong: dict[str, Any], faults: list[tuple[str, str]]
) -> None:
    good = {"specversion": "1.0", "id": "e", "source": "s", "type": "usage.scans", "subject": org}
    sent = good | wrong if wrong else {}
    with service.unchanged():
        answer = send(service, ({"Content-Type": CLOUD}, json.dumps(sent).encode()))
        told = problem(answer, 422, "validation")
    assert [(fault["pointer"], fault["code"]) for fault in told["errors"]] == faults


def test_a_type_that_no_rule_speaks_of_is_an_unknown_feature(service: Running, org: str) -> None:
    for event_type in ("llm.completion", "usage.", "usage.Scans", "scans"):
        body = deliver(service, to_structured_event(made(org, type=event_type))).json()
        assert body["results"][0]["problem"]["detail"] == f"no meter rule for type '{event_type}'"
    body = deliver(service, to_structured_event(made(org, type="usage.scan"))).json()
    assert body["results"][0]["problem"]["nearest"] == "scans"


def test_a_batch_is_an_array(service: Running, org: str) -> None:
    body = to_structured_event(made(org)).body
    told = problem(send(service, ({"Content-Type": CLOUD_BATCH}, body)), 422, "validation")
    assert told["errors"][0]["code"] == "list-type"
    told = problem(send(service, ({"Content-Type": CLOUD}, b"[" + body + b"]")), 422, "validation")
    assert told["errors"][0]["pointer"] == ""


# ── binary mode ───────────────────────────────────────────────────────────────────────────────────────────


def headers(org: str, **more: str) -> list[tuple[str, str]]:
    found = {"ce-specversion": "1.0", "ce-id": "e1", "ce-source": "s", "ce-type": "usage.scans", "ce-subject": org}
    return list((found | {f"ce-{name}": value for name, value in more.items()}).items())


def binary(
    service: Running, sent: list[tuple[str, str]], body: bytes = b"{}", kind: str | None = None
) -> httpx2.Response:
    listed = [*sent, ("Authorization", f"Bearer {token(None, 'admin')}")]
    listed += [] if kind is None else [("Content-Type", kind)]
    return service.client.request("POST", "/v1/events", headers=listed, content=body)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain", "plain"),
        (b"Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro \u20ac \U0001f600"),
        (b"%41%2f%2F", "A//"),
        (b"100%", "100%"),
        (b"%zz%4", "%zz%4"),
        (b"%2541", "%41"),
        (b'"a b"', "a b"),
        (b'"a \\"b\\\\"', 'a "b\\'),
        (b'"a%20b"', "a b"),
        (b'"', '"'),
        (b"", ""),
    ],
)
def test_header_values_are_unquoted_then_decoded_once(value: bytes, text: str) -> None:
    assert decoded(value) == text


@pytest.mark.parametrize("value", [b"%C0%A0", b"%FF", b"%ED%A0%80", b"\xe2\x82\xac", b"%E2%82"])
def test_header_values_that_are_no_text_are_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"^$|utf-8"):
        decoded(value)


def test_a_header_that_is_no_text_is_told(service: Running, org: str) -> None:
    with service.unchanged():
        told = problem(binary(service, headers(org, actor="%C0%A0")), 422, "validation")
    assert [(fault["pointer"], fault["code"]) for fault in told["errors"]] == [("/actor", "encoding")]


def test_a_header_that_stands_twice_or_is_none_of_an_attribute_is_told(service: Running, org: str) -> None:
    sent = [*headers(org, data="x", datacontenttype="text/plain"), ("CE-Id", "e2")]
    with service.unchanged():
        told = problem(binary(service, sent), 422, "validation")
    assert [(fault["pointer"], fault["code"]) for fault in told["errors"]] == [
        ("/data", "unknown-field"),
        ("/datacontenttype", "unknown-field"),
        ("/id", "repeated"),
    ]


def test_attributes_that_are_missing_are_told(service: Running) -> None:
    told = problem(binary(service, [("ce-type", "usage.scans")]), 422, "validation")
    assert {fault["pointer"] for fault in told["errors"]} == {"/specversion", "/id", "/source", "/subject"}


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=UTF-8", "text/json", None])
def test_the_data_is_json_of_any_spelling(service: Running, org: str, kind: str | None) -> None:
    assert binary(service, headers(org), b'{"quantity":2}', kind).json()["results"][0]["recorded"] == 2


def test_data_that_is_no_json_is_malformed(service: Running, org: str) -> None:
    for body in (b"{", b'{"a":1,"a":2}', b"\xef\xbb\xbf{}", b"\xff"):
        with service.unchanged():
            problem(binary(service, headers(org), body), 400, "malformed-json")


def test_no_data_has_no_type(service: Running, org: str) -> None:
    answer = binary(service, headers(org), b"", "application/x-www-form-urlencoded")
    assert answer.json()["results"][0]["recorded"] == 1


def test_data_above_64_kib_is_too_large(service: Running, org: str) -> None:
    with service.unchanged():
        problem(binary(service, headers(org), b'{"a":"' + b"x" * 65_536 + b'"}'), 413, "too-large")


def test_the_media_type_comes_before_the_headers(service: Running, org: str) -> None:
    answer = deliver(
        service, HTTPMessage({"content-type": CLOUD} | dict(headers("x")), to_structured_event(made(org)).body)
    )
    assert answer.json()["results"][0]["org_id"] == org
    problem(binary(service, headers(org), b"{}", "application/cloudevents+avro"), 415, "unsupported-media-type")


# ── the quick path and the model agree ────────────────────────────────────────────────────────────────────

texts = st.sampled_from(["e", "a\u202eb", "", "x" * 255, "x" * 256, "ä"]) | st.text(max_size=5)
anything = st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from([5.0, 2.5]) | texts
types = st.sampled_from(["usage.scans", "usage.x", "usage.", "llm.completion", "", "a\nb"])
datas = st.dictionaries(
    st.sampled_from(["quantity", "usage", "chain", "a"]),
    anything | st.dictionaries(st.sampled_from(["tokens", "b"]), anything, max_size=2),
    max_size=4,
)
clouds = st.fixed_dictionaries(
    {"specversion": st.just("1.0"), "id": texts, "source": texts, "type": types},
    optional={
        "subject": st.sampled_from(["org-1", "a b", "track", None]),
        "time": st.sampled_from(["2024-01-15T10:30:00Z", "now", None]),
        "datacontenttype": st.sampled_from(["application/json", "a/b+JSON; x=y", "text/xml", "\njson", None]),
        "data": datas | st.none(),
        "actor": anything,
        "more": anything,
    },
)
documents = clouds | st.dictionaries(st.sampled_from(["specversion", "id", "type", "data", "X"]), anything) | anything
callers = st.sampled_from([Caller("a", None, frozenset()), Caller("a", "org-1", frozenset())])


def outcome(make: Any, *given: Any) -> UsageEvent | tuple[str, Any]:
    """The event, or the problem's code and faults."""
    try:
        event: UsageEvent = make(*given, keep=True)
    except Problem as told:
        return told.code, told.extra.get("errors")
    return event


@given(documents, callers)
@example(
    {"specversion": "1.0", "id": "e", "source": "s", "type": "usage.scans", "data": {"quantity": True}},
    Caller("a", "o", frozenset()),
)
def test_what_the_quick_path_takes_the_model_takes_with_the_same_result(value: Any, caller: Caller) -> None:
    quick = outcome(cloud_event, value, 200, caller, CATALOGUE)
    assert quick == outcome(_checked, value, caller, CATALOGUE)


def test_an_event_of_many_features_is_one_event() -> None:
    data = {"usage": {"tokens": 7}, "chain": "ethereum", "deep": {"er": {"still": {}}}}
    value = {"specversion": "1.0", "id": "e", "source": "s", "type": "llm.completion", "data": data, "actor": "u"}
    event = cloud_event(value, 200, Caller("a", "org-1", frozenset()), CATALOGUE, keep=True)
    assert (event.feature, event.quantity, event.also) == ("scans", 7, (("api_requests", 1),))
    assert json.loads(event.details or b"") == {"actor": "u", "metadata": {"chain": "ethereum"}}


def test_usage_of_the_session_is_seen(service: Running, org: str) -> None:
    deliver(service, batched(made(org, 1), made(org, 2)))
    assert usage(service, org)["scans"] == 4
