"""What customers do about their subscription by themselves, at Stripe."""

from dataclasses import dataclass

from metering.billing.checkout import Checkout
from metering.billing.invoice_list import InvoiceList
from metering.billing.plan_change import PlanChange
from metering.billing.portal import Portal
from metering.billing.subscriber import Subscriber


@dataclass(frozen=True, slots=True)
class SelfService:
    """Buy a plan; see to the card; look at invoices; change the plan; let the subscription end, and take that back."""

    checkout: Checkout
    portal: Portal
    invoices: InvoiceList
    subscriber: Subscriber
    plan_change: PlanChange
