"""Payments for credits on the wire."""

from typing import Annotated, Final, TypeAlias

from pydantic import BeforeValidator, Field

from metering.api.models.credit_fields import Credits
from metering.api.models.fields import Answer, OrgId, Request, Text, unset, whole

AMOUNT_MAX: Final = 99_999_999
"""The largest amount that Stripe takes: eight digits."""

_ORG: Final = "The token's organisation when left out."
_INTENT: Final = "As POST /billing/create-payment-intent gave it."

Amount: TypeAlias = Annotated[int, Field(ge=1, le=AMOUNT_MAX), BeforeValidator(whole)]
IntentId: TypeAlias = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_]+$")]


class PaymentRequest(Request):
    """A package of credits to be paid for."""

    org_id: OrgId | None = unset(None, _ORG)
    credit_amount: Credits = Field(description="The number of credits of a package. What it costs is in the catalogue.")


class PaymentView(Answer):
    """A payment that waits for its payer."""

    payment_intent_id: str
    client_secret: str = Field(description="What Stripe.js takes to let the payer pay. It is for the payer alone.")
    credits: int
    amount: int = Field(description="In minor units of the currency.")
    currency: str


class ConfirmRequest(Request):
    """A payment that was made."""

    org_id: OrgId | None = unset(None, _ORG)
    payment_intent_id: IntentId = Field(description=_INTENT)


class ConfirmView(Answer):
    """Where the payment stands."""

    status: str = Field(description="Stripe's status of the payment; credits are added once it is `succeeded`.")
    credits_added: int = Field(description="Credits that this payment added, whoever told of it first; 0 before.")
    duplicate: bool = Field(description="Whether they were there already.")
    balance: int = Field(description="Credits that may be used now, less what is owed.")


class RefundRequest(Request):
    """Money to be given back."""

    payment_intent_id: IntentId = Field(description=_INTENT)
    amount: Amount | None = unset(None, "In minor units. Left out: all that is left of the payment.")
    reason: Text = Field(description="Why. It stands in the audit trail, and in the refund at Stripe.")
    allow_negative: bool = Field(
        False, description="Whether credits that are spent already are owed: the balance may fall below zero."
    )
    id: Text | None = unset(
        None, "Makes repeating safe: an id refunds once. Left out, the Idempotency-Key header does."
    )


class RefundView(Answer):
    """A refund, and the credits that went with it."""

    refund_id: str
    status: str = Field(description="Stripe's status of the refund. Of one that fails later the credits come back.")
    amount: int
    currency: str
    org_id: str
    credits_removed: int
    credits_spent: int = Field(description="Credits that would have gone too, but were spent already.")
    balance: int
