"""The wiring: everything is built here, once, and handed to whoever needs it.

`create_app` builds what needs no loop; the lifespan opens the rest in order (client, gate, counters) and closes it in
reverse. Importing this module does nothing. It serves as
`uvicorn metering.app:create_app --factory` too, then on the store at REDIS_URL or its documented default.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import orjson
import structlog
from pydantic import SecretStr

from metering import log as log_setup
from metering.api.answers import Send, refuse, request_id_of
from metering.api.bodies import Receive
from metering.api.document import document
from metering.api.endpoint import router
from metering.api.front import App as Door
from metering.api.front import Front
from metering.api.measures import Measures
from metering.api.routes import ROUTES
from metering.api.services import Services
from metering.api.traced import Traced
from metering.api.track import Track
from metering.billing.prices import Prices
from metering.billing.wiring import Billing, Ground, open_billing, variables_of
from metering.books import Store, corrections_of, counters_of, credits_of, orgs_of, removal_of, trail_of
from metering.clock import Clock, SystemClock
from metering.credentials import Credentials, Held, key_file, open_credentials
from metering.errors import Overloaded
from metering.metrics import FLUSH_S, Build, Counted, Metrics
from metering.org_marks import OrgMarks
from metering.reports import Reports
from metering.setting_kinds import parts_of
from metering.settings import Settings, SettingsError, StoreKind
from metering.store.batch_stats import QueueStats
from metering.store.connect import PATIENT, connect
from metering.store.consumer import TURN_S, Consumer
from metering.store.corrections import Corrections
from metering.store.counters import Counters
from metering.store.credits import LAPSE_S, Credits
from metering.store.fields import FieldCodec
from metering.store.gate import GateRefusedError, GateReport, run_gate
from metering.store.holds import EXPIRE_S, Holds
from metering.store.kept import KeptAnswers
from metering.store.keys import Keys
from metering.store.lookback import Lookback
from metering.store.orgs import SWEEP_S, Orgs
from metering.store.past import Past
from metering.store.queue import Queue
from metering.store.queue_owners import Owners
from metering.store.queue_reader import QueueReader
from metering.store.raw_log import TRIM_S, RawLog
from metering.store.removal import REMOVE_S, Removal
from metering.store.retention import Retention
from metering.store.spent import SPENT_S, SpentIds
from metering.store.tail import Tail
from metering.store.timing import FOLLOW_S, StoreTime, settled_offset
from metering.store.trail import Trail
from metering.store.watch import Watch
from metering.tallies import Tallies
from metering.traces import Traces
from metering.ulid import Ulids
from metering.vitals import End, StoreVitals, told_of_the_end
from metering.watching import access_of, reports_of, traces_of
from metering.workers import LAG_S, Loop, Workers, look_at_lag
from plans.catalogue import Catalogue, CatalogueError, parse

PACKAGE: Final = "usage-metering"

log = structlog.get_logger(__name__)


MeasuresMaker = Callable[..., AbstractContextManager[Measures]]
"""Opens the metrics over an open store; takes what `Metrics` takes."""


def create_app(
    settings: Settings | None = None,
    *,
    clock: Clock | None = None,
    measures: MeasuresMaker | None = None,
    tidies: bool = True,
    traces: Traces | None = None,
) -> "App":
    """The service as an ASGI application. Without `settings` they are read from the environment.

    `traces` takes spans; without it they go where OpenTelemetry's variables say, if TRACING says so at all.
    With `tidies` false it writes only what requests ask for: what has run out is left to other workers.

    Raises SettingsError (the file of public keys is read too) or CatalogueError; what the store has to say comes when
    the lifespan begins.
    """
    settings = settings or Settings.load()
    clock, marks, secrets = clock or SystemClock(), OrgMarks(settings.log_orgs), secrets_of(settings)
    release = version(PACKAGE)
    reports = reports_of(settings, release, secrets=secrets, orgs=marks, clock=clock)
    log_setup.configure(settings.log_level.value, secrets=secrets, orgs=marks, report=reports)
    return App(
        settings,
        parse(*settings.plans_text()),
        clock,
        measures or Metrics,
        marks,
        traces or traces_of(settings, release),
        reports,
        tidies=tidies,
    )


def secrets_of(settings: Settings) -> list[str]:
    """Every value that must never be shown, the store's password by itself included."""
    values = [value for _, value in settings if isinstance(value, SecretStr)]
    found = [value.get_secret_value() for value in values]
    found += settings.webhook_secrets()
    found += [part.partition(":")[2] for part in parts_of(settings.encryption_keys)]
    if settings.redis_url is not None:
        found.append(unquote(urlsplit(settings.redis_url.get_secret_value()).password or ""))
    return found


def origins_of(settings: Settings) -> tuple[str, ...]:
    """Where payers may be sent back to: the front end, and this service."""
    return settings.frontend_url.rstrip("/"), settings.service_url(), f"http://localhost:{settings.port}"


@cache
def _document() -> bytes:
    """The OpenAPI document, made when somebody asks for it: it takes as long as all the rest of a start."""
    return orjson.dumps(document(ROUTES, version(PACKAGE)))


@dataclass(frozen=True, slots=True)
class _Opened:
    """What stands on an open store."""

    credentials: Credentials
    orgs: Orgs
    counters: Counters
    kept: KeptAnswers
    lookback: Lookback
    corrections: Corrections
    credits: Credits
    removal: Removal
    trail: Trail
    past: Past
    raw_log: RawLog
    queue: Queue
    holds: Holds
    measures: Measures
    vitals: StoreVitals
    billing: Billing
    tail: Tail


class App:
    """The service. Until its lifespan has begun, and after it has ended, it answers 503."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        clock: Clock,
        measures: MeasuresMaker,
        marks: OrgMarks,
        traces: Traces | None,
        reports: Reports | None,
        *,
        tidies: bool,
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._clock = clock
        self._measures = measures
        self._marks = marks
        self._traces, self._reports = traces, reports
        self._tidies = tidies
        self._end = End()
        self._key_file = key_file(settings)
        self._ulids = Ulids(clock)
        self._tallies = Tallies()
        self._front: Door | None = None

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """One request, or the lifespan."""
        if scope["type"] == "http" and self._front is not None:
            await self._front(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            headers = dict(scope["headers"])
            problem = Overloaded("the service is starting or has ended")
            await refuse(problem, headers, request_id_of(headers, self._ulids), receive, send, unread=True)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        """The lifespan protocol. A refusal to start is told in words, without a traceback."""
        await receive()
        try:
            async with AsyncExitStack() as stack:
                self._front = await self.open(stack)
                await send({"type": "lifespan.startup.complete"})
                await receive()
                self._front = None
        except GateRefusedError as refusal:
            await send({"type": "lifespan.startup.failed", "message": str(refusal)})
            return
        await send({"type": "lifespan.shutdown.complete"})

    async def open(self, stack: AsyncExitStack) -> Door:
        """Open everything in order onto `stack`, which closes it in reverse. Raises GateRefusedError."""
        settings, ground = self._settings, await self._ground(stack)
        client, patient, keys, time, fake = ground.client, ground.patient, ground.keys, ground.time, ground.fake
        orgs, customers = orgs_of(ground, self._catalogue)
        kept_for = Retention(settings.history_days, settings.minute_history_hours, settings.event_retention_ms())
        counters = counters_of(ground, orgs, settings, self._catalogue, kept_for, self._traces)
        stack.push_async_callback(counters.close)
        queue_stats, tallies = QueueStats(), self._tallies
        told = (counters.stats, self._build(ground.report), queue_stats, tallies)
        measures = stack.enter_context(self._measures(settings, client, keys, *told))
        holds = Holds(patient, keys, time, orgs, counters, fake=fake, counted=measures.counted)
        credit_book = credits_of(ground, orgs, self._catalogue)
        raw_log = RawLog(patient, keys, time, retention_ms=settings.event_retention_ms())
        kept = KeptAnswers(patient, keys, ground.dataset.secret, keep_s=settings.idempotency_hours * 3600, fake=fake)
        trail, past = trail_of(ground)
        lookback = Lookback(patient, keys, time, days=settings.history_days, minute_hours=settings.minute_history_hours)
        held = Held(client, patient, keys, self._clock, fake)
        credentials = await open_credentials(stack, settings, held, self._key_file)
        queue, consumer = self._queue(ground, orgs, Counted(counters, measures.counted, tallies), queue_stats)
        removal = removal_of(ground, orgs, credentials.api_keys)
        billing = open_billing(stack, self._under(ground, queue), orgs, customers)
        loops = (
            *credentials.loops,
            *self._measuring(measures),
            Loop("queue", consumer.turn, TURN_S, queue.woken),
            Loop("catalogue", orgs.follow_catalogue, SWEEP_S),
        )
        loops += (Loop("test clock", orgs.follow, FOLLOW_S),) if settings.test_clock else ()
        jobs = (Loop(job.name, job.turn, job.every_s, job.woken) for job in billing.jobs)
        tidying = (*self._tidying(ground, orgs, holds, raw_log, credit_book, removal), *jobs)
        loops += tidying if self._tidies else ()
        await stack.enter_async_context(Workers(*loops, failures=tallies.job_failures))
        return self._wired(
            _Opened(
                credentials, orgs, counters, kept, lookback, corrections_of(ground, orgs, kept_for), credit_book,
                removal, trail, past, raw_log, queue, holds, measures, self._vitals(ground, counters), billing,
                self._tail(ground),
            )
        )  # fmt: skip

    def _under(self, ground: Store, queue: Queue) -> Ground:
        """What billing stands on."""
        return Ground(
            self._settings, self._catalogue, ground.patient, ground.keys, ground.time, ground.codec, self._clock,
            ground.dataset.secret, ground.dataset.id, queue.drained_past, ground.fake,
            self._tallies.stripe_calls,
        )  # fmt: skip

    def _build(self, report: GateReport) -> Build:
        """What the metrics say from the first page on."""
        endpoints = tuple((route.method, route.path) for route in ROUTES)
        embedded = self._settings.store_kind is not StoreKind.EXTERNAL
        packages = tuple((self._catalogue.currency, str(credits_)) for credits_ in self._catalogue.packages)
        return Build(version(PACKAGE), endpoints, report.lossy, embedded, packages)

    def _watching(self, ground: Store) -> Loop:
        """The books are looked at as often as they are told to Stripe."""
        settings, features = self._settings, tuple(self._catalogue.features)
        seen = self._tallies.conservation
        watch = Watch(ground.patient, ground.keys, features, seen, history_days=settings.history_days)
        return Loop("conservation", watch.turn, settings.overage_push_s)

    def _measuring(self, measures: Measures) -> tuple[Loop, ...]:
        """What the metrics do by themselves."""
        lag = partial(look_at_lag, self._tallies.lag_us)
        return (Loop("metrics", measures.flush, FLUSH_S), Loop("lag", lag, LAG_S))

    def _tidying(
        self, ground: Store, orgs: Orgs, holds: Holds, raw_log: RawLog, credit_book: Credits, removal: Removal
    ) -> tuple[Loop, ...]:
        """What ends by itself and has to be taken away."""
        spent = SpentIds(ground.patient, ground.keys, ground.time)
        return (
            Loop("sweep", orgs.sweep, SWEEP_S),
            Loop("spent", spent.unlink, SPENT_S),
            Loop("holds", holds.expire, EXPIRE_S),
            Loop("raw events", raw_log.trim, TRIM_S),
            Loop("credits", credit_book.lapse, LAPSE_S),
            Loop("erasure", removal.turn, REMOVE_S, removal.woken),
            self._watching(ground),
        )

    def _queue(self, ground: Store, orgs: Orgs, counted: Counted, stats: QueueStats) -> tuple[Queue, Consumer]:
        """Both ends of the queues: where events are accepted, and who counts them."""
        settings, client, keys = self._settings, ground.patient, ground.keys
        owners = Owners(orgs, ground.dataset.secret, self._clock.monotonic, auto_create=settings.auto_create_orgs)
        queue = Queue(client, keys, ground.time, owners, self._ulids, most=settings.queue_max, fake=ground.fake)
        most = settings.pending_max // 2  # the rest of what may wait is for those who wait for an answer
        return queue, Consumer(QueueReader(client, keys, owners), counted.track_all, stats, most=most)

    async def _ground(self, stack: AsyncExitStack) -> Store:
        """The store, admitted by the gate. Raises GateRefusedError."""
        settings, kind = self._settings, self._settings.store_kind
        for told in (self._reports, self._traces):
            if told is not None:
                stack.push_async_callback(asyncio.to_thread, told.close)
        self._end = stack.enter_context(told_of_the_end())
        client = connect(settings.store_url())
        stack.push_async_callback(client.aclose)
        report = await run_gate(client, settings, self._clock, kind=kind, catalogue=self._catalogue)
        dataset = report.admit()
        self._marks.learn(dataset.secret)
        _warn(report)
        patient = connect(settings.store_url(), retries=PATIENT)
        stack.push_async_callback(patient.aclose)
        keys = Keys(dataset.partitions)
        time = StoreTime(self._clock, await settled_offset(client, keys, test_clock=settings.test_clock))
        codec = FieldCodec(settings.encryption_ring())
        return Store(client, patient, keys, time, codec, dataset, report, kind is StoreKind.EPHEMERAL)

    def _tail(self, ground: Store) -> Tail:
        """What administrators watch, until the end."""
        return Tail(ground.patient, ground.keys, ground.codec, self._clock, lambda: self._end.told)

    def _vitals(self, ground: Store, counters: Counters) -> StoreVitals:
        """How the service does, asked of the store that was opened."""
        settings, clock, client = self._settings, self._clock, ground.client

        def gate() -> Awaitable[GateReport]:
            return run_gate(client, settings, clock, kind=settings.store_kind, catalogue=self._catalogue, write=False)

        return StoreVitals(client.ping, gate, ground.report, counters, self._end, settings)

    def _wired(self, opened: _Opened) -> Door:
        """The HTTP side over what has been opened."""
        settings, clock, ulids, measures = self._settings, self._clock, self._ulids, opened.measures
        keep, counted = settings.event_retention_ms() > 0, Counted(opened.counters, measures.counted, self._tallies)
        services = Services(
            auth=opened.credentials.auth,
            counts=counted,
            queue=opened.queue,
            api_keys=opened.credentials.api_keys,
            denials=opened.credentials.withdrawn,
            holds=opened.holds,
            orgs=opened.orgs,
            kept=opened.kept,
            lookback=opened.lookback,
            corrections=opened.corrections,
            credits=opened.credits,
            erasures=opened.removal.erasures,
            trail=opened.trail,
            past=opened.past,
            raw_log=opened.raw_log if keep else None,
            catalogue=self._catalogue,
            prices=Prices(self._catalogue, variables_of(settings)),
            clock=clock, ulids=ulids, measures=opened.measures, vitals=opened.vitals,
            mail=opened.billing.intake,
            self_service=opened.billing.self_service,
            return_origins=origins_of(settings),
            outbox=opened.billing.desk,
            comparer=opened.billing.reconciler, repairer=opened.billing.repairer,
            version=version(PACKAGE),
            document=_document,
            auto_create_orgs=settings.auto_create_orgs,
            stripe_mode=settings.stripe_mode(),
            stripe_answers=opened.billing.stripe_answers,
            metrics_open=settings.bound_to_loopback() and settings.metrics_token is None,
            metrics_token=settings.metrics_secret(),
            events_max=min(settings.events_max, settings.pending_max),
            keep_details=keep,
            tallies=self._tallies, tail=opened.tail,
        )  # fmt: skip
        return self._front_of(services, counted, keep=keep)

    def _front_of(self, services: Services, counted: Counted, *, keep: bool) -> Door:
        """The door: the hot path, which keeps details of events where `keep` says so, and all other routes."""
        ulids, observe, access, clock = self._ulids, services.measures.observe, access_of(self._settings), self._clock
        auth, catalogue = services.auth, self._catalogue
        track = Track(auth, counted, catalogue, ulids, observe, clock, access=access, keep_details=keep)
        routes = router(ROUTES, services, track)
        front = Front(track, routes, ulids, observe, clock, self._tallies.refusals, access)
        return front if self._traces is None else Traced(front, self._traces, services.measures.exemplar, clock)


def _warn(report: GateReport) -> None:
    """Say aloud what the gate let pass."""
    for check in report.warnings:
        log.warning("start-up check let pass", check=check.name, found=check.found, cure=check.cure)


__all__ = ["App", "CatalogueError", "SettingsError", "create_app"]
