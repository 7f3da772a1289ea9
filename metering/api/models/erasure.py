"""Erasing an organisation, on the wire."""

from typing import Literal

from pydantic import Field

from metering.api.models.fields import Answer, Flag, Moment, Request, Text
from metering.store.removal import Files


class EraseQuery(Request):
    """Why an organisation is erased, and whether money is given up for it."""

    reason: Text = Field(description="It stands in the receipt for good: name no person in it.")
    write_off: Flag = Field(
        default=False, description="Overage that Stripe does not have yet is given up, and never billed."
    )


class ErasureView(Answer):
    """The receipt of an erasure. It is kept for good, and all that is left of the organisation."""

    org_id: str
    job_id: str
    status: Literal["erasing", "erased"] = Field(
        description="From `erasing` on nothing is counted and nothing can be read; `erased` once all is taken away."
    )
    erased_at: Moment
    erased_by: str
    reason: str
    finished_at: Moment | None
    overage_given_up: int = Field(description="Units that Stripe did not have.")
    store_file: Literal[tuple(Files)] | None = Field(  # type: ignore[valid-type]
        description="Old values in the store's own file: `rewritten` without them, `none` where there is no file,"
        " `refused` where the store does not let the service rewrite it."
    )
    stripe_customer_id: str | None = Field(description="Whose data at Stripe is not touched.")
    left_to_do: list[str] = Field(description="What this service cannot erase, for people to do.")
