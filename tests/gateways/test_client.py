"""What Stripe's installed client declares, and what its texts (those of the API) promise, as far as we rely on it."""

import hashlib
import hmac
import time

import pytest
import stripe
from stripe._event import Event
from stripe._webhook import WebhookSignature
from stripe.events._event_classes import get_v2_event_class

from tests.support.stripe_calls import find_call
from tests.support.stripe_schema import check_request
from tests.support.stripe_types import FOLDER

FORM = "application/x-www-form-urlencoded"


def test_usage_records_are_gone() -> None:
    assert find_call("POST", "/v1/subscription_items/si_1/usage_records") is None
    with pytest.raises(AssertionError, match="aggregate_usage"):
        check_request(
            "POST", "/v1/prices", "currency=usd&recurring[interval]=month&recurring[aggregate_usage]=sum", FORM
        )


def test_the_period_is_told_by_the_item_alone() -> None:
    period = {"current_period_start", "current_period_end"}
    assert period <= set(stripe.SubscriptionItem.__annotations__)
    assert not period & set(stripe.Subscription.__annotations__)


def test_an_invoice_names_its_subscription_under_its_parent() -> None:
    gone = {"subscription", "payment_intent", "charge", "paid"}
    assert not gone & set(stripe.Invoice.__annotations__)
    assert "subscription" in stripe.Invoice.Parent.SubscriptionDetails.__annotations__


def test_an_anchor_is_changed_by_an_object() -> None:
    check_request("POST", "/v1/subscriptions/sub_1", "billing_cycle_anchor[type]=unchanged", FORM)
    with pytest.raises(AssertionError, match="billing_cycle_anchor"):
        check_request("POST", "/v1/subscriptions/sub_1", "billing_cycle_anchor=unchanged", FORM)


@pytest.mark.parametrize("kind", ["billing.meter.error_report_triggered", "billing.meter.no_meter_found"])
def test_reports_of_wrong_meter_events_exist_as_thin_events_alone(kind: str) -> None:
    assert get_v2_event_class(f"v1.{kind}").__name__ != "Event"
    assert kind not in str(Event.__annotations__["type"])
    assert "invoice.created" in str(Event.__annotations__["type"])


def test_a_thin_event_names_its_snapshot() -> None:
    assert "snapshot_event" in stripe.v2.core.Event.__annotations__


def test_the_objects_of_the_client_are_no_dicts() -> None:
    made = stripe.Customer.construct_from({"id": "cus_1", "metadata": {"a": "b"}}, None)
    assert not isinstance(made, dict)
    assert not isinstance(made.metadata, dict)


def test_the_client_alone_never_tries_again() -> None:
    client = stripe.StripeClient("sk_test_1", http_client=stripe.AIOHTTPClient())
    assert client._requestor._options.max_network_retries is None  # noqa: SLF001 - the default is told nowhere else


def test_the_client_alone_takes_a_signature_of_tomorrow() -> None:
    """Why `webhooks.signature` looks at both directions itself."""
    stamp = int(time.time()) + 86_400
    signature = hmac.new(b"whsec_1", f"{stamp}.{{}}".encode(), hashlib.sha256).hexdigest()
    assert WebhookSignature.verify_header("{}", f"t={stamp},v1={signature}", "whsec_1", tolerance=300)


@pytest.mark.parametrize(
    ("file", "rule"),
    [
        ("params/billing/_meter_event_create_params.py", "uniqueness within a rolling period of at least 24 hours"),
        ("params/billing/_meter_event_create_params.py", "the past 35 calendar days or up to 5 minutes in the future"),
        ("params/billing/_meter_event_create_params.py", "Defaults to current timestamp if not specified"),
        ("params/billing/_meter_event_create_params.py", "(default is `stripe_customer_id`)"),
        ("params/billing/_meter_event_create_params.py", "(default is `value`)"),
        ("params/billing/_meter_event_summary_list_params.py", "Must be aligned with minute boundaries"),
        ("params/billing/_meter_event_summary_list_params.py", "stop aggregating meter events (exclusive)"),
        ("params/billing/_meter_event_adjustment_create_params.py", "within 24 hours of Stripe receiving them"),
        ("params/_subscription_cancel_params.py", "any un-invoiced metered usage"),
        ("params/_subscription_cancel_params.py", "Defaults to `false`"),
        ("params/checkout/_session_create_params.py", "not be defined when `recurring.usage_type=metered`"),
        ("params/_invoice_item_create_params.py", "will be added to the next upcoming scheduled invoice"),
        ("_event_service.py", "going back up to 30 days"),
        ("v2/core/_event_service.py", "created in the last 30 days"),
        ("_invoice.py", "approximately an hour after successful webhook delivery"),
        ("params/v2/core/_event_destination_create_params.py", "to receive the signing secret"),
        ("_subscription.py", "`incomplete_expired`"),
    ],
)
def test_what_stripe_writes_of_a_rule_is_what_we_rely_on(file: str, rule: str) -> None:
    """A new version of the client that says it differently: read it, and change the code with the contract."""
    assert rule in (FOLDER / file).read_text(encoding="utf-8")
