"""Paying for credits."""

from typing import Final

from metering.api import payments
from metering.api.models.payments import (
    ConfirmRequest,
    ConfirmView,
    PaymentRequest,
    PaymentView,
    RefundRequest,
    RefundView,
)
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import ADMIN, BILLING_WRITE
from metering.errors import (
    CustomerUnknown,
    OrgNotFound,
    PaymentFailed,
    StripeFailed,
    StripeNotConfigured,
    StripeUnavailable,
    TooManyGrants,
)
from metering.payment_errors import NotRefundable, PackageUnknown, PaymentMismatch, PaymentNotFound, RefundConflict

_STRIPE: Final = (StripeNotConfigured, StripeFailed, StripeUnavailable)

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "POST", "/billing/create-payment-intent", "Begin to pay for credits", BILLING_WRITE, "credits",
        payments.create_payment, {201: PaymentView},
        request=PaymentRequest,
        problems=(OrgNotFound, PackageUnknown, TooManyGrants, CustomerUnknown, *_STRIPE, *READS),
        example={"credit_amount": 500},
        shows={
            "payment_intent_id": "pi_1234567890", "client_secret": "pi_1234567890_secret_a1", "credits": 500,
            "amount": 4500, "currency": "usd",
        },
        about="The amount comes from the catalogue. The payer pays with Stripe.js and `client_secret`; nothing is"
        " credited before the payment succeeded. What pays is saved for automatic top-ups.",
    ),
    Route(
        "POST", "/billing/confirm-payment", "Credit a payment", BILLING_WRITE, "credits",
        payments.confirm_payment, {200: ConfirmView},
        request=ConfirmRequest,
        problems=(
            OrgNotFound, PaymentNotFound, PaymentFailed, PaymentMismatch, CustomerUnknown, TooManyGrants, *_STRIPE,
            *READS,
        ),
        example={"payment_intent_id": "pi_1234567890"},
        shows={"status": "succeeded", "credits_added": 500, "duplicate": False, "balance": 500},
        about="Asks Stripe for the payment and credits it once, whoever tells of it first: this call, or an event."
        " One that is still on its way answers with its status, and is credited when it has come.",
    ),
    Route(
        "POST", "/billing/refund", "Give money back", ADMIN, "credits", payments.refund_payment, {201: RefundView},
        request=RefundRequest,
        problems=(
            PaymentNotFound, PaymentMismatch, NotRefundable, RefundConflict, CustomerUnknown, TooManyGrants, *_STRIPE,
            *READS,
        ),
        example={"payment_intent_id": "pi_1234567890", "amount": 900, "reason": "bought by mistake", "id": "ticket-9"},
        shows={
            "refund_id": "re_1", "status": "succeeded", "amount": 900, "currency": "usd", "org_id": "org-123",
            "credits_removed": 100, "credits_spent": 0, "balance": 400,
        },
        about="Credits go in proportion to the amount. Those that are spent already are told, and owed with"
        " `allow_negative`. Needs `id` or an Idempotency-Key.",
    ),
)  # fmt: skip
