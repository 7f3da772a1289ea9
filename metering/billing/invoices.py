"""What an invoice says: whether it is owed, which of our periods it bills, and when those are frozen."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from metering.billing.gateway import StripeObject
from metering.billing.subscriptions import id_of
from metering.clock import MS_PER_S
from plans.dunning import Word
from plans.periods import Period

_WORD_OF: Final[Mapping[str, Word]] = {
    "paid": Word.PAID,
    "void": Word.VOIDED,
    "uncollectible": Word.UNCOLLECTIBLE,
    "open": Word.FAILED,
}
"""What the status of an invoice means after an attempt to collect it. A draft was not tried yet.

https://docs.stripe.com/api/invoices/object#invoice_object-status
"""


CYCLE: Final = "subscription_cycle"
FIRST: Final = "subscription_create"
"""https://docs.stripe.com/api/invoices/object#invoice_object-billing_reason"""


@dataclass(frozen=True, slots=True)
class Billed:
    """An invoice of a subscription as we read it: of a time from `from_ms` until `until_ms`.

    `final_ms` is when it was finalised, None while it is a draft, and `due_ms` when Stripe will do so; `ended_ms` when
    the subscription ended, None where it has not or nobody looked; `paid_minor` what was paid of its
    `total_minor`, in minor units of its currency.
    """

    id: str
    subscription: str
    status: str
    reason: str
    from_ms: int
    until_ms: int
    final_ms: int | None
    ended_ms: int | None = None
    due_ms: int | None = None
    paid_minor: int = 0
    total_minor: int = 0
    currency: str = ""

    @property
    def word(self) -> Word | None:
        """What its status says once somebody tried to collect it."""
        return _WORD_OF.get(self.status)

    def closes(self, now_ms: int, within_ms: int) -> bool:
        """Whether it is a draft that Stripe finalises within such a time, or should have by now."""
        return self.final_ms is None and self.due_ms is not None and now_ms >= self.due_ms - within_ms

    def bills(self, period: Period) -> bool:
        """Whether it bills the usage of a period of ours.

        The last one of a subscription bills all until that ended, and our period may have closed a moment later.
        """
        if self.reason == FIRST:
            return False
        if self.ended_ms is not None and period.start_ms < self.ended_ms <= period.end_ms:
            return self.until_ms >= self.ended_ms
        return self.from_ms < period.end_ms <= self.until_ms


def billed(invoice: StripeObject) -> Billed | None:
    """An invoice of a subscription; None for any other.

    Since 2025-03-31 the subscription stands under `parent`
    (https://docs.stripe.com/changelog/basil/2025-03-31/adds-new-parent-field-to-invoicing-objects).
    """
    details = (invoice.get("parent") or {}).get("subscription_details") or {}
    subscription = id_of(details.get("subscription"))
    if not subscription:
        return None
    final_s = (invoice.get("status_transitions") or {}).get("finalized_at")
    due_s = invoice.get("automatically_finalizes_at")
    return Billed(
        id=invoice["id"],
        subscription=subscription,
        status=invoice.get("status") or "draft",
        reason=invoice.get("billing_reason") or "",
        from_ms=invoice["period_start"] * MS_PER_S,
        until_ms=invoice["period_end"] * MS_PER_S,
        final_ms=None if final_s is None else final_s * MS_PER_S,
        due_ms=None if due_s is None else due_s * MS_PER_S,
        paid_minor=invoice.get("amount_paid") or 0,
        total_minor=invoice.get("total") or 0,
        currency=invoice.get("currency") or "",
    )
