"""Credits on the wire."""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

from metering.api.models.fields import PAGE_MAX, Answer, FeatureName, Moment, OrgId, Request, Text, unset, whole
from metering.api.models.usage import CreditsView
from metering.store.credit_lines import CURSOR_PATTERN
from plans.credits import AMOUNT_MAX, PRIORITY_DEFAULT, PRIORITY_MAX

GRANT_ID_PATTERN: Final = r"^cg_[a-z0-9_]{1,96}$"

ANY: Final = "credits"
"""The scope of grants that pay for every feature with a weight."""

_MOMENT: Final[JsonDict] = {"format": "date-time"}

Amount: TypeAlias = Annotated[int, Field(ge=1, le=AMOUNT_MAX), BeforeValidator(whole)]
KindName: TypeAlias = Literal["paid", "promotional"]


class Rollover(Request):
    """What becomes of credits that are left at the expiry."""

    max: Amount = Field(description="So many at most go into one more span of the same length, once.")


class GrantRequest(Request):
    """Credits to give."""

    scope: FeatureName = Field(
        ANY, description="`credits`: for every feature that takes credits. A feature: for it alone, a credit a unit."
    )
    amount: Amount = Field(description="Credits.")
    kind: KindName = Field("promotional", description="`paid`: they were paid for in a way of your own.")
    priority: Annotated[int, Field(ge=0, le=PRIORITY_MAX), BeforeValidator(whole)] = Field(
        PRIORITY_DEFAULT, description="Lower is used first; then what expires sooner, then what is older."
    )
    effective_at: Moment | None = unset(None, "From when on they may be used. Left out: from now on.")
    expires_at: Moment | None = unset(None, "The first instant at which they may not. Left out: never.")
    rollover: Rollover | None = unset(None, "Left out: what is left expires. Goes with `expires_at`.")
    reason: Text = Field(description="Why. It stands in the audit trail.")


class RevokeQuery(Request):
    """Why a grant is taken back."""

    reason: Text = Field(description="It stands in the audit trail.")


class GrantsQuery(Request):
    """How to walk the grants of an organisation."""

    # A query is text: numbers in it are read from their digits.
    model_config = ConfigDict(strict=False)

    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = Field(50, description="Entries on a page.")
    cursor: Annotated[str, Field(pattern=GRANT_ID_PATTERN)] | None = unset(None, "`next_cursor` of the page before.")


class BalanceQuery(Request):
    """Whose credits."""

    org_id: OrgId | None = unset(None, "The token's organisation when left out.")


class TransactionsQuery(BalanceQuery):
    """Whose credits, and how to walk what became of them."""

    # A query is text: numbers in it are read from their digits.
    model_config = ConfigDict(strict=False)

    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = Field(50, description="Lines on a page.")
    cursor: Annotated[str, Field(pattern=CURSOR_PATTERN)] | None = unset(None, "`next_cursor` of the page before.")
    format: Literal["json", "csv"] = Field("json", description="How to answer.")


class GrantTerms(Answer):
    """What a grant is for, and when."""

    id: str
    scope: str = Field(description="`credits`, or the one feature it pays for.")
    kind: KindName
    priority: int
    effective_at: str = Field(json_schema_extra=_MOMENT)
    expires_at: str | None = Field(description="null: never.", json_schema_extra=_MOMENT)


class OpenGrant(GrantTerms):
    """A grant with credits left."""

    left: int
    usable: bool = Field(description="false: it begins later, or is frozen.")
    frozen: bool = Field(description="A dispute of its payment keeps it from being used.")


class GrantView(GrantTerms):
    """A grant as it stands: `amount` = `burned` + `taken` + `expired` + `left`."""

    org_id: str
    amount: int
    left: int
    burned: int = Field(description="Used.")
    taken: int = Field(description="Taken back by refunds or a revocation.")
    expired: int
    owed: int = Field(description="Asked back when they were gone already, and owed since.")
    rollover: Rollover | None
    frozen: bool
    revoked: bool
    reason: str
    granted_by: str
    created_at: str = Field(json_schema_extra=_MOMENT)
    stripe_payment_intent_id: str | None = Field(description="The payment that bought it.")
    amount_minor: int | None = Field(description="What was paid for it, in minor units of `currency`.")
    currency: str | None


class GrantAnswer(GrantView):
    """A grant, and what may be used now."""

    balance: int = Field(description="Credits that may be used now, less what is owed.")


class GrantPage(Answer):
    """One page of grants, the newest first."""

    data: list[GrantView]
    next_cursor: str | None


class Money(Answer):
    """An amount in minor units of a currency."""

    amount_minor: int
    currency: str


class BalanceView(CreditsView):
    """What an organisation has in credits, and where from."""

    org_id: str
    currency_value: Money | None = Field(
        description="The balance at the price of a credit in the smallest package; null where none is sold."
    )
    grants: list[OpenGrant] = Field(description="Those with credits left, in the order in which they are used.")


LineType: TypeAlias = Literal[
    "granted",
    "burned",
    "refunded",
    "restored",
    "revoked",
    "expired",
    "rolled_over",
    "frozen",
    "thawed",
    "returned",
    "low",
]


class TransactionView(Answer):
    """One line of the ledger. Usage has one a day, feature and grant, `burned`."""

    at: str = Field(json_schema_extra=_MOMENT)
    type: LineType
    credits: int = Field(
        description="What the organisation has more, or below zero less. All lines together are what its grants have"
        " left, less what it owes."
    )
    amount: int = Field(
        description="How many credits the line is about: also those that were frozen, thawed or rolled over, which"
        " moves none, and the mark of `low`."
    )
    balance: int | None = Field(description="After it; null for `burned`, which sums up a day.")
    grant: str | None
    feature: str | None = Field(description="What was used, of `burned`.")
    stripe_payment_intent_id: str | None = Field(description="The payment that bought the grant.")
    stripe_refund_id: str | None
    stripe_dispute_id: str | None


class TransactionPage(Answer):
    """One page, the newest line first."""

    org_id: str
    data: list[TransactionView]
    next_cursor: str | None
