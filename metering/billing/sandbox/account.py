"""/v1/account: whose Stripe this is. https://docs.stripe.com/api/accounts/retrieve"""

from typing import Any, Final

from metering.billing.sandbox.context import ACCOUNT_ID, Context, Route
from metering.billing.sandbox.db import Obj


def retrieve(ctx: Context, params: dict[str, Any]) -> Obj:
    """GET /v1/account."""
    del ctx, params
    return {
        "id": ACCOUNT_ID,
        "object": "account",
        "business_profile": None,
        "business_type": None,
        "charges_enabled": False,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": False,
        "email": None,
        "payouts_enabled": False,
        "settings": None,
        "type": "standard",
    }


ROUTES: Final = (Route("GET", "/v1/account", retrieve),)
