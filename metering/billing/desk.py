"""The outbox as operators see it, and what they may do about windows that are dead: send again, or let go."""

from collections.abc import Callable, Collection
from typing import Final

from metering.errors import WindowNotDead, WindowNotFound
from metering.store.outbox import Outbox
from metering.store.window import REPORTED, State, Window
from metering.store.window_lists import Count, Listed, Place, WindowLists

FORGOTTEN_MS: Final = 25 * 3_600_000
"""Stripe knows an identifier "at least 24 h" (https://docs.stripe.com/api/billing/meter-event/create). A window that
it took and then told it cannot use is looked at again an hour later than that: before, it would be a duplicate."""


class Desk:
    """`now_ms` is the store's time. Errors of the store come out as 503 problems."""

    def __init__(self, outbox: Outbox, lists: WindowLists, now_ms: Callable[[], int]) -> None:
        self._outbox, self._lists = outbox, lists
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """The store's time."""
        return self._now_ms()

    async def page(
        self, states: Collection[State], org_id: str | None, limit: int, after: Place | None = None
    ) -> tuple[list[Listed], Place | None]:
        """Up to `limit` windows, and where to go on (None: done). A page may be short and there be more."""
        return await self._lists.page(states, org_id, limit, after)

    async def counts(self, org_id: str | None) -> dict[State, Count]:
        """How many windows Stripe does not have, by state."""
        return await self._lists.counts(org_id)

    async def replay(self, window_id: str, *, by: str) -> Window:
        """Let a dead window be sent again. Raises WindowNotFound, WindowNotDead.

        Where nothing of it can have arrived it begins anew, with the customer that the organisation has then. Any other
        is repeated to the customer it may have reached while Stripe knows its identifier, and after that held against
        Stripe's own sum first.
        """
        window = await self._dead(window_id)
        not_before_ms = 0
        if window.error.startswith(REPORTED) and window.tried_ms is not None:
            not_before_ms = window.tried_ms + FORGOTTEN_MS
        await self._outbox.replay(window, by, not_before_ms)
        return await self._found(window_id, window)

    async def discard(self, window_id: str, reason: str, *, by: str) -> Window:
        """Write a dead window off. Raises WindowNotFound, WindowNotDead."""
        window = await self._dead(window_id)
        done = await self._outbox.discard(window, reason, by)
        after = await self._found(window_id, window)
        if not done and after.state is not State.WRITTEN_OFF:
            raise _not_dead(after)  # somebody let it be sent again in between
        return after

    async def _dead(self, window_id: str) -> Window:
        window = await self._outbox.find(window_id)
        if window is None:
            raise WindowNotFound
        if window.state is not State.DEAD:
            raise _not_dead(window)
        return window

    async def _found(self, window_id: str, window: Window) -> Window:
        return await self._outbox.window_of(window.cut.org_id, window_id) or window


def _not_dead(window: Window) -> WindowNotDead:
    return WindowNotDead(f"it is {window.state.value}", state=window.state.value)
