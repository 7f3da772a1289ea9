"""Raw events on the wire."""

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from metering.api.models.fields import PAGE_MAX, Answer, FeatureName, Moment, OrgId, Request, Text, unset

ENTRY_PATTERN: Final = r"^[1-9][0-9]{0,14}-[0-9]{1,15}$"


class RawEventsQuery(Request):
    """Which raw events, and how to walk them."""

    # A query is text: numbers in it are read from their digits.
    model_config = ConfigDict(strict=False)

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")
    feature: FeatureName | None = unset(None, "Only of this feature.")
    id: Text | None = unset(None, "Only with this `event_id`.")
    source: Text | None = unset(None, "Only from this sender.")
    from_: Moment | None = unset(None, "Only what was counted then or later.", alias="from")
    to: Moment | None = unset(None, "Only what was counted before then.")
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = Field(50, description="Entries on a page.")
    cursor: Annotated[str, Field(pattern=ENTRY_PATTERN)] | None = unset(None, "`next_cursor` of the page before.")


class RawEventView(Answer):
    """One counted feature of an event. What the event did not say is null."""

    id: str = Field(description="Names this entry.")
    at: str = Field(description="When it was counted.", json_schema_extra={"format": "date-time"})
    event_id: str | None
    source: str | None
    org_id: str
    feature: str
    quantity: int = Field(description="Units asked for.")
    recorded: int = Field(description="Units counted.")
    overage: int = Field(description="Units of it above the limit.")
    current_usage: int = Field(description="The counter after it.")
    actor: str | None
    metadata: dict[str, Any] | None
    timestamp: str | None = Field(description="The event's own time.", json_schema_extra={"format": "date-time"})


class RawEventPage(Answer):
    """One page, the newest first. It may be short, even empty, and have a cursor: then there may be more."""

    data: list[RawEventView]
    next_cursor: str | None
