"""Whom an object of Stripe's is about: the organisations that a customer pays for, and what is nobody's of ours."""

from typing import Protocol

import structlog

from metering.billing.errors import NotThere
from metering.billing.gateway import StripeObject
from metering.billing.prices import Prices
from metering.billing.subscriptions import Reading, id_of, is_ours, org_named
from metering.erasure_errors import OrgErased
from metering.names import is_org_id
from metering.store.customers import Customers
from metering.store.effects import Effects
from metering.store.erasure import OVER
from metering.store.orgs import Orgs

log = structlog.get_logger(__name__)


class Source(Protocol):
    """The verbs by which reactions ask Stripe again: see `metering.billing.gateway`."""

    async def customer(self, customer_id: str) -> StripeObject:
        """One customer; a deleted one has `deleted`."""
        ...

    async def checkout(self, session_id: str) -> StripeObject:
        """One checkout."""
        ...

    async def subscription(self, subscription_id: str) -> StripeObject:
        """One subscription, its items included."""
        ...

    async def subscriptions(self, customer: str) -> list[StripeObject]:
        """All of a customer, ended ones too."""
        ...

    async def invoice(self, invoice_id: str) -> StripeObject:
        """One invoice."""
        ...

    async def thin_event(self, event_id: str) -> StripeObject:
        """One event of `/v2/core/events`, its data included."""
        ...


class Payers:
    """Finds organisations, and reads what they bought."""

    def __init__(self, source: Source, customers: Customers, orgs: Orgs, effects: Effects, prices: Prices) -> None:
        self._source, self._customers, self._orgs = source, customers, orgs
        self._effects, self._prices = effects, prices

    async def of_customer(self, customer: str) -> list[str]:
        """The organisations whose profile names the customer."""
        return await self._customers.orgs_of(customer) if customer else []

    async def of_subscription(self, subscription: StripeObject) -> list[str]:
        """Whose a subscription is: the organisation it names, or its customer's only one, or whoever has it already.

        One without a price of ours belongs to another product, unless it is an organisation's current one.
        """
        known = await self.of_customer(id_of(subscription["customer"]))
        named, ours = org_named(subscription), is_ours(subscription, self._prices)
        if named:
            return [named] if is_org_id(named) and (ours or named in known) else []
        if ours and len(known) == 1:
            return known
        return [name for name in known if await self._keeps(name, subscription["id"])]

    async def read(self, org_id: str, customer: str, *, links: bool = False) -> Reading | None:
        """What the customer bought, read after a ticket was taken; None where there is no such organisation.

        The customer's index is written first where the organisation may be about to have it.
        """
        ticket = await self._effects.ticket(org_id)
        if not ticket:
            return None
        known = await self.of_customer(customer)
        if org_id not in known:
            await self._customers.add(customer, org_id)
        try:
            found = await self._source.subscriptions(customer)
        except NotThere:
            found = []
        return Reading(ticket, customer, found, alone=not set(known) - {org_id}, links=links)

    async def look_for_erased(self, org_id: str, customer: str) -> None:
        """Raises OrgErased where an organisation was erased and a subscription of the customer that names it goes on:
        somebody pays for nothing, until it is ended at Stripe.
        """
        if (erased := await self._erased(org_id)) is None:
            return
        sold = [one for one in await self._source.subscriptions(customer) if org_named(one) == org_id]
        running = [one["id"] for one in sold if one["status"] not in OVER]
        if running:
            log.error("erased organisation is paid for", org=org_id, subscriptions=running)
            raise erased

    async def _erased(self, org_id: str) -> OrgErased | None:
        try:
            await self._orgs.get(org_id)
        except OrgErased as erased:
            return erased
        return None

    async def free_for(self, org_id: str, customer: str) -> bool:
        """Whether no other customer pays for the organisation."""
        org = await self._orgs.living(org_id)
        return org is None or org.profile.stripe_customer_id in {None, customer}

    async def forget(self, org_id: str, customer: str) -> None:
        """The organisation has this customer no more."""
        await self._customers.remove(customer, org_id)

    async def _keeps(self, org_id: str, subscription: str) -> bool:
        org = await self._orgs.living(org_id)
        return org is not None and org.profile.subscription is not None and org.profile.subscription.id == subscription
