"""What `metering stripe outbox` does, on the store that the service uses. Every failure is an AccessError."""

import getpass
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from metering.billing.desk import Desk
from metering.clock import SystemClock
from metering.settings import Settings
from metering.store.fields import FieldCodec
from metering.store.outbox import Outbox
from metering.store.timing import StoreTime, settled_offset
from metering.store.window import State, Window
from metering.store.window_lists import WAITING, Place, WindowLists
from metering.store_access import opened

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


def _who() -> str:
    """Who the audit says it was: the user of this machine."""
    return f"cli:{getpass.getuser()}"
