"""How billing is put together, in one place: what the routes need of it, and what runs beside them."""

import asyncio
import os
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from metering.billing.breaker import Breaker
from metering.billing.catch_up import LOOK_S, CatchUp
from metering.billing.checkout import Checkout
from metering.billing.coverage import Cover, Coverage
from metering.billing.credit_events import CreditEvents
from metering.billing.credit_ledger import CreditLedger
from metering.billing.credits import CreditShop
from metering.billing.desk import Desk
from metering.billing.errors import GatewayError
from metering.billing.exporter import Exporter, Parts
from metering.billing.following import Following
from metering.billing.gateway import Gateway
from metering.billing.inbox import TURN_S, InboxWorker
from metering.billing.intake import Intake
from metering.billing.invoice_list import InvoiceList
from metering.billing.last_usage import LastUsage
from metering.billing.late import Late
from metering.billing.payers import Payers
from metering.billing.plan_change import PlanChange
from metering.billing.portal import Portal
from metering.billing.prices import Prices
from metering.billing.pruning import PRUNE_S, READ, Pruner
from metering.billing.reactions import GRACE_S, Hooks, Reactions
from metering.billing.reconcile import RECONCILE_S, Books, Reconciler, Sums
from metering.billing.repair import Repairer
from metering.billing.sales import Seals
from metering.billing.self_service import SelfService
from metering.billing.sending import Sender, Till
from metering.billing.shadow import SHADOW_S, Shadow, Shadows, ShadowSums
from metering.billing.subscriber import Subscriber
from metering.billing.subscriptions import Policy
from metering.billing.topups import TOPUP_S, AutoTopUp
from metering.billing.yearly import Joining
from metering.clock import Clock
from metering.settings import Settings
from metering.store.credits import Credits
from metering.store.customers import INDEX_S, Customers
from metering.store.drift import DriftBook
from metering.store.effects import Effects
from metering.store.event_cursor import EventCursor
from metering.store.fields import FieldCodec
from metering.store.frames import DAY_MS
from metering.store.gate import GateRefusedError
from metering.store.inbox import Inbox
from metering.store.keys import Keys
from metering.store.orgs import Orgs
from metering.store.outbox import Outbox
from metering.store.pace import StorePace
from metering.store.shadow_book import ShadowBook
from metering.store.stripe_lanes import Lanes
from metering.store.timing import StoreTime
from metering.store.topups import TopUps
from metering.store.totals import Client
from metering.store.window_lists import WindowLists
from plans.catalogue import Catalogue

RELINK_S: Final = 600.0
"""Between two looks at overage of organisations without a customer, in case nobody was there to be told of one."""

FINAL_S: Final = 3600.0
"""Between two looks for periods that became final."""

AWAY_S: Final = 30.0
"""Between two looks whether a Stripe that did not answer is back."""

Drained = Callable[[str, int], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Job:
    """Something done again and again: how many seconds lie between two turns; `woken` set begins one at once."""

    name: str
    turn: Callable[[], Awaitable[None]]
    every_s: float
    woken: asyncio.Event | None = None


@dataclass(frozen=True, slots=True)
class Ground:
    """What billing stands on. `client` repeats what is safe to repeat; `secret` is the data set's;
    `drained(org_id, at_ms)`: all that was accepted before an instant was counted; `calls` counts those to Stripe.
    """

    settings: Settings
    catalogue: Catalogue
    client: Client
    keys: Keys
    time: StoreTime
    codec: FieldCodec
    clock: Clock
    secret: bytes
    dataset_id: str
    drained: Drained
    fake: bool
    calls: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Billing:
    """Billing, put together. `stripe_answers`: whether Stripe answered the last call of this process."""

    intake: Intake
    desk: Desk
    self_service: SelfService | None = None
    reconciler: Reconciler | None = None
    repairer: Repairer | None = None
    jobs: tuple[Job, ...] = ()
    stripe_answers: Callable[[], bool] = lambda: True


def open_billing(stack: AsyncExitStack, ground: Ground, orgs: Orgs, customers: Customers) -> Billing:
    """Put billing together; what has to be closed goes onto `stack`. Without a key for Stripe nothing is asked of it:
    events that come in wait for one.

    Raises GateRefusedError where a live key would meet anything but Stripe itself.
    """
    settings, client, keys = ground.settings, ground.client, ground.keys
    inbox = inbox_of(ground)
    intake, desk = intake_of(settings, inbox), desk_of(ground)
    gateway = gateway_of(settings, ground.clock, ground.calls)
    if gateway is None:
        return Billing(intake, desk)
    stack.push_async_callback(gateway.close)
    word = _word_of(ground, gateway, orgs, customers)
    coverage = Coverage(gateway, word.payers, word.effects, word.prices, word.policy, ground.clock.monotonic)
    exporter = exporter_of(ground, gateway, orgs, customers, coverage)
    reconciler = reconciler_of(ground, gateway, orgs, customers)
    top_up = top_up_of(ground, gateway, word)
    jobs = (
        *_word_jobs(ground, gateway, word, exporter, inbox),
        Job("stripe catch-up", CatchUp(gateway, intake, EventCursor(client, keys), ground.time.now_ms).turn, LOOK_S),
        Job("stripe's return", partial(look_again, gateway), AWAY_S),
        Job("top-ups", top_up.turn, TOPUP_S),
        Job("customers", customers.sweep, INDEX_S),
        Job("reconciliation", reconciler.turn, RECONCILE_S, reconciler.woken),
        *_overage_jobs(ground, exporter),
    )
    jobs += shadow_jobs(stack, ground, customers)
    return Billing(
        intake,
        desk,
        self_service_of(ground, gateway, customers, word, last_usage_of(ground, exporter, reconciler), top_up),
        reconciler,
        repairer_of(ground, gateway, desk, customers),
        jobs,
        lambda: gateway.answers,
    )


def shop_of(ground: Ground, gateway: Gateway, word: "_Word") -> CreditShop:
    """What sells credits."""
    book = Credits(ground.client, ground.keys, word.orgs, ground.time, ground.codec, fake=ground.fake)
    seals = Seals(ground.dataset_id, ground.secret, livemode=gateway.livemode)
    ledger, taxed = CreditLedger(book, word.effects), ground.settings.stripe_automatic_tax
    return CreditShop(gateway, ground.catalogue, seals, ledger, automatic_tax=taxed)


def top_up_of(ground: Ground, gateway: Gateway, word: "_Word") -> AutoTopUp:
    """What buys credits for who runs low."""
    book = TopUps(ground.client, ground.keys, ground.time, ground.codec, fake=ground.fake)
    ledger = Credits(ground.client, ground.keys, word.orgs, ground.time, ground.codec, fake=ground.fake)
    shop, frozen = shop_of(ground, gateway, word), outbox_of(ground).frozen
    return AutoTopUp(gateway, shop, book, ledger, word.orgs, ground.time.now_ms, frozen)


def self_service_of(
    ground: Ground, gateway: Gateway, customers: Customers, word: "_Word", last_usage: LastUsage, top_up: AutoTopUp
) -> SelfService:
    """What customers do by themselves."""
    following = Following(word.payers, word.effects, word.prices, word.policy)
    settings, variables = ground.settings, variables_of(ground.settings)
    return SelfService(
        Checkout(gateway, ground.catalogue, variables, ground.dataset_id, automatic_tax=settings.stripe_automatic_tax),
        shop_of(ground, gateway, word),
        Portal(gateway),
        InvoiceList(gateway, customers),
        Subscriber(gateway, following, last_usage),
        PlanChange(gateway, following, word.prices, ground.catalogue, variables),
        top_up,
    )


def last_usage_of(ground: Ground, exporter: Exporter, reconciler: Reconciler) -> LastUsage:
    """What is told of usage before a subscription ends."""
    lists = WindowLists(ground.client, ground.keys, ground.codec)
    return LastUsage(exporter, lists, reconciler, ground.drained, ground.time.now_ms)


def shadow_jobs(stack: AsyncExitStack, ground: Ground, customers: Customers) -> tuple[Job, ...]:
    """What tells a second account of Stripe, where there is to be one. Raises GateRefusedError."""
    shade = shade_of(ground.settings, ground.clock)
    if shade is None:
        return ()
    stack.push_async_callback(shade.close)
    client, keys = ground.client, ground.keys
    shadow = Shadow(
        shade, _shadow_book(ground), _shadows(ground, shade, customers), WindowLists(client, keys, ground.codec),
        Lanes(client, keys, customers, fake=ground.fake), Breaker(ground.clock.monotonic), ground.catalogue,
        ground.time.now_ms,
    )  # fmt: skip
    return (Job("shadow", shadow.turn, SHADOW_S),)


def shadow_sums(ground: Ground, shade: Gateway, customers: Customers) -> ShadowSums:
    """What the second account has."""
    return ShadowSums(shade, _shadows(ground, shade, customers))


def _shadows(ground: Ground, shade: Gateway, customers: Customers) -> Shadows:
    return Shadows(shade, _shadow_book(ground), customers, ground.dataset_id)


def _shadow_book(ground: Ground) -> ShadowBook:
    return ShadowBook(ground.client, ground.keys, ground.codec, secrets.token_hex(8))


def shade_of(settings: Settings, clock: Clock) -> Gateway | None:
    """The second account; None without a key. Raises GateRefusedError where it is the first one."""
    key, first = settings.stripe_shadow_key, settings.stripe_secret_key
    if key is None:
        return None
    if first is not None and key.get_secret_value() == first.get_secret_value():
        raise GateRefusedError("STRIPE_SHADOW_KEY is the key that bills: name one of another account")
    return _gateway(key.get_secret_value(), settings.stripe_shadow_api_base, settings, clock)


def _word_jobs(ground: Ground, gateway: Gateway, word: "_Word", exporter: Exporter, inbox: Inbox) -> tuple[Job, ...]:
    """What gives Stripe's events their effect."""
    paid = CreditEvents(gateway, shop_of(ground, gateway, word)).react
    hooks = Hooks(exporter.flush, exporter.linked, exporter.reported, Joining(gateway, ground.catalogue).join, paid)
    reactions = Reactions(gateway, word.payers, word.effects, word.prices, word.policy, hooks)
    worker = InboxWorker(inbox, reactions.react, ground.clock.monotonic, livemode=gateway.livemode)
    return (
        Job("stripe events", worker.turn, TURN_S, inbox.woken),
        Job("grace", reactions.end_graces, GRACE_S),
    )


def _overage_jobs(ground: Ground, exporter: Exporter) -> tuple[Job, ...]:
    return (
        Job("overage", exporter.turn, ground.settings.overage_push_s, exporter.woken),
        Job("unbilled", exporter.relink, RELINK_S),
        Job("final periods", exporter.closing.turn, FINAL_S),
        Job("pruning", pruner_of(ground, exporter).turn, PRUNE_S),
    )


async def look_again(gateway: Gateway) -> None:
    """Ask a Stripe that did not answer the last call whether it is back: the next call may be an hour away."""
    if not gateway.answers:
        with suppress(GatewayError):
            await gateway.account()


def inbox_of(ground: Ground) -> Inbox:
    """Stripe's events of this data set."""
    return Inbox(ground.client, ground.keys, ground.secret, fake=ground.fake)


def outbox_of(ground: Ground) -> Outbox:
    """The outbox of this data set."""
    return Outbox(ground.client, ground.keys, ground.time, ground.codec, ground.dataset_id, fake=ground.fake)


def desk_of(ground: Ground) -> Desk:
    """What operators see of the outbox and do about it."""
    return Desk(outbox_of(ground), WindowLists(ground.client, ground.keys, ground.codec), ground.time.now_ms)


def intake_of(settings: Settings, inbox: Inbox) -> Intake:
    """The door for Stripe's events."""
    return Intake(inbox, secrets=settings.webhook_secrets(), livemode=settings.stripe_livemode())


def gateway_of(settings: Settings, clock: Clock, calls: Counter[str] | None = None) -> Gateway | None:
    """Stripe, or whatever answers at STRIPE_API_BASE; None without a key. Raises GateRefusedError."""
    key = settings.stripe_secret_key
    return None if key is None else _gateway(key.get_secret_value(), settings.stripe_api_base, settings, clock, calls)


def _gateway(
    key: str, base: str | None, settings: Settings, clock: Clock, calls: Counter[str] | None = None
) -> Gateway:
    from metering.billing.gateways.live import LiveGateway  # noqa: PLC0415 - 32 MB that nobody without a key needs

    try:
        return LiveGateway(key, clock=clock, api_base=base, test_clock=settings.test_clock, calls=calls)
    except ValueError as error:
        raise GateRefusedError(f"Stripe: {error}") from error


def exporter_of(ground: Ground, gateway: Till, orgs: Orgs, customers: Customers, coverage: Cover) -> Exporter:
    """Overage on its way to Stripe."""
    settings, client, keys, fake = ground.settings, ground.client, ground.keys, ground.fake
    return Exporter(
        Parts(
            orgs=orgs,
            outbox=outbox_of(ground),
            lanes=Lanes(client, keys, customers, fake=fake),
            sender=Sender(gateway, ground.catalogue.currency),
            late=Late(ground.catalogue, writes_off=settings.late_usage == "write_off"),
            coverage=coverage,
            pace=StorePace(client, keys, settings.stripe_rate, fake=fake),
            breaker=Breaker(ground.clock.monotonic),
            stripe_ms=gateway.stripe_ms,
            drained=ground.drained,
            partitions=keys.partitions,
        )
    )


def pruner_of(ground: Ground, exporter: Exporter) -> Pruner:
    """The end of windows that nobody asks for any more."""
    lists = WindowLists(ground.client, ground.keys, ground.codec, read=READ)
    keep_ms = ground.settings.overage_window_days * DAY_MS
    return Pruner(
        outbox_of(ground), lists, exporter.closing.finalize, ground.time.now_ms,
        partitions=ground.keys.partitions, keep_ms=keep_ms,
    )  # fmt: skip


def reconciler_of(ground: Ground, gateway: Sums, orgs: Orgs, customers: Customers) -> Reconciler:
    """Our books against Stripe's."""
    client, keys, fake = ground.client, ground.keys, ground.fake
    books = Books(
        orgs=orgs,
        outbox=outbox_of(ground),
        lanes=Lanes(client, keys, customers, fake=fake),
        lists=WindowLists(client, keys, ground.codec),
        drift=DriftBook(client, keys),
        catalogue=ground.catalogue,
        pace=StorePace(client, keys, ground.settings.stripe_rate, fake=fake),
    )
    return Reconciler(books, gateway)


def repairer_of(ground: Ground, gateway: Till, desk: Desk, customers: Customers) -> Repairer:
    """What Stripe's sums prove of dead windows."""
    lanes = Lanes(ground.client, ground.keys, customers, fake=ground.fake)
    meters = {name: feature.stripe_meter_event for name, feature in ground.catalogue.features.items()}
    return Repairer(desk, lanes, Sender(gateway, ground.catalogue.currency), meters)


@dataclass(frozen=True, slots=True)
class _Word:
    """What it takes to bring organisations to what Stripe says, by an event or because it was asked."""

    payers: Payers
    effects: Effects
    prices: Prices
    policy: Policy
    orgs: Orgs


def _word_of(ground: Ground, gateway: Gateway, orgs: Orgs, customers: Customers) -> _Word:
    settings, catalogue = ground.settings, ground.catalogue
    effects = Effects(ground.client, ground.keys, orgs, catalogue, ground.time, ground.codec, fake=ground.fake)
    prices = Prices(catalogue, variables_of(settings))
    policy = Policy(catalogue.default_plan, settings.grace_days, settings.overdue_action == "downgrade")
    return _Word(Payers(gateway, customers, orgs, effects, prices), effects, prices, policy, orgs)


def variables_of(settings: Settings) -> dict[str, str]:
    """What a catalogue may name: the environment, and settings from whatever source."""
    return dict(os.environ) | {name.upper(): value for name, value in settings if isinstance(value, str)}
