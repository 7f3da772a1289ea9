"""Every metric, declared once, and the page that shows them.

Figures of the business come from the store at every scrape, so they are the same from every worker and replica and
never go back: add up nothing over instances, take `max without (instance)`. Figures of the service are the workers'
own, kept in files that outlive them and summed over all workers of one service: `sum` them over instances.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Self

import structlog
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder

from metering.clock import SystemClock
from metering.errors import Problem
from metering.exemplars import Exemplars
from metering.families import (
    BATCHES,
    FAILED,
    INBOX_SAYS,
    NAMED,
    QUEUE_SAYS,
    QUEUED,
    WORK_ROWS,
    Build,
    business,
    overage,
    sales,
    service,
    waiting,
)
from metering.figures import Figures, FiguresError, shared_folder
from metering.latency import Latency
from metering.settings import Settings, StoreKind
from metering.store.batch_stats import BatchStats, QueueStats
from metering.store.counters import Counters
from metering.store.gate import GateRefusedError
from metering.store.keys import Keys
from metering.store.shared import read_shared
from metering.store.top import TopOrgs
from metering.store.totals import Client
from metering.tallies import Tallies
from metering.together import Together
from metering.usage import Outcome, UsageEvent

__all__ = ["BATCHES", "DEADLINE_S", "FLUSH_S", "QUEUED", "Build", "Counted", "Metrics"]

DEADLINE_S: Final = 2.0
"""For the store to answer a scrape: a hundred times what it takes, and well inside Prometheus' ten seconds."""

FLUSH_S: Final = 3.0
"""Between two flushes: how late an organisation may enter the top, and a worker's batches the sums of the others."""

_WORK_CELLS: Final = sum(row.width for row in WORK_ROWS)

log = structlog.get_logger(__name__)


class Metrics:
    """The metrics of one worker: `observe` and `counted` as it works, `flush` every FLUSH_S, `exposition` to show them.

    A context manager: entering opens the figures and raises GateRefusedError when their folder cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        client: Client,
        keys: Keys,
        stats: BatchStats,
        build: Build,
        queue_stats: QueueStats | None = None,
        tallies: Tallies | None = None,
    ) -> None:
        self._folder, self._fake = settings.metrics_dir, settings.store_kind is StoreKind.EPHEMERAL
        self._client, self._keys, self._build = client, keys, build
        self._stats, self._queued, self._tallies = stats, queue_stats or QueueStats(), tallies or Tallies()
        self._top = TopOrgs(client, keys, settings.metrics_top_orgs)
        self._latency = Latency(build.endpoints)
        self._business = Together(self._read)
        self.observe = self._latency.observe
        """Takes method, route template, status and seconds of each request."""
        self._exemplars = Exemplars(build.endpoints, SystemClock().now_ms)
        self.exemplar = self._exemplars.note
        """Takes method, route template, status, seconds and trace id of a request that somebody can look at."""
        self.counted = self._top.note
        """Takes organisation and units of each event that counted."""

    def __enter__(self) -> Self:
        """Open the figures, or go on in those of a worker that ended."""
        rows = [*WORK_ROWS, *self._latency.rows]
        with ExitStack() as stack:
            try:
                folder = self._folder or stack.enter_context(shared_folder())
                self._figures = stack.enter_context(Figures(folder, rows))
            except FiguresError as error:
                raise GateRefusedError(f"metrics: {error}\n    {error.cure}") from error
            self._stack = stack.pop_all()
        self._before = self._figures.cells[:_WORK_CELLS].tolist()
        self._latency.count_in(self._figures.cells[_WORK_CELLS:])
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the figures to the next worker; what is still observed is seen by nobody."""
        self._business.close()
        self._note_work()
        self._stack.close()
        self._latency.count_in(self._figures.cells[_WORK_CELLS:])

    async def flush(self) -> None:
        """Bring what only this worker knows to where all see it. Raises the 503 problems."""
        self._note_work()
        await self._top.flush()

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """The page and its content type: OpenMetrics where `accept` asks for it, else Prometheus' text format."""
        found = await self._business()
        self._note_work()
        page = _Page(
            [*service(self._build, self._figures.sums(), up=bool(found), traced=self._exemplars.all()), *found]
        )
        try:
            encode, kind = choose_encoder(accept)
        except TypeError:  # a version that is none
            encode, kind = choose_encoder("")
        return encode(page), kind

    async def _read(self) -> list[Metric]:
        """The figures of the store; none when it does not give them in time, for zeros would be a lie."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                shared = await read_shared(self._client, self._keys, top=self._top.kept, fake=self._fake)
                totals = shared.totals
                return [
                    *business(totals, await self._top.units(totals.top)),
                    *waiting("metering_queue", QUEUE_SAYS, shared.queue),
                    *waiting("metering_stripe_inbox", INBOX_SAYS, shared.inbox),
                    *overage(shared.outbox, totals.delivered),
                    *sales(totals, self._build.packages),
                ]
        except (Problem, TimeoutError) as error:
            log.warning("scrape without the store", error=repr(error))
            return []

    def _note_work(self) -> None:
        """Show what was counted so far, on top of what the file held before."""
        for cell, (before, now) in enumerate(zip(self._before, self._work(), strict=True)):
            self._figures.cells[cell] = before + now

    def _work(self) -> list[int]:
        """The cells of WORK_ROWS as this worker counted them."""
        stats, tallies = self._stats, self._tallies
        cells = [getattr(stats, name) for name in BATCHES] + [getattr(self._queued, name) for name in QUEUED]
        for field, named in NAMED.items():
            cells += named.cells(getattr(tallies, field))
        return [*cells, *stats.replies_us.cells(), *stats.sizes.cells(), *tallies.lag_us.cells()]


class Counted:
    """Counters that say of every event that counted whose it was and how much; `tallies` says what became of each."""

    def __init__(self, counters: Counters, counted: Callable[[str, int], None], tallies: Tallies | None = None) -> None:
        self._track, self._room, self._stats = counters.track, counters.room, counters.stats
        self._track_all = counters.track_all
        self._counted = counted
        self._events = (tallies or Tallies()).events

    async def track(self, event: UsageEvent) -> Outcome:
        """As `Counters.track`."""
        try:
            outcome = await self._track(event)
        except Problem:
            self._events[FAILED] += 1
            raise
        if outcome.others or event.dry_run:
            self._note(event, outcome)
            return outcome
        self._events[outcome.result] += 1
        if outcome.recorded:  # nearly always; a call and a sum of nothing would cost half a microsecond
            self._counted(event.org_id, outcome.recorded)
        return outcome

    async def track_all(self, events: Sequence[UsageEvent], *, atomic: bool = False) -> list[Outcome | Problem]:
        """As `Counters.track_all`."""
        outcomes = await self._track_all(events, atomic=atomic)
        for event, outcome in zip(events, outcomes, strict=True):
            if isinstance(outcome, Outcome):
                self._note(event, outcome)
            else:
                self._events[FAILED] += 1
        return outcomes

    def _note(self, event: UsageEvent, outcome: Outcome) -> None:
        if event.dry_run:
            return
        self._events[outcome.result] += 1
        units = outcome.recorded + sum(other.recorded for other in outcome.others)
        if units:
            self._counted(event.org_id, units)

    def room(self) -> bool:
        """As `Counters.room`; a no counts as an event shed."""
        room = self._room()
        if not room:
            self._stats.shed += 1
        return room


@dataclass(frozen=True, slots=True)
class _Page:
    """Families in the shape that the encoders take."""

    families: list[Metric]

    def collect(self) -> list[Metric]:
        return self.families
