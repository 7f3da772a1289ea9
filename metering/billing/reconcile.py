"""Reconciliation: what was counted, what was sealed, what Stripe took by our books, and what Stripe itself has.

Stripe's sum is of a customer and a meter, so it is held against the journal of that lane, whoever's units are in it.
Both are taken over whole hours, rounded out from the period. Nothing is changed here.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import structlog

from metering.billing.errors import GatewayError
from metering.billing.gateway import StripeObject
from metering.clock import MS_PER_S
from metering.errors import OrgCorrupt
from metering.store.drift import Drift, DriftBook
from metering.store.frames import HOUR_MS
from metering.store.org import Org
from metering.store.orgs import Orgs
from metering.store.outbox import Outbox
from metering.store.pace import StorePace
from metering.store.stripe_lanes import Lanes
from metering.store.window_lists import WindowLists
from plans.catalogue import Catalogue
from plans.periods import Period

RECONCILE_S: Final = 3600.0
"""Between two looks at everything: a call to Stripe for each lane and period."""

_FRESH_MS: Final = 55 * 60_000
"""A look of another worker that is younger is enough."""

QUIET_MS: Final = 60 * 60_000
"""Stripe's sums lag behind what it took: until a lane was quiet for so long, a difference may be nothing."""

PAGE: Final = 100

log = structlog.get_logger(__name__)


class Verdict(StrEnum):
    """What a comparison says."""

    EVEN = "even"
    SETTLING = "settling"  # they differ, and something of the lane came to Stripe within the hour
    DRIFT = "drift"
    UNBILLED = "unbilled"  # nobody pays, or the feature has no meter: Stripe has nothing to compare with
    UNKNOWN = "unknown"  # Stripe could not be asked


class Sums(Protocol):
    """What is asked of a gateway."""

    async def meters(self) -> list[StripeObject]:
        """Every meter."""
        ...

    async def meter_usage(self, meter_id: str, customer: str, start_s: int, end_s: int) -> int:
        """Units of a customer in [start, end), both at whole minutes."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """One organisation, feature and period. `overage` is net of what was given back, `sealed` of what was netted.

    `journal` and `stripe` are of the whole lane; `drift` is what Stripe lacks, below zero what it has more.
    """

    org_id: str
    feature: str
    period: Period
    overage: int
    sealed: int
    delivered: int
    written_off: int
    customer: str
    journal: int | None
    stripe: int | None
    verdict: Verdict

    @property
    def drift(self) -> int | None:
        """Units that Stripe lacks; None where they cannot be compared."""
        return None if self.journal is None or self.stripe is None else self.journal - self.stripe


@dataclass(frozen=True, slots=True)
class Books:
    """What a reconciliation reads."""

    orgs: Orgs
    outbox: Outbox
    lanes: Lanes
    lists: WindowLists
    drift: DriftBook
    catalogue: Catalogue
    pace: StorePace
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


class Reconciler:
    """Compares. Raises the 503 problems of the store."""

    def __init__(self, books: Books, stripe: Sums) -> None:
        self._books, self._stripe = books, stripe
        self._meters = {name: feature.stripe_meter_event for name, feature in books.catalogue.features.items()}
        self._meter_ids: dict[str, str] = {}
        self._asked_for = False
        self.woken = asyncio.Event()
        """Set by `run`: the next look is now."""

    def run(self) -> None:
        """Look at everything soon, however young the last look is."""
        self._asked_for = True
        self.woken.set()

    async def turn(self) -> None:
        """Look at everything, unless some worker did lately, and note what differs."""
        now_ms = await self._books.orgs.server_now()
        if not self._asked_for and now_ms - (await self._books.drift.read()).at_ms < _FRESH_MS:
            return
        self._asked_for = False
        found: dict[tuple[str, str, int], int] = {}
        async for line in self.lines():
            if line.verdict is Verdict.DRIFT and line.drift is not None:
                meter = self._meters.get(line.feature) or ""
                found[line.customer, meter, line.period.start_ms] = abs(line.drift)
                log.error("Stripe's sum differs", org=line.org_id, feature=line.feature, drift=line.drift)
        await self._books.drift.note(Drift(sum(found.values()), len(found), now_ms))

    async def lines(self, start_ms: int | None = None) -> AsyncIterator[Line]:
        """All organisations, one after the other."""
        cursor = None
        while True:
            orgs, cursor = await self._books.orgs.page(cursor, PAGE)
            for line in await self.of(orgs, start_ms):
                yield line
            if cursor is None:
                return

    async def of(self, orgs: list[Org], start_ms: int | None = None) -> list[Line]:
        """The lines of some organisations: of the period that began then, or the running one and the one before."""
        now_ms = await self._books.orgs.server_now()
        moving = {
            (customer, self._meters.get(feature))
            for customer, feature in await self._books.lists.moving(now_ms - QUIET_MS)
        }
        found: list[Line] = []
        for org in orgs:
            for member in _members(org, self._books.catalogue, start_ms):
                try:
                    line = await self._line(org, member, now_ms, moving)
                except OrgCorrupt as problem:
                    log.warning("overage not compared", org=org.org_id, code=problem.code)
                    continue
                if line is not None:
                    found.append(line)
        return found

    async def _line(self, org: Org, member: str, now_ms: int, moving: set[tuple[str, str | None]]) -> Line | None:
        counter = await self._books.outbox.counter(member)
        if counter is None or not counter.figures.accrued:
            return None
        figures, period = counter.figures, counter.period
        delivered, written_off = await self._books.outbox.settled_sums(member)
        customer, meter = org.profile.stripe_customer_id or "", self._meters.get(counter.feature)
        journal = stripe = None
        verdict = Verdict.UNBILLED
        if customer and meter:
            journal, stripe = await self._compared(customer, meter, _hours(period, now_ms))
            verdict = _verdict(journal, stripe, moving=(customer, meter) in moving)
        return Line(
            org.org_id, counter.feature, period, figures.accrued - figures.back, figures.sealed - figures.netted,
            delivered, written_off, customer, journal, stripe, verdict,
        )  # fmt: skip

    async def _compared(self, customer: str, meter: str, span: Period) -> tuple[int, int | None]:
        """The journal's sum of a lane, and Stripe's (None: it could not be asked)."""
        journal = await self._books.lanes.span(self._books.lanes.name(customer, meter), span.start_ms, span.end_ms)
        while wait_s := await self._books.pace.wait_s():
            await self._books.pause(wait_s)
        try:
            meter_id = await self._meter_id(meter)
            if meter_id is None:
                return journal, None
            found = await self._stripe.meter_usage(
                meter_id, customer, span.start_ms // MS_PER_S, span.end_ms // MS_PER_S
            )
        except GatewayError as error:
            log.warning("Stripe's sum not read", meter=meter, why=error.message or type(error).__name__)
            return journal, None
        return journal, found

    async def _meter_id(self, meter: str) -> str | None:
        if meter not in self._meter_ids:
            self._meter_ids = {one["event_name"]: one["id"] for one in await self._stripe.meters()}
        return self._meter_ids.get(meter)


def _members(org: Org, catalogue: Catalogue, start_ms: int | None) -> Iterator[str]:
    """How the store names the counters of an organisation's periods that are looked at."""
    before = None if org.before is None else org.before.start_ms
    starts = [org.period.start_ms, before] if start_ms is None else [start_ms]
    for feature in catalogue.features:
        for start in starts:
            if start is not None:
                yield f"{org.org_id}|{feature}" + ("" if start == org.period.start_ms else f"|{start}")


def _hours(period: Period, now_ms: int) -> Period:
    """The whole hours of a period up to now."""
    end_ms = min(period.end_ms, max(now_ms, period.start_ms) + HOUR_MS)
    return Period(period.start_ms // HOUR_MS * HOUR_MS, -(-end_ms // HOUR_MS) * HOUR_MS)


def _verdict(journal: int, stripe: int | None, *, moving: bool) -> Verdict:
    if stripe is None:
        return Verdict.UNKNOWN
    if journal == stripe:
        return Verdict.EVEN
    return Verdict.SETTLING if moving else Verdict.DRIFT
