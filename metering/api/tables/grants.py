"""Credits: grants, balance, transactions."""

from typing import Any, Final

from metering.api import credits as handlers
from metering.api.alias import Alias
from metering.api.models.credits import (
    BalanceQuery,
    BalanceView,
    GrantAnswer,
    GrantPage,
    GrantRequest,
    GrantsQuery,
    RevokeQuery,
    TransactionPage,
    TransactionsQuery,
)
from metering.api.route import Route
from metering.api.tables.shared import READS
from metering.auth import ADMIN, BILLING_READ
from metering.errors import GrantConflict, GrantNotFound, Invalid, OrgNotFound, TooManyGrants

_PROBLEMS: Final = (OrgNotFound, *READS)

_TERMS: Final[dict[str, Any]] = {
    "id": "cg_5b1f0c7a9e",
    "scope": "credits",
    "kind": "paid",
    "priority": 50,
    "effective_at": "2024-01-10T09:00:00Z",
    "expires_at": None,
}
_GRANT: Final[dict[str, Any]] = _TERMS | {
    "org_id": "org-123", "amount": 500, "left": 380, "burned": 120, "taken": 0, "expired": 0, "owed": 0,
    "rollover": None, "frozen": False, "revoked": False, "reason": "bought", "granted_by": "stripe",
    "created_at": "2024-01-10T09:00:00Z", "stripe_payment_intent_id": "pi_3OaBcD", "amount_minor": 4500,
    "currency": "usd",
}  # fmt: skip
_BALANCE: Final[dict[str, Any]] = {
    "org_id": "org-123", "balance": 380, "reserved": 0, "owed": 0, "low": False, "low_mark": 20,
    "currency_value": {"amount_minor": 3800, "currency": "usd"},
    "grants": [_TERMS | {"left": 380, "usable": True, "frozen": False}],
}  # fmt: skip
_NAMES: Final = {"stripe_payment_intent_id": "pi_3OaBcD", "stripe_refund_id": None, "stripe_dispute_id": None}
_LINES: Final[list[dict[str, Any]]] = [
    {"at": "2024-01-15T10:30:00Z", "type": "burned", "credits": -120, "amount": 120, "balance": None,
     "grant": "cg_5b1f0c7a9e", "feature": "scans", **_NAMES},
    {"at": "2024-01-10T09:00:00Z", "type": "granted", "credits": 500, "amount": 500, "balance": 500,
     "grant": "cg_5b1f0c7a9e", "feature": None, **_NAMES},
]  # fmt: skip

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "GET", "/v1/credits/balance", "Credits that may be used", BILLING_READ, "credits", handlers.get_balance,
        {200: BalanceView},
        query=BalanceQuery, problems=(Invalid, *_PROBLEMS), shows=_BALANCE,
    ),
    Route(
        "GET", "/v1/credits/transactions", "What became of credits", BILLING_READ, "credits",
        handlers.list_transactions, {200: TransactionPage},
        query=TransactionsQuery, problems=(Invalid, *_PROBLEMS), media=("text/csv",),
        shows={"org_id": "org-123", "data": _LINES, "next_cursor": None},
        about="The newest line first. What usage burned is one line a day, feature and grant, and stands at the end of"
        " its day. As CSV the page is a file, and `X-Next-Cursor` says where the next begins.",
    ),
    Route(
        "POST", "/v1/orgs/{org_id}/grants", "Give credits", ADMIN, "credits", handlers.create_grant,
        {201: GrantAnswer},
        request=GrantRequest, problems=(GrantConflict, TooManyGrants, *_PROBLEMS),
        example={"amount": 100, "kind": "promotional", "reason": "goodwill after the outage"},
        shows=_GRANT | {"balance": 380},
        about="An `Idempotency-Key` makes repeating safe: it gives once.",
    ),
    Route(
        "GET", "/v1/orgs/{org_id}/grants", "Grants of credits", BILLING_READ, "credits", handlers.list_grants,
        {200: GrantPage},
        query=GrantsQuery, problems=(Invalid, GrantNotFound, *_PROBLEMS),
        shows={"data": [_GRANT], "next_cursor": None},
        about="All there ever were, the newest first.",
    ),
    Route(
        "DELETE", "/v1/orgs/{org_id}/grants/{grant_id}", "Take back what is left of a grant", ADMIN, "credits",
        handlers.revoke_grant, {200: GrantAnswer},
        query=RevokeQuery, problems=(Invalid, GrantNotFound, *_PROBLEMS),
        shows=_GRANT | {"left": 0, "taken": 380, "revoked": True, "balance": 0},
        about="For good. What is used stays used. No money moves: that is a refund.",
    ),
)  # fmt: skip

OLDER: Final = Alias("GET", "/api/credits/balance", "GET /v1/credits/balance")
