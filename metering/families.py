"""What the figures look like on the page: each metric's name, its words, its labels.

What a worker counts under names or in buckets is declared in tables here, which give both its cells in the files and
its series on the page.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from metering.billing.errors import OUTCOMES
from metering.billing.intake import Taken
from metering.clock import MS_PER_S
from metering.errors import leaves
from metering.exemplars import Traced, TracedRequests
from metering.figures import Row
from metering.latency import BOUNDS_S, histograms
from metering.store import totals as known
from metering.store.batch_stats import SIZES
from metering.store.outbox_state import OutboxState
from metering.store.queue_state import QueueState
from metering.store.top import OrgUnits
from metering.store.totals import Totals
from metering.tallies import BOUNDS_US
from metering.usage import Result
from webhooks.signature import Verdict

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

FAILED: Final = "failed"
"""An event that could not be decided: the store was away, or the organisation's data is corrupt."""

UNREADABLE: Final = "unreadable"
"""A webhook that is signed and no event of Stripe's."""

OTHER: Final = "other"

WATCHED: Final = (
    "overage_started", "invoice.paid", "invoice.payment_failed", "payment_intent.succeeded",
    "payment_intent.payment_failed", "charge.refunded",
)  # fmt: skip
"""Billing events that have a series before the first one: what grows from nothing is no growth to Prometheus."""

JOBS: Final = (
    "withdrawn", "key uses", "jwks", "metrics", "queue", "catalogue", "test clock", "lag", "sweep", "spent", "holds",
    "raw events", "credits", "erasure", "conservation", "stripe events", "stripe catch-up", "stripe's return", "grace",
    "top-ups", "customers", "reconciliation", "shadow", "overage", "unbilled", "final periods", "pruning",
)  # fmt: skip
"""The jobs beside the requests; those that are not named here are counted as `other`."""


@dataclass(frozen=True, slots=True)
class Named:
    """A counter with one label, and the values it may have besides `other`."""

    metric: str
    about: str
    label: str
    names: tuple[str, ...]

    def rows(self) -> list[Row]:
        """Its cells in the files: one for each name."""
        return [Row(f"{self.metric}|{name}", 1) for name in (*self.names, OTHER)]

    def cells(self, counts: Mapping[str, int]) -> list[int]:
        """The counts in the order of `rows`."""
        listed = [counts.get(name, 0) for name in self.names]
        return [*listed, sum(counts.values()) - sum(listed)]


NAMED: Final[Mapping[str, Named]] = {
    "events": Named(
        "metering_events",
        "Usage events (not units) by what became of them; duplicates were counted before. Dry runs are left out.",
        "outcome",
        (*Result, FAILED),
    ),
    "refusals": Named(
        "metering_refusals",
        "Requests answered with a problem, by its code.",
        "code",
        tuple(sorted(problem.code for problem in leaves())),
    ),
    "webhooks": Named(
        "metering_webhooks",
        "Webhooks of Stripe by what became of them: kept, known already, not for us, or not believed.",
        "outcome",
        (*Taken, *(verdict for verdict in Verdict if verdict is not Verdict.GENUINE), UNREADABLE),
    ),
    "conservation": Named(
        "metering_conservation_checks",
        "Looks at one organisation's sums, by whether they held.",
        "outcome",
        ("held", "broken"),
    ),
    "stripe_calls": Named("metering_stripe_calls", "Calls to Stripe by what became of them.", "outcome", OUTCOMES),
    "job_failures": Named("metering_job_failures", "Turns of the jobs beside the requests that failed.", "loop", JOBS),
}
"""What metering.tallies.Tallies counts by name, by the name of its field."""


@dataclass(frozen=True, slots=True)
class Spreading:
    """A histogram without labels. Its bounds and its sum are whole numbers, `per` of which make one unit."""

    metric: str
    about: str
    bounds: tuple[int, ...]
    per: int

    def row(self) -> Row:
        """Its cells: the buckets, the one without a bound, the sum."""
        return Row(self.metric, len(self.bounds) + 2)

    def family(self, cells: Sequence[int]) -> Metric:
        """As it is shown."""
        les = [repr(bound / self.per) if self.per > 1 else str(bound) for bound in self.bounds]
        buckets = list(zip((*les, "+Inf"), accumulate(cells[:-1]), strict=True))
        family = HistogramMetricFamily(self.metric, self.about)
        family.add_metric((), buckets, cells[-1] / self.per)
        return family


_US_PER_S: Final = 1_000_000

SPREADS: Final = (
    Spreading(
        "metering_store_call_seconds",
        "Time from sending a script call of events to its answer: the store, its disk and the way there.",
        BOUNDS_US,
        _US_PER_S,
    ),
    Spreading("metering_batch_size_events", "Events that went out in one call.", SIZES, 1),
    Spreading(
        "metering_loop_lag_seconds", "How late a worker's loop was, looked at each second.", BOUNDS_US, _US_PER_S
    ),
)
"""What BatchStats and Tallies hold as spreads."""

_LES: Final = (*map(repr, BOUNDS_S), "+Inf")
BATCH_ROWS: Final = {name: Row(f"batch|{name}", 1) for name in BATCHES}
QUEUE_ROWS: Final = {name: Row(f"queue|{name}", 1) for name in QUEUED}
WORK_ROWS: Final = (
    *BATCH_ROWS.values(),
    *QUEUE_ROWS.values(),
    *(row for named in NAMED.values() for row in named.rows()),
    *(spread.row() for spread in SPREADS),
)
"""What a worker keeps in its file besides the latencies, in this order."""

_WHO: Final = "METRICS_TOP_ORGS organisations have one: those with the most units."

Sums = Mapping[Row, list[int]]


@dataclass(frozen=True, slots=True)
class Build:
    """What is known before the first request: the release, each (method, route template), what the store is, and the
    packages of credits that are sold, each as (currency, credits).
    """

    release: str
    endpoints: tuple[tuple[str, str], ...]
    lossy: bool
    embedded: bool = False
    packages: tuple[tuple[str, str], ...] = ()


# ── the service ──────────────────────────────────────────────────────────────────────────────────────────


def service(build: Build, sums: Sums, *, up: bool, traced: TracedRequests | None = None) -> Iterator[Metric]:
    """What the workers know of themselves, and which requests the worker that answers has `traced`."""
    yield _gauge("metering_store_up", "Whether the store answered this scrape in time.", [((), up)])
    about = "Whether the store may lose acknowledged events in a crash."
    yield _gauge("metering_lossy_ledger", about, [((), build.lossy)])
    about = "Whether the service runs its store itself, which suits one machine."
    yield _gauge("metering_embedded_store", about, [((), build.embedded)])
    about = "The release that runs, as a label; always 1."
    yield _gauge("metering_build_info", about, [((build.release,), 1)], "version")
    for name, about in BATCHES.items():
        yield _counter(f"metering_batch_{name}", about, [((), sums[BATCH_ROWS[name]][0])])
    for name, about in QUEUED.items():
        yield _counter(f"metering_queue_{name}", about, [((), sums[QUEUE_ROWS[name]][0])])
    for named in NAMED.values():
        series = [((row.name.partition("|")[2],), sums[row][0]) for row in named.rows()]
        yield _counter(named.metric, named.about, series, named.label)
    for spread in SPREADS:
        yield spread.family(sums[spread.row()])
    yield _durations(sums, traced or {})


def _durations(sums: Sums, traced: TracedRequests) -> Metric:
    family = HistogramMetricFamily(
        "scorpius_usage_api_duration_seconds",
        "Time from a request's head to the end of its answer, by route template and class of status.",
        labels=("method", "endpoint", "status"),
    )
    for series in histograms(sums):
        labels = (series.method, series.endpoint, series.status)
        seen = traced.get(labels) or [None] * len(_LES)
        figures: Any = zip(_LES, accumulate(series.buckets), map(_exemplar, seen), strict=True)
        family.add_metric(labels, list(figures), series.sum_us / _US_PER_S)
    return family


def _exemplar(seen: Traced | None) -> Exemplar | None:
    return None if seen is None else Exemplar({"trace_id": seen.trace_id}, seen.seconds, seen.at_s)


# ── the business ─────────────────────────────────────────────────────────────────────────────────────────


def business(totals: Totals, top: list[OrgUnits]) -> Iterator[Metric]:
    """What the store knows of its organisations."""
    yield _gauge("scorpius_total_organizations", "Organisations there are.", [((), totals.orgs)])
    plans = [((plan,), orgs) for plan, orgs in totals.plans.items()]
    yield _gauge("scorpius_plan_distribution", "Organisations on each plan.", plans, "plan")
    events = [((kind,), number) for kind, number in {**dict.fromkeys(WATCHED, 0), **totals.events}.items()]
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


def sales(totals: Totals, packages: Iterable[tuple[str, str]]) -> Iterator[Metric]:
    """What the store knows of money. What is sold has series before the first order."""
    found = totals.sales
    kinds, outcomes = (known.CREDITS, known.INVOICE), (known.SUCCEEDED, known.FAILED)
    each = {(kind, outcome): found["payments", kind, outcome] for kind in kinds for outcome in outcomes}
    each[known.CREDITS, known.SUCCEEDED] = sum(number for (name, *_), number in found.items() if name == "orders")
    about = "Payments that succeeded, and attempts that failed: for credits, and for invoices of subscriptions."
    yield _counter("metering_payments", about, each.items(), "kind", "outcome")
    orders = sorted({*packages, *((place[1], place[2]) for place in found if place[0] == "orders")})
    about = "Orders of credits that were paid, by package (its credits), in minor units of the currency."
    values = [
        ((currency, size), found["orders", currency, size], found["order_value", currency, size])
        for currency, size in orders
    ]
    yield _summary("metering_order_value_minor", about, values, "currency", "package")
    currencies = sorted({currency for currency, _ in orders} | {place[1] for place in found if place[0] == "refunds"})
    about = "Refunds of such orders that were begun, in minor units of the currency; some fail later."
    begun = [((name,), found["refunds", name], found["refund_value", name]) for name in currencies]
    yield _summary("metering_refund_value_minor", about, begun, "currency")
    about = "Refunds among those that failed or were cancelled: that money stayed."
    failed = [((name,), found["refunds_failed", name], found["refund_failed_value", name]) for name in currencies]
    yield _summary("metering_refund_failed_value_minor", about, failed, "currency")


QUEUE_SAYS: Final = (
    "Events accepted with ack=async that are not decided yet.",
    "Age of the oldest of them; 0 where there is none.",
    "Events given up and not looked at yet.",
)
INBOX_SAYS: Final = (
    "Events of Stripe that came in and have not taken effect yet.",
    "Age of the oldest of them; 0 where there is none.",
    "Events of Stripe that could not take effect, and that nobody has tried again.",
)


def waiting(name: str, says: tuple[str, str, str], state: QueueState) -> Iterator[Metric]:
    """What the store knows of one kind of its queues."""
    figures = (state.length, max(0, state.age_ms) / MS_PER_S, state.dead)
    for kind, about, figure in zip(("entries", "oldest_seconds", "dead"), says, figures, strict=True):
        yield _gauge(f"{name}_{kind}", about, [((), figure)])


def overage(state: OutboxState, delivered: Mapping[str, int]) -> Iterator[Metric]:
    """What the store knows of overage on its way to Stripe."""
    about = (
        "Overage that Stripe has not been told: counters not sealed yet, windows on their way, windows refused, and "
    )
    about += "counters of organisations without a Stripe customer."
    figures = {"unsealed": state.unsealed, "on_its_way": state.windows, "dead": state.dead, "unbilled": state.unbilled}
    series = [((name,), figure) for name, figure in figures.items()]
    yield _gauge("metering_overage_entries", about, series, "state")
    about = "Organisations whose sums do not hold. They are not billed until they do."
    yield _gauge("metering_conservation_violations", about, [((), state.frozen)])
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


def _summary(name: str, about: str, series: Iterable[tuple[tuple[str, ...], int, int]], *labels: str) -> Metric:
    """How many there were, and their sum."""
    family = SummaryMetricFamily(name, about, labels=labels)
    for names, count, total in series:
        family.add_metric(names, count, total)
    return family
