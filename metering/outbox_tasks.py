"""What `metering stripe outbox`, `reconcile` and `repair` do, on the service's store.

Every failure is an AccessError.
"""

import getpass
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from metering.billing.desk import Desk
from metering.billing.gateway import Gateway
from metering.billing.reconcile import Line
from metering.billing.repair import Step
from metering.billing.wiring import Ground, desk_of, reconciler_of, repairer_of, shadow_sums
from metering.clock import SystemClock
from metering.settings import Settings
from metering.store.customers import Customers
from metering.store.orgs import Orgs
from metering.store.outbox import Outbox
from metering.store.shadow_book import ShadowBook
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
        outbox = Outbox(client, keys, time, access.codec, access.dataset.id)
        yield Desk(outbox, WindowLists(client, keys, access.codec), time.now_ms)


async def reconciled(settings: Settings, org_id: str | None, *, shadow: bool = False) -> list[Line]:
    """Our books against Stripe's, or those of the second account, of one organisation or all."""
    async with _beside_stripe(settings, shadow=shadow) as side:
        sums = shadow_sums(side.ground, side.gateway, side.customers) if shadow else side.gateway
        reconciler = reconciler_of(side.ground, sums, side.orgs, side.customers)
        if org_id is None:
            return [line async for line in reconciler.lines()]
        org = await side.orgs.get(org_id)
        if org is None:
            raise AccessError(f"no organisation {org_id}", "Check the id.")
        return await reconciler.of([org])


async def repaired(settings: Settings, *, apply: bool) -> list[Step]:
    """What Stripe's sums prove of dead windows; with `apply` those of which anything is proved go again."""
    async with _beside_stripe(settings) as side:
        repairer = repairer_of(side.ground, side.gateway, desk_of(side.ground), side.customers)
        return await (repairer.apply(by=_who()) if apply else repairer.plan())


@dataclass(frozen=True, slots=True)
class _Side:
    """Store and Stripe together."""

    ground: Ground
    gateway: Gateway
    orgs: Orgs
    customers: Customers


@asynccontextmanager
async def _beside_stripe(settings: Settings, *, shadow: bool = False) -> AsyncIterator[_Side]:
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(stripe_of(settings, SystemClock(), shadow=shadow))
        access = await stack.enter_async_context(opened(settings))
        client, keys, codec = access.client, access.keys, access.codec
        time = StoreTime(SystemClock(), await settled_offset(client, keys, test_clock=settings.test_clock))
        catalogue = parse(*settings.plans_text())
        customers = Customers(client, keys, codec, access.dataset.secret)
        orgs = Orgs(client, keys, catalogue, time, codec, fake=False, customers=customers)
        ground = Ground(
            settings, catalogue, client, keys, time, codec, SystemClock(), access.dataset.secret, access.dataset.id,
            _not_asked, fake=False,
        )  # fmt: skip
        yield _Side(ground, gateway, orgs, customers)


async def shadowed(settings: Settings) -> dict[str, int]:
    """What became of windows at the second account, since it is told: how many of each outcome."""
    async with opened(settings) as access:
        counts = await ShadowBook(access.client, access.keys, access.codec, "").counts()
        return {outcome.value: windows for outcome, windows in counts.items()}


async def _not_asked(org_id: str, at_ms: int) -> bool:  # noqa: ARG001 - what a ground tells of queues
    """Nothing is made final here."""
    return False


def _who() -> str:
    """Who the audit says it was: the user of this machine."""
    return f"cli:{getpass.getuser()}"
