"""What `metering stripe outbox` and `reconcile` do, on the service's store. Every failure is an AccessError."""

import getpass
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from metering.billing.desk import Desk
from metering.billing.reconcile import Line
from metering.billing.wiring import Ground, reconciler_of, shadow_sums
from metering.clock import SystemClock
from metering.settings import Settings
from metering.store.customers import Customers
from metering.store.fields import FieldCodec
from metering.store.orgs import Orgs
from metering.store.outbox import Outbox
from metering.store.timing import StoreTime, settled_offset
from metering.store.window import State, Window
from metering.store.window_lists import WAITING, Place, WindowLists
from metering.store_access import AccessError, opened
from metering.stripe_tasks import stripe_of
from plans.catalogue import parse

_PAGE: Final = 500


async def shown(settings: Settings, org_id: str | None, *, dead: bool) -> list[Window]:
    """The windows that Stripe does not have, or those of them that are dead."""
    states = {State.DEAD} if dead else WAITING
    found: list[Window] = []
    async with _desk(settings) as desk:
        place: Place | None = None
        more = True
        while more:
            page, place = await desk.page(states, org_id, _PAGE, place)
            found += [listed.window for listed in page]
            more = place is not None
    return found


async def replay(settings: Settings, windows: Sequence[str]) -> None:
    """Let dead windows be sent again."""
    async with _desk(settings) as desk:
        for name in windows:
            await desk.replay(name, by=_who())


async def discard(settings: Settings, windows: Sequence[str], reason: str) -> None:
    """Write dead windows off."""
    async with _desk(settings) as desk:
        for name in windows:
            await desk.discard(name, reason, by=_who())


@asynccontextmanager
async def _desk(settings: Settings) -> AsyncIterator[Desk]:
    async with opened(settings) as access:
        client, keys = access.client, access.keys
        time = StoreTime(SystemClock(), await settled_offset(client, keys, test_clock=settings.test_clock))
        outbox = Outbox(client, keys, time, FieldCodec(), access.dataset.id)
        yield Desk(outbox, WindowLists(client, keys), time.now_ms)


async def reconciled(settings: Settings, org_id: str | None, *, shadow: bool = False) -> list[Line]:
    """Our books against Stripe's, or those of the second account, of one organisation or all."""
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(stripe_of(settings, SystemClock(), shadow=shadow))
        access = await stack.enter_async_context(opened(settings))
        client, keys, codec = access.client, access.keys, FieldCodec()
        time = StoreTime(SystemClock(), await settled_offset(client, keys, test_clock=settings.test_clock))
        catalogue = parse(*settings.plans_text())
        customers = Customers(client, keys, codec, access.dataset.secret)
        orgs = Orgs(client, keys, catalogue, time, codec, fake=False, customers=customers)
        ground = Ground(
            settings, catalogue, client, keys, time, codec, SystemClock(), access.dataset.secret, access.dataset.id,
            _not_asked, fake=False,
        )  # fmt: skip
        sums = shadow_sums(ground, gateway, customers) if shadow else gateway
        reconciler = reconciler_of(ground, sums, orgs, customers)
        if org_id is None:
            return [line async for line in reconciler.lines()]
        org = await orgs.get(org_id)
        if org is None:
            raise AccessError(f"no organisation {org_id}", "Check the id.")
        return await reconciler.of([org])


async def _not_asked(org_id: str, at_ms: int) -> bool:  # noqa: ARG001 - what a ground tells of queues
    """Nothing is made final here."""
    return False


def _who() -> str:
    """Who the audit says it was: the user of this machine."""
    return f"cli:{getpass.getuser()}"
