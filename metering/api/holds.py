"""What reservations and leases share: their names, the balance beside them, and why one cannot be had or settled."""

import re
from typing import Any, Final

from metering.api.bodies import fault, invalid
from metering.api.guard import visible
from metering.api.models.fields import HOLD_ID_PATTERN
from metering.api.models.holds import LeaseRequest, ReservationRequest
from metering.api.outcomes import ALLOWED, refusal
from metering.api.route import Call
from metering.errors import HoldExpired, HoldNotFound, HoldSettled, OrgNotFound, Problem
from metering.moments import rfc3339
from metering.store.holds import Hold, HoldState
from metering.usage import Outcome, Result, UsageEvent
from plans.limits import remaining

_is_hold_id = re.compile(HOLD_ID_PATTERN[1:-1]).fullmatch

_OVER: Final = (HoldState.EXPIRED, HoldState.CHARGED)
"""Ended before anybody settled it; the job may have charged it since."""


def named(call: Call, parameter: str, org_id: str | None) -> tuple[str, str]:
    """Organisation and name of the hold in the path. Raises OrgNotFound, Invalid."""
    owner, hold_id = visible(call.caller, org_id), call.params[parameter]
    if not _is_hold_id(hold_id):
        raise invalid([fault(f"/{parameter}", "hold-id", "not the id of a reservation or lease")])
    return owner, hold_id


async def placed(
    call: Call, body: ReservationRequest | LeaseRequest, prefix: str, *, lease: bool, charged: bool = False
) -> tuple[str, Hold, Outcome]:
    """Keep back what the body asks for: the organisation, the hold, what decided. Raises the problem of a refusal.

    A name is minted where the body has none; under an Idempotency-Key every try mints the same.
    """
    org_id = visible(call.caller, body.org_id)
    hold_id = body.id or f"{prefix}_{call.idempotency_key or call.services.ulids.mint()}"
    hold, outcome = await call.services.holds.place(
        org_id, hold_id, body.feature, body.quantity, body.ttl_s * 1000, lease=lease, charged=charged
    )
    if hold is None:
        event = UsageEvent(org_id, body.feature, body.quantity, hold_id=hold_id)
        raise refusal(event, outcome, call.services.catalogue)
    return org_id, hold, outcome


async def found(call: Call, org_id: str, hold_id: str, *, lease: bool) -> Hold:
    """The hold of that name and kind. Raises OrgNotFound, HoldNotFound."""
    hold = await call.services.holds.find(org_id, hold_id)
    if hold is None or hold.lease is not lease:
        raise await unknown(call, org_id, hold_id)
    return hold


async def unknown(call: Call, org_id: str, hold_id: str) -> Problem:
    """Why there is no such hold: there may be no such organisation."""
    if await call.services.orgs.get(org_id) is None:
        return OrgNotFound()
    return HoldNotFound(f"there is no {hold_id}", id=hold_id)


async def settled(
    call: Call, org_id: str, hold_id: str, quantity: int | None, *, lease: bool, late: bool = False
) -> tuple[Hold, UsageEvent, Outcome]:
    """Count units against a hold; the hold as it was found. Raises the problem of a refusal."""
    try:
        hold, event, outcome = await call.services.holds.settle(org_id, hold_id, quantity, lease=lease, late=late)
    except HoldNotFound:
        raise await unknown(call, org_id, hold_id) from None
    if outcome.result in {Result.CONFLICT, Result.HOLD_GONE}:
        raise over(hold_id, await call.services.holds.find(org_id, hold_id))
    if outcome.rule is None or outcome.result not in ALLOWED:
        raise refusal(event, outcome, call.services.catalogue)
    return hold, event, outcome


def over(hold_id: str, hold: Hold | None) -> Problem:
    """Why a hold that is not open any more cannot be settled or extended."""
    if hold is None:
        return HoldNotFound(f"there is no {hold_id} any more", id=hold_id)
    told: dict[str, Any] = {"id": hold_id, "expires_at": rfc3339(hold.expires_ms), "committed": hold.committed}
    if hold.state in _OVER:
        return HoldExpired(f"{hold_id} ended at {told['expires_at']}", **told, state=hold.state.value)
    return HoldSettled(f"{hold_id} was {hold.state} before", **told, state=hold.state.value)


def balance(outcome: Outcome) -> dict[str, Any]:
    """The members of an answer that say where the counter stands."""
    limit = None if outcome.rule is None else outcome.rule.limit
    held = 0 if outcome.standing is None else outcome.standing.held
    return figures(outcome.used, limit, held)


def figures(used: int, limit: int | None, held: int) -> dict[str, Any]:
    """The same from the figures themselves."""
    return {"current_usage": used, "limit": limit, "remaining": remaining(limit, used, held), "reserved": held}
