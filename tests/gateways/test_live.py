"""What goes over the wire for each verb, how often, and what comes back."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import stripe
from stripe._base_address import BaseAddresses

from metering.billing.errors import NotThere, Refused, TooMany, Unknown
from metering.billing.gateway import Gateway, MeterEvent
from metering.billing.gateways import verbs
from metering.billing.gateways.live import API_VERSION, LiveGateway, Timeouts, addresses, is_live
from metering.clock import HandClock
from tests.gateways.conftest import Build
from tests.support.scripted import DATE_MS, Scripted

EVENT = MeterEvent("overage", "cus_1", 12, 1_795_600_000, "window-a")
Verb = Callable[[Gateway], Awaitable[Any]]


def page(*ids: str, more: bool = False, **extra: Any) -> dict[str, Any]:
    return {"object": "list", "url": "/v1/x", "has_more": more, "data": [{"id": one, **extra} for one in ids]}


CALLS: list[tuple[Verb, str, dict[str, str]]] = [
    (lambda g: g.account(), "GET /v1/account", {}),
    (lambda g: g.create_meter({"a": 1}, key="k"), "POST /v1/billing/meters", {"a": "1"}),
    (lambda g: g.create_product({"name": "n"}, key="k"), "POST /v1/products", {"name": "n"}),
    (lambda g: g.price("price_1"), "GET /v1/prices/price_1", {"expand[0]": "tiers"}),
    (lambda g: g.create_price({"tiers": [{"up_to": 5}]}, key="k"), "POST /v1/prices", {"tiers[0][up_to]": "5"}),
    (
        lambda g: g.create_portal_configuration({"a": True}, key="k"),
        "POST /v1/billing_portal/configurations",
        {"a": "true"},
    ),
    (
        lambda g: g.update_portal_configuration("bpc_1", {"active": False}),
        "POST /v1/billing_portal/configurations/bpc_1",
        {"active": "false"},
    ),
    (lambda g: g.create_webhook_endpoint({"url": "u"}, key="k"), "POST /v1/webhook_endpoints", {"url": "u"}),
    (lambda g: g.update_webhook_endpoint("we_1", {"url": "u"}), "POST /v1/webhook_endpoints/we_1", {"url": "u"}),
    (lambda g: g.customer("cus_1"), "GET /v1/customers/cus_1", {}),
    (lambda g: g.create_customer({"metadata": {"org": "o"}}, key="k"), "POST /v1/customers", {"metadata[org]": "o"}),
    (
        lambda g: g.create_checkout({"mode": "subscription"}, key="k"),
        "POST /v1/checkout/sessions",
        {"mode": "subscription"},
    ),
    (lambda g: g.checkout("cs_1"), "GET /v1/checkout/sessions/cs_1", {}),
    (lambda g: g.subscription("sub_1"), "GET /v1/subscriptions/sub_1", {}),
    (
        lambda g: g.update_subscription("sub_1", {"metadata": {"a": "b"}}, key="k"),
        "POST /v1/subscriptions/sub_1",
        {"metadata[a]": "b"},
    ),
    (
        lambda g: g.cancel_subscription("sub_1", invoice_now=True, key="k"),
        "DELETE /v1/subscriptions/sub_1",
        {"invoice_now": "true"},
    ),
    (lambda g: g.invoice("in_1"), "GET /v1/invoices/in_1", {}),
    (lambda g: g.create_invoice_item({"amount": 5}, key="k"), "POST /v1/invoiceitems", {"amount": "5"}),
    (lambda g: g.create_payment_intent({"amount": 5}, key="k"), "POST /v1/payment_intents", {"amount": "5"}),
    (lambda g: g.payment_intent("pi_1"), "GET /v1/payment_intents/pi_1", {}),
    (
        lambda g: g.cancel_payment_intent("pi_1"),
        "POST /v1/payment_intents/pi_1/cancel",
        {"cancellation_reason": "abandoned"},
    ),
    (lambda g: g.charge("ch_1"), "GET /v1/charges/ch_1", {}),
    (lambda g: g.create_refund({"amount": 5}, key="k"), "POST /v1/refunds", {"amount": "5"}),
    (lambda g: g.refund("re_1"), "GET /v1/refunds/re_1", {}),
    (lambda g: g.dispute("du_1"), "GET /v1/disputes/du_1", {}),
    (lambda g: g.thin_event("evt_1"), "GET /v2/core/events/evt_1", {}),
]

LISTS: list[tuple[Verb, str, dict[str, str]]] = [
    (lambda g: g.meters(), "/v1/billing/meters", {}),
    (lambda g: g.products(), "/v1/products", {}),
    (
        lambda g: g.prices(["a", "b"]),
        "/v1/prices",
        {"active": "true", "lookup_keys[0]": "a", "lookup_keys[1]": "b", "expand[0]": "data.tiers"},
    ),
    (lambda g: g.portal_configurations(), "/v1/billing_portal/configurations", {}),
    (lambda g: g.webhook_endpoints(), "/v1/webhook_endpoints", {}),
    (lambda g: g.subscriptions("cus_1"), "/v1/subscriptions", {"customer": "cus_1", "status": "all"}),
    (lambda g: g.invoices("cus_1"), "/v1/invoices", {"customer": "cus_1"}),
    (lambda g: g.invoice_items("cus_1"), "/v1/invoiceitems", {"customer": "cus_1"}),
    (
        lambda g: g.payment_intents("cus_1", since_s=7),
        "/v1/payment_intents",
        {"customer": "cus_1", "created[gte]": "7"},
    ),
    (lambda g: g.payment_methods("cus_1"), "/v1/customers/cus_1/payment_methods", {}),
    (lambda g: g.refunds("pi_1"), "/v1/refunds", {"payment_intent": "pi_1"}),
    (lambda g: g.disputes("pi_1"), "/v1/disputes", {"payment_intent": "pi_1"}),
]

KINDS = {"POST /v1/payment_intents": "payment_intent", "POST /v1/refunds": "refund"}
"""Where the gateway looks at what it is given back; everything else is an invoice item here."""


def test_it_is_a_gateway(gateway: LiveGateway) -> None:
    held: Gateway = gateway
    assert held.livemode is False


@pytest.mark.parametrize(("verb", "call", "form"), CALLS, ids=[call for _, call, _ in CALLS])
async def test_a_verb_is_one_call(
    stripe_says: Scripted, gateway: LiveGateway, verb: Verb, call: str, form: dict[str, str]
) -> None:
    kind = KINDS.get(call, "invoiceitem")
    told = {"id": "x_1", "object": kind, "unit_amount_decimal": "0.50", "metadata": {"a": "b"}, "created": 5}
    stripe_says.answer(told)
    assert await verb(gateway) == told
    (request,) = stripe_says.requests
    assert f"{request.method} {request.path}" == call
    assert dict(request.form) == form
    assert request.headers["stripe-version"] == API_VERSION == stripe.api_version
    assert request.headers["authorization"] == "Bearer sk_test_1"
    repeatable = any(word in str(verb.__code__.co_names) for word in ("update", "cancel_payment_intent"))
    keyed = request.method == "DELETE" or (request.method == "POST" and not repeatable)
    assert not keyed or request.headers["idempotency-key"] == "k"


@pytest.mark.parametrize(("verb", "path", "form"), LISTS, ids=[path for _, path, _ in LISTS])
async def test_a_list_is_read_to_its_end(
    stripe_says: Scripted, gateway: LiveGateway, verb: Verb, path: str, form: dict[str, str]
) -> None:
    stripe_says.answer(page("x_1", "x_2", more=True))
    stripe_says.answer(page("x_3"))
    assert await verb(gateway) == [{"id": "x_1"}, {"id": "x_2"}, {"id": "x_3"}]
    assert [request.path for request in stripe_says.requests] == [path, path]
    assert dict(stripe_says.requests[0].form) == {"limit": "100", **form}
    assert dict(stripe_says.requests[1].form) == {"limit": "100", **form, "starting_after": "x_2"}


async def test_destinations_are_read_to_their_end(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer({"data": [{"id": "ed_1"}], "next_page_url": "/v2/core/event_destinations?page=two"})
    stripe_says.answer({"data": [{"id": "ed_2"}], "next_page_url": None})
    assert await gateway.event_destinations() == [{"id": "ed_1"}, {"id": "ed_2"}]
    assert dict(stripe_says.requests[1].form) == {"page": "two"}


async def test_thin_events_are_read_to_their_end(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer({"data": [{"id": "evt_1"}], "next_page_url": "/v2/core/events?page=two"})
    stripe_says.answer({"data": [{"id": "evt_2"}], "next_page_url": None})
    assert await gateway.thin_events(["a", "b"], since_s=60) == [{"id": "evt_1"}, {"id": "evt_2"}]
    asked = {"types[0]": "a", "types[1]": "b", "created[gte]": "1970-01-01T00:01:00+00:00"}
    assert dict(stripe_says.requests[0].form) == asked


async def test_a_list_without_an_end_is_given_up(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer(page("x_1", more=True))
    with pytest.raises(Refused, match="more than 1000 pages"):
        await gateway.meters()
    assert len(stripe_says.requests) == verbs.PAGES_MAX


async def test_a_list_that_is_none_leaves_it_open(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer({"object": "list"})
    with pytest.raises(Unknown):
        await gateway.meters()


async def test_an_empty_page_is_the_last(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer(page(more=True))
    assert await gateway.meters() == []


async def test_lookup_keys_are_asked_for_ten_at_a_time(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer(page("price_1"))
    assert await gateway.prices([]) == []
    assert len(await gateway.prices([f"key-{number}" for number in range(21)])) == 3
    assert [sum(name.startswith("lookup") for name in request.form) for request in stripe_says.requests] == [10, 10, 1]


async def test_items_that_the_first_page_left_out_are_fetched(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer({"id": "sub_1", "items": page("si_1", more=True)})
    stripe_says.answer(page("si_1", "si_2"))
    subscription = await gateway.subscription("sub_1")
    assert [item["id"] for item in subscription["items"]["data"]] == ["si_1", "si_2"]
    assert stripe_says.requests[1].path == "/v1/subscription_items"
    assert stripe_says.requests[1].form["subscription"] == "sub_1"


@pytest.mark.parametrize("bad", ["", "..", "a/b", "a?b", "é", "x" * 256])
async def test_what_is_no_id_is_not_asked_for(stripe_says: Scripted, gateway: LiveGateway, bad: str) -> None:
    with pytest.raises(NotThere):
        await gateway.customer(bad)
    assert stripe_says.requests == []


async def test_a_meter_event_goes_out_once_with_a_key_of_its_attempt(
    stripe_says: Scripted, gateway: LiveGateway
) -> None:
    stripe_says.answer({"object": "billing.meter_event"})
    await gateway.send_meter_event(EVENT, attempt=3)
    (request,) = stripe_says.requests
    assert request.path == "/v1/billing/meter_events"
    assert request.headers["idempotency-key"] == "window-a-3"
    assert dict(request.form) == {
        "event_name": "overage",
        "payload[stripe_customer_id]": "cus_1",
        "payload[value]": "12",
        "timestamp": "1795600000",
        "identifier": "window-a",
    }


async def test_a_destination_tells_its_secret(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer({"id": "ed_1"})
    await gateway.create_event_destination({"name": "n"}, key="k")
    assert stripe_says.requests[0].body == b'{"include": ["webhook_endpoint.signing_secret"], "name": "n"}'
    assert stripe_says.requests[0].headers["idempotency-key"] == "k"


async def test_usage_is_the_sum_of_the_summaries(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer(page("s_1", more=True, aggregated_value=5.0))
    stripe_says.answer(page("s_2", aggregated_value=999_999_999_999_994.0))
    assert await gateway.meter_usage("mtr_1", "cus_1", 60, 120) == 999_999_999_999_999
    assert stripe_says.requests[0].path == "/v1/billing/meters/mtr_1/event_summaries"
    assert dict(stripe_says.requests[0].form) == {
        "limit": "100",
        "customer": "cus_1",
        "start_time": "60",
        "end_time": "120",
    }


async def test_no_usage_is_none(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer(page())
    assert await gateway.meter_usage("mtr_1", "cus_1", 60, 120) == 0


async def test_events_after_one_come_oldest_first(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer(page("evt_3", "evt_2", more=True))
    stripe_says.answer(page("evt_5", "evt_4"))
    assert [event["id"] for event in await gateway.events(after="evt_1")] == ["evt_2", "evt_3", "evt_4", "evt_5"]
    assert [request.form["ending_before"] for request in stripe_says.requests] == ["evt_1", "evt_3"]


async def test_events_since_a_time_come_oldest_first(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer(page("evt_3", "evt_2", more=True))
    stripe_says.answer(page("evt_1"))
    assert [event["id"] for event in await gateway.events(since_s=7)] == ["evt_1", "evt_2", "evt_3"]
    assert stripe_says.requests[0].form["created[gte]"] == "7"
    assert stripe_says.requests[1].form["starting_after"] == "evt_2"


async def test_the_next_events_are_left_for_the_next_call(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer(page(*[f"evt_{number}" for number in range(100)], more=True))
    assert len(await gateway.events(after="evt_1")) == verbs.EVENTS_MAX


@pytest.mark.parametrize(
    ("verb", "calls"),
    [
        (lambda g: g.account(), 3),
        (lambda g: g.create_product({"name": "n"}, key="k"), 3),
        (lambda g: g.send_meter_event(EVENT, attempt=1), 1),
        (lambda g: g.create_invoice_item({"amount": 1}, key="k"), 1),
    ],
    ids=["a read", "the set-up", "a meter event", "an invoice item"],
)
@pytest.mark.parametrize("status", [409, 500, 502])
async def test_row_7_the_client_repeats_reads_and_the_set_up_alone(
    stripe_says: Scripted, gateway: LiveGateway, pauses: list[float], verb: Verb, calls: int, status: int
) -> None:
    stripe_says.refuse(status, message="later")
    with pytest.raises(Unknown):
        await verb(gateway)
    assert len(stripe_says.requests) == calls
    assert len({request.headers.get("idempotency-key") for request in stripe_says.requests}) == 1
    assert [0.5 <= pause <= 1.0 for pause in pauses] == [True] * (calls - 1)


async def test_html_of_a_proxy_is_repeated_as_a_500(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer(b"<html>502</html>", 502)
    stripe_says.answer({"id": "acct_1"})
    assert await gateway.account() == {"id": "acct_1"}


async def test_the_client_never_repeats_a_429(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.refuse(429, message="Too many")
    with pytest.raises(TooMany):
        await gateway.account()
    assert len(stripe_says.requests) == 1


async def test_stripes_clock_is_learned_and_carried_on(
    stripe_says: Scripted, gateway: LiveGateway, clock: HandClock
) -> None:
    stripe_says.answer({"id": "acct_1"})
    clock.advance(60_000)
    assert gateway.stripe_ms() is None
    await gateway.account()
    assert gateway.stripe_ms() == DATE_MS
    clock.advance(2_500)
    clock.set(5)
    assert gateway.stripe_ms() == DATE_MS + 2_500


@pytest.mark.parametrize("body", [b"<html></html>", b'{"error": {"message": "Too many"}}'])
async def test_errors_teach_the_clock_too(stripe_says: Scripted, gateway: LiveGateway, body: bytes) -> None:
    stripe_says.answer(body, 429)
    with pytest.raises(TooMany):
        await gateway.account()
    assert gateway.stripe_ms() == DATE_MS


async def test_a_date_that_is_none_teaches_nothing(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer({"id": "acct_1"}, headers={"Date": "yesterday"})
    await gateway.account()
    assert gateway.stripe_ms() is None


async def test_a_notice_of_stripe_is_no_exception(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer({"id": "acct_1"}, headers={"Stripe-Notice": "Upgrade"})
    assert await gateway.account() == {"id": "acct_1"}


async def test_no_telemetry_goes_out_and_no_parameters_are_logged(
    stripe_says: Scripted, gateway: LiveGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stripe_says.answer({"id": "cus_1"}, headers={"Request-Id": "req_1"})
    for _ in range(2):
        await gateway.create_customer({"email": "ada@example.org"}, key="k")
    assert not [name for request in stripe_says.requests for name in request.headers if "telemetry" in name]
    assert not [line for line in caplog.messages if "ada" in line]


async def test_closing_what_never_spoke_opens_nothing(build: Build) -> None:
    gateway = build()
    await gateway.close()
    await gateway.close()


def test_every_host_is_the_one_that_was_named() -> None:
    hosts = addresses("http://127.0.0.1:1/")
    assert set(hosts) == set(BaseAddresses.__annotations__)
    assert set(hosts.values()) == {"http://127.0.0.1:1"}
    assert addresses(None) is None


@pytest.mark.parametrize(
    ("key", "live"),
    [
        ("sk_test_1", False),
        ("rk_test_1", False),
        ("sk_sandbox_1", False),
        ("sk_live_1", True),
        ("rk_live_1", True),
        ("sk_1", True),
        ("pk_test_1", True),
    ],
)
def test_a_key_is_live_unless_it_says_otherwise(key: str, live: bool) -> None:
    assert is_live(key) is live
    assert LiveGateway(key, clock=HandClock(0)).livemode is live


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"api_base": "http://127.0.0.1:1"}, "STRIPE_API_BASE"), ({"test_clock": True}, "TEST_CLOCK")],
)
def test_a_live_key_goes_to_stripe_alone(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        LiveGateway("sk_live_1", clock=HandClock(0), **settings)


def test_row_7_the_timeouts_are_those_of_the_http_library() -> None:
    held = Timeouts().aiohttp()
    assert (held.connect, held.sock_connect, held.sock_read, held.total) == (4, 2, 10, 15)
