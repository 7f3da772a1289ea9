"""Reservations: units kept back before they are used, on the same ledger as the limits."""

from typing import Any, Final

from metering.api.holds import balance, found, named, over, placed, settled
from metering.api.models.holds import CommitRequest, ExtendRequest, HoldQuery, ReservationRequest
from metering.api.outcomes import rate_headers, track_answer
from metering.api.route import Call, Reply, json_reply
from metering.moments import rfc3339
from metering.store.holds import Hold, HoldState

PLACE: Final = "reservation_id"


async def reserve(call: Call) -> Reply:
    """Keep units back. The same id with the same content gives the same reservation again, as it is by now."""
    org_id, hold, outcome = await placed(call, call.sent(ReservationRequest), "res", lease=False)
    return json_reply(reservation_view(org_id, hold) | balance(outcome), 201, rate_headers(outcome.standing))


async def get_reservation(call: Call) -> Reply:
    """The reservation in the path."""
    org_id, hold_id = named(call, PLACE, call.asked(HoldQuery).org_id)
    return json_reply(reservation_view(org_id, await found(call, org_id, hold_id, lease=False)))


async def commit_reservation(call: Call) -> Reply:
    """Count what was used of it, once; the rest is free again."""
    body = call.sent(CommitRequest)
    org_id, hold_id = named(call, PLACE, body.org_id)
    _, event, outcome = await settled(call, org_id, hold_id, body.quantity, lease=False, late=body.late_commit)
    return json_reply(track_answer(event, outcome, hold_id), headers=rate_headers(outcome.standing))


async def extend_reservation(call: Call) -> Reply:
    """Let it live longer, while it is open."""
    body = call.sent(ExtendRequest)
    org_id, hold_id = named(call, PLACE, body.org_id)
    await found(call, org_id, hold_id, lease=False)
    hold = await call.services.holds.extend(org_id, hold_id, body.ttl_s * 1000)
    if hold is None:
        raise over(hold_id, await call.services.holds.find(org_id, hold_id))
    return json_reply(reservation_view(org_id, hold))


async def release_reservation(call: Call) -> Reply:
    """Let go of it. One that was let go of, or has expired, keeps nothing back: that is what was asked for."""
    org_id, hold_id = named(call, PLACE, call.asked(HoldQuery).org_id)
    await found(call, org_id, hold_id, lease=False)
    if not await call.services.holds.release(org_id, hold_id):
        hold = await call.services.holds.find(org_id, hold_id)
        if hold is None or hold.state is HoldState.COMMITTED:
            raise over(hold_id, hold)
    return Reply(b"", 204)


def reservation_view(org_id: str, hold: Hold) -> dict[str, Any]:
    """A reservation as the wire shows it."""
    return {
        "id": hold.hold_id,
        "org_id": org_id,
        "feature": hold.feature,
        "requested": hold.asked,
        "quantity": hold.quantity,
        "status": hold.state.value,
        "expires_at": rfc3339(hold.expires_ms),
        "committed": hold.committed,
    }
