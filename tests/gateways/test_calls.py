"""Every verb, with the parameters that the service needs, is a call that Stripe's API has."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from metering.billing.gateway import Gateway, MeterEvent
from metering.billing.gateways.live import LiveGateway
from tests.support.scripted import Scripted
from tests.support.stripe_schema import check_request

METER: Final = {
    "display_name": "API calls over the limit",
    "event_name": "overage_api_calls",
    "default_aggregation": {"formula": "sum"},
    "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
    "value_settings": {"event_payload_key": "value"},
}
PRODUCT: Final = {"name": "API calls over the limit", "metadata": {"feature": "api_calls"}}
PRICE: Final = {
    "currency": "usd",
    "product": "prod_1",
    "billing_scheme": "tiered",
    "tiers_mode": "graduated",
    "tiers": [{"up_to": 1000, "unit_amount_decimal": "0.25"}, {"up_to": "inf", "unit_amount_decimal": "0.1"}],
    "recurring": {"interval": "month", "usage_type": "metered", "meter": "mtr_1"},
    "lookup_key": "scorpius_overage_api_calls",
    "transfer_lookup_key": True,
}
PORTAL: Final = {
    "business_profile": {"headline": "Billing"},
    "features": {"invoice_history": {"enabled": True}, "payment_method_update": {"enabled": True}},
}
ENDPOINT: Final = {
    "url": "https://metering.example.org/webhooks/stripe",
    "api_version": "2026-10-28.endive",
    "enabled_events": ["invoice.created", "customer.subscription.updated"],
}
DESTINATION: Final = {
    "name": "metering",
    "type": "webhook_endpoint",
    "event_payload": "thin",
    "enabled_events": ["v1.billing.meter.error_report_triggered"],
    "webhook_endpoint": {"url": "https://metering.example.org/webhooks/stripe"},
}
CHECKOUT: Final = {
    "mode": "subscription",
    "customer": "cus_1",
    "client_reference_id": "acme",
    "line_items": [{"price": "price_base", "quantity": 1}, {"price": "price_overage"}],
    "subscription_data": {
        "metadata": {"org_id": "acme"},
        "billing_mode": {"type": "flexible"},
        "billing_cycle_anchor_config": {"day_of_month": 17, "hour": 0, "minute": 0, "second": 0},
    },
    "success_url": "https://app.example.org/done?session={CHECKOUT_SESSION_ID}",
    "cancel_url": "https://app.example.org/plans",
}
ENTRY: Final = {"customer": "cus_1", "return_url": "https://app.example.org/account", "configuration": "bpc_1"}
CHANGE: Final = {
    "items": [{"id": "si_base", "price": "price_pro"}],
    "proration_behavior": "create_prorations",
    "payment_behavior": "error_if_incomplete",
    "billing_cycle_anchor": {"type": "unchanged"},
}
PREVIEW: Final = {
    "customer": "cus_1",
    "subscription": "sub_1",
    "subscription_details": {"items": CHANGE["items"], "proration_behavior": "always_invoice"},
}
ITEM: Final = {
    "customer": "cus_1",
    "amount": 1250,
    "currency": "usd",
    "description": "Late usage of API calls",
    "metadata": {"window": "abc"},
}

PAYMENT: Final = {
    "amount": 4500,
    "currency": "usd",
    "customer": "cus_1",
    "payment_method": "pm_1",
    "confirm": True,
    "off_session": True,
    "description": "500 credits",
    "metadata": {"org_id": "acme"},
}
REFUND: Final = {"payment_intent": "pi_1", "amount": 900, "reason": "requested_by_customer", "metadata": {"a": "b"}}

KINDS: Final = {
    "send_meter_event": "billing.meter_event",
    "create_invoice_item": "invoiceitem",
    "create_payment_intent": "payment_intent",
    "create_refund": "refund",
}

VERBS: Final[dict[str, Callable[[Gateway], Awaitable[Any]]]] = {
    "send_meter_event": lambda g: g.send_meter_event(MeterEvent("e", "cus_1", 5, 1_795_600_000, "abc"), attempt=1),
    "meter_usage": lambda g: g.meter_usage("mtr_1", "cus_1", 60, 120),
    "meters": lambda g: g.meters(),
    "create_meter": lambda g: g.create_meter(METER, key="k"),
    "account": lambda g: g.account(),
    "products": lambda g: g.products(),
    "create_product": lambda g: g.create_product(PRODUCT, key="k"),
    "price": lambda g: g.price("price_1"),
    "prices": lambda g: g.prices(["scorpius_overage_api_calls"]),
    "create_price": lambda g: g.create_price(PRICE, key="k"),
    "portal_configurations": lambda g: g.portal_configurations(),
    "create_portal_configuration": lambda g: g.create_portal_configuration(PORTAL, key="k"),
    "update_portal_configuration": lambda g: g.update_portal_configuration("bpc_1", PORTAL),
    "webhook_endpoints": lambda g: g.webhook_endpoints(),
    "create_webhook_endpoint": lambda g: g.create_webhook_endpoint(ENDPOINT, key="k"),
    "update_webhook_endpoint": lambda g: g.update_webhook_endpoint("we_1", {"disabled": False}),
    "event_destinations": lambda g: g.event_destinations(),
    "create_event_destination": lambda g: g.create_event_destination(DESTINATION, key="k"),
    "customer": lambda g: g.customer("cus_1"),
    "create_customer": lambda g: g.create_customer({"name": "Acme", "metadata": {"org_id": "acme"}}, key="k"),
    "create_checkout": lambda g: g.create_checkout(CHECKOUT, key="k"),
    "checkout": lambda g: g.checkout("cs_1"),
    "create_portal_session": lambda g: g.create_portal_session(ENTRY, key="k"),
    "subscription": lambda g: g.subscription("sub_1"),
    "subscriptions": lambda g: g.subscriptions("cus_1"),
    "update_subscription": lambda g: g.update_subscription("sub_1", CHANGE, key="k"),
    "cancel_subscription": lambda g: g.cancel_subscription("sub_1", invoice_now=True, key="k"),
    "invoice": lambda g: g.invoice("in_1"),
    "invoices": lambda g: g.invoices("cus_1"),
    "invoice_page": lambda g: g.invoice_page(customer="cus_1", status="open", after="in_1", limit=5),
    "preview_invoice": lambda g: g.preview_invoice(PREVIEW),
    "invoice_items": lambda g: g.invoice_items("cus_1"),
    "create_invoice_item": lambda g: g.create_invoice_item(ITEM, key="k"),
    "events": lambda g: g.events(after="evt_1"),
    "create_payment_intent": lambda g: g.create_payment_intent(PAYMENT, key="k"),
    "payment_intent": lambda g: g.payment_intent("pi_1"),
    "payment_intents": lambda g: g.payment_intents("cus_1", since_s=1_795_600_000),
    "cancel_payment_intent": lambda g: g.cancel_payment_intent("pi_1"),
    "payment_methods": lambda g: g.payment_methods("cus_1"),
    "charge": lambda g: g.charge("ch_1"),
    "create_refund": lambda g: g.create_refund(REFUND, key="k"),
    "refund": lambda g: g.refund("re_1"),
    "refunds": lambda g: g.refunds("pi_1"),
    "dispute": lambda g: g.dispute("du_1"),
    "disputes": lambda g: g.disputes("pi_1"),
    "thin_event": lambda g: g.thin_event("evt_1"),
    "thin_events": lambda g: g.thin_events(["v1.billing.meter.no_meter_found"], since_s=1_795_600_000),
}


def test_no_verb_is_left_out() -> None:
    verbs = {name for name, _ in inspect.getmembers(Gateway, inspect.iscoroutinefunction)}
    assert verbs - set(VERBS) == {"close"}


@pytest.mark.parametrize("name", VERBS)
async def test_a_verb_is_a_call_that_stripe_has(stripe_says: Scripted, gateway: LiveGateway, name: str) -> None:
    kind = KINDS.get(name, "list")
    stripe_says.answer({"id": "x_1", "object": kind, "url": "/v1", "has_more": False, "data": []})
    await VERBS[name](gateway)
    for request in stripe_says.requests:
        check_request(request.method, request.target, request.body, request.headers.get("content-type", ""))


async def test_events_since_a_time_are_a_call_that_stripe_has(stripe_says: Scripted, gateway: LiveGateway) -> None:
    stripe_says.answer({"object": "list", "url": "/v1", "has_more": False, "data": []})
    await gateway.events(since_s=5)
    check_request("GET", stripe_says.requests[0].target)
