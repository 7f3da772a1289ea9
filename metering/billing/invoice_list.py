"""Invoices as people look at them, read from Stripe page by page: https://docs.stripe.com/api/invoices/list."""

from dataclasses import dataclass

from metering.billing.errors import Refused
from metering.billing.gateway import InvoicePages, StripeObject
from metering.billing.waiting import waiting
from metering.errors import Invalid
from metering.store.customers import Customers


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which invoices: of a customer (None: of everybody), of one status, and those after the invoice `after`."""

    limit: int
    customer: str | None = None
    status: str | None = None
    after: str | None = None


class InvoiceList:
    """The invoices of the account."""

    def __init__(self, source: InvoicePages, customers: Customers) -> None:
        self._source, self._customers = source, customers

    async def owners(self, customer: str) -> list[str]:
        """The organisations that a customer pays for."""
        return await self._customers.orgs_of(customer) if customer else []

    async def page(self, wanted: Wanted) -> tuple[list[StripeObject], str | None]:
        """One page as Stripe tells it, the newest first, and what the next one comes after (None: there is none).

        Raises Invalid, CustomerUnknown, StripeFailed, StripeUnavailable.
        """
        async with waiting("invoices"):
            found, more = await self._asked(wanted)
        return found, str(found[-1]["id"]) if more else None

    async def _asked(self, wanted: Wanted) -> tuple[list[StripeObject], bool]:
        try:
            return await self._source.invoice_page(
                customer=wanted.customer, status=wanted.status, after=wanted.after, limit=wanted.limit
            )
        except Refused as error:
            if wanted.after is None or error.param != "starting_after":
                raise
            told = "no invoice of the list before"
            raise Invalid(told, errors=[{"pointer": "/cursor", "code": "cursor-unknown", "detail": told}]) from error
