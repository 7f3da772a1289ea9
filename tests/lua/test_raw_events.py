"""The boxes of raw events: what was said comes back under the organisation's key, and under no other."""

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.store.boxes import Unreadable
from metering.store.fields import new_data_key
from metering.store.raw_events import Details, boxed, opened
from metering.usage import UsageEvent

KEY = bytes(range(32))

SECRETS = {"org_id": "acme-industries", "event_id": "evt-secret-1", "source": "svc-secret", "actor": "ann.smith"}


def told(**more: Any) -> UsageEvent:
    """An event with something in every place."""
    details = orjson.dumps({"actor": SECRETS["actor"], "metadata": {"chain": "ethereum-secret", "n": [1, {"a": None}]}})
    return UsageEvent(
        SECRETS["org_id"], "scans", 5, SECRETS["event_id"], SECRETS["source"], 1_706_745_600_123,
        dimensions={"region": "eu-secret"}, details=details, **more,
    )  # fmt: skip


def test_a_box_opens_to_what_was_said() -> None:
    assert opened(boxed(told(), KEY), KEY) == Details(
        event_id="evt-secret-1",
        source="svc-secret",
        actor="ann.smith",
        metadata={"chain": "ethereum-secret", "n": [1, {"a": None}]},
        timestamp_ms=1_706_745_600_123,
        dimensions={"region": "eu-secret"},
    )


def test_an_event_of_which_nothing_was_said_has_empty_details() -> None:
    assert opened(boxed(UsageEvent("acme", "scans"), KEY), KEY) == Details()


@pytest.mark.parametrize(
    ("details", "actor", "metadata"),
    [
        (b'{"actor":"ann"}', "ann", None),
        (b'{"metadata":{}}', None, {}),
        (b'{"actor":null,"metadata":null}', None, None),
    ],
)
def test_details_may_have_either_part(details: bytes, actor: str | None, metadata: Any) -> None:
    found = opened(boxed(UsageEvent("acme", "scans", details=details), KEY), KEY)
    assert (found.actor, found.metadata) == (actor, metadata)


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_any_text_comes_back(event_id: str, source: str, metadata: dict[str, str]) -> None:
    details = orjson.dumps({"actor": None, "metadata": metadata})
    found = opened(boxed(UsageEvent("acme", "scans", 1, event_id, source, details=details), KEY), KEY)
    assert (found.event_id or "", found.source, found.metadata) == (event_id, source, metadata)


def test_a_box_holds_nothing_in_plain_text() -> None:
    box = boxed(told(), KEY)
    for text in (box, base64.b64decode(box).decode("latin-1")):
        assert not [word for word in (*SECRETS.values(), "ethereum-secret", "eu-secret") if word in text]


def test_two_boxes_of_one_event_have_nothing_in_common() -> None:
    first, second = boxed(told(), KEY), boxed(told(), KEY)
    assert first[:20] != second[:20]
    assert first[30:] != second[30:]


def test_a_box_stays_shut_without_the_key() -> None:
    with pytest.raises(Unreadable):
        opened(boxed(told(), KEY), new_data_key())


@pytest.mark.parametrize("cut", [0, 4, 20, 24, -4])
def test_a_box_that_was_cut_is_unreadable(cut: int) -> None:
    with pytest.raises(Unreadable):
        opened(boxed(told(), KEY)[:cut], KEY)


@pytest.mark.parametrize("place", [0, 30, -8])
def test_a_changed_box_is_unreadable(place: int) -> None:
    box = list(boxed(told(), KEY))
    box[place] = "A" if box[place] != "A" else "B"
    with pytest.raises(Unreadable):
        opened("".join(box), KEY)


def test_what_is_no_box_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        opened("not base64!", KEY)
