"""Leases: units a client decides about by itself for a short time, and then says what it used of them."""

from dataclasses import replace
from typing import Any, Final

from metering.api.holds import balance, figures, found, named, over, placed, settled
from metering.api.models.holds import HoldQuery, LeaseRequest, SettleRequest
from metering.api.outcomes import rate_headers
from metering.api.route import Call, Reply, json_reply
from metering.api.usage import with_holds
from metering.errors import OrgNotFound
from metering.moments import rfc3339
from metering.store.holds import Hold, HoldState
from metering.usage import Result
from plans.catalogue import LeaseExpiry

PLACE: Final = "lease_id"

_STATUS_OF: Final = {HoldState.COMMITTED: "settled"}


async def lease(call: Call) -> Reply:
    """Grant as many units as fit. The same id with the same content gives the same lease again, as it is by now."""
    body = call.sent(LeaseRequest)
    feature = call.services.catalogue.features.get(body.feature)
    charged = feature is not None and feature.lease_expiry is LeaseExpiry.CHARGE
    org_id, hold, outcome = await placed(call, body, "lease", lease=True, charged=charged)
    return json_reply(lease_view(org_id, hold) | balance(outcome), 201, rate_headers(outcome.standing))


async def get_lease(call: Call) -> Reply:
    """The lease in the path."""
    org_id, lease_id = named(call, PLACE, call.asked(HoldQuery).org_id)
    return json_reply(lease_view(org_id, await found(call, org_id, lease_id, lease=True)))


async def settle_lease(call: Call) -> Reply:
    """Count what was used of it, once; the rest is free again."""
    body = call.sent(SettleRequest)
    org_id, lease_id = named(call, PLACE, body.org_id)
    if body.used == 0:
        return await _given_back(call, org_id, lease_id)
    hold, _, outcome = await settled(call, org_id, lease_id, body.used, lease=True)
    duplicate = outcome.result is Result.DUPLICATE
    if duplicate:
        hold = await found(call, org_id, lease_id, lease=True)  # settled by somebody else since it was looked at
    else:
        hold = replace(hold, state=HoldState.COMMITTED, committed=outcome.recorded)
    told = {"recorded": outcome.recorded, "overage": outcome.overage, "duplicate": duplicate}
    return json_reply(lease_view(org_id, hold) | balance(outcome) | told, headers=rate_headers(outcome.standing))


async def _given_back(call: Call, org_id: str, lease_id: str) -> Reply:
    """Let go of a lease of which nothing was used."""
    await found(call, org_id, lease_id, lease=True)
    released = await call.services.holds.release(org_id, lease_id)
    hold = await call.services.holds.find(org_id, lease_id)
    if hold is None or hold.state is not HoldState.RELEASED:
        raise over(lease_id, hold)
    org = await call.services.orgs.get(org_id)
    if org is None:
        raise OrgNotFound
    usage = (await with_holds(call, org)).features.get(hold.feature)
    used, limit, held = (0, None, 0) if usage is None else (usage.used, usage.rule.limit, usage.held)
    told = {"recorded": 0, "overage": 0, "duplicate": not released}
    return json_reply(lease_view(org_id, hold) | figures(used, limit, held) | told)


def lease_view(org_id: str, hold: Hold) -> dict[str, Any]:
    """A lease as the wire shows it."""
    return {
        "lease_id": hold.hold_id,
        "org_id": org_id,
        "feature": hold.feature,
        "requested": hold.asked,
        "granted": hold.quantity,
        "status": _STATUS_OF.get(hold.state, hold.state.value),
        "expires_at": rfc3339(hold.expires_ms),
        "used": hold.committed,
        "at_expiry": (LeaseExpiry.CHARGE if hold.charged else LeaseExpiry.RELEASE).value,
    }
