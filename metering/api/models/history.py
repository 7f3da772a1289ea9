"""History on the wire: what to look for, and rows of usage by window."""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from metering.api.models.fields import Answer, FeatureName, Moment, OrgId, Request, Text, Zone, unset, whole

ROWS_MAX: Final = 2000
"""Rows of one page: about 300 KB."""

ORGS_MAX: Final = 20
"""Organisations of one question: each costs as many reads as one alone."""

FEATURES_MAX: Final = 200

METADATA_PREFIX: Final = "metadata."

_FEATURE: Final = "[a-z][a-z0-9_]{0,63}"
_GROUP: Final = rf"(?:feature|org|actor|metadata\.{_FEATURE})"
CURSOR_PATTERN: Final = rf"^{_FEATURE}(?:\.[0-9]{{1,13}}){{3}}(?:~[A-Za-z0-9][A-Za-z0-9_.-]{{0,63}})?$"

WindowName: TypeAlias = Literal["minute", "hour", "day", "month"]
Group: TypeAlias = Annotated[str, Field(pattern=rf"^{_GROUP}$")]
Groups: TypeAlias = Annotated[str, Field(pattern=rf"^{_GROUP}(?:,{_GROUP}){{0,3}}$")]
Features: TypeAlias = Annotated[str, Field(pattern=rf"^{_FEATURE}(?:,{_FEATURE}){{0,{FEATURES_MAX - 1}}}$")]
Cursor: TypeAlias = Annotated[str, Field(pattern=CURSOR_PATTERN)]
Rows: TypeAlias = Annotated[int, Field(ge=1, le=ROWS_MAX), BeforeValidator(whole)]

_FROM: Final = "The first instant; left out, the running period's first (by minute: the oldest kept, if that is later)."
_TO: Final = "The instant after the last; left out, the running period's end."
_TZ: Final = "IANA zone whose clock cuts the windows; left out, the organisation's own."
_FILL: Final = "Windows without usage, too, up to the one that is now."
_LIMIT: Final = "Rows of a page, which ends with a whole window and can so be a little longer."
_CURSOR: Final = "`next_cursor` of the page before; it keeps to that page's `from` and `to`."


class HistoryQuery(Request):
    """What to look for in one organisation's history."""

    # A query is text: numbers in it are read from their digits.
    model_config = ConfigDict(strict=False)

    feature: Features = unset("", "One feature or several, with commas; left out, all.")
    from_: Moment | None = unset(None, _FROM, alias="from")
    to: Moment | None = unset(None, _TO)
    window: WindowName = Field("day", description="What to add up by.")
    tz: Zone = unset("", _TZ)
    group_by: Groups = unset("", "`actor` or `metadata.<key>`, one that the catalogue declares; and `feature`, `org`.")
    actor: Text | None = unset(None, "Only what this actor used. Other filters: `metadata.<key>=<value>`.")
    metadata: SkipJsonSchema[dict[str, Text]] = unset({}, "Only what has this value, by declared key.")
    fill: bool = Field(default=False, description=_FILL)
    format: Literal["json", "csv"] = Field("json", description="How to answer.")
    limit: Rows = Field(500, description=_LIMIT)
    cursor: Cursor | None = unset(None, _CURSOR)

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, sent: Any) -> Any:
        """`metadata.<key>=<value>` as entries of `metadata`."""
        if not isinstance(sent, dict):
            return sent
        dotted = {name: value for name, value in sent.items() if name.startswith(METADATA_PREFIX)}
        if not dotted:
            return sent
        rest = {name: value for name, value in sent.items() if name not in dotted}
        return rest | {"metadata": {name.removeprefix(METADATA_PREFIX): value for name, value in dotted.items()}}


class UsageQuery(Request):
    """What to look for, as a body. An administrator may name several organisations, or none and group by `org`."""

    org_id: OrgId | None = unset(None, "The token's organisation when this and `org_ids` are left out.")
    org_ids: Annotated[list[OrgId], Field(min_length=1, max_length=ORGS_MAX)] = unset(
        [], "Several instead: their sum, unless `group_by` says `org`."
    )
    features: Annotated[list[FeatureName], Field(min_length=1, max_length=FEATURES_MAX)] = unset([], "Left out: all.")
    from_: Moment | None = unset(None, _FROM + " Of several organisations: this month's.", alias="from")
    to: Moment | None = unset(None, _TO + " Of several organisations: this month's.")
    window: WindowName = Field("day", description="What to add up by.")
    tz: Zone = unset("", _TZ + " Of several organisations: UTC.")
    group_by: Annotated[list[Group], Field(min_length=1, max_length=4)] = unset(
        [], "`org`; `actor` or `metadata.<key>`, one that the catalogue declares; `feature`, which always applies."
    )
    filter: dict[Annotated[str, Field(pattern=rf"^(?:actor|metadata\.{_FEATURE})$")], Text] = unset(
        {}, 'Only what has this value, such as `{"metadata.chain": "ethereum"}`.', max_length=1
    )
    fill: bool = Field(default=False, description=_FILL)
    format: Literal["json", "csv"] = Field("json", description="How to answer.")
    limit: Rows = Field(500, description=_LIMIT)
    cursor: Cursor | None = unset(None, _CURSOR)


class HistoryRow(Answer):
    """Units of one feature in one window, cut to what was asked for."""

    start: str = Field(json_schema_extra={"format": "date-time"})
    end: str = Field(json_schema_extra={"format": "date-time"})
    feature: str
    group: dict[str, str | None] = Field(
        description="By what was grouped or filtered. null is the rest: usage without a value, and corrections."
    )
    value: int = Field(description="Units; below zero only where usage was corrected.")
    overage: int | None = Field(description="Units of it above the limit; null where it is grouped by a dimension.")


class HistoryPage(Answer):
    """One page of history, by feature, time and group."""

    org_id: str | None = Field(description="null: several.")
    window: WindowName
    tz: str
    from_: str = Field(alias="from", json_schema_extra={"format": "date-time"})
    to: str = Field(json_schema_extra={"format": "date-time"})
    aligned: bool = Field(
        description="false: some hour of this page lies in two windows, or partly outside `from` to `to`, and stands"
        " whole in the window that holds its beginning."
    )
    data: list[HistoryRow]
    next_cursor: str | None
