"""A payment as it stands, and giving money of it back: what is asked of Stripe, and which credits went with it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from metering.billing.gateway import StripeObject
from metering.billing.sales import GONE, NEGATIVE_TAG, SUCCEEDED, Reversal, Sale, shares_of
from metering.billing.subscriptions import ORG_TAG
from metering.payment_errors import NotRefundable, RefundConflict

ORDER_TAG: Final = "metering_order"
REASON_TAG: Final = "metering_reason"
"""Metadata of a refund: what its repeats are known by, and why it was made."""

_REASON_CHARS_MAX: Final = 500
"""Of a value of Stripe's metadata."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A payment as it stands: what it is at Stripe, its sale, whether this call made the grant, what is gone of it.

    `asked` and `taken` are credits: what the money given back comes to, and what of that was not spent.
    """

    intent: StripeObject
    sale: Sale
    made: bool = False
    refunds: tuple[StripeObject, ...] = ()
    reversal: Reversal = field(default_factory=Reversal)
    asked: int = 0
    taken: int = 0
    balance: int = 0

    @property
    def status(self) -> str:
        """The payment's: https://docs.stripe.com/payments/paymentintents/lifecycle."""
        return str(self.intent["status"])


@dataclass(frozen=True, slots=True)
class Refunded:
    """A refund, and the credits that it took: those that were spent already are told, not taken."""

    refund_id: str
    status: str
    amount_minor: int
    credits_removed: int
    credits_spent: int
    settled: Settled


@dataclass(frozen=True, slots=True)
class RefundOrder:
    """What to give back: an amount (None: all that is left), why, whether spent credits become a debt, a name that its
    repeats share, and who asked for it in which request.
    """

    intent_id: str
    amount_minor: int | None
    reason: str
    allow_negative: bool
    name: str
    actor: str = ""
    request_id: str = ""

    def made_before(self, refunds: Iterable[StripeObject]) -> StripeObject | None:
        """The refund of this name, which an attempt that nobody heard of may have made; None: there is none.

        Stripe's own memory of a key ends after a day. Raises RefundConflict where it was of another amount.
        """
        for one in refunds:
            if (one.get("metadata") or {}).get(ORDER_TAG) == self.name:
                if self.amount_minor not in {None, one["amount"]}:
                    raise RefundConflict(amount=one["amount"], refund_id=one["id"])
                return one
        return None


def refund_params(before: Settled, order: RefundOrder) -> dict[str, Any]:
    """What to ask Stripe for. Raises NotRefundable for what it would refuse, in words of ours."""
    if before.status != SUCCEEDED:
        raise NotRefundable(f"the payment is {before.status}", status_at_stripe=before.status)
    left = before.sale.paid_minor - before.reversal.amount_minor
    if before.reversal.held or left <= 0 or (order.amount_minor or left) > left:
        told = "it is disputed" if before.reversal.held else f"{left} of {before.sale.paid_minor} can be given back"
        raise NotRefundable(told, left_minor=max(0, left), currency=before.sale.currency)
    metadata = {ORG_TAG: before.sale.org_id, ORDER_TAG: order.name, REASON_TAG: order.reason[:_REASON_CHARS_MAX]}
    if order.allow_negative:
        metadata[NEGATIVE_TAG] = "true"
    amount = {} if order.amount_minor is None else {"amount": order.amount_minor}
    return {"payment_intent": order.intent_id, "reason": "requested_by_customer", "metadata": metadata, **amount}


def refunded(made: StripeObject, after: Settled) -> Refunded:
    """What one refund took, whoever took it: its share of the credits, of which the oldest refunds take first."""
    removed = spent = 0
    for share in shares_of(after.sale, [made, *(one for one in after.refunds if one["id"] != made["id"])]):
        if share.refund_id == made["id"] and made["status"] not in GONE:
            removed = max(0, min(share.end, after.taken) - share.start)
            spent = share.end - share.start - removed
    return Refunded(made["id"], made["status"], made["amount"], removed, spent, after)
