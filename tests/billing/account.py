"""An account at Stripe as a test sets it up: objects that are read as they are now, and events that name them.

Each object is held to what Stripe's own client says of it, as it is put there and whenever it changes.
"""

import asyncio
from collections.abc import Awaitable, Callable
from copy import deepcopy
from itertools import count
from typing import Any

from metering.billing.errors import NotThere
from metering.billing.gateway import StripeObject
from metering.billing.prices import FEATURE_TAG, PLAN_TAG, plan_key
from plans.periods import Period
from tests.support.stripe_objects import rows, whole
from tests.support.stripe_schema import check_all
from webhooks.stripe_events import StripeEvent

_numbers = count(1)

Step = Callable[[], Awaitable[None]]


async def go_on() -> None:
    """A step that nothing stops."""
    await asyncio.sleep(0)


class Account:
    """Objects by id. `before` and `after` run around every call, `calls` tells which there were."""

    def __init__(self) -> None:
        self.objects: dict[str, StripeObject] = {}
        self.calls: list[str] = []
        self.before: Step = go_on
        self.after: Step = go_on

    def put(self, thing: StripeObject) -> StripeObject:
        """Keep an object, in the place of an older one."""
        check_all(thing, version=2 if thing["object"].startswith("v2.") else 1)
        self.objects[thing["id"]] = thing
        return thing

    def change(self, name: str, **fields: Any) -> None:
        """Give an object other fields."""
        self.put(self.objects[name] | fields)

    async def customer(self, customer_id: str) -> StripeObject:
        return await self._read(customer_id)

    async def checkout(self, session_id: str) -> StripeObject:
        return await self._read(session_id)

    async def subscription(self, subscription_id: str) -> StripeObject:
        return await self._read(subscription_id)

    async def invoice(self, invoice_id: str) -> StripeObject:
        return await self._read(invoice_id)

    async def thin_event(self, event_id: str) -> StripeObject:
        return await self._read(event_id)

    async def subscriptions(self, customer: str) -> list[StripeObject]:
        await self.before()
        self.calls.append(f"subscriptions {customer}")
        of_kind = [one for one in self.objects.values() if one.get("object") == "subscription"]
        found = deepcopy([one for one in reversed(of_kind) if one["customer"] == customer])
        await self.after()
        return found

    async def _read(self, name: str) -> StripeObject:
        await self.before()
        self.calls.append(name)
        if name not in self.objects:
            raise NotThere(f"No such object: {name}", status=404)
        found = deepcopy(self.objects[name])
        await self.after()
        return found


def event(kind: str, object_id: str, *, at_ms: int = 0, customer: str = "", name: str = "") -> StripeEvent:
    """An event that names an object; each has an id of its own unless it is given one."""
    event_id = name or f"evt_{next(_numbers)}"
    return StripeEvent(event_id, event_id, kind, object_id, customer, at_ms, False, "2026-10-28.endive", thin=False)


def base_price(plan: str, *, tagged: bool = True) -> StripeObject:
    """The price of a plan, known by its metadata or by its lookup key."""
    metadata = {PLAN_TAG: plan} if tagged else {}
    return whole("price", id=f"price_{plan}", metadata=metadata, lookup_key=plan_key(plan))


def overage_price(feature: str = "scans") -> StripeObject:
    """The price of overage, shared by all plans."""
    return whole("price", id=f"price_{feature}", metadata={FEATURE_TAG: feature}, lookup_key=None)


def item(price: StripeObject, period: Period) -> StripeObject:
    """A subscription's item: periods stand on items alone."""
    start_s, end_s = period.start_ms // 1000, period.end_ms // 1000
    times = {"current_period_start": start_s, "current_period_end": end_s}
    return whole("subscription_item", id=f"si_{price['id']}", price=price, **times)


def subscription(
    period: Period, *, name: str = "sub_1", org: str = "acme", plan: str = "pro", status: str = "active", **other: Any
) -> StripeObject:
    """A subscription with a base item and one for overage."""
    start_s = period.start_ms // 1000
    said = {
        "id": name,
        "customer": "cus_1",
        "status": status,
        "created": start_s,
        "start_date": start_s,
        "billing_cycle_anchor": start_s,
        "cancel_at_period_end": False,
        "metadata": {"org_id": org} if org else {},
        "items": rows(item(base_price(plan), period), item(overage_price(), period)),
    }
    return whole("subscription", **said | other)


def invoice(name: str, period: Period, *, status: str = "open", sold: str = "sub_1", **other: Any) -> StripeObject:
    """An invoice of a renewal: it bills the usage of `period`."""
    said = {
        "id": name,
        "customer": "cus_1",
        "status": status,
        "billing_reason": "subscription_cycle",
        "period_start": period.start_ms // 1000,
        "period_end": period.end_ms // 1000,
        "parent": {"type": "subscription_details", "subscription_details": {"subscription": sold, "metadata": {}}},
        "status_transitions": {"finalized_at": None if status == "draft" else period.end_ms // 1000 + 3600},
    }
    return whole("invoice", **said | other)


def checkout(*, org: str = "acme", paid: str = "paid", status: str = "complete", **other: Any) -> StripeObject:
    """A checkout of a subscription."""
    said = {
        "id": "cs_1",
        "mode": "subscription",
        "status": status,
        "payment_status": paid,
        "client_reference_id": org,
        "customer": "cus_1",
        "subscription": "sub_1",
        "metadata": {"org_id": org},
    }
    return whole("checkout.session", **said | other)
