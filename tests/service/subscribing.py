"""Organisations that have a subscription, as Stripe's events would have told of it."""

from typing import Any, Final

from metering.auth import ADMIN
from metering.store.fields import FieldCodec
from metering.store.keys import Keys
from metering.store.org import Profile, Subscription, profile_fields
from plans.periods import Period, Reset
from tests.service.running import Running, token
from tests.support.stripe_sold import PAYS

START_MS: Final = 1_795_600_000_000
END_MS: Final = 1_798_192_000_000


def customer_of(org: str) -> str:
    """Who pays for an organisation here."""
    return f"{PAYS}{org.replace('-', '_')}"


def subscribed(service: Running, org: str, **told: Any) -> None:
    """Let an organisation have a subscription to the professional plan, of which `told` says more."""
    paid = {"org_id": org, "plan": "professional", "stripe_customer_id": customer_of(org)}
    assert service.call("POST", "/billing/update", token(None, ADMIN), json=paid).status_code == 200
    known: dict[str, Any] = {"status": "active", "plan": "professional", "period": Period(START_MS, END_MS)} | told
    name = customer_of(org).replace("cus_", "sub_", 1)
    sold = Subscription(id=name, since_ms=START_MS, anchor_ms=START_MS, metered=frozenset({"scans"}), **known)
    profile = Profile(Reset.CALENDAR, "UTC", 0, b"k" * 32, 0, 0, subscription=sold)
    field = profile_fields(org, profile, FieldCodec())["subscription"]
    service.store.hset(Keys(64).profile(org), "subscription", field)
