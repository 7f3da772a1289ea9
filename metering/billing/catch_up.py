"""Reads the events that no webhook brought, through the same door.

Stripe sends an event for three days and tells of it for thirty (https://docs.stripe.com/api/events/list). So what an
outage, a wrong secret or a lost endpoint kept away is in the list; what came by webhook too is known by its id. Events
that Stripe has only as thin ones (error reports of meters) have a list of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog

from metering.billing.gateway import Events, StripeObject
from metering.billing.intake import Intake, Taken
from metering.clock import MS_PER_S
from metering.store.event_cursor import EventCursor
from webhooks.stripe_events import TYPES, MalformedEvent, Reaction, StripeEvent, event_of

EVERY_S: Final = 3600.0
"""Between two readings. Webhooks bring nearly everything within seconds; this is for what they did not."""

LOOK_S: Final = 60.0
"""Between two looks whether a reading is due: after a failed one the next is soon, and of many workers one reads."""

OVERLAP_S: Final = 3600
"""How far before the newest event that is in reading begins again: ids of one second are in no order, and an event may
enter the list after a later one."""

REPORTS: Final = tuple(sorted(f"v1.{name}" for name, reaction in TYPES.items() if reaction is Reaction.METER))
"""Types of events that exist as thin ones alone."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Caught:
    """What a reading found: events new to us, known ones, and those that are not for us."""

    kept: int = 0
    known: int = 0
    ignored: int = 0

    @property
    def events(self) -> int:
        """All of them."""
        return self.kept + self.known + self.ignored


class CatchUp:
    """Reads Stripe's list of events into the inbox. `now_ms` is the store's time."""

    def __init__(self, stripe: Events, intake: Intake, cursor: EventCursor, now_ms: Callable[[], int]) -> None:
        self._stripe, self._intake, self._cursor, self._now_ms = stripe, intake, cursor, now_ms

    async def turn(self) -> None:
        """Read, where nobody has for an hour. Raises what `run` does."""
        if self._now_ms() - (await self._cursor.read()).at_ms >= EVERY_S * MS_PER_S:
            caught = await self.run()
            if caught.kept:
                log.warning("stripe events caught up with", kept=caught.kept, known=caught.known)

    async def run(self) -> Caught:
        """Read all that Stripe has since the cursor. Safe to repeat, to cut off anywhere, and to run in parallel.

        Raises GatewayErrors and the 503 problems; what was read until then is in.
        """
        began_ms, cursor, caught = self._now_ms(), await self._cursor.read(), Caught()
        until_s = cursor.until_s
        rows = await self._stripe.events(since_s=None if until_s is None else max(0, until_s - OVERLAP_S))
        while rows:
            caught = await self._take(rows, caught)
            await self._cursor.move(int(rows[-1]["created"]))  # not before: a crash must not leave any of them out
            rows = await self._stripe.events(after=rows[-1]["id"])
        caught = await self._take(await self._reports(cursor.at_ms // MS_PER_S), caught)
        await self._cursor.done(began_ms)
        return caught

    async def _reports(self, read_s: int) -> list[StripeObject]:
        """Reports of meters since the last reading that came to its end."""
        return await self._stripe.thin_events(REPORTS, since_s=max(0, read_s - OVERLAP_S) if read_s else None)

    async def _take(self, rows: Sequence[StripeObject], caught: Caught) -> Caught:
        """Take in some events, the oldest first."""
        for row in rows:
            event = _read(row)
            taken = Taken.NOT_OURS if event is None else await self._intake.take(event)
            if taken is Taken.KEPT:
                caught = replace(caught, kept=caught.kept + 1)
            elif taken is Taken.DUPLICATE:
                caught = replace(caught, known=caught.known + 1)
            else:
                caught = replace(caught, ignored=caught.ignored + 1)
        return caught


def _read(row: StripeObject) -> StripeEvent | None:
    """The event; None, and a line in the log, for one that cannot be read: it must not hide all that follow."""
    try:
        return event_of(row)
    except MalformedEvent as error:
        why = str(error)
    log.error("event of stripe's list cannot be read", stripe_event=str(row.get("id"))[:100], why=why)
    return None
