"""The schema that is made of Stripe's client sees what is wrong, and takes what is right."""

import json
from copy import deepcopy
from typing import Any

import pytest
import stripe

from tests.support.stripe_calls import calls
from tests.support.stripe_schema import check_object, check_request, check_response, decoded

FORM = "application/x-www-form-urlencoded"

METER: dict[str, Any] = {
    "id": "mtr_1",
    "object": "billing.meter",
    "created": 1,
    "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
    "default_aggregation": {"formula": "sum"},
    "display_name": "Overage",
    "event_name": "overage",
    "event_time_window": None,
    "livemode": False,
    "status": "active",
    "status_transitions": {"deactivated_at": None},
    "updated": 1,
    "value_settings": {"event_payload_key": "value"},
}


def changed(path: str, value: Any = ...) -> dict[str, Any]:
    """The meter with another value at a place; without a value it is not there."""
    meter = deepcopy(METER)
    *around, last = path.split(".")
    node = meter
    for key in around:
        node = node[key]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return meter


@pytest.mark.parametrize(
    ("request_line", "form"),
    [
        (
            "POST /v1/billing/meter_events",
            "event_name=a&payload[stripe_customer_id]=cus_1&payload[value]=-5&timestamp=17&identifier=x",
        ),
        ("POST /v1/billing/meters", "display_name=a&event_name=b&default_aggregation[formula]=sum"),
        ("GET /v1/billing/meters/mtr_1/event_summaries?customer=c&start_time=60&end_time=120&limit=100", ""),
        (
            "POST /v1/prices",
            "currency=usd&tiers[0][up_to]=5&tiers[0][unit_amount_decimal]=0.25&tiers[1][up_to]=inf&metadata[0]=a&metadata[b]=",
        ),
        ("GET /v1/prices?active=true&lookup_keys[0]=a&lookup_keys[1]=b&expand[0]=data.tiers", ""),
        ("GET /v1/subscriptions?customer=c&status=all&limit=100&starting_after=sub_1", ""),
        ("DELETE /v1/subscriptions/sub_1?invoice_now=true", ""),
        ("GET /v1/events?created[gte]=5&limit=100", ""),
        ("GET /v1/events?created=5", ""),
        ("POST /v1/customers/cus_1", "metadata=&email="),
        ("GET /v2/core/events/evt_1", ""),
    ],
)
def test_a_request_of_stripes_api_is_taken(request_line: str, form: str) -> None:
    method, path = request_line.split(" ")
    check_request(method, path, form.encode(), FORM if form else "")


@pytest.mark.parametrize(
    ("request_line", "form", "fault"),
    [
        ("POST /v1/usage_records", "quantity=1", "Stripe has no POST /v1/usage_records"),
        ("PUT /v1/customers/cus_1", "name=a", "Stripe has no PUT"),
        ("POST /v1/billing/meter_events", "event_name=a", '"payload" is a required property'),
        ("POST /v1/billing/meter_events", "event_name=a&payload[value]=1&color=red", "'color' was unexpected"),
        ("POST /v1/billing/meter_events", "event_name=a&payload[value]=1&timestamp=now", "timestamp: "),
        ("POST /v1/billing/meter_events", "event_name=a&payload[value]=1&timestamp=1.5", "timestamp: "),
        ("POST /v1/billing/meter_events", "event_name=a&payload=5", "payload: "),
        (
            "POST /v1/billing/meter_events",
            "event_name=a&payload[value]=1&api_key=sk_test_1",
            "'api_key' was unexpected",
        ),
        ("POST /v1/billing/meters", "display_name=a&event_name=b&default_aggregation[formula]=max", "formula: "),
        ("POST /v1/subscriptions/sub_1", "billing_cycle_anchor=now", "billing_cycle_anchor: "),
        ("POST /v1/subscriptions/sub_1", "cancel_at_period_end=True", "cancel_at_period_end: "),
        ("GET /v1/subscriptions?status=dead", "", "status: "),
        ("GET /v1/events?created[since]=5", "", "created: "),
    ],
)
def test_a_planted_fault_in_a_request_is_seen(request_line: str, form: str, fault: str) -> None:
    method, path = request_line.split(" ")
    with pytest.raises(AssertionError) as caught:
        check_request(method, path, form, FORM)
    assert fault in str(caught.value)


def test_the_two_apis_take_different_bodies() -> None:
    destination = {"name": "n", "type": "webhook_endpoint", "event_payload": "thin", "enabled_events": ["v1.a"]}
    body = json.dumps(destination)
    check_request("POST", "/v2/core/event_destinations", body, "application/json; charset=utf-8")
    with pytest.raises(AssertionError, match="takes application/json"):
        check_request("POST", "/v2/core/event_destinations", body, FORM)
    with pytest.raises(AssertionError, match="takes application/x-www-form-urlencoded"):
        check_request("POST", "/v1/billing/meters", "{}", "application/json")
    with pytest.raises(AssertionError, match="event_payload"):
        check_request(
            "POST",
            "/v2/core/event_destinations",
            json.dumps({**destination, "event_payload": "fat"}),
            "application/json",
        )


def test_a_right_answer_is_taken() -> None:
    check_response("GET", "/v1/billing/meters/mtr_1", 200, METER)
    page = {"object": "list", "url": "/v1/billing/meters", "has_more": False, "data": [METER]}
    check_response("GET", "/v1/billing/meters?limit=1", 200, json.dumps(page))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("updated", ...),
        ("created", "2026-11-25"),
        ("created", 1.5),
        ("livemode", "false"),
        ("display_name", None),
        ("status", "sleeping"),
        ("color", "red"),
        ("default_aggregation.formula", "max"),
        ("value_settings.event_payload_key", ...),
        ("object", "meter"),
        ("object", ...),
    ],
)
def test_a_planted_fault_in_an_answer_is_seen(path: str, value: Any) -> None:
    meter = changed(path, value)
    with pytest.raises(AssertionError, match=path.rsplit(".", 1)[-1]):
        check_response("GET", "/v1/billing/meters/mtr_1", 200, meter)
    page = {"object": "list", "url": "/v1/billing/meters", "has_more": False, "data": [meter]}
    with pytest.raises(AssertionError):
        check_response("GET", "/v1/billing/meters", 200, page)


def test_an_answer_of_another_kind_is_seen() -> None:
    customer = {"id": "cus_1", "object": "customer", "deleted": True}
    check_response("DELETE", "/v1/customers/cus_1", 200, customer)
    with pytest.raises(AssertionError):
        check_response("GET", "/v1/billing/meters/mtr_1", 200, customer)
    with pytest.raises(AssertionError, match="deleted"):
        check_object({**customer, "email": "ada@example.org"})
    with pytest.raises(AssertionError, match="has_more"):
        check_response("GET", "/v1/billing/meters", 200, {"object": "list", "url": "/v1", "data": []})


def test_an_object_inside_an_object_is_looked_at() -> None:
    data = {"object": METER}
    event = {"id": "evt_1", "object": "event", "api_version": stripe.api_version, "created": 1, "data": data}
    event |= {"livemode": False, "pending_webhooks": 0, "request": None, "type": "billing.meter.created"}
    check_response("GET", "/v1/events/evt_1", 200, event)
    data["object"] = changed("livemode", "no")
    with pytest.raises(AssertionError, match=r"\$\.data\.object"):
        check_response("GET", "/v1/events/evt_1", 200, event)


def test_names_of_the_user_are_no_objects() -> None:
    product: dict[str, Any] = {"id": "prod_1", "object": "product", "active": True, "created": 1, "images": []}
    product |= {"livemode": False, "marketing_features": [], "name": "n", "type": "service", "updated": 1}
    product |= {"metadata": {"object": "customer"}, "default_price": None, "description": None}
    product |= {"package_dimensions": None, "shippable": None, "tax_code": None, "url": None}
    check_response("GET", "/v1/products/prod_1", 200, product)
    product["metadata"] = {"seats": 5}
    with pytest.raises(AssertionError, match=r"metadata\.seats"):
        check_response("GET", "/v1/products/prod_1", 200, product)


def test_a_thin_event_is_known_by_its_type() -> None:
    event: dict[str, Any] = {"id": "evt_1", "object": "v2.core.event", "created": "2026-11-25T12:00:00.000Z"}
    event |= {"livemode": False, "type": "v1.billing.meter.error_report_triggered", "changes": None, "context": None}
    event |= {"related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"}}
    sample = {"error_message": "m", "request": {"identifier": "window-a"}}
    kind = {"code": "no_meter", "error_count": 1, "sample_errors": [sample]}
    event["data"] = {
        "developer_message_summary": "one",
        "reason": {"error_count": 1, "error_types": [kind]},
        "validation_end": "2026-11-25T12:00:10.000Z",
        "validation_start": "2026-11-25T12:00:00.000Z",
    }
    check_response("GET", "/v2/core/events/evt_1", 200, event)
    kind["code"] = "no_such_code"
    with pytest.raises(AssertionError, match="error_types"):
        check_response("GET", "/v2/core/events/evt_1", 200, event)


@pytest.mark.parametrize(
    ("error", "right"),
    [
        ({"type": "invalid_request_error", "message": "No", "code": "resource_missing", "param": "id"}, True),
        ({"message": "No"}, False),
        ({"type": "invalid_request_error", "message": "No", "reason": "x"}, False),
        ({"type": "broken", "message": "No"}, False),
        ({"type": "invalid_request_error", "message": 5}, False),
    ],
)
def test_an_error_is_as_stripe_writes_it(error: dict[str, Any], right: bool) -> None:
    if right:
        check_response("GET", "/v1/customers/cus_1", 404, {"error": error})
        return
    with pytest.raises(AssertionError):
        check_response("GET", "/v1/customers/cus_1", 404, {"error": error})


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("", {}),
        ("a=1&b=", {"a": "1", "b": ""}),
        ("a[b][c]=1&a[b][d]=2", {"a": {"b": {"c": "1", "d": "2"}}}),
        ("a[0]=x&a[1]=y", {"a": ["x", "y"]}),
        ("a[]=x&a[]=y", {"a": ["x", "y"]}),
        ("a[0][b]=x&a[1][b]=y", {"a": [{"b": "x"}, {"b": "y"}]}),
        ("a[1]=x", {"a": {"1": "x"}}),
        ("metadata[0]=x", {"metadata": {"0": "x"}}),
        ("a%5Bb%5D=c%26d+e", {"a": {"b": "c&d e"}}),
    ],
)
def test_a_form_is_decoded(form: str, expected: dict[str, Any]) -> None:
    assert decoded(form) == expected


@pytest.mark.parametrize("form", ["a=1&a=2", "a=1&a[b]=2", "a[b]=1&a=2"])
def test_a_form_that_contradicts_itself_is_seen(form: str) -> None:
    with pytest.raises(AssertionError, match=r"twice|already"):
        decoded(form)


def test_every_call_of_the_client_is_known() -> None:
    assert len(calls()) > 600
    assert {call.version for call in calls()} == {1, 2}
    assert not [call for call in calls() if not call.answer]
