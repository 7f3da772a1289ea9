"""What the handlers work with, by the narrowest description that serves them; app.py brings the real ones."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from metering.api.measures import Measures
from metering.auth import Authenticator
from metering.billing.intake import Taken
from metering.billing.prices import Prices
from metering.billing.reconcile import Line
from metering.billing.repair import Repairer
from metering.billing.self_service import SelfService
from metering.clock import Clock
from metering.errors import Problem, StripeNotConfigured
from metering.setting_kinds import StripeMode
from metering.store.api_key import ApiKey, NewKey
from metering.store.correction import Corrected, Correction
from metering.store.credit_lines import Line as CreditLine
from metering.store.credits import Balance, Granted, TakenBack
from metering.store.erasure import Erasure
from metering.store.grants import By, GrantOrder, GrantState
from metering.store.holds import Hold
from metering.store.kept import KeptAnswer, Try
from metering.store.lookback import Lookback
from metering.store.org import Org
from metering.store.orgs import OnlyIf, OrgChange
from metering.store.past import Step
from metering.store.raw_log import RawEvent, Wanted
from metering.store.tail import Tail
from metering.store.trail import Entry, Place
from metering.store.trail import Wanted as WantedEntries
from metering.store.window import State, Window
from metering.store.window_lists import Count, Listed
from metering.store.window_lists import Place as WindowPlace
from metering.tallies import Tallies
from metering.ulid import Ulids
from metering.usage import Outcome, UsageEvent
from plans.catalogue import Catalogue
from webhooks.stripe_events import StripeEvent


class OrgBook(Protocol):
    """The organisations (`metering.store.orgs.Orgs`)."""

    def follow(self) -> Awaitable[None]:
        """Learn where a test clock is that somebody else may have moved."""
        ...

    def get(self, org_id: str) -> Awaitable[Org | None]:
        """The organisation as it is now, or None. Raises OrgErased."""
        ...

    def living(self, org_id: str) -> Awaitable[Org | None]:
        """The same, None where it was erased."""
        ...

    def update(
        self, org_id: str, change: OrgChange, *, actor: str, create: bool, only_if: OnlyIf | None = None
    ) -> Awaitable[tuple[Org | None, bool]]:
        """Apply a change; the organisation (None: there is none) and whether it was created."""
        ...

    def page(self, cursor: str | None, limit: int) -> Awaitable[tuple[list[Org], str | None]]:
        """One page and the cursor of the next."""
        ...


class Kept(Protocol):
    """The answers of requests with an Idempotency-Key (`metering.store.kept.KeptAnswers`)."""

    def attempt(self, caller: Sequence[str], key: str, request: Sequence[bytes]) -> Try:
        """A try of `caller` at what `request` says, under `key`."""
        ...

    def begin(self, one: Try) -> Awaitable[KeptAnswer | None]:
        """None: run it. Else the answer it had. Raises Problems."""
        ...

    def finish(self, one: Try, answer: KeptAnswer) -> Awaitable[None]:
        """Keep the answer. Raises Problems."""
        ...

    def forget(self, one: Try) -> Awaitable[None]:
        """Let a repeat run again. Raises Problems."""
        ...


class EventLog(Protocol):
    """The raw events (`metering.store.raw_log.RawLog`)."""

    def page(
        self, org: Org, wanted: Wanted, cursor: str | None, limit: int
    ) -> Awaitable[tuple[list[RawEvent], str | None]]:
        """One page, the newest first, and the cursor of the next."""
        ...


class CorrectionBook(Protocol):
    """The corrections (`metering.store.corrections.Corrections`)."""

    def make(self, correction: Correction) -> Awaitable[Corrected]:
        """Make it, or say that it was made before. Raises Problems."""
        ...


class CreditBook(Protocol):
    """The credits (`metering.store.credits.Credits`). Raises OrgNotFound, GrantNotFound."""

    def grant(self, org_id: str, order: GrantOrder, by: By) -> Awaitable[Granted]:
        """Make a grant, once by its id. Raises GrantConflict, TooManyGrants, Invalid."""
        ...

    def revoke(self, org_id: str, grant_id: str, by: By) -> Awaitable[TakenBack]:
        """Take back what is left of one."""
        ...

    def balance_of(self, org: Org) -> Awaitable[Balance]:
        """What an organisation may use now."""
        ...

    def grants(self, org_id: str) -> Awaitable[list[GrantState]]:
        """Every grant, the newest first."""
        ...

    def find(self, org_id: str, grant_id: str) -> Awaitable[GrantState]:
        """One grant."""
        ...

    def transactions(
        self, org_id: str, limit: int, cursor: str | None
    ) -> Awaitable[tuple[list[CreditLine], str | None]]:
        """One page of what became of credits, the newest first, and the cursor of the next."""
        ...

    def sources(self, org_id: str, grant_ids: Collection[str]) -> Awaitable[Mapping[str, Mapping[str, Any]]]:
        """Where grants come from, by id."""
        ...


class ErasureBook(Protocol):
    """The erasures (`metering.store.erasure.Erasures`)."""

    def ask(self, org_id: str, job_id: str, by: By, *, write_off: bool) -> Awaitable[Erasure]:
        """Erase, or say when it was. Raises OrgNotFound, ErasureBlocked."""
        ...

    def find(self, org_id: str) -> Awaitable[Erasure | None]:
        """The erasure of an organisation; None where it was not erased."""
        ...


class AuditBook(Protocol):
    """The billing trails (`metering.store.trail.Trail`). Of a page: its entries, and where to go on (None: done)."""

    def page(
        self, org_id: str, wanted: WantedEntries, limit: int, after: str
    ) -> Awaitable[tuple[list[Entry], Place | None]]:
        """One page of an organisation's entries, those after the entry `after`."""
        ...

    def walk(
        self, wanted: WantedEntries, limit: int, after: Place | None
    ) -> Awaitable[tuple[list[Entry], Place | None]]:
        """One page of all organisations' entries."""
        ...


class PastBook(Protocol):
    """The billing histories (`metering.store.past.Past`)."""

    def page(self, org_id: str, limit: int, before: str | None) -> Awaitable[tuple[list[Step], str | None]]:
        """One page, the newest first, and what the next one comes before (None: it was the last)."""
        ...


class KeyBook(Protocol):
    """The API keys (`metering.store.api_keys.ApiKeys`)."""

    def create(self, wanted: NewKey, *, actor: str) -> Awaitable[tuple[ApiKey, str]]:
        """A new key and its text. Raises OrgNotFound, TooManyKeys."""
        ...

    def page(self, owner: str | None, cursor: str | None, limit: int) -> Awaitable[tuple[list[ApiKey], str | None]]:
        """One page of an owner's keys, or of all, and the cursor of the next. Raises OrgNotFound."""
        ...

    def owner_of(self, key_id: str) -> Awaitable[str | None]:
        """Whose a key is or was ("": administrators'), or None."""
        ...

    def delete(self, key_id: str, *, actor: str) -> Awaitable[None]:
        """End a key, on every worker."""
        ...


class Denials(Protocol):
    """Tokens that are refused although they hold (`metering.store.withdrawn.Withdrawn`)."""

    def deny(self, jti: str, until_ms: int | None) -> Awaitable[int | None]:
        """Refuse tokens with this id; until when that holds now (None: for ever)."""
        ...


@dataclass(frozen=True, slots=True)
class StoreState:
    """What is known of the store: `kind` and `version` from the start, `answers` from just now."""

    answers: bool
    kind: str
    version: str
    durability: str
    lossy: bool


class Vitals(Protocol):
    """How the service itself does."""

    def store(self) -> Awaitable[StoreState]:
        """The store's state, asked now."""
        ...

    def unready(self) -> Awaitable[list[str]]:
        """Why no traffic should come here; empty when it may."""
        ...


class Counts(Protocol):
    """The counters (`metering.metrics.Counted` over `metering.store.counters.Counters`)."""

    def track_all(
        self, events: Sequence[UsageEvent], *, atomic: bool = False
    ) -> Awaitable[Sequence[Outcome | Problem]]:
        """Count many events; in their order an outcome each, or the problem that kept it from the store.

        `atomic`: together or not at all, all of one organisation; a problem is that of all of them. Raises Overloaded,
        with nothing counted, where so many cannot wait.
        """
        ...

    def room(self) -> bool:
        """Whether another event may wait. After a no the event is not brought: it counts as shed."""
        ...


class HoldBook(Protocol):
    """Reservations and leases (`metering.store.holds.Holds`)."""

    def find(self, org_id: str, hold_id: str) -> Awaitable[Hold | None]:
        """The hold as it is now, or None."""
        ...

    def place(
        self,
        org_id: str,
        hold_id: str,
        feature: str,
        quantity: int,
        ttl_ms: int,
        *,
        lease: bool = False,
        charged: bool = False,
    ) -> Awaitable[tuple[Hold | None, Outcome]]:
        """Keep units back: the hold (None: refused), and what decided. Raises HoldConflict."""
        ...

    def settle(
        self, org_id: str, hold_id: str, quantity: int | None, *, late: bool = False, lease: bool | None = None
    ) -> Awaitable[tuple[Hold, UsageEvent, Outcome]]:
        """Count units against it: the hold as it was found, the event, what became of it. Raises HoldNotFound."""
        ...

    def release(self, org_id: str, hold_id: str) -> Awaitable[bool]:
        """Let go of it; whether it was open."""
        ...

    def extend(self, org_id: str, hold_id: str, ttl_ms: int) -> Awaitable[Hold | None]:
        """Give it a life from now on; None where it is not open."""
        ...

    def ended_units(self, org_id: str) -> Awaitable[Mapping[str, int]]:
        """Units by feature that stand as held and count for nothing, because their time is over."""
        ...


class EventQueue(Protocol):
    """Events that are counted later (`metering.store.queue.Queue`)."""

    def accept(self, events: Sequence[UsageEvent], *, actor: str) -> Awaitable[Sequence[Problem | None]]:
        """Put them on disk; in their order None for each that will be counted, or why it will not."""
        ...


class Mail(Protocol):
    """Stripe's events (`metering.billing.intake.Intake`)."""

    @property
    def secrets(self) -> Sequence[str]:
        """What signs them; none: they are not taken."""
        ...

    def take(self, event: StripeEvent) -> Awaitable[Taken]:
        """Keep an event, once."""
        ...


class Comparer(Protocol):
    """Our books against Stripe's (`metering.billing.reconcile.Reconciler`)."""

    def of(self, orgs: list[Org], start_ms: int | None) -> Awaitable[list[Line]]:
        """The lines of some organisations."""
        ...

    def run(self) -> None:
        """Look at everything soon."""
        ...


class OutboxDesk(Protocol):
    """Windows of overage on their way to Stripe (`metering.billing.desk.Desk`)."""

    def now_ms(self) -> int:
        """The store's time."""
        ...

    def page(
        self, states: Collection[State], org_id: str | None, limit: int, after: WindowPlace | None
    ) -> Awaitable[tuple[list[Listed], WindowPlace | None]]:
        """One page, and where to go on (None: done)."""
        ...

    def counts(self, org_id: str | None) -> Awaitable[Mapping[State, Count]]:
        """How many Stripe does not have, by state."""
        ...

    def replay(self, window_id: str, *, by: str) -> Awaitable[Window]:
        """Let a dead window be sent again. Raises WindowNotFound, WindowNotDead."""
        ...

    def discard(self, window_id: str, reason: str, *, by: str) -> Awaitable[Window]:
        """Write a dead window off. Raises WindowNotFound, WindowNotDead."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """Everything handlers share. The metrics are shown to all where `metrics_open`, else for `metrics_token` alone.

    `self_service` None: no Stripe is configured; payers come back to `return_origins` alone, usually to the first.
    `stripe_answers()`: whether Stripe answered the last call of this process. `raw_log` None: no raw events are kept. A
    request brings at most `events_max` events, which get their details where `keep_details`.
    """

    auth: Authenticator
    counts: Counts
    queue: EventQueue
    api_keys: KeyBook
    denials: Denials
    holds: HoldBook
    orgs: OrgBook
    kept: Kept
    lookback: Lookback
    corrections: CorrectionBook
    credits: CreditBook
    erasures: ErasureBook
    trail: AuditBook
    past: PastBook
    raw_log: EventLog | None
    catalogue: Catalogue
    prices: Prices
    clock: Clock
    ulids: Ulids
    measures: Measures
    vitals: Vitals
    mail: Mail
    self_service: SelfService | None
    return_origins: Sequence[str]
    outbox: OutboxDesk
    comparer: Comparer | None
    repairer: Repairer | None
    version: str
    document: Callable[[], bytes]
    auto_create_orgs: bool
    stripe_mode: StripeMode
    stripe_answers: Callable[[], bool]
    metrics_open: bool
    metrics_token: str | None
    events_max: int
    keep_details: bool
    tallies: Tallies
    tail: Tail

    def at_stripe(self) -> SelfService:
        """What customers do by themselves. Raises StripeNotConfigured."""
        if self.self_service is None:
            raise StripeNotConfigured
        return self.self_service
