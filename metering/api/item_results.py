"""What became of each event of a batch, as its sender reads it."""

from collections import Counter
from typing import Any, Final

from metering.api.outcomes import ALLOWED, feature_unknown, refusal, with_window
from metering.errors import FeatureUnknown, Problem
from metering.usage import Outcome, Result, UsageEvent
from plans.catalogue import Catalogue
from plans.limits import remaining

BLOCKED: Final = frozenset({402, 403, 429})
"""Statuses of problems that the plan, a limit or a rate makes: the event itself is sound, and may be counted later."""

HINTS_MAX: Final = 20
"""Unknown names of a batch that get a suggestion: a comparison with 200 features takes two milliseconds."""

_COUNT_OF: Final = {
    "recorded": "accepted",
    "capped": "accepted",
    "duplicate": "duplicates",
    "blocked": "blocked",
    "rejected": "rejected",
}
_LEFT_OUT: Final = ("request_id", "features")
"""Members of a problem that would say the same in every item."""

Settled = Outcome | Problem
"""What became of an event, or why it was not even asked."""


class Results:
    """The results of one batch, each made once and counted. `time_place` is where its events have their timestamp."""

    def __init__(self, catalogue: Catalogue, time_place: str) -> None:
        self._catalogue, self._time_place = catalogue, time_place
        self._unknown: dict[str, FeatureUnknown] = {}
        self._tally: Counter[str] = Counter()

    @property
    def tally(self) -> dict[str, int]:
        """How many of them were accepted, duplicates, blocked and rejected."""
        return {name: self._tally[name] for name in dict.fromkeys(_COUNT_OF.values())}

    @property
    def failed(self) -> int:
        """How many events were not counted."""
        return self._tally["blocked"] + self._tally["rejected"]

    def of(self, index: int, name: str | None, event: UsageEvent | None, settled: Settled) -> dict[str, Any]:
        """The result of the event at `index` with the id `name`; `event` None where it could not be understood."""
        result: dict[str, Any] = {"index": index, "id": name, "status": ""}
        if event is not None:
            result |= {"org_id": event.org_id, "feature": event.feature}
        problem = settled if isinstance(settled, Problem) else self._problem(event, settled)
        if problem is None and isinstance(settled, Outcome):
            result |= _balance(settled) | _marks(event, settled)
            result["status"] = settled.result.value
        elif problem is not None:
            result["status"] = "blocked" if problem.status in BLOCKED else "rejected"
            result["problem"] = _members(with_window(problem, self._time_place))
        self._tally[_COUNT_OF[result["status"]]] += 1
        return result

    def skipped(self, index: int, event: UsageEvent) -> dict[str, Any]:
        """The result of an event that was not counted because of others, with which it was to be."""
        return {
            "index": index,
            "id": event.event_id,
            "status": "skipped",
            "org_id": event.org_id,
            "feature": event.feature,
        }

    def _problem(self, event: UsageEvent | None, outcome: Outcome) -> Problem | None:
        """The refusal of an event, None where it was counted or was there already."""
        if event is None or (outcome.rule is not None and outcome.result in ALLOWED):
            return None
        if outcome.result is Result.FEATURE_UNKNOWN:
            return self.unknown(outcome.feature or event.feature)
        return refusal(event, outcome, self._catalogue)

    def unknown(self, feature: str) -> FeatureUnknown:
        """The problem of a feature that the catalogue does not have; few get a suggestion."""
        found = self._unknown.get(feature)
        if found is None:
            if len(self._unknown) >= HINTS_MAX:
                return FeatureUnknown(f"no feature '{feature}'", feature=feature)
            found = self._unknown[feature] = feature_unknown(feature, self._catalogue)
        return found


def _balance(outcome: Outcome) -> dict[str, Any]:
    """Where the counter stands after an event that was counted, or was there already."""
    limit = None if outcome.rule is None else outcome.rule.limit
    return {
        "recorded": outcome.recorded,
        "current_usage": outcome.used,
        "limit": limit,
        "remaining": remaining(limit, outcome.used, 0 if outcome.standing is None else outcome.standing.held),
        "overage": outcome.overage,
    }


def _marks(event: UsageEvent | None, outcome: Outcome) -> dict[str, Any]:
    """What only some results have."""
    marks: dict[str, Any] = {}
    if outcome.others:
        marks["features"] = [{"feature": part.feature} | _balance(part) for part in (outcome, *outcome.others)]
    if event is not None and event.dry_run:
        marks["dry_run"] = True
    if outcome.late:
        marks["late"] = True
    return marks


def _members(problem: Problem) -> dict[str, Any]:
    return {name: value for name, value in problem.members("").items() if name not in _LEFT_OUT}
