"""Every metric, declared once, and the page that shows them.

Figures of the business come from the store at every scrape, so they are the same from every worker and replica and
never go back: add up nothing over instances, take `max without (instance)`. Figures of the service are the workers'
own, kept in files that outlive them and summed over all workers of one service: `sum` them over instances.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Self

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from metering.clock import MS_PER_S
from metering.errors import Problem
from metering.figures import Figures, FiguresError, Row, shared_folder
from metering.latency import BOUNDS_S, Latency, histograms
from metering.settings import Settings
from metering.store.batch_stats import BatchStats, QueueStats
from metering.store.counters import Counters
from metering.store.gate import GateRefusedError
from metering.store.keys import Keys
from metering.store.outbox_state import OutboxState, read_outbox_state
from metering.store.queue_state import QueueState, read_inbox_state, read_state
from metering.store.top import OrgUnits, TopOrgs
from metering.store.totals import Client, Totals, read_totals
from metering.usage import Outcome, UsageEvent

DEADLINE_S: Final = 2.0
"""For the store to answer a scrape: a hundred times what it takes, and well inside Prometheus' ten seconds."""

FLUSH_S: Final = 3.0
"""Between two flushes: how late an organisation may enter the top, and a worker's batches the sums of the others."""

BATCHES: Final[Mapping[str, str]] = {
    "calls": "Script calls sent to the store.",
    "events": "Usage events the store answered.",
    "retries": "Times an event was asked again: its answer was lost, or what this worker knew was out of date.",
    "shed": "Events refused because too many were waiting.",
    "parked": "Times an organisation was set aside because its data is corrupt.",
}
"""What metering.store.batcher.BatchStats counts."""

QUEUED: Final[Mapping[str, str]] = {
    "counted": "Events accepted with ack=async that were counted.",
    "duplicates": "Events accepted with ack=async that had been counted before.",
    "refused": "Events accepted with ack=async that were refused: blocked, unknown, in conflict, or of nobody.",
    "given_up": "Events accepted with ack=async that could not be counted: look at them.",
}
"""What metering.store.batch_stats.QueueStats counts."""

_US_PER_S: Final = 1_000_000
_LES: Final = (*map(repr, BOUNDS_S), "+Inf")
_BATCH_ROWS: Final = {name: Row(f"batch|{name}", 1) for name in BATCHES}
_QUEUE_ROWS: Final = {name: Row(f"queue|{name}", 1) for name in QUEUED}
_COUNTS: Final = len(_BATCH_ROWS) + len(_QUEUE_ROWS)

_WHO: Final = "METRICS_TOP_ORGS organisations have one: those with the most units."

Sums = Mapping[Row, list[int]]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Build:
    """What is known before the first request: the release, each (method, route template), the store's durability."""

    release: str
    endpoints: tuple[tuple[str, str], ...]
    lossy: bool


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
    ) -> None:
        self._folder = settings.metrics_dir
        self._client, self._keys, self._build = client, keys, build
        queued = queue_stats or QueueStats()
        self._counts = [(stats, name) for name in BATCHES] + [(queued, name) for name in QUEUED]
        self._top = TopOrgs(client, keys, settings.metrics_top_orgs)
        self._latency = Latency(build.endpoints)
        self.observe = self._latency.observe
        """Takes method, route template, status and seconds of each request."""
        self.counted = self._top.note
        """Takes organisation and units of each event that counted."""

    def __enter__(self) -> Self:
        """Open the figures, or go on in those of a worker that ended."""
        rows = [*_BATCH_ROWS.values(), *_QUEUE_ROWS.values(), *self._latency.rows]
        with ExitStack() as stack:
            try:
                folder = self._folder or stack.enter_context(shared_folder())
                self._figures = stack.enter_context(Figures(folder, rows))
            except FiguresError as error:
                raise GateRefusedError(f"metrics: {error}\n    {error.cure}") from error
            self._stack = stack.pop_all()
        self._before = self._figures.cells[:_COUNTS].tolist()
        self._latency.count_in(self._figures.cells[_COUNTS:])
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the figures to the next worker; what is still observed is seen by nobody."""
        self._note_batches()
        self._stack.close()
        self._latency.count_in(self._figures.cells[_COUNTS:])

    async def flush(self) -> None:
        """Bring what only this worker knows to where all see it. Raises the 503 problems."""
        self._note_batches()
        await self._top.flush()

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """The page and its content type: OpenMetrics where `accept` asks for it, else Prometheus' text format."""
        business = await self._business()
        self._note_batches()
        page = _Page([*_service(self._build, self._figures.sums(), up=bool(business)), *business])
        try:
            encode, kind = choose_encoder(accept)
        except TypeError:  # a version that is none
            encode, kind = choose_encoder("")
        return encode(page), kind

    async def _business(self) -> list[Metric]:
        """The figures of the store; none when it does not give them in time, for zeros would be a lie."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                totals = await read_totals(self._client, self._keys, top=self._top.kept)
                state = await read_state(self._client, self._keys)
                inbox = await read_inbox_state(self._client, self._keys)
                outbox = await read_outbox_state(self._client, self._keys)
                return [
                    *_business(totals, await self._top.units(totals.top)),
                    *_waiting("metering_queue", _QUEUE_SAYS, state),
                    *_waiting("metering_stripe_inbox", _INBOX_SAYS, inbox),
                    *_overage(outbox, totals.delivered),
                ]
        except (Problem, TimeoutError) as error:
            log.warning("scrape without the store", error=repr(error))
            return []

    def _note_batches(self) -> None:
        """Show what the batcher counted, on top of what the file held before."""
        for cell, (stats, name) in enumerate(self._counts):
            self._figures.cells[cell] = self._before[cell] + getattr(stats, name)


class Counted:
    """Counters that say of every event that counted whose it was and how much."""

    def __init__(self, counters: Counters, counted: Callable[[str, int], None]) -> None:
        self._track, self._room, self._stats = counters.track, counters.room, counters.stats
        self._track_all = counters.track_all
        self._counted = counted

    async def track(self, event: UsageEvent) -> Outcome:
        """As `Counters.track`."""
        outcome = await self._track(event)
        if outcome.others or event.dry_run:
            self._note(event, outcome)
        elif outcome.recorded:  # nearly always; a call and a sum of nothing would cost half a microsecond
            self._counted(event.org_id, outcome.recorded)
        return outcome

    async def track_all(self, events: Sequence[UsageEvent], *, atomic: bool = False) -> list[Outcome | Problem]:
        """As `Counters.track_all`."""
        outcomes = await self._track_all(events, atomic=atomic)
        for event, outcome in zip(events, outcomes, strict=True):
            if isinstance(outcome, Outcome):
                self._note(event, outcome)
        return outcomes

    def _note(self, event: UsageEvent, outcome: Outcome) -> None:
        units = outcome.recorded + sum(other.recorded for other in outcome.others)
        if units and not event.dry_run:
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


# ── the service ──────────────────────────────────────────────────────────────────────────────────────────


def _service(build: Build, sums: Sums, *, up: bool) -> Iterator[Metric]:
    """What the workers know of themselves."""
    yield _gauge("metering_store_up", "Whether the store answered this scrape in time.", [((), up)])
    about = "Whether the store may lose acknowledged events in a crash."
    yield _gauge("metering_lossy_ledger", about, [((), build.lossy)])
    about = "The release that runs, as a label; always 1."
    yield _gauge("metering_build_info", about, [((build.release,), 1)], "version")
    for name, about in BATCHES.items():
        yield _counter(f"metering_batch_{name}", about, [((), sums[_BATCH_ROWS[name]][0])])
    for name, about in QUEUED.items():
        yield _counter(f"metering_queue_{name}", about, [((), sums[_QUEUE_ROWS[name]][0])])
    yield _durations(sums)


def _durations(sums: Sums) -> Metric:
    family = HistogramMetricFamily(
        "scorpius_usage_api_duration_seconds",
        "Time from a request's head to the end of its answer, by route template and class of status.",
        labels=("method", "endpoint", "status"),
    )
    for series in histograms(sums):
        buckets = list(zip(_LES, accumulate(series.buckets), strict=True))
        family.add_metric((series.method, series.endpoint, series.status), buckets, series.sum_us / _US_PER_S)
    return family


# ── the business ─────────────────────────────────────────────────────────────────────────────────────────


def _business(totals: Totals, top: list[OrgUnits]) -> Iterator[Metric]:
    """What the store knows of its organisations."""
    yield _gauge("scorpius_total_organizations", "Organisations there are.", [((), totals.orgs)])
    plans = [((plan,), orgs) for plan, orgs in totals.plans.items()]
    yield _gauge("scorpius_plan_distribution", "Organisations on each plan.", plans, "plan")
    events = [((kind,), number) for kind, number in totals.events.items()]
    about = "Billing events ever (not usage events), by type."
    yield _counter("scorpius_billing_events", about, events, "event_type")
    units = [((feature, plan), number) for (plan, feature), number in totals.units.items()]
    about = "Units (not events) ever used by all organisations, by the plan they were on when they used them."
    yield _counter("scorpius_feature_usage", about, units, "feature", "plan")
    taken = [((feature,), number) for feature, number in totals.taken_out.items()]
    about = "Units (not events) ever taken out by corrections; the series of units keep them."
    yield _counter("scorpius_feature_usage_taken_out", about, taken, "feature")
    sums = [((org.org_id,), org.total) for org in top]
    about = "Units ever used by each organisation with a series, all features together. " + _WHO
    yield _counter("scorpius_org_usage", about, sums, "org_id")
    each = [((org.org_id, *place), number) for org in top for place, number in org.units.items()]
    about = (
        "Units ever used by each organisation with a series, by the plan it was on when it used them: a plan change "
        "begins another series and leaves this one where it is. " + _WHO
    )
    yield _counter("scorpius_usage", about, each, "org_id", "feature", "plan")


_QUEUE_SAYS: Final = (
    "Events accepted with ack=async that are not decided yet.",
    "Age of the oldest of them; 0 where there is none.",
    "Events given up and not looked at yet.",
)
_INBOX_SAYS: Final = (
    "Events of Stripe that came in and have not taken effect yet.",
    "Age of the oldest of them; 0 where there is none.",
    "Events of Stripe that could not take effect, and that nobody has tried again.",
)


def _waiting(name: str, says: tuple[str, str, str], state: QueueState) -> Iterator[Metric]:
    """What the store knows of one kind of its queues."""
    figures = (state.length, max(0, state.age_ms) / MS_PER_S, state.dead)
    for kind, about, figure in zip(("entries", "oldest_seconds", "dead"), says, figures, strict=True):
        yield _gauge(f"{name}_{kind}", about, [((), figure)])


def _overage(state: OutboxState, delivered: Mapping[str, int]) -> Iterator[Metric]:
    """What the store knows of overage on its way to Stripe."""
    about = (
        "Overage that Stripe has not been told: counters not sealed yet, windows on their way, windows refused, and "
    )
    about += "counters of organisations without a Stripe customer."
    figures = {"unsealed": state.unsealed, "on_its_way": state.windows, "dead": state.dead, "unbilled": state.unbilled}
    series = [((name,), figure) for name, figure in figures.items()]
    yield _gauge("metering_overage_entries", about, series, "state")
    about = "Age of the oldest overage that somebody pays for and Stripe was not told of; 0 where there is none."
    yield _gauge("metering_overage_oldest_seconds", about, [((), state.age_ms // MS_PER_S)])
    about = "Windows of overage that Stripe took: new to it, or known to it already, as the answer before was lost."
    series = [((how,), delivered.get(how, 0)) for how in ("known", "new")]
    yield _counter("metering_overage_delivered", about, series, "how")
    about = "Units by which Stripe's sums differed from what it took by our books, at the last reconciliation."
    yield _gauge("metering_stripe_drift_units", about, [((), state.drift.units)])
    about = "When that was, in seconds since the epoch; 0: never."
    yield _gauge("metering_stripe_reconciled_seconds", about, [((), state.drift.at_ms // MS_PER_S)])


Series = Iterable[tuple[tuple[str, ...], float]]
"""Of each series the values of its labels, and its own."""


def _gauge(name: str, about: str, series: Series, *labels: str) -> Metric:
    family = GaugeMetricFamily(name, about, labels=labels)
    for names, value in sorted(series):
        family.add_metric(names, value)
    return family


def _counter(name: str, about: str, series: Series, *labels: str) -> Metric:
    """A counter; the encoders put `_total` after its name."""
    family = CounterMetricFamily(name, about, labels=labels)
    for names, value in sorted(series):
        family.add_metric(names, value)
    return family
