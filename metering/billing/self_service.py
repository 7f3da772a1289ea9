"""What customers do about their subscription by themselves, at Stripe."""

from dataclasses import dataclass

from metering.billing.checkout import Checkout
from metering.billing.portal import Portal


@dataclass(frozen=True, slots=True)
class SelfService:
    """Buy a plan; see to card and invoices."""

    checkout: Checkout
    portal: Portal
