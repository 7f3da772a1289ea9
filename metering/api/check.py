"""May it be used? Asked before acting, decided by the same script that counts, on the same figures."""

from collections.abc import Sequence
from typing import Any, Final

from metering.api.billing import rate_view, rule_view
from metering.api.bodies import fault, invalid
from metering.api.credits import terms_view
from metering.api.etags import etag_of
from metering.api.events import dimensions_of
from metering.api.guard import require_scope, visible
from metering.api.models.check import CheckRequest, ChecksRequest
from metering.api.outcomes import ALLOWED, decided_by, feature_unknown, rate_headers, short_of_room
from metering.api.route import Call, Reply, json_reply, tagged_read
from metering.api.usage import found, span
from metering.auth import USAGE_WRITE
from metering.errors import Problem
from metering.log import request_id
from metering.moments import rfc3339
from metering.store.org import Org
from metering.usage import Outcome, Result, Standing, UsageEvent
from plans.catalogue import plan_with_room
from plans.credits import Grant
from plans.limits import OnLimit, remaining

_REASON_OF: Final = {
    Result.RECORDED: "ok",
    Result.CAPPED: "ok",
    Result.DUPLICATE: "ok",
    Result.REFUSED: "quota_exceeded",
    Result.TOTAL_TOO_LARGE: "quota_exceeded",
    Result.DISABLED: "feature_disabled",
    Result.RATE_LIMITED: "rate_limited",
    Result.CONFLICT: "event_conflict",
}

TTL_MAX_MS: Final = 10_000
"""The longest an answer may be reused. With so much of the limit left that nobody uses it up in that time."""


async def post_check(call: Call) -> Reply:
    """One question, or many. Raises the problems of a single one."""
    body = call.sent(ChecksRequest)
    asks = _asks(body)
    if any(ask.consume for ask in asks):
        require_scope(call.caller, USAGE_WRITE)
    settled = await _settled(call, asks)
    if body.checks:
        return json_reply({"results": [_result(call, *answer) for answer in settled]})
    event, outcome = settled[0]
    if isinstance(outcome, Problem):
        raise outcome
    return json_reply(_answer(call, event, outcome), headers=rate_headers(outcome.standing))


async def get_entitlements(call: Call) -> Reply:
    """What the organisation in the path may use, with an ETag."""
    org = await found(call, call.params["org_id"])
    content: dict[str, Any] = {
        "org_id": org.org_id,
        "plan": org.plan,
        "period": span(org.period),
        "rate_limit": rate_view(org.rate),
        "features": {name: rule_view(usage.rule) for name, usage in sorted(org.features.items())},
        "grants": [terms_view(one) for one in await _open_grants(call, org)],
    }
    return tagged_read(call, json_reply(content), etag_of(content))


async def _open_grants(call: Call, org: Org) -> list[Grant]:
    """Grants with credits left, in burn order: first those that may be used now."""
    if not org.pool:
        return []
    told = await call.services.credits.balance_of(org)
    return [*told.grants, *told.later]


def _asks(body: ChecksRequest) -> list[CheckRequest]:
    """The questions. Raises Invalid where `checks` does not stand alone, or there is no question."""
    if body.checks:
        others = sorted(body.model_fields_set - {"checks"})
        if others:
            raise invalid([fault(f"/{name}", "conflict", "it goes into the entries of `checks`") for name in others])
        return body.checks
    if not body.feature:
        raise invalid([fault("/feature", "missing", "name a feature, or send `checks`")])
    return [body]


Settled = tuple[UsageEvent, Outcome | Problem]


async def _settled(call: Call, asks: Sequence[CheckRequest]) -> list[Settled]:
    """Every question as an event, and what became of it; all in a handful of calls of the store."""
    read = [_read(call, ask, place) for place, ask in enumerate(asks)]
    events = [event for event in read if isinstance(event, UsageEvent)]
    outcomes = iter(await call.services.counts.track_all(events))
    settled: list[Settled] = []
    for entry in read:
        if isinstance(entry, Problem):
            settled.append((UsageEvent("", ""), entry))
            continue
        outcome = next(outcomes)
        unknown = isinstance(outcome, Outcome) and (outcome.rule is None or outcome.result is Result.FEATURE_UNKNOWN)
        settled.append((entry, feature_unknown(entry.feature, call.services.catalogue) if unknown else outcome))
    return settled


def _read(call: Call, ask: CheckRequest, place: int) -> UsageEvent | Problem:
    """The question as an event; a trial, unless it is to be consumed. Of several it is the one at `place`."""
    try:
        org_id = visible(call.caller, ask.org_id)
    except Problem as problem:
        return problem
    return UsageEvent(
        org_id,
        ask.feature,
        ask.quantity,
        event_id=_event_id(call, ask, place) if ask.consume else None,
        source=ask.source or "",
        mode=None if ask.mode == "default" else OnLimit(ask.mode),
        dry_run=not ask.consume,
        dimensions=dimensions_of(ask.actor, None, call.services.catalogue.dimensions),
    )


def _event_id(call: Call, ask: CheckRequest, place: int) -> str | None:
    """The id that what is consumed counts under, once; under an Idempotency-Key every try has the same."""
    if ask.event_id is not None or call.idempotency_key is None:
        return ask.event_id
    return f"check_{call.idempotency_key}_{place}"


def _result(call: Call, event: UsageEvent, outcome: Outcome | Problem) -> dict[str, Any]:
    if isinstance(outcome, Problem):
        return {"problem": outcome.members(request_id.get())}
    return _answer(call, event, outcome)


def _answer(call: Call, event: UsageEvent, outcome: Outcome) -> dict[str, Any]:
    """The answer to one question, as `CheckAnswer` describes it."""
    rule, standing = outcome.rule, outcome.standing or Standing()
    limit = None if rule is None else rule.limit
    allowed, used = outcome.result in ALLOWED, outcome.used - (outcome.recorded if event.dry_run else 0)
    wait_ms = 0 if allowed else _wait_ms(call, outcome)
    return {
        "org_id": event.org_id,
        "feature": event.feature,
        "allowed": allowed,
        "reason": _REASON_OF[outcome.result],
        "decided_by": decided_by(outcome),
        "requested": event.quantity,
        "granted": outcome.recorded,
        "current_usage": used,
        "limit": limit,
        "remaining": remaining(limit, used, standing.held),
        "reserved": standing.held,
        "overage_allowed": rule is not None and rule.on_limit is OnLimit.OVERAGE,
        "reset_date": rfc3339(standing.opens_ms or outcome.period.end_ms),
        "retry_after_ms": wait_ms,
        "upgrade": _upgrade(call, event, outcome, used + standing.held) if short_of_room(outcome) else None,
        "cache_ttl_ms": min(wait_ms, TTL_MAX_MS) if not allowed else _cache_ttl_ms(outcome),
        "consumed": not event.dry_run and outcome.recorded > 0,
        "duplicate": outcome.result is Result.DUPLICATE,
    }


def _wait_ms(call: Call, outcome: Outcome) -> int:
    """How long until what refused gives way; 0 where time does not help."""
    standing = outcome.standing or Standing()
    if outcome.result is Result.RATE_LIMITED:
        return standing.wait_ms
    if outcome.result is not Result.REFUSED:
        return 0
    return max(0, (standing.opens_ms or outcome.period.end_ms) - call.services.clock.now_ms())


def _upgrade(call: Call, event: UsageEvent, outcome: Outcome, taken: int) -> dict[str, Any]:
    """The plan that would have room, and the units that are missing under the present one."""
    room = remaining(None if outcome.rule is None else outcome.rule.limit, taken)
    plan = plan_with_room(call.services.catalogue, outcome.plan, event.feature, taken, event.quantity)
    return {"plan": plan, "missing": max(0, event.quantity - (room or 0))}


def _cache_ttl_ms(outcome: Outcome) -> int:
    """How long a yes may be reused: as long as nobody uses up what is left, and never where windows or a rate count."""
    rule, standing = outcome.rule, outcome.standing or Standing()
    if rule is None or rule.windows or standing.rate is not None:
        return 0
    left = remaining(rule.limit, outcome.used, standing.held)
    if left is None or not rule.limit or rule.on_limit is OnLimit.OVERAGE:
        return TTL_MAX_MS
    return TTL_MAX_MS * left // rule.limit
