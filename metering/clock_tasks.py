"""What `metering clock` does: shows a data set's test clock, and lets time pass as it would, one due thing at a time.

Between two instants at which something falls due nothing happens, so the clock jumps from one to the next; at each the
sandbox Stripe does what is due, the service reacts, and only then time goes on.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from metering.clock import MS_PER_S, Clock
from metering.moments import rfc3339
from metering.sandbox_client import NoSandboxError, SandboxClient, sandbox_at
from metering.settings import Settings, SettingsError
from metering.store.orgs import Orgs
from metering.store.quiet import left_to_do, next_end
from metering.store.timing import FOLLOW_S, StoreTime, age_minutes, move_test_clock, stored_offset
from metering.store_access import Access, AccessError, opened
from plans.catalogue import CatalogueError, parse

PATIENCE_S: Final = 90.0
"""How long the service may take at one instant: longer than a push that was broken off is left alone."""

LOOK_S: Final = 0.25
"""Between two looks. Both must find nothing: what is on its way from one list to the next is in neither."""

STRIDE_MS: Final = 3_600_000
"""Periods of organisations that end within an hour are closed in one stop: a thousand of them are no thousand stops."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Reading:
    """A test clock: its time, and how far it is ahead of the machine's."""

    now_ms: int
    offset_ms: int


async def read_clock(settings: Settings) -> Reading:
    """Where the test clock is. Raises AccessError where the data set has none."""
    async with opened(settings) as access:
        offset_ms = await _offset(access)
        return Reading(await _time(access) + offset_ms, offset_ms)


async def advance(
    settings: Settings, clock: Clock, ahead_ms: int, tell: Tell, *, patience_s: float = PATIENCE_S
) -> Reading:
    """Let `ahead_ms` pass. Raises AccessError where time may not be moved, or the service does not keep up."""
    if settings.stripe_livemode():
        raise AccessError("real money is billed by real time", "Use a data set with a test key, or with the sandbox.")
    try:
        async with _traveller(settings, clock, tell, patience_s) as traveller:
            await traveller.travel(ahead_ms)
            return Reading(await traveller.now_ms(), traveller.time.test_offset_ms or 0)
    except NoSandboxError as error:
        raise AccessError(str(error), "Start the service with --sandbox, or leave STRIPE_API_BASE out.") from error


@asynccontextmanager
async def _traveller(settings: Settings, clock: Clock, tell: Tell, patience_s: float) -> AsyncIterator["Traveller"]:
    try:
        catalogue = parse(*settings.plans_text())
    except (SettingsError, CatalogueError) as error:
        raise AccessError(str(error), "`metering plans check FILE` says more.") from error
    async with opened(settings) as access, sandbox_at(settings.stripe_api_base) as sandbox:
        time = StoreTime(clock, await _offset(access))
        orgs = Orgs(access.client, access.keys, catalogue, time, access.codec, fake=False)
        pays = settings.stripe_secret_key is not None
        yield Traveller(access, time, orgs, sandbox, pays=pays, tell=tell, patience_s=patience_s)


class Traveller:
    """Moves the clock of one data set. `pays`: the service has a Stripe that takes overage."""

    def __init__(
        self,
        access: Access,
        time: StoreTime,
        orgs: Orgs,
        sandbox: SandboxClient | None,
        *,
        pays: bool,
        tell: Tell,
        patience_s: float,
    ) -> None:
        self._access, self.time, self._orgs, self._sandbox = access, time, orgs, sandbox
        self._pays, self._tell, self._patience_s = pays, tell, patience_s

    async def now_ms(self) -> int:
        """The data set's time."""
        return await _time(self._access) + (self.time.test_offset_ms or 0)

    async def travel(self, ahead_ms: int) -> None:
        """Go on to the target from one instant at which something falls due to the next."""
        target_ms = await self.now_ms() + ahead_ms
        await self._settle()
        while (now_ms := await self.now_ms()) < target_ms:
            await self._move(await self._stop(now_ms, target_ms) - now_ms)
            await self._settle()

    async def _stop(self, now_ms: int, target_ms: int) -> int:
        """Where to stop next: at the target, or before it where something falls due."""
        stops = [target_ms]
        if self._sandbox is not None:
            due_ms = (await self._sandbox.due()).next_ms
            stops += [] if due_ms is None else [due_ms]
        ends_ms = await next_end(self._access.client, self._access.keys, now_ms)
        stops += [] if ends_ms is None else [max(ends_ms, now_ms + STRIDE_MS)]
        return max(now_ms + 1, min(stops))

    async def _move(self, ahead_ms: int) -> None:
        client, offset_ms = self._access.client, (self.time.test_offset_ms or 0) + ahead_ms
        await move_test_clock(client, self._access.keys, offset_ms)
        self.time.test_offset_ms = offset_ms
        await age_minutes(client, ahead_ms)
        self._tell(rfc3339(await self.now_ms()))

    async def _settle(self) -> None:
        """Have everything done that is due now: at Stripe first, whose word closes periods, then here."""
        if self._sandbox is not None:
            await self._sandbox.run()
        await self._quiet()
        await self._orgs.sweep()
        await self._quiet()

    async def _quiet(self) -> None:
        """Wait until nothing is left to do. Raises AccessError when that takes too long."""
        waited_s, calm = 0.0, 0
        while calm < 2:  # noqa: PLR2004 - two looks in a row
            await asyncio.sleep(max(LOOK_S, FOLLOW_S))
            waited_s += LOOK_S
            left = await self._left()
            calm = 0 if left else calm + 1
            if left and waited_s > self._patience_s:
                told = ", ".join(f"{number} {name}" for name, number in left.items())
                at = rfc3339(await self.now_ms())
                raise AccessError(
                    f"the service was not done after {self._patience_s:g} s, the clock stands at {at}; left: {told}",
                    "Does the service run? Its log says what it waits for. Then run the command again.",
                )

    async def _left(self) -> dict[str, int]:
        access = self._access
        left = dict(await left_to_do(access.client, access.keys, await self.now_ms(), pays=self._pays))
        if self._sandbox is not None and (deliveries := (await self._sandbox.due()).deliveries):
            left["webhooks on their way"] = deliveries
        return left


async def _offset(access: Access) -> int:
    offset_ms = await stored_offset(access.client, access.keys)
    if offset_ms is None:
        cure = "Start the service with --sandbox, or with TEST_CLOCK=true and a test key."
        raise AccessError("this data set has no test clock: its time is the real one", cure)
    return offset_ms


async def _time(access: Access) -> int:
    seconds, micros = await access.client.time()
    return int(seconds) * MS_PER_S + int(micros) // MS_PER_S
