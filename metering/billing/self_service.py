"""What customers do about their subscription and their credits by themselves, at Stripe."""

from dataclasses import dataclass

from metering.billing.checkout import Checkout
from metering.billing.credits import CreditShop
from metering.billing.invoice_list import InvoiceList
from metering.billing.plan_change import PlanChange
from metering.billing.portal import Portal
from metering.billing.subscriber import Subscriber
from metering.billing.topups import AutoTopUp


@dataclass(frozen=True, slots=True)
class SelfService:
    """Buy a plan or credits; see to card and invoices; change the plan; let it end, and take that back."""

    checkout: Checkout
    credits: CreditShop
    portal: Portal
    invoices: InvoiceList
    subscriber: Subscriber
    plan_change: PlanChange
    top_up: AutoTopUp
