"""What became of an event, told to its sender: which outcomes are a yes, and the problem of every other one."""

from typing import Any, Final

from metering.api.bodies import fault
from metering.errors import (
    EventConflict,
    FeatureDisabled,
    FeatureUnknown,
    Problem,
    QuotaExceeded,
    TimestampOutOfRange,
    TotalTooLarge,
)
from metering.moments import rfc3339
from metering.usage import Outcome, Result, UsageEvent
from plans.catalogue import Catalogue, nearest, plan_with_room
from plans.limits import remaining

ALLOWED: Final = (Result.RECORDED, Result.CAPPED, Result.DUPLICATE)
"""The outcomes that are a yes; they always have a rule."""


def decided_by(outcome: Outcome) -> str:
    """What an allowed event was decided by."""
    if outcome.result is Result.DUPLICATE:
        return "event_id"
    return "unlimited" if outcome.rule is None or outcome.rule.limit is None else "plan_limit"


def refusal(event: UsageEvent, outcome: Outcome, catalogue: Catalogue) -> Problem:
    """The problem that a refused event is answered with."""
    feature, result = event.feature, outcome.result
    if result is Result.CONFLICT:
        return EventConflict(
            "this event_id was used for another feature or quantity", org_id=event.org_id, event_id=event.event_id
        )
    if outcome.rule is None or result is Result.FEATURE_UNKNOWN:
        return feature_unknown(feature, catalogue)
    balance = _balance(event, outcome, catalogue)
    if result is Result.DISABLED:
        return FeatureDisabled(f"plan {outcome.plan} does not include {feature}", **balance)
    if result is Result.TOTAL_TOO_LARGE:
        return TotalTooLarge(f"{feature} stands at {outcome.used}", **balance)
    detail = f"{feature}: {outcome.used} of {outcome.rule.limit} used, {event.quantity} more asked for"
    return QuotaExceeded(detail, **balance, decided_by="plan_limit")


def _balance(event: UsageEvent, outcome: Outcome, catalogue: Catalogue) -> dict[str, Any]:
    """The members that say where the counter stands and what would help."""
    limit = None if outcome.rule is None else outcome.rule.limit
    return {
        "org_id": event.org_id,
        "feature": event.feature,
        "current_usage": outcome.used,
        "limit": limit,
        "remaining": remaining(limit, outcome.used),
        "requested": event.quantity,
        "reset_date": rfc3339(outcome.period.end_ms),
        "upgrade": {"plan": plan_with_room(catalogue, outcome.plan, event.feature, outcome.used)},
    }


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
