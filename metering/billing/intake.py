"""The door for Stripe's events, whoever brings them: a webhook, or the reading of those that were missed."""

from collections.abc import Sequence
from enum import StrEnum

import structlog

from metering.billing.gateway import API_VERSION
from metering.store.inbox import Inbox
from webhooks.stripe_events import StripeEvent

log = structlog.get_logger(__name__)


class Taken(StrEnum):
    """What became of an event at the door."""

    KEPT = "kept"
    DUPLICATE = "duplicate"
    OTHER_MODE = "other mode"
    """A test event for a live service, or the other way round: somebody mixed up two endpoints or two keys."""
    OTHER_ACCOUNT = "other account"
    """Of an account that is connected to ours: its objects are none of ours."""
    NOT_OURS = "not ours"
    """Of a type that makes us do nothing."""


class Intake:
    """Takes events in. `secrets` sign webhooks (none: there is no route for them); `livemode` None: both modes."""

    def __init__(self, inbox: Inbox, *, secrets: Sequence[str] = (), livemode: bool | None = None) -> None:
        self._inbox, self.secrets, self._livemode = inbox, tuple(secrets), livemode
        self._versions: set[str] = set()

    async def take(self, event: StripeEvent) -> Taken:
        """Keep an event, once, where it is for us. Raises the 503 problems, after which it may have been kept."""
        if self._livemode not in (None, event.livemode):
            log.error("stripe event of the other mode ignored", **named(event), livemode=event.livemode)
            return Taken.OTHER_MODE
        if event.account:
            log.warning("stripe event of a connected account ignored", **named(event), account=event.account)
            return Taken.OTHER_ACCOUNT
        self._look_at_version(event)
        if event.reaction is None:
            return Taken.NOT_OURS
        return Taken.KEPT if await self._inbox.receive(event) else Taken.DUPLICATE

    def _look_at_version(self, event: StripeEvent) -> None:
        """Tell once of each version but ours. The event counts all the same: its object is asked for again."""
        version = event.api_version
        if version and version != API_VERSION and version not in self._versions:
            self._versions.add(version)
            log.error("stripe events of another version", **named(event), version=version, known=API_VERSION)


def named(event: StripeEvent) -> dict[str, str]:
    """An event as a line of the log names it."""
    return {"stripe_event": event.event_id, "type": event.type, "object": event.object_id}
