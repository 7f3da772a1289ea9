"""Stripe's portal, where payers see their invoices, change card and address, and end a subscription with its period.

What they do there comes back by events. https://docs.stripe.com/customer-management
"""

from typing import Protocol

from metering.billing.gateway import Params, StripeObject
from metering.billing.waiting import once, waiting
from metering.billing.wanted import PORTAL, TAG
from metering.errors import NotSubscribed
from metering.store.org import Org


class Doorman(Protocol):
    """The verbs of Stripe that it takes: see `metering.billing.gateway`."""

    async def portal_configurations(self) -> list[StripeObject]:
        """Every configuration of the portal."""
        ...

    async def create_portal_session(self, params: Params, *, key: str) -> StripeObject:
        """Let a customer in."""
        ...


class Portal:
    """Lets payers in."""

    def __init__(self, doorman: Doorman) -> None:
        self._doorman = doorman
        self._configuration: str | None = None

    async def open(self, org: Org, return_url: str, name: str) -> str:
        """The address at which the payer of an organisation gets in, once and soon; repeats share `name`.

        Raises NotSubscribed where nobody pays for it, CustomerUnknown, StripeFailed, StripeUnavailable.
        """
        customer = org.profile.stripe_customer_id
        if customer is None:
            raise NotSubscribed("nobody pays for the organisation")
        async with waiting("portal session"):
            params = {"customer": customer, "return_url": return_url, **await self._ours()}
            made = await once(self._doorman.create_portal_session, params, f"portal:{name}")
        return str(made["url"])

    async def _ours(self) -> dict[str, str]:
        """The configuration that the set-up made: the account's own one may let payers switch plans, past our limits.

        Remembered once it is there; without it Stripe takes the account's own.
        """
        if self._configuration is None:
            found = await self._doorman.portal_configurations()
            ours = [one["id"] for one in found if one["active"] and (one.get("metadata") or {}).get(TAG) == PORTAL]
            self._configuration = ours[0] if ours else None
        return {} if self._configuration is None else {"configuration": self._configuration}
