"""A billing history on the wire."""

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ConfigDict, Field

from metering.api.models.fields import PAGE_MAX, Answer, OrgId, Request, unset, whole

CURSOR_PATTERN: Final = r"^[1-9][0-9]{0,12}-[0-9]{1,19}$"


class PastQuery(Request):
    """Whose billing history, and which page of it."""

    # A query is text: numbers in it are read from their digits.
    model_config = ConfigDict(strict=False)

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX), BeforeValidator(whole)] = Field(
        50, description="Entries on a page."
    )
    cursor: Annotated[str, Field(pattern=CURSOR_PATTERN)] | None = unset(None, "`next_cursor` of the page before.")


class PastEntry(Answer):
    """Something that changed what an organisation pays, or was paid."""

    id: str = Field(description="Names the entry among those of its organisation.")
    at: str = Field(json_schema_extra={"format": "date-time"})
    type: str
    details: dict[str, Any] = Field(
        description="What depends on the type. Of `period_closed`: each feature's units, and how much of the overage"
        " is at Stripe, as of now. Amounts are minor units of `currency`: `total_minor` of an invoice or a payment,"
        " `paid_minor` of it, `refunded_minor` what was given back of a payment so far."
    )
    stripe_payment_intent_id: str | None
    stripe_refund_id: str | None
    stripe_invoice_id: str | None


class PastPage(Answer):
    """One page, the newest first. It can be short, or empty, and have a `next_cursor`: then there may be more."""

    data: list[PastEntry]
    next_cursor: str | None
