"""Invoices on the wire."""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from metering.api.models.fields import Answer, OrgId, Request, Span, unset

_MOMENT: Final[JsonDict] = {"format": "date-time"}
PAGE_MAX: Final = 100
"""As many as Stripe tells at once (https://docs.stripe.com/api/pagination)."""

Status: TypeAlias = Literal["draft", "open", "paid", "uncollectible", "void"]
InvoiceId: TypeAlias = Annotated[str, Field(pattern="^in_[A-Za-z0-9_]{1,250}$")]


class _Page(Request):
    """How to walk Stripe's list."""

    # A query is text: numbers in it are read from their digits.
    model_config = ConfigDict(strict=False)

    status: Status | None = unset(None, "Only those of this status.")
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = Field(20, description="Entries on a page.")
    cursor: InvoiceId | None = unset(None, "`next_cursor` of the page before.")


class InvoicesQuery(_Page):
    """Whose invoices."""

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")


class EveryInvoiceQuery(_Page):
    """Which invoices of the account."""

    org_id: OrgId | None = unset(None, "Only those of this organisation's customer.")


class InvoiceView(Answer):
    """An invoice as Stripe has it. Amounts in minor units of its currency."""

    id: str
    number: str | None = Field(description="null: it is a draft.")
    status: Status
    currency: str
    total: int
    amount_due: int
    amount_paid: int
    amount_remaining: int
    created: str = Field(json_schema_extra=_MOMENT)
    period: Span = Field(description="What its usage is of; what is paid ahead is of the time after.")
    due_date: str | None = Field(json_schema_extra=_MOMENT)
    hosted_invoice_url: str | None = Field(description="Where a payer reads and pays it; null: it is a draft.")
    invoice_pdf: str | None


class InvoicePage(Answer):
    """A page of invoices, the newest first."""

    data: list[InvoiceView]
    next_cursor: str | None


class OwnedInvoiceView(InvoiceView):
    """The same with who pays it."""

    stripe_customer_id: str | None
    org_ids: list[str] = Field(description="The organisations that the customer pays for; none: not of ours.")


class EveryInvoicePage(Answer):
    """A page of the account's invoices, the newest first."""

    data: list[OwnedInvoiceView]
    next_cursor: str | None
