"""Reading usage: an organisation as the wire shows it."""

from dataclasses import replace
from typing import Any

from metering.api.agreements import agreed_view
from metering.api.guard import visible
from metering.api.route import Call, Reply, json_reply
from metering.auth import BILLING_READ, BILLING_WRITE, Caller
from metering.errors import OrgNotFound
from metering.moments import rfc3339
from metering.store.credits import Balance
from metering.store.org import FeatureUsage, Org
from plans.limits import remaining
from plans.periods import Period


async def get_usage(call: Call) -> Reply:
    """The organisation in the path, or the token's own where the path names none."""
    org = await found(call, call.params.get("org_id"))
    return json_reply(await shown(call, org))


async def with_holds(call: Call, org: Org) -> Org:
    """The same with what its open holds keep at this instant: those that ended may stand in its record still.

    Costs nothing where there are none.
    """
    ended = await call.services.holds.ended_units(org.org_id) if org.holds else {}
    if not ended:
        return org
    features = {
        name: replace(usage, held=max(0, usage.held - ended.get(name, 0))) for name, usage in org.features.items()
    }
    return replace(org, features=features)


async def found(call: Call, org_id: str | None) -> Org:
    """The organisation of that id, the token's own where there is none. Raises OrgNotFound."""
    org = await call.services.orgs.get(visible(call.caller, org_id))
    if org is None:
        raise OrgNotFound
    return await with_holds(call, org)


async def shown(call: Call, org: Org) -> dict[str, Any]:
    """The organisation as the wire shows it, its credits too. They cost a read, where it ever had any."""
    told = await call.services.credits.balance_of(org) if org.pool else None
    return org_view(org, call.caller, told)


def org_view(org: Org, caller: Caller, told: Balance | None) -> dict[str, Any]:
    """The same with its credits as they were read. Stripe's id is for callers who have to do with billing."""
    bills = caller.may(BILLING_READ) or caller.may(BILLING_WRITE)
    return {
        "org_id": org.org_id,
        "plan": org.plan,
        "features": {name: _feature(usage, org.period) for name, usage in sorted(org.features.items())},
        "stripe_customer_id": org.profile.stripe_customer_id if bills else None,
        "payment_overdue": org.profile.payment_overdue,
        "created_at": rfc3339(org.profile.created_ms),
        "updated_at": rfc3339(org.updated_ms),
        "overage_flagged": org.overage_flagged,
        "period": span(org.period),
        "reset": org.profile.reset.value,
        "timezone": org.profile.timezone,
        "credits": None if told is None else balance_members(told),
        "agreed": agreed_view(org.profile) if bills else None,
    }


def balance_members(told: Balance) -> dict[str, Any]:
    """The figures of a balance of credits."""
    return {
        "balance": told.balance,
        "reserved": told.reserved,
        "owed": told.owed,
        "low": told.low,
        "low_mark": told.low_mark,
    }


def span(period: Period) -> dict[str, str]:
    """A period as the wire shows it."""
    return {"start": rfc3339(period.start_ms), "end": rfc3339(period.end_ms)}


def _feature(usage: FeatureUsage, period: Period) -> dict[str, Any]:
    limit, updated_ms = usage.rule.limit, usage.last_updated_ms
    return {
        "current": usage.used,
        "limit": limit,
        "reset_date": rfc3339(period.end_ms),
        "last_updated": None if updated_ms is None else rfc3339(updated_ms),
        "remaining": remaining(limit, usage.used, usage.held),
        "overage": usage.overage,
        "overage_billed": 0 < usage.overage <= usage.billed,
        "unlimited": limit is None,
        "reserved": usage.held,
        "percent": usage.used * 100 // limit if limit else None,
        "on_limit": usage.rule.on_limit.value,
        "enabled": usage.rule.enabled,
    }
