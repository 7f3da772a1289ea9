"""What Stripe's events make us do. An event only names an object: what became of it is asked again.

Every reaction may be repeated at any point: what it tells other parts is idempotent and comes first, the change of the
organisation comes last, in one script with the event's mark and its entry in the trail. So a worker that dies leaves an
event that takes effect once, later.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import structlog

from metering.billing.credit_events import Noted
from metering.billing.errors import NotThere
from metering.billing.gateway import StripeObject
from metering.billing.invoices import CYCLE, FIRST, Billed, billed
from metering.billing.meter_reports import MeterReport, report_of
from metering.billing.payers import Payers, Source
from metering.billing.prices import Prices
from metering.billing.subscriptions import (
    Policy,
    Reading,
    ended_ms_of,
    id_of,
    is_ours,
    org_named,
    paid_for,
    plan_after,
    settled,
    synced,
    taking,
)
from metering.names import is_org_id
from metering.store.credit_words import named
from metering.store.effects import ACTOR, Decide, Decision, Effects
from metering.store.org import Org
from metering.store.totals import CREDITS, FAILED, INVOICE, SUCCEEDED, payment_total
from plans.billing_periods import Alignment
from plans.dunning import Word, told
from webhooks.stripe_events import Reaction, StripeEvent

GRACE_S: Final = 10.0
"""Between two looks at who has run out of grace. It is counted in days, but time on a test clock waits for it."""

_PAID: Final = frozenset({"paid", "no_payment_required"})
"""https://docs.stripe.com/api/checkout/sessions/object#checkout_session_object-payment_status"""

NOTHING: Final[Mapping[str, str | int]] = MappingProxyType({})

log = structlog.get_logger(__name__)


async def _nothing(*_: object) -> None:
    """What nobody asked to be told of."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Other parts that are told. Each may be told the same more than once.

    `flush(org_id, period_start_ms)` pushes what a period still has, now. `linked(org_id)`: an organisation has a
    customer. `reported(report)`: Stripe could not bill usage that it took. `sold(subscription)`: one was read.
    `paid(event)`: something happened to a payment; what the trail says of it, None where it sells no credits of ours.
    """

    flush: Callable[[str, int], Awaitable[None]] = _nothing
    linked: Callable[[str], Awaitable[None]] = _nothing
    reported: Callable[[MeterReport], Awaitable[None]] = _nothing
    sold: Callable[[StripeObject], Awaitable[None]] = _nothing
    paid: Callable[[StripeEvent], Awaitable[Noted | None]] = _nothing


class Reactions:
    """Reacts to events, in any order and any number of times. Raises the errors of the gateway and of the store."""

    def __init__(
        self,
        source: Source,
        payers: Payers,
        effects: Effects,
        prices: Prices,
        policy: Policy,
        hooks: Hooks | None = None,
    ) -> None:
        self._source, self._payers, self._effects = source, payers, effects
        self._prices, self._policy, self._hooks = prices, policy, hooks or Hooks()
        self._by_reaction: dict[Reaction, Callable[[StripeEvent], Awaitable[bool]]] = {
            Reaction.CHECKOUT: self._checkout,
            Reaction.SUBSCRIPTION: self._subscription,
            Reaction.INVOICE_BEGUN: self._invoice,
            Reaction.INVOICE_FINAL: self._invoice,
            Reaction.INVOICE_PAID: self._invoice,
            Reaction.INVOICE_UNPAID: self._invoice,
            Reaction.CUSTOMER: self._customer,
            Reaction.METER: self._meter,
            Reaction.PAYMENT: self._money,
            Reaction.REFUND: self._money,
            Reaction.DISPUTE: self._money,
        }

    async def react(self, event: StripeEvent) -> bool:
        """Do what an event asks for; whether it is in the trail of somebody, and counted with that.

        One of an object that is gone, or none of ours, does nothing.
        """
        reaction = None if event.reaction is None else self._by_reaction.get(event.reaction, self._other)
        if reaction is None:
            return False
        try:
            return await reaction(event)
        except NotThere as gone:
            log.info("stripe event of an object that is gone", **_named(event), told=gone.message)
            return False

    async def end_graces(self) -> None:
        """Mark as overdue who has run out of grace."""
        async for org_id in self._effects.ended_grace():
            await self._effects.apply(org_id, None, self._overdue)

    # ── by noun ──────────────────────────────────────────────────────────────────────────────────────────

    async def _checkout(self, event: StripeEvent) -> bool:
        """Link the payer of a subscription to the organisation that asked for it, once it is paid.

        Whoever pays by a link may write any `client_reference_id` into its address, metadata is written by us alone
        (https://docs.stripe.com/payment-links/url-parameters): a reference gives a payer to who has none, no more.
        """
        session = await self._source.checkout(event.object_id)
        customer, named = id_of(session.get("customer")), org_named(session)
        org_id = session.get("client_reference_id") or named
        if not is_org_id(org_id) or named not in {"", org_id}:
            return self._ignored(event)
        if session.get("mode") == "subscription" and _is_paid(session):
            if not named and not await self._payers.free_for(org_id, customer):
                log.error("stripe checkout for an organisation that another customer pays for", **_named(event))
                return False
            return await self._take(event, org_id, customer, bought=True, links=bool(named))
        if not named:
            return self._ignored(event)
        if session.get("mode") == "payment" and await self._paid(event):
            return True
        paid, mode = session.get("payment_status"), session.get("mode") or ""
        return await self._note(event, org_id, "mode", mode, "payment_status", str(paid))

    async def _subscription(self, event: StripeEvent) -> bool:
        """Take over plan, status and period of whom it is for."""
        subscription = await self._source.subscription(event.object_id)
        orgs = await self._payers.of_subscription(subscription)
        if not orgs:
            return self._ignored(event)
        return any([await self._take(event, org_id, id_of(subscription["customer"])) for org_id in orgs])

    async def _invoice(self, event: StripeEvent) -> bool:
        """Grace and its end; and the periods it bills: pushed while it is a draft, frozen when it is final."""
        invoice = billed(await self._source.invoice(event.object_id))
        subscription = None if invoice is None else await self._source.subscription(invoice.subscription)
        orgs = [] if subscription is None else await self._payers.of_subscription(subscription)
        if invoice is None or subscription is None or not orgs:
            return self._ignored(event)
        if event.type == "invoice.finalization_failed":
            log.error("stripe could not finalise an invoice", **_named(event), orgs=orgs)
        customer, invoice = id_of(subscription["customer"]), replace(invoice, ended_ms=ended_ms_of(subscription))
        counted = {min(orgs): _paid_or_not(event, invoice)}  # one payment, also where two organisations share it
        taken = [
            await self._take(event, org_id, customer, invoice=invoice, counted=counted.get(org_id, ()))
            for org_id in orgs
        ]
        return any(taken)

    async def _money(self, event: StripeEvent) -> bool:
        """Credits that are bought, given back or disputed; what other products sell is noted and no more."""
        return await self._paid(event) or await self._other(event)

    async def _paid(self, event: StripeEvent) -> bool:
        noted = await self._hooks.paid(event)
        counted = (payment_total(CREDITS, FAILED),) if event.type == "payment_intent.payment_failed" else ()
        if noted is None:
            return False
        return await self._note(event, noted.org_id, *noted.words, counted=counted, sealed=noted.sealed)

    async def _customer(self, event: StripeEvent) -> bool:
        """Unlink a customer who was deleted: nobody can be billed through it any more."""
        try:
            gone = bool((await self._source.customer(event.object_id)).get("deleted"))
        except NotThere:
            gone = True
        orgs = await self._payers.of_customer(event.object_id) if gone else []
        for org_id in orgs:
            await self._effects.apply(org_id, event.dedupe_id, self._unlinked(event))
            await self._payers.forget(org_id, event.object_id)
        return bool(orgs)

    async def _meter(self, event: StripeEvent) -> bool:
        """Usage that Stripe took and could not bill: somebody must look, and the windows it names are not delivered."""
        report = report_of(await self._source.thin_event(event.event_id))
        log.error(
            "stripe could not bill usage", **_named(event), counts=dict(report.counts), samples=len(report.samples)
        )
        await self._hooks.reported(report)
        return False

    async def _other(self, event: StripeEvent) -> bool:
        """What this service does nothing about is in the trail of whom it is about, where the event says so."""
        return any([await self._note(event, org_id) for org_id in await self._payers.of_customer(event.customer)])

    # ── what they share ──────────────────────────────────────────────────────────────────────────────────

    async def _take(
        self,
        event: StripeEvent,
        org_id: str,
        customer: str,
        *,
        bought: bool = False,
        links: bool = False,
        invoice: Billed | None = None,
        counted: tuple[str, ...] = (),
    ) -> bool:
        """Bring an organisation to what its customer bought, and note the event with what it says of an invoice."""
        if await self._effects.done(org_id, event.dedupe_id):
            return True
        reading = await self._payers.read(org_id, customer, links=links)
        if reading is None:
            await self._payers.look_for_erased(org_id, customer)
        if reading is None or (bought and not any(is_ours(one, self._prices) for one in reading.subscriptions)):
            return self._ignored(event)
        for one in reading.subscriptions:
            await self._hooks.sold(one)
        if invoice is not None:
            await self._periods(org_id, reading, invoice)
        org = await self._effects.apply(org_id, event.dedupe_id, self._taken(event, reading, invoice, counted))
        if org is None:
            return False
        if org.profile.stripe_customer_id == customer:
            await self._hooks.linked(org_id)
        if len(paid := paid_for(org, reading, self._prices)) > 1:
            log.error("an organisation pays for several plans at once", **_named(event), org=org_id, subscriptions=paid)
        return True

    async def _periods(self, org_id: str, reading: Reading, invoice: Billed) -> None:
        """Push or freeze what an invoice bills, once our period has closed where Stripe's has."""
        org = await self._effects.apply(org_id, None, taking(reading, self._prices, self._policy))
        if org is None or invoice.reason == FIRST:
            return
        closed = [one for one in await self._effects.closed(org_id, invoice.from_ms) if invoice.bills(one)]
        for period in closed:
            if invoice.final_ms is None:
                await self._hooks.flush(org_id, period.start_ms)
            else:
                await self._effects.freeze(org_id, period.start_ms, invoice.final_ms)
        if invoice.final_ms is None and invoice.reason != CYCLE:
            await self._hooks.flush(org_id, org.period.start_ms)

    async def _note(
        self,
        event: StripeEvent,
        org_id: str,
        *words: str,
        counted: tuple[str, ...] = (),
        sealed: Mapping[str, str | int] = NOTHING,
    ) -> bool:
        """Write an event into the trail of an organisation, and change nothing else."""

        def decide(org: Org, _: int) -> Decision:
            boxes = [word for name, value in sealed.items() for word in named(org, name, value)]
            entries = ((event.type, "actor", ACTOR, *words, *boxes),)
            return Decision(org.plan, org.profile, Alignment(None, org.period), entries, counted)

        noted = await self._effects.apply(org_id, event.dedupe_id, decide)
        return self._ignored(event) if noted is None else True

    def _ignored(self, event: StripeEvent) -> bool:
        """Other products may be sold on the same account."""
        log.info("stripe event of nobody we know", **_named(event))
        return False

    # ── decisions ────────────────────────────────────────────────────────────────────────────────────────

    def _taken(self, event: StripeEvent, reading: Reading, invoice: Billed | None, counted: tuple[str, ...]) -> Decide:
        """Takes a reading over with what an invoice says, tells the trail, and counts."""
        word = _word(event, invoice)

        def decide(org: Org, now_ms: int) -> Decision:
            profile, moved = synced(org, reading, self._prices, now_ms)
            if invoice is not None and word is not None:
                profile = replace(profile, debts=told(profile.debts, invoice.id, word, event.created_ms))
            profile = settled(profile, now_ms, self._policy)
            entry = [event.type, "actor", ACTOR]
            if profile.subscription is not None:
                entry += ["subscription", profile.subscription.status]
            if (paid := len(paid_for(org, reading, self._prices))) > 1:
                entry += ["subscriptions_paid", str(paid)]
            if invoice is not None:
                entry += ["invoice", invoice.status, *_bill(org, invoice)]
            if profile.grace_end_ms is not None:
                entry += ["grace_until", str(profile.grace_end_ms)]
            return Decision(plan_after(org, profile, self._policy), profile, moved, (tuple(entry),), counted)

        return decide

    def _unlinked(self, event: StripeEvent) -> Decide:
        """Takes the customer away, and the subscription's plan with it; nobody is left to pay what is owed."""

        def decide(org: Org, now_ms: int) -> Decision:
            sold = org.profile.subscription
            ended = None if sold is None else replace(sold, status="canceled")
            profile = replace(org.profile, stripe_customer_id=None, subscription=ended, debts={})
            profile = settled(profile, now_ms, self._policy)
            entry = (event.type, "actor", ACTOR, "stripe_customer", "removed")
            return Decision(plan_after(org, profile, self._policy), profile, Alignment(None, org.period), (entry,))

        return decide

    def _overdue(self, org: Org, now_ms: int) -> Decision | None:
        """Marks as overdue; nothing where it is marked already. Where GRACE_DAYS changed, grace may only end later."""
        profile = settled(org.profile, now_ms, self._policy)
        if profile == org.profile:
            return None
        entries = (("payment_overdue",),) if profile.payment_overdue else ()
        return Decision(plan_after(org, profile, self._policy), profile, Alignment(None, org.period), entries)


def _word(event: StripeEvent, invoice: Billed | None) -> Word | None:
    """What an event says of an invoice's payment. Only an attempt to collect makes an open one a failure."""
    if invoice is None or event.reaction not in {Reaction.INVOICE_PAID, Reaction.INVOICE_UNPAID}:
        return None
    open_still = invoice.word is Word.FAILED and event.reaction is Reaction.INVOICE_PAID
    return None if open_still else invoice.word


def _paid_or_not(event: StripeEvent, invoice: Billed) -> tuple[str, ...]:
    """The total of payments that an event of an invoice counts in. One of nothing is paid without a payment."""
    if event.type == "invoice.payment_failed":
        return (payment_total(INVOICE, FAILED),)
    return (payment_total(INVOICE, SUCCEEDED),) if event.type == "invoice.paid" and invoice.paid_minor else ()


def _bill(org: Org, invoice: Billed) -> list[str]:
    """What an invoice comes to, as the trail keeps it."""
    amounts = {"invoice_id": invoice.id, "total_minor": invoice.total_minor, "paid_minor": invoice.paid_minor}
    return [
        "currency",
        invoice.currency,
        *(word for name, value in amounts.items() for word in named(org, name, value)),
    ]


def _named(event: StripeEvent) -> dict[str, str]:
    return {"stripe_event": event.event_id, "type": event.type, "object": event.object_id}


def _is_paid(session: StripeObject) -> bool:
    """Whether a checkout is over and nothing of it is left to pay."""
    return session.get("status") == "complete" and session.get("payment_status") in _PAID
