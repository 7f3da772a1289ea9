"""Which call of Stripe's client each verb of the gateway is. `live` makes the calls, and maps what goes wrong."""

import abc
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from metering.billing.errors import Duplicate, Refused, Unknown
from metering.billing.gateway import MeterEvent, Params, StripeObject

PAGE: Final = 100
"""Objects a page: the most that Stripe takes (https://docs.stripe.com/api/pagination)."""

PAGES_MAX: Final = 1000
"""Pages that one list may have: a list without an end must not hold a worker for ever."""

EVENTS_MAX: Final = 10_000
"""Events handed on at once, about 50 MB of them. The next call takes up after the last one."""

LOOKUP_KEYS_MAX: Final = 10
"""Lookup keys that Stripe takes in one call (https://docs.stripe.com/api/prices/list)."""

Call = Callable[..., Awaitable[Any]]
"""A method of one of the client's services: ids, then parameters, then options."""


class Verbs(abc.ABC):
    """Every verb of `Gateway` (described there) over four ways to make a call."""

    def __init__(self, v1: Any, v2: Any) -> None:
        self._v1 = v1
        self._v2 = v2

    @abc.abstractmethod
    async def _ask(
        self, call: Call, *ids: str, params: Params | None = None, key: str | None = None, repeats: bool = True
    ) -> StripeObject:
        """One call of Stripe; with `repeats` the client repeats it by itself where that is safe."""

    @abc.abstractmethod
    async def _follow(self, address: str) -> StripeObject:
        """Read what an answer of Stripe gave the address of."""

    # Usage

    async def send_meter_event(self, event: MeterEvent, *, attempt: int) -> None:
        """One attempt, as Stripe keeps an answer under its key for a day, a 500 included."""
        params = {
            "event_name": event.event_name,
            "payload": {"stripe_customer_id": event.customer, "value": str(event.units)},
            "timestamp": event.timestamp_s,
            "identifier": event.identifier,
        }
        key = f"{event.identifier}-{attempt}"
        try:
            made = await self._ask(self._v1.billing.meter_events.create_async, params=params, key=key, repeats=False)
        except Refused as error:
            if tells_of(error, event.identifier):
                raise as_duplicate(error) from None
            raise
        _check_kind(made, "billing.meter_event")

    async def meter_usage(self, meter_id: str, customer: str, start_s: int, end_s: int) -> int:
        """The sum over the whole time. Stripe tells it as a float, exact up to 15 digits."""
        params = {"customer": customer, "start_time": start_s, "end_time": end_s}
        rows = await self._all(self._v1.billing.meters.event_summaries.list_async, meter_id, params=params)
        return sum(round(row["aggregated_value"]) for row in rows)

    async def meters(self) -> list[StripeObject]:
        """Every meter, active or not."""
        return await self._all(self._v1.billing.meters.list_async)

    async def create_meter(self, params: Params, *, key: str) -> StripeObject:
        """Make a meter."""
        return await self._ask(self._v1.billing.meters.create_async, params=params, key=key)

    # Set-up

    async def account(self) -> StripeObject:
        """The account of the key."""
        return await self._ask(self._v1.accounts.retrieve_current_async)

    async def products(self) -> list[StripeObject]:
        """Every product, active or not."""
        return await self._all(self._v1.products.list_async)

    async def create_product(self, params: Params, *, key: str) -> StripeObject:
        """Make a product."""
        return await self._ask(self._v1.products.create_async, params=params, key=key)

    async def price(self, price_id: str) -> StripeObject:
        """One price, with its tiers."""
        return await self._ask(self._v1.prices.retrieve_async, price_id, params={"expand": ["tiers"]})

    async def prices(self, lookup_keys: Sequence[str]) -> list[StripeObject]:
        """The active prices with these lookup keys, with their tiers; asked for ten keys at a time."""
        found = []
        for start in range(0, len(lookup_keys), LOOKUP_KEYS_MAX):
            some = list(lookup_keys[start : start + LOOKUP_KEYS_MAX])
            params = {"active": True, "lookup_keys": some, "expand": ["data.tiers"]}
            found += await self._all(self._v1.prices.list_async, params=params)
        return found

    async def create_price(self, params: Params, *, key: str) -> StripeObject:
        """Make a price."""
        return await self._ask(self._v1.prices.create_async, params=params, key=key)

    async def portal_configurations(self) -> list[StripeObject]:
        """Every configuration of the portal."""
        return await self._all(self._v1.billing_portal.configurations.list_async)

    async def create_portal_configuration(self, params: Params, *, key: str) -> StripeObject:
        """Make one."""
        return await self._ask(self._v1.billing_portal.configurations.create_async, params=params, key=key)

    async def update_portal_configuration(self, configuration_id: str, params: Params) -> StripeObject:
        """Change one."""
        return await self._ask(self._v1.billing_portal.configurations.update_async, configuration_id, params=params)

    async def webhook_endpoints(self) -> list[StripeObject]:
        """Every endpoint for snapshot events."""
        return await self._all(self._v1.webhook_endpoints.list_async)

    async def create_webhook_endpoint(self, params: Params, *, key: str) -> StripeObject:
        """Make one."""
        return await self._ask(self._v1.webhook_endpoints.create_async, params=params, key=key)

    async def update_webhook_endpoint(self, endpoint_id: str, params: Params) -> StripeObject:
        """Change one."""
        return await self._ask(self._v1.webhook_endpoints.update_async, endpoint_id, params=params)

    async def event_destinations(self) -> list[StripeObject]:
        """Every destination of thin events."""
        return await self._all_of_v2(self._v2.core.event_destinations.list_async)

    async def create_event_destination(self, params: Params, *, key: str) -> StripeObject:
        """Make one. Its secret is told only where it is asked for (https://docs.stripe.com/api/v2/core/event_destinations)."""
        asked = {"include": ["webhook_endpoint.signing_secret"], **params}
        return await self._ask(self._v2.core.event_destinations.create_async, params=asked, key=key)

    # Who pays

    async def customer(self, customer_id: str) -> StripeObject:
        """One customer; a deleted one has `deleted`."""
        return await self._ask(self._v1.customers.retrieve_async, customer_id)

    async def create_customer(self, params: Params, *, key: str) -> StripeObject:
        """Make a customer."""
        return await self._ask(self._v1.customers.create_async, params=params, key=key)

    async def create_checkout(self, params: Params, *, key: str) -> StripeObject:
        """Begin a checkout."""
        return await self._ask(self._v1.checkout.sessions.create_async, params=params, key=key)

    async def checkout(self, session_id: str) -> StripeObject:
        """One checkout."""
        return await self._ask(self._v1.checkout.sessions.retrieve_async, session_id)

    async def create_portal_session(self, params: Params, *, key: str) -> StripeObject:
        """Let a customer into the portal."""
        return await self._ask(self._v1.billing_portal.sessions.create_async, params=params, key=key)

    async def subscription(self, subscription_id: str) -> StripeObject:
        """One subscription with all of its items."""
        return await self._whole(await self._ask(self._v1.subscriptions.retrieve_async, subscription_id))

    async def subscriptions(self, customer: str) -> list[StripeObject]:
        """All of a customer, each with all of its items, the newest first."""
        params = {"customer": customer, "status": "all"}
        return [await self._whole(one) for one in await self._all(self._v1.subscriptions.list_async, params=params)]

    async def update_subscription(self, subscription_id: str, params: Params, *, key: str) -> StripeObject:
        """Change one."""
        changed = await self._ask(self._v1.subscriptions.update_async, subscription_id, params=params, key=key)
        return await self._whole(changed)

    async def cancel_subscription(self, subscription_id: str, *, invoice_now: bool, key: str) -> StripeObject:
        """End it now."""
        params = {"invoice_now": invoice_now}
        return await self._ask(self._v1.subscriptions.cancel_async, subscription_id, params=params, key=key)

    async def _whole(self, subscription: StripeObject) -> StripeObject:
        """The subscription with the items that its first page left out."""
        items = subscription.get("items") or {}
        if items.get("has_more"):
            params = {"subscription": subscription["id"]}
            rows = await self._all(self._v1.subscription_items.list_async, params=params)
            subscription["items"] = {**items, "data": rows, "has_more": False}
        return subscription

    # What is billed

    async def invoice(self, invoice_id: str) -> StripeObject:
        """One invoice."""
        return await self._ask(self._v1.invoices.retrieve_async, invoice_id)

    async def invoices(self, customer: str) -> list[StripeObject]:
        """All of a customer, the newest first."""
        return await self._all(self._v1.invoices.list_async, params={"customer": customer})

    async def invoice_page(
        self, *, customer: str | None, status: str | None, after: str | None, limit: int
    ) -> tuple[list[StripeObject], bool]:
        """One page of the invoices of a customer, or of everybody."""
        asked = {"customer": customer, "status": status, "starting_after": after, "limit": limit}
        params = {name: value for name, value in asked.items() if value is not None}
        return _page(await self._ask(self._v1.invoices.list_async, params=params))

    async def preview_invoice(self, params: Params) -> StripeObject:
        """An invoice as it would be. It shows ten of its lines at most."""
        return await self._ask(self._v1.invoices.create_preview_async, params=params)

    async def invoice_items(self, customer: str) -> list[StripeObject]:
        """All of a customer, those on an invoice already included."""
        return await self._all(self._v1.invoice_items.list_async, params={"customer": customer})

    async def create_invoice_item(self, params: Params, *, key: str) -> StripeObject:
        """One attempt to put an amount on the next invoice."""
        made = await self._ask(self._v1.invoice_items.create_async, params=params, key=key, repeats=False)
        _check_kind(made, "invoiceitem")
        return made

    # What is paid once

    async def create_payment_intent(self, params: Params, *, key: str) -> StripeObject:
        """Begin a payment. Where the answer is none of Stripe's, nobody knows whether money moved: Unknown."""
        made = await self._ask(self._v1.payment_intents.create_async, params=params, key=key)
        _check_kind(made, "payment_intent")
        return made

    async def payment_intent(self, intent_id: str) -> StripeObject:
        """One payment."""
        return await self._ask(self._v1.payment_intents.retrieve_async, intent_id)

    async def payment_intents(self, customer: str, *, since_s: int) -> list[StripeObject]:
        """Those of a customer since a moment."""
        params = {"customer": customer, "created": {"gte": since_s}}
        return await self._all(self._v1.payment_intents.list_async, params=params)

    async def cancel_payment_intent(self, intent_id: str) -> StripeObject:
        """Withdraw a payment."""
        params = {"cancellation_reason": "abandoned"}
        return await self._ask(self._v1.payment_intents.cancel_async, intent_id, params=params)

    async def payment_methods(self, customer: str) -> list[StripeObject]:
        """What a customer has saved."""
        return await self._all(self._v1.customers.payment_methods.list_async, customer)

    async def charge(self, charge_id: str) -> StripeObject:
        """One attempt."""
        return await self._ask(self._v1.charges.retrieve_async, charge_id)

    async def create_refund(self, params: Params, *, key: str) -> StripeObject:
        """Give money back."""
        made = await self._ask(self._v1.refunds.create_async, params=params, key=key)
        _check_kind(made, "refund")
        return made

    async def refund(self, refund_id: str) -> StripeObject:
        """One refund."""
        return await self._ask(self._v1.refunds.retrieve_async, refund_id)

    async def refunds(self, intent_id: str) -> list[StripeObject]:
        """All of a payment."""
        return await self._all(self._v1.refunds.list_async, params={"payment_intent": intent_id})

    async def dispute(self, dispute_id: str) -> StripeObject:
        """One dispute."""
        return await self._ask(self._v1.disputes.retrieve_async, dispute_id)

    async def disputes(self, intent_id: str) -> list[StripeObject]:
        """All of a payment."""
        return await self._all(self._v1.disputes.list_async, params={"payment_intent": intent_id})

    # What happened

    async def events(self, *, after: str | None = None, since_s: int | None = None) -> list[StripeObject]:
        """The oldest first, at most EVENTS_MAX: the next call takes up after the last of them.

        Raises NotThere where `after` is no longer kept.
        """
        if after is not None:
            return await self._events_after(after)
        found: deque[StripeObject] = deque(maxlen=EVENTS_MAX)  # the newest come first, and fall out first
        params = {} if since_s is None else {"created": {"gte": since_s}}
        async for page in self._pages(self._v1.events.list_async, params=params):
            found.extend(page)
        return list(reversed(found))

    async def _events_after(self, event_id: str) -> list[StripeObject]:
        """`ending_before` gives the page that is next to the event, itself newest first."""
        found: list[StripeObject] = []
        while len(found) < EVENTS_MAX:
            params = {"limit": PAGE, "ending_before": found[-1]["id"] if found else event_id}
            rows, more = _page(await self._ask(self._v1.events.list_async, params=params))
            found += reversed(rows)
            if not more:
                break
        return found

    async def thin_event(self, event_id: str) -> StripeObject:
        """One event of /v2/core/events."""
        return await self._ask(self._v2.core.events.retrieve_async, event_id)

    async def thin_events(self, types: Sequence[str], *, since_s: int | None = None) -> list[StripeObject]:
        """Those of some types, of the last 30 days or since a moment."""
        params: dict[str, Any] = {"types": list(types)}
        if since_s is not None:
            params["created"] = {"gte": datetime.fromtimestamp(since_s, UTC).isoformat()}
        return await self._all_of_v2(self._v2.core.events.list_async, params=params)

    # Lists

    async def _all_of_v2(self, call: Call, params: Params | None = None) -> list[StripeObject]:
        """Lists of /v2 name the address of their next page. Raises Refused where one has more than PAGES_MAX."""
        page = await self._ask(call, params=params)
        found = list(_page(page)[0])
        for _ in range(PAGES_MAX):
            if not page.get("next_page_url"):
                return found
            page = await self._follow(page["next_page_url"])
            found += _page(page)[0]
        raise endless()

    async def _all(self, call: Call, *ids: str, params: Params | None = None) -> list[StripeObject]:
        return [row async for page in self._pages(call, *ids, params=params) for row in page]

    async def _pages(self, call: Call, *ids: str, params: Params | None = None) -> AsyncIterator[list[StripeObject]]:
        """Page after page of a list of /v1. Raises Refused where it has more than PAGES_MAX."""
        asked = {"limit": PAGE, **(params or {})}
        for _ in range(PAGES_MAX):
            rows, more = _page(await self._ask(call, *ids, params=asked))
            yield rows
            if not more:
                return
            asked["starting_after"] = rows[-1]["id"]
        raise endless()


def _page(answer: StripeObject) -> tuple[list[StripeObject], bool]:
    """The rows of a page, and whether another one follows it."""
    rows = answer.get("data")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Unknown("a list of Stripe has no data")
    return rows, bool(rows and answer.get("has_more"))


def _check_kind(made: StripeObject, kind: str) -> None:
    """Raises Unknown for a yes that is none of Stripe's: somebody on the way may answer 200 and JSON to everything."""
    if made.get("object") != kind:
        raise Unknown(f"the answer is no {kind}")


def endless() -> Refused:
    """What to raise for a list that does not end."""
    return Refused(f"a list of Stripe has more than {PAGES_MAX} pages")


def tells_of(error: Refused, identifier: str) -> bool:
    """Whether Stripe refused a meter event because this identifier is there already.

    The code is told by a third party and the text was seen in the wild, neither is documented: so our own identifier
    must be in the text as well. It never is in the text of another fault.
    """
    known = error.code == "duplicate_meter_event" or "already exists with identifier" in error.message
    return known and identifier in error.message


def as_duplicate(error: Refused) -> Duplicate:
    """The same, named for what it means: delivered."""
    return Duplicate(
        error.message, status=error.status, code=error.code, param=error.param, request_id=error.request_id
    )
