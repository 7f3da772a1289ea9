"""The quick path and the model agree, and JSON is read with one meaning: on anything a generator can think of."""

import json
from typing import Any, Final

from hypothesis import example, given
from hypothesis import strategies as st

from metering.api.bodies import HUGE, parse_json
from metering.api.events import QUICK_BYTES_MAX, event_of, quick_event
from metering.auth import Caller
from metering.errors import Invalid, MalformedJson
from metering.usage import UsageEvent

FEATURE: Final = "api_requests"
FIELDS: Final = (
    "org_id",
    "feature",
    "quantity",
    "metadata",
    "event_id",
    "source",
    "timestamp",
    "actor",
    "endpoint",
    "mode",
    "reservation_id",
    "dry_run",
    "x",
)

floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | floats | st.text(max_size=8) | st.just(HUGE)
numbers = st.sampled_from([0, 1, -1, 10**12, 10**12 + 1, 5.0, 5.5, 2**53, 2.0**53, 1e12, True, "5", None, 2**63, HUGE])
names = st.sampled_from(
    [
        "a",
        "scans",
        "org-1",
        "track",
        "A.b_c",
        "-a",
        "a b",
        "a\n",
        "",
        "a" * 64,
        "a" * 65,
        "\u0430",
        "history",
        "x\u202e",
    ]
)
moments = st.sampled_from(
    [
        "2024-01-15T10:30:00Z",
        "2024-01-15t10:30:00.123456789+05:30",
        "2016-12-31T23:59:60Z",
        "2024-02-30T00:00:00Z",
        "2024-01-15T10:30:00",
        "2024-01-15 10:30:00Z",
        "20240115T103000Z",
        "2024-01-15T24:00:00Z",
        "2024-01-15T10:30:00+24:00",
        "9999-12-31T23:59:60Z",
        "2024-01-15T10:30:00Z\n",
        "\u0662024-01-15T10:30:00Z",
    ]
)
boxes = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
metadata = st.dictionaries(st.text(max_size=6), boxes, max_size=5) | st.sampled_from(
    [dict.fromkeys(map(str, range(50)), 1), dict.fromkeys(map(str, range(51)), 1), {"a": "x" * 8200}, {"a": [[[]]]}]
)
values = names | numbers | moments | metadata | scalars | st.text(max_size=300)
likely = st.fixed_dictionaries(
    {},
    optional={
        "org_id": names,
        "feature": names,
        "quantity": numbers | st.integers(1, 9),
        "metadata": metadata | st.none(),
        "event_id": names | st.none(),
        "source": names | st.text(max_size=300),
        "timestamp": moments | st.none(),
        "actor": names,
        "endpoint": names,
        "mode": st.just("default") | names,
        "reservation_id": st.none() | names,
        "dry_run": st.booleans() | numbers,
    },
)
documents = likely | st.dictionaries(st.sampled_from(FIELDS), values, max_size=8) | boxes
callers = st.sampled_from([Caller("a", None, frozenset()), Caller("a", "org-1", frozenset())])


def modelled(value: Any, caller: Caller, *, keep: bool = False) -> UsageEvent | None:
    """What the model makes of `value`, None where it refuses."""
    try:
        return event_of(value, caller, FEATURE, keep=keep)
    except Invalid:
        return None


@given(documents, callers)
@example({"org_id": "org-1", "feature": "scans", "quantity": True}, Caller("a", None, frozenset()))
@example({"org_id": "org-1", "feature": "scans", "metadata": {"a": {"b": {"c": {}}}}}, Caller("a", None, frozenset()))
@example({"feature": "scans", "timestamp": "9999-12-31T23:59:60Z"}, Caller("a", "org-1", frozenset()))
def test_what_the_quick_path_takes_the_model_takes_with_the_same_result(value: Any, caller: Caller) -> None:
    for keep in (False, True):
        quick = quick_event(value, _size(value), caller.org_id, keep=keep)
        if quick is not None:
            assert quick == modelled(value, caller, keep=keep)


def _size(value: Any) -> int:
    """About the size of a body that says `value`."""
    return len(json.dumps(value, ensure_ascii=False))


@given(
    st.fixed_dictionaries(
        {"org_id": st.just("org-1"), "feature": st.just("scans"), "quantity": st.integers(1, 10**12)},
        optional={
            "event_id": st.text("abc-_:.", min_size=1, max_size=20),
            "source": st.just("svc"),
            "actor": st.just("user-7"),
            "timestamp": st.just("2024-01-15T10:30:00Z"),
            "metadata": st.dictionaries(
                st.text("abc", max_size=3), scalars.filter(lambda one: one is not HUGE), max_size=5
            ),
        },
    )
)
def test_the_quick_path_takes_every_ordinary_event(value: dict[str, Any]) -> None:
    quick = quick_event(value, 200, None)
    assert quick is not None
    assert quick == modelled(value, Caller("a", None, frozenset()))


def test_details_are_actor_and_metadata_where_they_are_asked_for() -> None:
    value = {"org_id": "a", "feature": "b", "actor": "ann", "metadata": {"chain": "x"}}
    for made in (quick_event(value, 100, None, keep=True), modelled(value, Caller("a", None, frozenset()), keep=True)):
        assert made is not None
        assert json.loads(made.details or b"") == {"actor": "ann", "metadata": {"chain": "x"}}
    plain = quick_event(value, 100, None)
    assert plain is not None
    assert plain.details is None


def test_an_event_without_actor_and_metadata_has_no_details() -> None:
    made = quick_event({"org_id": "a", "feature": "b"}, 100, None, keep=True)
    assert made is not None
    assert made.details is None


def test_the_endpoint_of_the_short_form_is_part_of_the_metadata() -> None:
    made = modelled({"endpoint": "analyze"}, Caller("a", "org-1", frozenset()), keep=True)
    assert made is not None
    assert json.loads(made.details or b"") == {"actor": None, "metadata": {"endpoint": "analyze"}}


def test_the_quick_path_leaves_large_bodies_to_the_model() -> None:
    assert quick_event({"org_id": "a", "feature": "b"}, QUICK_BYTES_MAX + 1, None) is None


def plainly(text: str) -> Any:
    """`text` read by the standard library, None where a key stands twice or it is no JSON."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError
        return dict(pairs)

    def refuse(_: str) -> Any:
        raise ValueError

    try:
        return [json.loads(text, object_pairs_hook=once, parse_constant=refuse)]
    except ValueError:
        return None


keys = st.sampled_from(["a", "b", "a:", ":", '"', "\\", "a\\u003a", "\\u0061", "é"])
strings = st.sampled_from(["", ":", "::", "a:b", '":', '":"', "\\", "\\u003a", "\n"])
spaces = st.sampled_from(["", " ", "\n", "\t "])


@st.composite
def texts(draw: st.DrawFn, depth: int = 2) -> str:
    """JSON objects written in odd ways: doubled keys, escapes, blanks around colons."""
    pairs = []
    for _ in range(draw(st.integers(0, 4))):
        value = draw(texts(depth - 1)) if depth and draw(st.booleans()) else draw(written(draw(strings)))
        pairs.append(f"{draw(written(draw(keys)))}{draw(spaces)}:{draw(spaces)}{value}")
    return "{" + ",".join(pairs) + "}"


@st.composite
def written(draw: st.DrawFn, text: str) -> str:
    """A string as JSON, some of its letters as escapes in either case."""
    out = []
    for letter in text:
        how = draw(st.integers(0, 3))
        plain = json.dumps(letter, ensure_ascii=False)[1:-1]
        out.append(plain if how < 2 else f"\\u{ord(letter):04x}" if how == 2 else f"\\u{ord(letter):04X}")
    return '"' + "".join(out) + '"'


@given(texts())
@example('{"a" :1,"a":":"}')
@example('{"a":"\\u003a","b":1,"b":1}')
@example('{"a":"b:c","a":"d"}')
def test_json_is_read_as_the_standard_library_reads_it_with_every_key_once(text: str) -> None:
    try:
        read = [parse_json(text.encode())]
    except MalformedJson:
        read = None
    assert read == plainly(text)
