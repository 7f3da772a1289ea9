"""The audit on the wire."""

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ConfigDict, Field

from metering.api.models.fields import PAGE_MAX, Answer, Moment, OrgId, Request, Text, unset, whole

CURSOR_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}@[0-9]{1,13}-[0-9]{1,19}$"


class AuditQuery(Request):
    """Which entries to show: those that fit everything that is given."""

    # A query is text: numbers in it are read from their digits.
    model_config = ConfigDict(strict=False)

    org_id: OrgId | None = unset(
        None, "Left out: the token's organisation; of an administrator, all organisations, one after the other."
    )
    actor: Text | None = unset(None, "Who did it: the `sub` of their token.")
    type: Annotated[str, Field(pattern="^[a-z_]{1,64}$")] | None = unset(None, "What happened, such as `plan_changed`.")
    from_: Moment | None = unset(None, "The first instant.", alias="from")
    to: Moment | None = unset(None, "The instant after the last.")
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX), BeforeValidator(whole)] = Field(
        50, description="Entries on a page."
    )
    cursor: Annotated[str, Field(pattern=CURSOR_PATTERN)] | None = unset(None, "`next_cursor` of the page before.")


class AuditEntry(Answer):
    """Something that happened to an organisation."""

    id: str = Field(description="Names the entry among those of its organisation.")
    at: str = Field(json_schema_extra={"format": "date-time"})
    type: str
    org_id: str
    actor: str | None = Field(description="null: the service itself.")
    details: dict[str, Any] = Field(description="What depends on the type: before and after, reason, request id.")


class AuditPage(Answer):
    """One page of the audit. It can be short, or empty, and have a `next_cursor`: then there may be more."""

    data: list[AuditEntry]
    next_cursor: str | None
