"""Questions before acting, and what an organisation may use."""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import ConfigDict, Field, RootModel

from metering.api.models.credits import GrantTerms
from metering.api.models.fields import Answer, FeatureName, Mode, OrgId, Quantity, Request, Span, Text, unset
from metering.api.models.orgs import RateView, RuleView
from metering.api.models.problems import ProblemView
from metering.api.models.usage import DecidedBy

CHECKS_MAX: Final = 100
"""Questions of one request."""

Reason: TypeAlias = Literal["ok", "quota_exceeded", "feature_disabled", "rate_limited", "event_conflict"]


class CheckRequest(Request):
    """May so many units be used now? Nothing is written, unless `consume` counts them."""

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")
    feature: FeatureName
    quantity: Quantity = Field(1, description="Units.")
    mode: Mode = Field("default", description="As for POST /usage/track.")
    actor: Text | None = unset(None, "Who in the organisation asks; kept where the catalogue declares the dimension.")
    consume: bool = Field(default=False, description="Count them where they are allowed. Needs `usage:write`.")
    event_id: Text | None = unset(None, "With `consume`: makes repeating safe.")
    source: Text | None = unset(None, "With `consume`: keeps the event ids of several senders apart.")


class ChecksRequest(CheckRequest):
    """One question, or `checks` with up to 100 of them."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["feature"]}, {"required": ["checks"]}]})

    feature: FeatureName = unset("", "The feature asked for.")
    checks: Annotated[list[CheckRequest], Field(min_length=1, max_length=CHECKS_MAX)] = unset(
        [], "Several questions, each answered for itself; alone in its body."
    )


class UpgradeHint(Answer):
    """What would make room: the cheapest plan that has it, and how many units are missing."""

    plan: str | None
    missing: int


class CheckAnswer(Answer):
    """The answer to one question, and everything that explains it."""

    org_id: str
    feature: str
    allowed: bool
    reason: Reason
    decided_by: DecidedBy = Field(description="The limit that left the least room.")
    requested: int
    granted: int = Field(description="Units that would be, or were, counted.")
    current_usage: int
    limit: int | None
    remaining: int | None
    reserved: int
    overage_allowed: bool = Field(description="Whether the plan counts on above its limit.")
    reset_date: str = Field(json_schema_extra={"format": "date-time"}, description="When the limit that decided opens.")
    retry_after_ms: int = Field(description="Before asking again can help; 0 where nothing is to be waited for.")
    upgrade: UpgradeHint | None = Field(description="null where there is room, or another plan's limit would not help.")
    cache_ttl_ms: int = Field(description="How long this answer is good enough to act on without asking again.")
    consumed: bool
    duplicate: bool


class CheckProblem(Answer):
    """A question that has no answer."""

    problem: ProblemView


class CheckAnswers(Answer):
    """The answers, in the order of the questions."""

    results: list[CheckAnswer | CheckProblem]


class CheckReply(RootModel[CheckAnswer | CheckAnswers]):
    """One answer, or as many as there were questions."""


class Entitlements(Answer):
    """What an organisation may use. Its ETag changes with settings, plan, catalogue and grants, not with each event."""

    org_id: str
    plan: str
    period: Span
    rate_limit: RateView | None
    features: dict[str, RuleView]
    grants: list[GrantTerms] = Field(
        description="Open grants of credits, in the order in which they pay for what lies above the limits."
    )
