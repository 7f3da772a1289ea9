"""What `metering stripe` does with events, on the store that the service uses. Every failure is an AccessError."""

from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager

from metering.billing.catch_up import CatchUp, Caught
from metering.billing.errors import GatewayError
from metering.billing.gateway import Gateway
from metering.billing.wiring import gateway_of, intake_of, shade_of
from metering.clock import Clock
from metering.settings import Settings
from metering.store.event_cursor import EventCursor
from metering.store.gate import GateRefusedError
from metering.store.inbox import Inbox, Letter
from metering.store.timing import StoreTime
from metering.store_access import Access, AccessError, opened


async def catch_up(settings: Settings, clock: Clock) -> Caught:
    """Read the events that no webhook brought; the running service makes them take effect."""
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(stripe_of(settings, clock))
        access = await stack.enter_async_context(opened(settings))
        intake = intake_of(settings, _inbox(access))
        reading = CatchUp(gateway, intake, EventCursor(access.client, access.keys), StoreTime(clock).now_ms)
        try:
            return await reading.run()
        except GatewayError as error:
            raise failed(error, "What was read is kept: run it again.") from error


async def dead_events(settings: Settings) -> list[Letter]:
    """The events that could not take effect, the oldest first."""
    async with opened(settings) as access:
        return await _inbox(access).dead()


async def replay(settings: Settings, event_ids: Collection[str]) -> int:
    """Put events that could not take effect back into the inbox, all where none is named; how many."""
    async with opened(settings) as access:
        inbox = _inbox(access)
        dead = await inbox.dead()
        if unknown := set(event_ids) - {letter.event_id for letter in dead}:
            names = ", ".join(sorted(unknown))
            raise AccessError(f"not among the dead events: {names}", "`metering stripe dead-events list` shows them.")
        chosen = [letter for letter in dead if not event_ids or letter.event_id in event_ids]
        return sum([await inbox.revive(letter) for letter in chosen])


def _inbox(access: Access) -> Inbox:
    return Inbox(access.client, access.keys, access.dataset.secret)


@asynccontextmanager
async def stripe_of(settings: Settings, clock: Clock, *, shadow: bool = False) -> AsyncIterator[Gateway]:
    """Stripe, or its second account, while the block runs. Raises AccessError where its key is missing, or does not
    fit.
    """
    try:
        gateway = (shade_of if shadow else gateway_of)(settings, clock)
    except GateRefusedError as error:
        raise AccessError(str(error), "Take one of the two back.") from error
    if gateway is None and shadow:
        raise AccessError("there is no second account", "Set STRIPE_SHADOW_KEY.")
    if gateway is None:
        raise AccessError("there is no key for Stripe", "Set STRIPE_SECRET_KEY, or start with --sandbox.")
    try:
        yield gateway
    finally:
        await gateway.close()


def failed(error: GatewayError, cure: str) -> AccessError:
    """What Stripe said, as a command tells it."""
    return AccessError(f"Stripe: {error.message or type(error).__name__}", cure)
