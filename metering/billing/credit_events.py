"""What Stripe's events of payments, refunds and disputes make us do: look at the payment that they are about."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from metering.billing.credits import CreditShop
from metering.billing.gateway import StripeObject
from metering.billing.refunds import Settled
from metering.billing.sales import SUCCEEDED
from metering.billing.subscriptions import id_of
from metering.erasure_errors import OrgErased
from metering.errors import OrgNotFound
from webhooks.stripe_events import StripeEvent

log = structlog.get_logger(__name__)


class Source(Protocol):
    """The verbs that lead from an object to its payment: see `metering.billing.gateway`."""

    async def checkout(self, session_id: str) -> StripeObject:
        """One checkout."""
        ...

    async def charge(self, charge_id: str) -> StripeObject:
        """One attempt to take money."""
        ...

    async def refund(self, refund_id: str) -> StripeObject:
        """One refund."""
        ...

    async def dispute(self, dispute_id: str) -> StripeObject:
        """One dispute."""
        ...


@dataclass(frozen=True, slots=True)
class Noted:
    """What the trail of an organisation says of an event: names and values, and those that nobody else may read."""

    org_id: str
    words: tuple[str, ...]
    sealed: Mapping[str, str | int] = field(default_factory=dict)


_INTENT: Final = "payment_intent."
_REFUND: Final = "refund."

_PAYS: Final = frozenset(
    {"payment_intent.succeeded", "checkout.session.completed", "checkout.session.async_payment_succeeded"}
)
"""Types of events that tell of money that came."""


class CreditEvents:
    """Reacts to what happens to payments. Every reaction may be repeated, and come in any order."""

    def __init__(self, source: Source, shop: CreditShop) -> None:
        self._shop = shop
        self._reads: dict[str, Callable[[str], Awaitable[StripeObject]]] = {
            "checkout.session.": source.checkout,
            "charge.dispute.": source.dispute,
            "charge.": source.charge,
            "refund.": source.refund,
        }

    async def react(self, event: StripeEvent) -> Noted | None:
        """Bring the ledger to where the event's payment is; None where it sells no credits of ours.

        Raises GatewayErrors, NotThere for an object that is gone; OrgErased, OrgNotFound for a payment that is to go
        back. What is given back or disputed of a payment from before an organisation was erased is nobody's.
        """
        intent_id = await self._intent_of(event)
        try:
            settled = await self._shop.look(intent_id) if intent_id else None
        except (OrgErased, OrgNotFound):
            if event.type not in _PAYS:
                return None
            log.exception("payment of an organisation that is not there", payment_intent=intent_id)
            raise
        if settled is None:
            return None
        sealed: dict[str, str | int] = {"payment_intent": settled.intent["id"]}
        if event.type.startswith(_REFUND):
            sealed["refund"] = event.object_id
        return Noted(settled.sale.org_id, _words(settled), sealed | _amounts(settled))

    async def _intent_of(self, event: StripeEvent) -> str:
        if event.type.startswith(_INTENT):
            return event.object_id
        read = next(read for prefix, read in self._reads.items() if event.type.startswith(prefix))
        return id_of((await read(event.object_id)).get("payment_intent"))


def _amounts(settled: Settled) -> dict[str, int]:
    """What the payment comes to, and what of that was given back or lost."""
    told = {"total_minor": settled.sale.paid_minor}
    return told | ({"refunded_minor": settled.reversal.amount_minor} if settled.reversal.amount_minor else {})


def _words(settled: Settled) -> tuple[str, ...]:
    sale = settled.sale
    words: tuple[str, ...] = ("payment", settled.status, "credits", str(sale.credits), "currency", sale.currency)
    if settled.status == SUCCEEDED and settled.asked:
        words += ("taken_back", str(settled.taken), "spent", str(settled.asked - settled.taken))
    return words + (("disputed", "1") if settled.reversal.held else ())
