"""Bringing an organisation to what Stripe says right after it was changed there: the way that events take, at once.

The events of the change come too, and find nothing new.
"""

from metering.billing.payers import Payers
from metering.billing.prices import Prices
from metering.billing.subscriptions import Policy, taking
from metering.errors import NotSubscribed, OrgNotFound
from metering.store.effects import Effects, Entry
from metering.store.erasure import OVER
from metering.store.org import Org, Subscription


def is_over(org: Org) -> bool:
    """Whether an organisation has no subscription, or none any more."""
    sold = org.profile.subscription
    return sold is None or sold.status in OVER


def held(org: Org) -> tuple[Subscription, str]:
    """The subscription that an organisation has, and who pays for it. Raises NotSubscribed."""
    sold, customer = org.profile.subscription, org.profile.stripe_customer_id
    if sold is None or customer is None or is_over(org):
        raise NotSubscribed
    return sold, customer


class Following:
    """Follows. Raises the errors of gateway and store."""

    def __init__(self, payers: Payers, effects: Effects, prices: Prices, policy: Policy) -> None:
        self._payers, self._effects = payers, effects
        self._prices, self._policy = prices, policy

    async def follow(self, org: Org, customer: str, *entries: Entry) -> Org:
        """The organisation as Stripe's word makes it now; `entries` go into its trail. Raises OrgNotFound."""
        reading = await self._payers.read(org.org_id, customer)
        if reading is None:
            raise OrgNotFound
        after = await self._effects.apply(org.org_id, None, taking(reading, self._prices, self._policy, *entries))
        if after is None:
            raise OrgNotFound
        return after
