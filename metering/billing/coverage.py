"""Whether an invoice will show what is about to be sent. Where events may not have told us, Stripe is asked.

Stripe takes usage of any customer at any time, and bills it only if a subscription has an invoice still to come for
that time. After an outage its events are behind; of a customer that somebody typed in they never told. What it takes
then is on no invoice, while every sum agrees.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

import structlog

from metering.billing.errors import NotThere
from metering.billing.gateway import StripeObject
from metering.billing.invoices import Billed, billed
from metering.billing.payers import Payers, Source
from metering.billing.prices import Prices
from metering.billing.subscriptions import Policy, sells, taking
from metering.store.effects import Effects
from metering.store.org import Org, Subscription
from metering.store.window import Sink, Window
from plans.periods import Period

DRAFT_MS: Final = 55 * 60_000
"""For so long nobody need be asked: the invoice of a renewal is a draft for an hour at least
(https://docs.stripe.com/billing/subscriptions/usage-based/configure-grace-period)."""

SHUT_MS: Final = 4 * 60_000
"""For so long before Stripe finalises a draft nothing is told for it any more: what arrives a moment too late would be
on no invoice. It is more than an answer is believed for and a call may take."""

PAID_S: Final = 540.0
"""For so long it is believed that somebody pays, or that nobody does: less than lies between two looks at what is put
by. Who buys a plan is told of by an event at once, and is not asked for."""

FINAL_S: Final = 60.0
"""For so long it is believed that an invoice is still to come: the windows of one turn ask once."""

REMEMBERED: Final = 10_000
"""Answers that are remembered; with more, all are asked for again."""

log = structlog.get_logger(__name__)


class Asked(Source, Protocol):
    """The verbs by which Stripe is asked: see `metering.billing.gateway`."""

    async def invoices(self, customer: str) -> list[StripeObject]:
        """All of a customer."""
        ...


class Cover(Protocol):
    """What the exporter wants to know; see `Coverage`."""

    def paid(self, org: Org, feature: str, closed_ms: int | None) -> bool | None:
        """Whether somebody pays; None: ask."""
        ...

    async def ask_paid(self, org: Org, customer: str, feature: str) -> bool:
        """Whether somebody pays."""
        ...

    def doubts(self, window: Window, sold: Subscription | None, now_ms: int) -> bool:
        """Whether to ask for a window's invoice."""
        ...

    async def ask_final(
        self, org_id: str, period: Period, customer: str, sold: Subscription | None, now_ms: int
    ) -> bool:
        """Whether an invoice of a period is to come; freeze it where none is."""
        ...


class Coverage:
    """Asks, and takes over what it hears as an event would have it. `monotonic` tells seconds."""

    def __init__(
        self, source: Asked, payers: Payers, effects: Effects, prices: Prices, policy: Policy,
        monotonic: Callable[[], float],
    ) -> None:  # fmt: skip
        self._source, self._payers, self._effects = source, payers, effects
        self._prices, self._policy, self._monotonic = prices, policy, monotonic
        self._answers: dict[tuple[str, str | int], tuple[float, bool]] = {}

    def paid(self, org: Org, feature: str, closed_ms: int | None) -> bool | None:
        """Whether somebody pays for overage of a feature, of the closed period that began at `closed_ms` or of the
        running one (None); None: ask.

        What a subscription that ended still owes is for its last invoice. One without a metered price bills no overage.
        """
        sold = org.profile.subscription
        if sold is not None and feature in sold.metered and (sold.grants or _owes(sold, closed_ms)):
            return True
        return self._remembered(org.org_id, feature)

    async def ask_paid(self, org: Org, customer: str, feature: str) -> bool:
        """The same by Stripe's word, which the organisation is brought to. Raises the errors of gateway and store.

        A customer that Stripe does not know counts as one who pays: the refusal is told where refusals are.
        """
        reading = await self._payers.read(org.org_id, customer)
        if reading is None or not (reading.subscriptions or await self._known(customer)):
            return True
        after = await self._effects.apply(org.org_id, None, taking(reading, self._prices, self._policy))
        paid = any(sells(one, org, reading, self._prices, feature) for one in reading.subscriptions)
        if not paid:
            log.warning("overage that no subscription bills", org=org.org_id, feature=feature)
        if not paid or (after is not None and after.profile.subscription is None):
            self._remember(org.org_id, feature, PAID_S, paid=paid)
        return paid

    def doubts(self, window: Window, sold: Subscription | None, now_ms: int) -> bool:
        """Whether the invoice of a window's period may be final, or there be none, though nobody told us."""
        cut = window.cut
        ended = sold is not None and sold.ended_in(cut.period) is not None
        late = ended or now_ms >= cut.period.end_ms + DRAFT_MS
        return late and window.sink is Sink.METER and self._remembered(cut.org_id, cut.period.start_ms) is None

    async def ask_final(
        self, org_id: str, period: Period, customer: str, sold: Subscription | None, now_ms: int
    ) -> bool:
        """Whether an invoice of a period is still to come, and not about to be final. One that is final freezes it.

        A subscription that was cancelled may have no last invoice. Where none came in the time of a draft none is to
        come, and the period is frozen at the subscription's end; before, nobody can say: False, and it is not frozen.
        Raises the errors of gateway and store.
        """
        invoice = await self._invoice_of(org_id, period, customer, sold)
        if invoice is not None and invoice.closes(now_ms, SHUT_MS):
            return False
        ended_ms = None if sold is None else sold.ended_in(period)
        final_ms = ended_ms if invoice is None else invoice.final_ms
        if final_ms is None:
            self._remember(org_id, period.start_ms, FINAL_S, paid=True)
            return True
        if invoice is not None or now_ms >= final_ms + DRAFT_MS:
            await self._effects.freeze(org_id, period.start_ms, final_ms)
        return False

    async def _invoice_of(self, org_id: str, period: Period, customer: str, sold: Subscription | None) -> Billed | None:
        """The invoice that bills a period: the final one, or a draft."""
        draft = None
        for one in await self._invoices(customer):
            invoice = billed(one)
            if invoice is None:
                continue
            kept = sold if sold is not None and sold.id == invoice.subscription else None
            invoice = replace(invoice, ended_ms=None if kept is None else kept.ended_ms)
            if invoice.bills(period) and (kept or await self._is_for(org_id, invoice)):
                if invoice.final_ms is not None:
                    return invoice
                draft = invoice
        return draft

    async def _invoices(self, customer: str) -> list[StripeObject]:
        try:
            return await self._source.invoices(customer)
        except NotThere:
            return []

    async def _is_for(self, org_id: str, invoice: Billed) -> bool:
        try:
            subscription = await self._source.subscription(invoice.subscription)
        except NotThere:
            return False
        return org_id in await self._payers.of_subscription(subscription)

    async def _known(self, customer: str) -> bool:
        try:
            await self._source.customer(customer)
        except NotThere:
            return False
        return True

    def _remembered(self, org_id: str, what: str | int) -> bool | None:
        """The answer about a feature or a period; None where nobody asked lately."""
        until_s, paid = self._answers.get((org_id, what), (0.0, False))
        return paid if self._monotonic() < until_s else None

    def _remember(self, org_id: str, what: str | int, seconds: float, *, paid: bool) -> None:
        if len(self._answers) >= REMEMBERED:
            self._answers.clear()
        self._answers[org_id, what] = self._monotonic() + seconds, paid


def _owes(sold: Subscription, closed_ms: int | None) -> bool:
    """Whether the closed period that began then is one that a subscription bills which grants nothing any more."""
    return closed_ms is not None and (sold.ended_ms is None or closed_ms < sold.ended_ms)
