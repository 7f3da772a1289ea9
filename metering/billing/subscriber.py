"""What a subscriber does about the subscription: let it end, and take that back.

https://docs.stripe.com/billing/subscriptions/cancel
"""

from functools import partial
from typing import Protocol

from metering.billing.errors import Refused
from metering.billing.following import Following, held, is_over
from metering.billing.gateway import Params, StripeObject
from metering.billing.last_usage import LastUsage
from metering.billing.waiting import once, waiting
from metering.errors import UsageSettling
from metering.store.org import Org


class Subscriptions(Protocol):
    """The verbs of Stripe that it takes: see `metering.billing.gateway`."""

    async def update_subscription(self, subscription_id: str, params: Params, *, key: str) -> StripeObject:
        """Change one."""
        ...

    async def cancel_subscription(self, subscription_id: str, *, invoice_now: bool, key: str) -> StripeObject:
        """End it now."""
        ...


class Subscriber:
    """Every change gives the organisation as it is then. Repeats of a request share its `name`; `by` is who asks.

    Raises NotSubscribed, StripeFailed, StripeUnavailable.
    """

    def __init__(self, stripe: Subscriptions, following: Following, last_usage: LastUsage) -> None:
        self._stripe, self._following, self._last_usage = stripe, following, last_usage

    async def cancel_with_period(self, org: Org, *, name: str, by: str) -> Org:
        """Let it end with its period. All that is used until then is on its last invoice."""
        return await self._ends(org, name, by, ends=True)

    async def resume(self, org: Org, *, name: str, by: str) -> Org:
        """Let it go on."""
        return await self._ends(org, name, by, ends=False)

    async def cancel_now(self, org: Org, *, name: str, by: str) -> Org:
        """End it, and have what was used billed at once. What is paid in advance is not given back.

        Raises UsageSettling, with nothing ended, as long as Stripe does not know all of what was used.
        """
        sold, customer = held(org)
        entry = ("subscription_cancelled", "actor", by, "at_period_end", "false")
        async with waiting("cancellation"):
            if not await self._last_usage.told(org):
                raise UsageSettling
            try:
                await self._stripe.cancel_subscription(sold.id, invoice_now=True, key=f"cancel:{name}")
            except Refused:
                after = await self._following.follow(org, customer)
                if not is_over(after):
                    raise
                return after  # somebody ended it before, maybe an attempt of ours that nobody heard of
            return await self._following.follow(org, customer, entry)

    async def _ends(self, org: Org, name: str, by: str, *, ends: bool) -> Org:
        sold, customer = held(org)
        told = ("subscription_cancelled", "actor", by, "at_period_end", "true")
        async with waiting("change of when a subscription ends"):
            try:
                change = partial(self._stripe.update_subscription, sold.id)
                await once(change, {"cancel_at_period_end": ends}, f"ends:{name}")
            except Refused:
                held(await self._following.follow(org, customer))  # it may have ended, and its event be still to come
                raise
            return await self._following.follow(org, customer, told if ends else ("subscription_resumed", "actor", by))
