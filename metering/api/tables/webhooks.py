"""What others tell us."""

from typing import Final

from metering.api import webhooks
from metering.api.models.webhooks import ReceivedAnswer, StripeEventBody
from metering.api.route import OPEN, Media, Route
from metering.errors import LedgerFull, NotFound, Overloaded, SignatureInvalid, StorageUnavailable

_SNAPSHOT: Final = {
    "id": "evt_1QyVxYL2x6R",
    "object": "event",
    "api_version": "2026-10-28.endive",
    "created": 1790000000,
    "data": {"object": {"id": "sub_1QyVxY", "object": "subscription", "customer": "cus_123"}},
    "livemode": False,
    "type": "customer.subscription.updated",
}
_THIN: Final = {
    "id": "evt_test_65QyVxYL2x6R",
    "object": "v2.core.event",
    "created": "2026-09-21T13:33:20.000Z",
    "livemode": False,
    "related_object": {"id": "sub_1QyVxY", "type": "subscription", "url": "/v1/subscriptions/sub_1QyVxY"},
    "snapshot_event": "evt_1QyVxYL2x6R",
    "type": "v1.customer.subscription.updated",
}

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST", "/webhooks/stripe", "Tell of an event at Stripe", OPEN, "webhooks", webhooks.post_stripe,
        {200: ReceivedAnswer},
        problems=(SignatureInvalid, NotFound, StorageUnavailable, Overloaded, LedgerFull),
        reader=webhooks.read_signed,
        takes=(Media("application/json", StripeEventBody, {"snapshot": _SNAPSHOT, "thin": _THIN}),),
        shows={"received": True, "duplicate": False, "ignored": None},
        aliases=("/api/webhook/stripe", "/api/billing/webhook", "/billing/webhook"),
        about="For Stripe, which signs the bytes in `Stripe-Signature` with one of STRIPE_WEBHOOK_SECRET; without a"
        " secret the route is not there. 200: the event is on disk, and takes effect afterwards, once however often it"
        " is sent. 503: send it again. At most 512 KiB.",
    ),
)  # fmt: skip
