"""Reconciliation on the wire."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from metering.api.models.fields import CURSOR_PATTERN, Answer, Moment, OrgId, Request, Span, unset, whole


class ReconciliationQuery(Request):
    """What to compare."""

    # A query is text: numbers in it are read from their digits.
    model_config = ConfigDict(strict=False)

    org_id: OrgId | None = unset(None, "Left out: all organisations.")
    period: Moment | None = unset(None, "The start of a period. Left out: the running one and the one before.")
    format: Literal["json", "csv"] = Field("json", description="How the answer is written.")
    limit: Annotated[int, Field(ge=1, le=100), BeforeValidator(whole)] = Field(
        20, description="Organisations on a page: Stripe is asked about each."
    )
    cursor: Annotated[str, Field(pattern=CURSOR_PATTERN)] | None = unset(None, "`next_cursor` of the page before.")


class ReconciliationLine(Answer):
    """One organisation, feature and period with overage."""

    org_id: str
    feature: str
    period: Span
    customer: str | None
    overage: int = Field(description="Units counted above the limit, less what was given back.")
    sealed: int = Field(description="Of these, cut into windows.")
    delivered: int
    written_off: int
    journal: int | None = Field(description="What Stripe took of this customer and meter by our books.")
    stripe: int | None = Field(description="What Stripe has; null: it was not asked, or did not answer.")
    drift: int | None = Field(description="journal - stripe.")
    verdict: Literal["even", "settling", "drift", "unbilled", "unknown"]


class ReconciliationPage(Answer):
    """One page, organisation by organisation."""

    data: list[ReconciliationLine]
    next_cursor: str | None


class RepairQuery(Request):
    """Whether to repair, or only to show what would be done."""

    model_config = ConfigDict(strict=False)

    dry_run: Literal["true", "false"] = Field("true", description="false: do it.")


class RepairStep(Answer):
    """A dead window that may have arrived, and what Stripe's sum of its hour proves."""

    window: str
    org_id: str
    feature: str
    units: int
    proof: Literal["lacks", "has", "neither"] = Field(description="`neither` is left for people.")


class RepairAnswer(Answer):
    """The plan."""

    dry_run: bool
    data: list[RepairStep]


class RunAnswer(Answer):
    """A look at everything begins."""

    started: bool
