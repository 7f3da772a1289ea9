"""All organisations, for those who look after them."""

from typing import Annotated

from pydantic import Field

from metering.api.models.fields import Answer, FeatureName, PageQuery, PlanName, Span, unset
from metering.api.models.usage import OrgView
from metering.names import ORG_ID_PATTERN


class OrgsQuery(PageQuery):
    """Which organisations."""

    plan: PlanName | None = unset(None, "Only those on this plan.")
    status: Annotated[str, Field(pattern="^(none|[a-z_]{1,30})$")] | None = unset(
        None, "Only those whose subscription has this status of Stripe's; `none`: that never had one."
    )
    overdue: bool | None = unset(None, "Only those that are overdue, or those that are not.")
    starts: Annotated[str, Field(pattern=ORG_ID_PATTERN)] | None = unset(None, "Only those whose id starts so.")


class UsageQuery(OrgsQuery):
    """The same, and of which feature."""

    feature: FeatureName | None = unset(None, "Only this feature; all of them when left out.")


class ManagedOrgView(OrgView):
    """An organisation with what Stripe says of its subscription."""

    subscription_status: str | None = Field(description="null: there never was one.")
    cancel_at_period_end: bool


class ManagedOrgPage(Answer):
    """A page of organisations. Where filters are given it may be short, or empty, and another one follow."""

    data: list[ManagedOrgView]
    next_cursor: str | None


class UsageRow(Answer):
    """What one organisation used of one feature in the period that runs."""

    org_id: str
    plan: str
    feature: str
    current: int
    limit: int | None = Field(description="null: unlimited.")
    remaining: int | None
    percent: int | None
    overage: int
    period: Span


class UsagePage(Answer):
    """A page of organisations, a row for each feature."""

    data: list[UsageRow]
    next_cursor: str | None
