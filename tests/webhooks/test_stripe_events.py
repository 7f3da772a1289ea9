"""Both kinds of Stripe's events say the same to us; what is no event is told apart."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest

from webhooks.stripe_events import THIN_ALONE, TYPES, MalformedEvent, Reaction, StripeEvent, event_of

SNAPSHOT: Final[Mapping[str, Any]] = {
    "id": "evt_1Sn4pShot",
    "object": "event",
    "api_version": "2026-10-28.endive",
    "created": 1_790_000_000,
    "data": {"object": {"id": "sub_1", "object": "subscription", "customer": "cus_1"}},
    "livemode": False,
    "pending_webhooks": 1,
    "request": {"id": None, "idempotency_key": None},
    "type": "customer.subscription.updated",
}
THIN: Final[Mapping[str, Any]] = {
    "id": "evt_test_65Thin",
    "object": "v2.core.event",
    "created": "2026-09-21T13:33:20.250Z",
    "livemode": True,
    "reason": None,
    "related_object": {"id": "sub_1", "type": "subscription", "url": "/v1/subscriptions/sub_1"},
    "snapshot_event": "evt_1Sn4pShot",
    "type": "v1.customer.subscription.updated",
}


def with_object(**fields: Any) -> dict[str, Any]:
    return {**SNAPSHOT, "data": {"object": fields}}


def test_a_snapshot_is_read() -> None:
    assert event_of(SNAPSHOT) == StripeEvent(
        event_id="evt_1Sn4pShot",
        dedupe_id="evt_1Sn4pShot",
        type="customer.subscription.updated",
        object_id="sub_1",
        customer="cus_1",
        created_ms=1_790_000_000_000,
        livemode=False,
        api_version="2026-10-28.endive",
        thin=False,
    )


def test_a_thin_event_is_read() -> None:
    assert event_of(THIN) == StripeEvent(
        event_id="evt_test_65Thin",
        dedupe_id="evt_1Sn4pShot",
        type="customer.subscription.updated",
        object_id="sub_1",
        customer="",
        created_ms=1_789_997_600_250,
        livemode=True,
        api_version="",
        thin=True,
    )


def test_both_kinds_of_one_change_are_one_event() -> None:
    assert event_of(THIN).dedupe_id == event_of(SNAPSHOT).dedupe_id
    assert event_of(THIN).reaction is event_of(SNAPSHOT).reaction is Reaction.SUBSCRIPTION


@pytest.mark.parametrize("twin", [{}, {"snapshot_event": None}])
def test_a_thin_event_without_a_twin_is_known_by_its_own_id(twin: dict[str, None]) -> None:
    alone = {name: value for name, value in THIN.items() if name != "snapshot_event"} | twin
    assert event_of(alone).dedupe_id == "evt_test_65Thin"


@pytest.mark.parametrize(
    ("value", "customer"),
    [
        (with_object(id="in_1", object="invoice", customer={"id": "cus_2", "object": "customer"}), "cus_2"),
        (with_object(id="cs_1", object="checkout.session", customer=None), ""),
        (with_object(id="cs_1", object="checkout.session"), ""),
        (with_object(id="cus_3", object="customer", deleted=True), "cus_3"),
        ({**THIN, "related_object": {"id": "cus_4", "type": "customer"}}, "cus_4"),
    ],
    ids=["expanded", "null", "absent", "the customer itself", "the customer itself, thin"],
)
def test_the_customer_is_found_where_the_event_names_one(value: dict[str, Any], customer: str) -> None:
    assert event_of(value).customer == customer


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        ("invoice.upcoming", {"object": "invoice", "customer": "cus_1"}),
        ("entitlements.active_entitlement_summary.updated", {"object": "x", "customer": "cus_1"}),
        ("billing.alert.triggered", {"object": "billing.alert_triggered", "customer": "cus_1"}),
    ],
)
def test_an_object_without_an_id_is_known_by_its_customer(kind: str, subject: dict[str, Any]) -> None:
    event = event_of(with_object(**subject) | {"type": kind})
    assert (event.object_id, event.customer) == ("", "cus_1")


@pytest.mark.parametrize("related", [{}, {"related_object": None}])
def test_a_meter_that_is_not_there_has_no_object(related: dict[str, None]) -> None:
    thin = {name: value for name, value in THIN.items() if name != "related_object"} | related
    event = event_of(thin | {"type": "v1.billing.meter.no_meter_found"})
    assert (event.object_id, event.reaction) == ("", Reaction.METER)


@pytest.mark.parametrize("kind", ["price.created", "v2.core.account.closed", "v1.price.created"])
def test_what_is_none_of_ours_is_read_and_has_no_reaction(kind: str) -> None:
    assert event_of({**THIN, "type": kind}).reaction is None
    assert event_of(with_object(object="balance") | {"type": kind}).reaction is None


@pytest.mark.parametrize(
    "change",
    [
        {"id": None}, {"id": "sub_1"}, {"id": "evt_"}, {"id": "evt_a:b"}, {"id": "evt_1\n"}, {"id": "evt_é"},
        {"id": "evt_" + "a" * 201}, {"id": 7}, {"id": ["evt_1"]},
        {"type": None}, {"type": "updated"}, {"type": "customer..updated"}, {"type": "a.b:c"}, {"type": "a.b\n"},
        {"type": "a." + "b" * 120}, {"type": 7},
        {"livemode": None}, {"livemode": "false"}, {"livemode": 0},
        {"created": None}, {"created": "2026-09-21"}, {"created": True}, {"created": -1}, {"created": 1.5},
        {"created": 10**11},
        {"data": None}, {"data": []}, {"data": {}}, {"data": {"object": "sub_1"}},
        {"data": {"object": {"object": "subscription"}}}, {"data": {"object": {"id": 7}}},
        {"data": {"object": {"id": "s" * 256}}}, {"data": {"object": {"id": "sub_1", "customer": 7}}},
        {"data": {"object": {"id": "sub_1", "customer": {"id": []}}}},
        {"api_version": 7}, {"object": "subscription"}, {"object": None},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_snapshot_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedEvent):
        event_of({**SNAPSHOT, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"id": None}, {"snapshot_event": "sub_1"}, {"snapshot_event": 7}, {"type": None}, {"livemode": None},
        {"created": None}, {"created": 1_790_000_000}, {"created": "soon"}, {"created": "2026-09-21T13:33:20"},
        {"created": "1926-09-21T13:33:20Z"},
        {"related_object": "sub_1"}, {"related_object": ["sub_1"]}, {"related_object": {"type": "subscription"}},
        {"related_object": None},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_thin_event_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedEvent):
        event_of({**THIN, **change})


@pytest.mark.parametrize("value", [None, [], "event", 7, {}])
def test_what_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(MalformedEvent):
        event_of(value)


@pytest.mark.parametrize(
    ("kind", "reaction"),
    [
        ("checkout.session.completed", Reaction.CHECKOUT),
        ("customer.subscription.deleted", Reaction.SUBSCRIPTION),
        ("invoice.created", Reaction.INVOICE_BEGUN),
        ("invoice.finalization_failed", Reaction.INVOICE_FINAL),
        ("invoice.paid", Reaction.INVOICE_PAID),
        ("invoice.payment_failed", Reaction.INVOICE_UNPAID),
        ("charge.refunded", Reaction.REFUND),
        ("customer.deleted", Reaction.CUSTOMER),
        ("billing.meter.error_report_triggered", Reaction.METER),
    ],
)
def test_the_table_says_what_an_event_makes_us_do(kind: str, reaction: Reaction) -> None:
    assert TYPES[kind] is reaction


def test_what_misses_payments_outside_of_stripe_is_not_taken() -> None:
    assert "invoice.payment_succeeded" not in TYPES


def test_every_reaction_has_an_event() -> None:
    assert set(TYPES.values()) == set(Reaction)


def source_of_stripe(*place: str) -> str:
    """A file of Stripe's own library, read and not imported."""
    spec = find_spec("stripe")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.joinpath(*place).read_text(encoding="utf-8")


def test_stripe_has_every_type_of_the_table() -> None:
    """A type that is misspelt would never come."""
    snapshots = set(re.findall(r'"([a-z_]+(?:\.[a-z_]+)+)"', source_of_stripe("_event.py")))
    thin = set(re.findall(r'"v1\.([a-z_.]+)"', source_of_stripe("events", "_event_classes.py")))
    assert set(TYPES) - THIN_ALONE <= snapshots
    assert set(TYPES) <= thin
    assert not THIN_ALONE & snapshots
