"""Whether an invoice will show what is about to be sent. Where events may not have told us, Stripe is asked.

Stripe takes usage of any customer at any time, and bills it only if a subscription has an invoice still to come for
that time. After an outage its events are behind; of a customer that somebody typed in they never told. What it takes
then is on no invoice, while every sum agrees.
"""

from collections.abc import Callable
from typing import Final, Protocol

import structlog

from metering.billing.errors import NotThere
from metering.billing.gateway import StripeObject
from metering.billing.invoices import FIRST, Billed, billed
from metering.billing.payers import Payers, Source
from metering.billing.prices import Prices
from metering.billing.subscriptions import Policy, sells, taking
from metering.store.effects import Effects
from metering.store.org import Org
from metering.store.window import Sink, Window

DRAFT_MS: Final = 55 * 60_000
"""For so long nobody need be asked: the invoice of a renewal is a draft for an hour at least
(https://docs.stripe.com/billing/subscriptions/usage-based/configure-grace-period)."""

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

    def paid(self, org: Org, feature: str, *, closed: bool) -> bool | None:
        """Whether somebody pays; None: ask."""
        ...

    async def ask_paid(self, org: Org, customer: str, feature: str) -> bool:
        """Whether somebody pays."""
        ...

    def doubts(self, window: Window, now_ms: int) -> bool:
        """Whether to ask for a window's invoice."""
        ...

    async def ask_final(self, window: Window, customer: str) -> None:
        """Freeze its period if its invoice is final."""
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

    def paid(self, org: Org, feature: str, *, closed: bool) -> bool | None:
        """Whether somebody pays for overage of a feature, of a closed period or of the running one; None: ask.

        What a subscription that ended still owes is for its last invoice. One without a metered price bills no overage.
        """
        sold = org.profile.subscription
        if sold is not None and feature in sold.metered and (sold.grants or closed):
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

    def doubts(self, window: Window, now_ms: int) -> bool:
        """Whether the invoice of a window's period may be final, though nobody told us."""
        cut = window.cut
        late = now_ms >= cut.period.end_ms + DRAFT_MS
        return late and window.sink is Sink.METER and self._remembered(cut.org_id, cut.period.start_ms) is None

    async def ask_final(self, window: Window, customer: str) -> None:
        """Freeze the period of a window if its invoice is final. Raises the errors of gateway and store."""
        cut = window.cut
        for one in await self._invoices(customer):
            invoice = billed(one)
            if invoice is None or invoice.final_ms is None or invoice.reason == FIRST:
                continue
            if invoice.from_ms < cut.period.end_ms <= invoice.until_ms and await self._is_for(cut.org_id, invoice):
                await self._effects.freeze(cut.org_id, cut.period.start_ms, invoice.final_ms)
                return
        self._remember(cut.org_id, cut.period.start_ms, FINAL_S, paid=True)

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
