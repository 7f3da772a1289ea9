"""What became of an event, told to its sender: which outcomes are a yes, and the problem of every other one."""

from typing import Any, Final

from metering.api.bodies import fault
from metering.clock import MS_PER_S
from metering.errors import (
    CreditsExhausted,
    EventConflict,
    FeatureDisabled,
    FeatureUnknown,
    HoldConflict,
    HoldExpired,
    HoldNotFound,
    HoldSettled,
    Problem,
    QuotaExceeded,
    RateLimited,
    TimestampOutOfRange,
    TooManyHolds,
    TotalTooLarge,
)
from metering.moments import rfc3339
from metering.usage import HOLD_EXPIRED, HOLD_SETTLED, Outcome, Result, Standing, UsageEvent
from plans.catalogue import Catalogue, nearest, plan_with_room
from plans.limits import remaining
from plans.subwindows import SubWindow

ALLOWED: Final = (Result.RECORDED, Result.CAPPED, Result.DUPLICATE)
"""The outcomes that are a yes; they always have a rule."""


def decided_by(outcome: Outcome) -> str:
    """What an event was decided by: the limit that left the least room, or its id."""
    if outcome.result is Result.DUPLICATE:
        return "event_id"
    rule, standing = outcome.rule, outcome.standing
    if rule is not None and standing is not None and standing.decided_by:
        return f"window_{rule.windows[standing.decided_by - 1].name}"
    return "unlimited" if rule is None or rule.limit is None else "plan_limit"


def track_answer(event: UsageEvent, outcome: Outcome, event_id: str) -> dict[str, Any]:
    """The balance after an event that is allowed, as `TrackAnswer` describes it."""
    rule, standing = outcome.rule, outcome.standing
    limit, end = None if rule is None else rule.limit, rfc3339(outcome.period.end_ms)
    answer = {
        "org_id": event.org_id,
        "feature": event.feature,
        "current_usage": outcome.used,
        "limit": limit,
        "remaining": remaining(limit, outcome.used, 0 if standing is None else standing.held),
        "reset_date": end,
        "event_id": event_id,
        "allowed": True,
        "recorded": outcome.recorded,
        "duplicate": outcome.result is Result.DUPLICATE,
        "overage": outcome.overage,
        "unlimited": limit is None,
        "period": {"start": rfc3339(outcome.period.start_ms), "end": end},
        "thresholds_crossed": outcome.marks,
        "decided_by": decided_by(outcome),
    }
    if standing is not None and standing.held:
        answer["reserved"] = standing.held
    if outcome.credits_used:
        answer["credits_used"] = outcome.credits_used
    if event.dry_run:
        answer["dry_run"] = True
    if outcome.late:
        answer["late"] = True
    return answer


def refusal(event: UsageEvent, outcome: Outcome, catalogue: Catalogue) -> Problem:
    """The problem that a refused event is answered with. `outcome` may tell of another feature than its first."""
    problem = _refusal(event, outcome, catalogue)
    problem.headers |= rate_headers(outcome.standing)
    return problem


def _refusal(event: UsageEvent, outcome: Outcome, catalogue: Catalogue) -> Problem:
    feature, result = outcome.feature or event.feature, outcome.result
    if result is Result.CONFLICT:
        return _conflict(event)
    if outcome.rule is None or result is Result.FEATURE_UNKNOWN:
        return feature_unknown(feature, catalogue)
    if result in _HOLD_RESULTS:
        return _hold_gone(event, outcome)
    if result is Result.RATE_LIMITED and outcome.standing is not None:
        return _rate_limited(event, outcome.standing)
    return _not_counted(feature, outcome, _told(event, outcome, catalogue))


_HOLD_RESULTS: Final = (Result.HOLD_GONE, Result.TOO_MANY_HOLDS)


def _not_counted(feature: str, outcome: Outcome, told: dict[str, Any]) -> Problem:
    """The refusal of what the plan does not have, or has no room for."""
    if outcome.result is Result.DISABLED:
        return FeatureDisabled(f"plan {outcome.plan} does not include {feature}", **told)
    if outcome.result is Result.TOTAL_TOO_LARGE:
        return TotalTooLarge(f"{feature} stands at {outcome.used}", **told)
    if outcome.credits_left is not None and short_of_room(outcome):
        return _credits_exhausted(feature, outcome, outcome.credits_left, told)
    return _quota_exceeded(feature, outcome, told)


def _credits_exhausted(feature: str, outcome: Outcome, balance: int, told: dict[str, Any]) -> Problem:
    """The refusal of what credits would pay for, with what they lack."""
    weight = 1 if outcome.rule is None else outcome.rule.credits or 1
    needed = (told["requested"] - (told["remaining"] or 0)) * weight
    told |= {"balance": balance, "needed": needed, "packages": PACKAGES}
    detail = f"{feature}: {outcome.used} of {told['limit']} used, {told['requested']} more need {needed} credits"
    return CreditsExhausted(f"{detail} of {balance}", **told, decided_by="credits")


PACKAGES: Final = "/v1/credits/packages"
"""Where the price list of credits is."""


def _conflict(event: UsageEvent) -> Problem:
    if event.hold_id is not None:
        return HoldConflict(f"{event.hold_id} was settled with another feature or quantity", id=event.hold_id)
    return EventConflict(
        "this event_id was used for another feature or quantity", org_id=event.org_id, event_id=event.event_id
    )


def _hold_gone(event: UsageEvent, outcome: Outcome) -> Problem:
    if outcome.result is Result.TOO_MANY_HOLDS:
        return TooManyHolds(org_id=event.org_id)
    state = 0 if outcome.standing is None else outcome.standing.hold_state
    kind = {HOLD_EXPIRED: HoldExpired, HOLD_SETTLED: HoldSettled}.get(state, HoldNotFound)
    return kind(id=event.hold_id or event.event_id)


def _rate_limited(event: UsageEvent, standing: Standing) -> Problem:
    wait_s = max(1, -(-standing.wait_ms // MS_PER_S))
    return RateLimited(f"try again in {wait_s} s", headers={"Retry-After": str(wait_s)}, org_id=event.org_id)


def _quota_exceeded(feature: str, outcome: Outcome, told: dict[str, Any]) -> Problem:
    """The refusal of what does not fit, with the limit that decided and when that gives way."""
    rule, standing = outcome.rule, outcome.standing
    held = 0 if standing is None else standing.held
    kept = f", {held} reserved" if held else ""
    detail = f"{feature}: {outcome.used} of {told['limit']} used{kept}, {told['requested']} more asked for"
    if rule is not None and standing is not None and standing.decided_by:
        window = rule.windows[standing.decided_by - 1]
        told |= {"window": window_view(window), "reset_date": rfc3339(standing.opens_ms)}
        span = f"any {window.per.value}" if window.rolling else f"this {window.per.value}"
        detail = f"{feature}: {told['requested']} more would pass the {window.limit} of {span}{kept}"
    return QuotaExceeded(detail, **told, decided_by=decided_by(outcome))


def window_view(window: SubWindow) -> dict[str, Any]:
    """A sub-window as the wire shows it."""
    return {"limit": window.limit, "per": window.per.value, "rolling": window.rolling}


def raw_rate_headers(standing: Standing | None) -> list[tuple[bytes, bytes]]:
    """The same as they go out."""
    return [(name.lower().encode(), value.encode()) for name, value in rate_headers(standing).items()]


def rate_headers(standing: Standing | None) -> dict[str, str]:
    """RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers): what an organisation may send still.

    Empty where it has no rate limit.
    """
    if standing is None or standing.rate is None:
        return {}
    rate, full_s = standing.rate, -(-standing.full_in_ms // MS_PER_S)
    return {
        "RateLimit-Policy": f'"events";q={rate.events};w={rate.per.ms // MS_PER_S}',
        "RateLimit": f'"events";r={standing.events_left};t={full_s}',
    }


def _told(event: UsageEvent, outcome: Outcome, catalogue: Catalogue) -> dict[str, Any]:
    """The members that say where the counter stands and what would help."""
    feature = outcome.feature or event.feature
    quantity = next((units for name, units in event.also if name == feature), event.quantity)
    limit = None if outcome.rule is None else outcome.rule.limit
    held = 0 if outcome.standing is None else outcome.standing.held
    taken, plan = outcome.used + held, None
    if short_of_room(outcome):
        plan = plan_with_room(catalogue, outcome.plan, feature, taken, quantity)
    return {
        "org_id": event.org_id,
        "feature": feature,
        "current_usage": outcome.used,
        "limit": limit,
        "remaining": remaining(limit, outcome.used, held),
        "requested": event.quantity if feature == event.feature else quantity,
        "reset_date": rfc3339(outcome.period.end_ms),
        "upgrade": {"plan": plan},
    } | ({"reserved": held} if held else {})


def short_of_room(outcome: Outcome) -> bool:
    """Whether another plan's limit would help: not where a sub-window, the rate or the event's own id refused."""
    if outcome.result is Result.DISABLED:
        return True
    return outcome.result is Result.REFUSED and (outcome.standing is None or not outcome.standing.decided_by)


def feature_unknown(feature: str, catalogue: Catalogue) -> FeatureUnknown:
    """The 404 for a feature that the catalogue does not have, with the nearest name and all names."""
    near = nearest(feature, catalogue.features)
    hint = f"; did you mean '{near}'?" if near else ""
    return FeatureUnknown(
        f"no feature '{feature}'{hint}", feature=feature, nearest=near, features=sorted(catalogue.features)
    )


def with_window(problem: Problem, place: str = "/timestamp") -> Problem:
    """The same; a timestamp's window, which the store tells in ms, as the wire writes it. `place` is where it is."""
    if not isinstance(problem, TimestampOutOfRange) or "oldest_ms" not in problem.extra:
        return problem
    oldest, newest = (rfc3339(int(str(problem.extra[name]))) for name in ("oldest_ms", "newest_ms"))
    window = f"{oldest} to {newest}"
    faults = [fault(place, "out-of-range", f"{window} is accepted")]
    return TimestampOutOfRange(f"the timestamp lies outside {window}", errors=faults, oldest=oldest, newest=newest)
