"""Overage on its way to Stripe: what waits, what is dead, and what operators do about it."""

from typing import Any, Final

from metering.api.guard import visible
from metering.api.models.stripe import DiscardRequest, OutboxQuery
from metering.api.route import Call, Reply, json_reply
from metering.api.usage import span
from metering.auth import ADMIN
from metering.clock import MS_PER_S
from metering.errors import OrgNotFound
from metering.moments import rfc3339
from metering.store.window import State
from metering.store.window_lists import WAITING, Count, Listed, Place

_COUNTED: Final = (State.SEALED, State.INFLIGHT, State.DEAD)


async def get_outbox(call: Call) -> Reply:
    """One page of windows: of one organisation, or, for an administrator who names none, of all."""
    query = call.asked(OutboxQuery)
    org_id = await _org(call, query.org_id)
    states = WAITING if query.state is None else {State(query.state)}
    listed, following = await call.services.outbox.page(states, org_id, query.limit, _place(query.cursor))
    counts = await call.services.outbox.counts(org_id) if query.cursor is None else None
    now_ms = call.services.outbox.now_ms()
    return json_reply(
        {
            "data": [window_view(one) for one in listed],
            "next_cursor": following and f"{following.partition}.{following.list}.{following.score}.{following.name}",
            "counts": counts and {state.value: _count(counts[state], now_ms) for state in _COUNTED},
        }
    )


async def replay_window(call: Call) -> Reply:
    """Let a dead window be sent again."""
    window = await call.services.outbox.replay(call.params["window"], by=call.caller.subject)
    return json_reply(window_view(Listed(window, None)))


async def discard_window(call: Call) -> Reply:
    """Write a dead window off."""
    reason = call.sent(DiscardRequest).reason
    window = await call.services.outbox.discard(call.params["window"], reason, by=call.caller.subject)
    return json_reply(window_view(Listed(window, None)))


async def _org(call: Call, asked: str | None) -> str | None:
    """The organisation that a question is about; None: all. Raises OrgNotFound, Invalid."""
    if asked is None and call.caller.may(ADMIN):
        return None
    org_id = visible(call.caller, asked)
    if await call.services.orgs.get(org_id) is None:
        raise OrgNotFound
    return org_id


def _place(cursor: str | None) -> Place | None:
    if cursor is None:
        return None
    partition, kind, score, name = cursor.split(".")
    return Place(int(partition), kind, int(score), name)


def _count(count: Count, now_ms: int) -> dict[str, int]:
    age_ms = max(0, now_ms - count.oldest_ms) if count.windows else 0
    return {"windows": count.windows, "units": count.units, "oldest_seconds": age_ms // MS_PER_S}


def window_view(listed: Listed) -> dict[str, Any]:
    """A window as the wire shows it."""
    window, cut = listed.window, listed.window.cut
    return {
        "window": window.id,
        "org_id": cut.org_id,
        "feature": cut.feature,
        "period": span(cut.period),
        "from_units": cut.from_units,
        "to_units": cut.to_units,
        "units": window.units,
        "state": window.state.value,
        "sink": window.sink.value,
        "customer": window.customer or None,
        "attempts": window.attempts,
        "sealed_at": rfc3339(window.at_ms),
        "first_attempt_at": _moment(window.first_ms),
        "last_attempt_at": _moment(window.tried_ms),
        "next_attempt_at": _moment(listed.due_ms),
        "settled_at": _moment(window.settled_ms),
        "error": window.error or None,
    }


def _moment(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)
