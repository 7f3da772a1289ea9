"""What happened to bills, on the wire."""

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from metering.api.models.fields import PAGE_MAX, Answer, OrgId, Request, unset

_MOMENT: Final[JsonDict] = {"format": "date-time"}


class HistoryOfBillsQuery(Request):
    """Whose history."""

    # A query is text: numbers in it are read from their digits.
    model_config = ConfigDict(strict=False)

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = Field(50, description="Entries on a page.")
    cursor: Annotated[str, Field(pattern="^[1-9][0-9]{0,12}-[0-9]{1,19}$")] | None = unset(
        None, "`next_cursor` of the page before."
    )


class BillEvent(Answer):
    """Something that happened to plan, bills or credits of an organisation."""

    id: str
    at: str = Field(json_schema_extra=_MOMENT)
    type: str
    stripe_payment_intent_id: str | None
    stripe_refund_id: str | None
    details: dict[str, Any] = Field(description="What depends on the type: before and after, units, amounts.")


class HistoryOfBills(Answer):
    """A page of what happened, the newest first."""

    data: list[BillEvent]
    next_cursor: str | None
