"""Overage on its way to Stripe, on the wire."""

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from metering.api.models.fields import PAGE_MAX, Answer, OrgId, Request, Span, Text, unset, whole

WINDOW_PATTERN: Final = r"^[a-z2-7]{52}$"
PLACE_PATTERN: Final = r"^[0-9]{1,4}\.(outbox|dead_windows|settled)\.[0-9]{1,14}\.[a-z2-7]{52}$"

_TIME: Final[dict[str, Any]] = {"format": "date-time"}

StateName = Literal["sealed", "inflight", "dead", "delivered", "written_off"]


class OutboxQuery(Request):
    """Which windows to show."""

    # A query is text: numbers in it are read from their digits.
    model_config = ConfigDict(strict=False)

    state: StateName | None = unset(None, "Left out: what Stripe does not have (`sealed`, `inflight`, `dead`).")
    org_id: OrgId | None = unset(None, "Left out: the token's organisation; of an administrator, all.")
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX), BeforeValidator(whole)] = Field(
        50, description="Windows on a page."
    )
    cursor: Annotated[str, Field(pattern=PLACE_PATTERN)] | None = unset(None, "`next_cursor` of the page before.")


class DiscardRequest(Request):
    """A window to let go."""

    reason: Text = Field(description="Why. It stands in the audit trail.")


class OverageWindow(Answer):
    """A piece of overage, cut out once and never changed."""

    window: str = Field(description="Its id, here and at Stripe.")
    org_id: str
    feature: str
    period: Span
    from_units: int = Field(description="Where in the period's overage it begins.")
    to_units: int
    units: int
    state: StateName
    sink: Literal["meter", "item", "none"] = Field(description="A meter, an item of the next invoice, or nowhere.")
    customer: str | None = Field(description="Whom it was sent for; null before the first attempt.")
    attempts: int
    sealed_at: str = Field(json_schema_extra=_TIME)
    first_attempt_at: str | None = Field(
        json_schema_extra=_TIME, description="Since it was last known that nothing of it arrived."
    )
    last_attempt_at: str | None = Field(json_schema_extra=_TIME)
    next_attempt_at: str | None = Field(json_schema_extra=_TIME, description="null: none is due.")
    settled_at: str | None = Field(json_schema_extra=_TIME)
    error: str | None = Field(description="What the last attempt met, or why it was let go.")


class StateCount(Answer):
    """Windows in one state."""

    windows: int
    units: int
    oldest_seconds: int = Field(description="Age of the one that was sealed first; 0 where there is none.")


class OutboxCounts(Answer):
    """What Stripe does not have, by state."""

    sealed: StateCount
    inflight: StateCount
    dead: StateCount


class OutboxPage(Answer):
    """One page. It can be short, or empty, and have a `next_cursor`: then there may be more."""

    data: list[OverageWindow]
    next_cursor: str | None
    counts: OutboxCounts | None = Field(description="Of all pages together, on the first one.")
