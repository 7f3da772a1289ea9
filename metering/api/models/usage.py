"""Usage on the wire: an event, the balance after it, an organisation's counters."""

from typing import Final, Literal, TypeAlias

from pydantic import ConfigDict, Field

from metering.api.models.agreements import AgreedView
from metering.api.models.fields import (
    Answer,
    FeatureName,
    HoldId,
    Metadata,
    Mode,
    Moment,
    OnLimitName,
    OrgId,
    Quantity,
    Request,
    ResetName,
    Span,
    Text,
    unset,
)

_KEPT: Final = " Kept with raw events, and in history where the catalogue declares it; else checked and dropped."


class TrackRequest(Request):
    """One usage event. `feature` or `endpoint` is needed; where null is taken, it is the same as leaving out."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["feature"]}, {"required": ["endpoint"]}]})

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")
    feature: FeatureName = unset("", "A feature of the catalogue; with `endpoint` alone its default feature.")
    quantity: Quantity = Field(1, description="Units used.")
    metadata: Metadata | None = unset(
        None, "Anything you know of the event: at most 50 keys, 8 KiB and 3 levels." + _KEPT
    )
    event_id: Text | None = unset(None, "Makes repeating safe: an id counts once for each organisation and source.")
    source: Text | None = unset(None, "Keeps the event ids of several senders apart.")
    timestamp: Moment | None = unset(None, "When it happened; the time of receipt when left out.")
    actor: Text | None = unset(None, "Who in the organisation used it." + _KEPT)
    endpoint: Text = unset("", "Short form, in place of `feature`: one call of this endpoint." + _KEPT)
    mode: Mode = Field("default", description="Tightens what the plan does above a limit, and never loosens it.")
    reservation_id: HoldId | None = unset(
        None, "Commits this reservation or lease: its id makes repeating safe, in place of `event_id`."
    )
    dry_run: bool = Field(default=False, description="Answer as if it counted, and write nothing.")


DecidedBy: TypeAlias = Literal[
    "plan_limit", "unlimited", "event_id",
    "window_minute", "window_hour", "window_day", "window_week",
    "window_rolling_minute", "window_rolling_hour", "window_rolling_day", "window_rolling_week",
]  # fmt: skip


class TrackAnswer(Answer):
    """The balance after an event. Of a repeated event: the balance now, `duplicate` true, `recorded` 0."""

    org_id: str
    feature: str
    current_usage: int
    limit: int | None = Field(description="null: unlimited.")
    remaining: int | None
    reset_date: str = Field(json_schema_extra={"format": "date-time"})
    event_id: str = Field(description="The caller's, or `evt_` and a ULID.")
    allowed: Literal[True]
    recorded: int = Field(description="Units counted now; fewer than asked for under `on_limit: cap`.")
    duplicate: bool
    overage: int = Field(description="Units of this event above the limit that credits do not pay for.")
    unlimited: bool
    period: Span
    thresholds_crossed: list[int] = Field(description="Percent of the limit: 75, 80, 90, 100.")
    decided_by: DecidedBy = Field(description="The limit that left the least room.")
    reserved: int = Field(default=0, description="Units that open reservations and leases keep; not told where 0.")
    credits_used: int = Field(default=0, description="Credits that this event used up; not told where 0.")
    dry_run: bool = Field(default=False, description="Only there when true: nothing was written.")
    late: bool = Field(default=False, description="Only there when true: the event belongs to an earlier period.")


class FeatureView(Answer):
    """One feature's counter in the current period and the rule it stands under."""

    current: int
    limit: int | None = Field(description="null: unlimited.")
    reset_date: str = Field(json_schema_extra={"format": "date-time"})
    last_updated: str | None = Field(json_schema_extra={"format": "date-time"})
    remaining: int | None
    overage: int = Field(description="Units of this period above the limit.")
    overage_billed: bool = Field(description="Whether Stripe has all of the overage.")
    unlimited: bool
    reserved: int = Field(description="Units that open reservations and leases keep.")
    percent: int | None = Field(description="Of the limit, cut to whole percent; null without a limit or with 0.")
    on_limit: OnLimitName
    enabled: bool


class CreditsView(Answer):
    """What an organisation has in credits."""

    balance: int = Field(description="Credits that may be used now, less `owed`. Below zero: more is owed.")
    reserved: int = Field(description="Of them, what open reservations and leases keep.")
    owed: int
    low: bool = Field(description="Whether the balance is below `low_mark`.")
    low_mark: int | None


class OrgView(Answer):
    """An organisation: its plan, its counters, its billing state."""

    org_id: str
    plan: str
    features: dict[str, FeatureView]
    stripe_customer_id: str | None = Field(description="null also for callers without a billing scope.")
    payment_overdue: bool
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    updated_at: str = Field(json_schema_extra={"format": "date-time"})
    overage_flagged: bool = Field(description="From the first overage of a period on.")
    period: Span
    reset: ResetName
    timezone: str
    credits: CreditsView | None = Field(description="null: it never had any.")
    agreed: AgreedView | None = Field(
        description="What is otherwise than in the plan; null for callers without a billing scope."
    )
