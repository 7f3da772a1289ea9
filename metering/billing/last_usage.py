"""Usage on its way before a subscription ends at once: what Stripe has not added up by then is on no invoice."""

from collections.abc import Awaitable, Callable
from typing import Final

from metering.billing.exporter import Exporter
from metering.billing.reconcile import Reconciler, Verdict
from metering.store.org import Org
from metering.store.window import OPEN, Window
from metering.store.window_lists import WindowLists

_PAGE: Final = 200

_WAITS: Final = frozenset({Verdict.SETTLING, Verdict.UNKNOWN})
"""Where waiting helps. A difference that stays is for people: nobody is kept in a subscription by it."""


class LastUsage:
    """Brings it there. `drained(org_id, at_ms)`: all that was accepted before an instant was counted."""

    def __init__(
        self, exporter: Exporter, lists: WindowLists, reconciler: Reconciler,
        drained: Callable[[str, int], Awaitable[bool]], now_ms: Callable[[], int],
    ) -> None:  # fmt: skip
        self._exporter, self._lists, self._reconciler = exporter, lists, reconciler
        self._drained, self._now_ms = drained, now_ms

    async def told(self, org: Org) -> bool:
        """Tell Stripe of all that an organisation used until now; whether it has that, and has added it up.

        Stripe adds up what it took some time later
        (https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api).
        """
        if not await self._drained(org.org_id, self._now_ms()):
            return False
        if not await self._exporter.push(org.org_id, await self._waiting(org.org_id)):
            return False
        lines = await self._reconciler.of([org])
        return not any(line.verdict in _WAITS for line in lines)

    async def _waiting(self, org_id: str) -> list[Window]:
        """The windows that Stripe does not have, or not for sure."""
        found, place = await self._lists.page(OPEN, org_id, _PAGE)
        while place is not None:
            more, place = await self._lists.page(OPEN, org_id, _PAGE, place)
            found += more
        return [one.window for one in found]
