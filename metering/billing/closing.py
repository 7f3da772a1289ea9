"""The end of closed periods: final is one that is invoiced, and all of whose overage has found its place."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from metering.billing.asking import Asking
from metering.billing.coverage import Cover
from metering.billing.errors import GatewayError
from metering.store.org import Org
from metering.store.orgs import Orgs
from metering.store.outbox import Outbox
from plans.periods import Period

PAGE: Final = 200
"""Organisations that are looked at together."""


class Closing:
    """The books of one data set. `drained(org_id, at_ms)`: all that was accepted before an instant was counted.

    Every worker may do all of it. Raises the 503 problems of the store.
    """

    def __init__(
        self, orgs: Orgs, outbox: Outbox, coverage: Cover, asking: Asking,
        drained: Callable[[str, int], Awaitable[bool]],
    ) -> None:  # fmt: skip
        self._orgs, self._outbox, self._coverage = orgs, outbox, coverage
        self._asking, self._drained = asking, drained

    async def turn(self) -> None:
        """Look at the period of every organisation that closed last: whether it is final by now."""
        cursor = None
        while True:
            orgs, cursor = await self._orgs.page(cursor, PAGE)
            for org in orgs:
                if org.before is not None:
                    await self._hear_of_last(org, org.before)
                    await self.finalize(org.org_id, org.before.start_ms, org.before.end_ms)
            if cursor is None:
                return

    async def finalize(self, org_id: str, start_ms: int, end_ms: int) -> None:
        """Mark a closed period as final where it is invoiced and everything of it has found its place."""
        now_ms = await self._orgs.server_now()
        if now_ms >= end_ms and await self._drained(org_id, end_ms):
            await self._outbox.finalize(org_id, start_ms, now_ms)

    async def _hear_of_last(self, org: Org, period: Period) -> None:
        """Ask for the last invoice of a subscription that ended in a closed period, where no event told of one."""
        sold, customer = org.profile.subscription, org.profile.stripe_customer_id
        if sold is None or customer is None or sold.ended_in(period) is None:
            return
        if await self._outbox.invoiced(org.org_id, period.start_ms):
            return
        now_ms = await self._orgs.server_now()
        with suppress(GatewayError):  # the next look asks again
            await self._asking.ask(lambda: self._coverage.ask_final(org.org_id, period, customer, sold, now_ms))
