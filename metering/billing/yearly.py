"""Overage beside a plan that is paid by the year: its prices are by the month, and join the subscription later.

A session of Checkout takes prices of one interval, a subscription in flexible mode takes several
(https://docs.stripe.com/billing/subscriptions/mixed-interval).
"""

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from metering.billing.gateway import Params, StripeObject
from metering.billing.prices import overage_key
from metering.store.org import GRANTING
from plans.catalogue import Catalogue

JOINS: Final = "metering_overage_joins"
"""Metadata of a subscription that prices of overage are still to join. The call that adds them takes it away."""

log = structlog.get_logger(__name__)


class Items(Protocol):
    """The verbs of Stripe that it takes: see `metering.billing.gateway`."""

    async def prices(self, lookup_keys: Sequence[str]) -> list[StripeObject]:
        """The active prices with these lookup keys."""
        ...

    async def update_subscription(self, subscription_id: str, params: Params, *, key: str) -> StripeObject:
        """Change one."""
        ...


def overage_features(catalogue: Catalogue) -> list[str]:
    """The features whose overage is sold."""
    return [name for name, one in catalogue.features.items() if one.stripe_meter_event and one.pricing]


class Joining:
    """Adds what a subscription lacks. May be told of the same one more than once."""

    def __init__(self, stripe: Items, catalogue: Catalogue) -> None:
        self._stripe = stripe
        self._keys = [overage_key(name) for name in overage_features(catalogue)]

    async def join(self, subscription: StripeObject) -> None:
        """Add the prices of overage where they are still to come. Raises the errors of the gateway.

        Stripe tells of the change by an event, which brings the organisation to it.
        """
        if JOINS not in (subscription.get("metadata") or {}) or subscription["status"] not in GRANTING:
            return
        found = await self._stripe.prices(self._keys)
        if len(found) < len(self._keys):
            log.error("prices of overage are missing at Stripe", subscription_lacks=self._keys)
            return
        ids = [price["id"] for price in found]
        name = hashlib.sha256(",".join(ids).encode()).hexdigest()[:16]
        params = {"items": [{"price": an_id} for an_id in ids], "metadata": {JOINS: ""}}
        await self._stripe.update_subscription(subscription["id"], params, key=f"joins:{subscription['id']}:{name}")
