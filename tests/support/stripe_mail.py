"""Stripe's events as Stripe would send them: bodies of both kinds, and the header that signs them."""

import json
import time
from typing import Any, Final

from tests.support.stripe_objects import whole
from webhooks.signature import sign

SECRET: Final = "whsec_tests_first_0123456789"
NEXT_SECRET: Final = "whsec_tests_next_0123456789"


def snapshot(event_id: str = "evt_1", kind: str = "customer.subscription.updated", **fields: Any) -> dict[str, Any]:
    """An event with its object; `fields` replace those of the event."""
    subject = whole("subscription", id="sub_1", customer="cus_1", status="active")
    made = {
        "id": event_id,
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": int(time.time()),
        "data": {"object": subject},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
    }
    return made | fields


def thin(event_id: str = "evt_test_1", kind: str = "customer.subscription.updated", **fields: Any) -> dict[str, Any]:
    """An event that names its object; `kind` as a snapshot has it."""
    made = {
        "id": event_id,
        "object": "v2.core.event",
        "created": "2026-11-25T10:00:00.000Z",
        "livemode": False,
        "related_object": {"id": "sub_1", "type": "subscription", "url": "/v1/subscriptions/sub_1"},
        "type": f"v1.{kind}",
    }
    return made | fields


def body_of(event: object) -> bytes:
    """The bytes, with the indentation that Stripe's have."""
    return json.dumps(event, indent=2).encode()


def header(body: bytes, *secrets: str, ahead_s: int = 0) -> dict[str, str]:
    """What signs `body` now, or `ahead_s` seconds from now."""
    return {"Stripe-Signature": sign(body, secrets or (SECRET,), int(time.time()) + ahead_s)}
