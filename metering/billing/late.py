"""Which way a window goes: to its meter as long as an invoice is still to come, else onto the next one, or nowhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from metering.billing.currencies import at_stripe
from metering.store.org import Subscription
from metering.store.window import Cut, Sink
from plans.catalogue import Catalogue, Override, pricing_for
from plans.tiers import charge

METER_AGE_MAX_MS: Final = 34 * 86_400_000
"""Stripe takes usage of the past 35 calendar days (https://docs.stripe.com/api/billing/meter-event/create): a day less,
as attempts take time."""

_NONE: Final[Mapping[str, Override]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Way:
    """Where a window goes and what it comes to as an item, in Stripe's units; `why` it goes nowhere."""

    sink: Sink
    amount_minor: int | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Late:
    """Decides. `writes_off`: overage found after its invoice was finalised is let go."""

    catalogue: Catalogue
    writes_off: bool = False

    def way_of(
        self, cut: Cut, now_ms: int, sold: Subscription | None, *, invoiced: bool, own: Mapping[str, Override] = _NONE
    ) -> Way:
        """The way of a window of which nothing was sent yet. `own` are the overrides that hold now: an item costs what
        was agreed with the organisation, as nobody but us says its price.
        """
        reason = _reason(cut, now_ms, sold, invoiced=invoiced)
        if not reason:
            return Way(Sink.METER)
        pricing = pricing_for(self.catalogue, own, cut.feature)
        if self.writes_off or pricing is None:
            return Way(Sink.NONE, why=reason if self.writes_off else f"{reason}, and it has no price")
        currency = self.catalogue.currency
        below, all_units = (charge(pricing, units, currency).amount_minor for units in (cut.from_units, cut.to_units))
        return Way(Sink.ITEM, at_stripe(all_units - below, currency))


def _reason(cut: Cut, now_ms: int, sold: Subscription | None, *, invoiced: bool) -> str:
    """Why no invoice to come would show it; '' where one will."""
    if invoiced:
        return "its invoice was finalised"
    if sold is not None and cut.last_ms < sold.since_ms:
        return "it was used before the subscription began"
    if sold is not None and sold.ended_ms is not None and cut.period.start_ms >= sold.ended_ms:
        return "its period began when the subscription had ended"
    return "it is too old for a meter" if now_ms - cut.last_ms > METER_AGE_MAX_MS else ""
