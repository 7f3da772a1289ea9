"""What paying for credits meets, a branch of the tree in `metering.errors`.

Problem
├── 404 PaymentNotFound
├── 409 PaymentMismatch, NotRefundable, RefundConflict, NoPayer
└── 422 PackageUnknown
"""

from metering.errors import Problem


class PaymentNotFound(Problem):
    status, code, title = 404, "payment-not-found", "No such payment for credits"
    cure = "Use the payment_intent_id that POST /billing/create-payment-intent gave to this organisation."


class PaymentMismatch(Problem):
    status, code, title = 409, "payment-mismatch", "The payment is not what was sold"
    cure = "Nothing was credited. Operators: somebody changed the payment at Stripe, or made it with your key."


class NotRefundable(Problem):
    status, code, title = 409, "not-refundable", "So much of the payment cannot be given back"
    cure = "Give back at most `left_minor` of a payment that succeeded and that no open dispute holds."


class RefundConflict(Problem):
    status, code, title = 409, "refund-conflict", "This id was used for a refund of another amount"
    cure = "Give every refund an id of its own; repeat an id only with the same amount."


class NoPayer(Problem):
    status, code, title = 409, "no-payer", "Nobody has paid for this organisation yet"
    cure = "Buy a package or a plan once: what pays for it is saved, and pays for top-ups."


class PackageUnknown(Problem):
    status, code, title = 422, "package-unknown", "No package has so many credits"
    cure = "Name one of `packages`, or see GET /v1/credits/packages for their prices."
