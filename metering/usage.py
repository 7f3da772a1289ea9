"""The nouns of the usage walk: an event as accepted, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from plans.limits import OnLimit, Rule
from plans.periods import Period


@dataclass(slots=True)
class UsageEvent:
    """One validated usage event. `quantity` in units; times in ms since the epoch (UTC).

    Not frozen only because a frozen dataclass is twice as dear to make; nobody changes one.

    `event_id` None means the client gave none: only the service's own retries are recognised then. `also` holds
    further (feature, quantity) pairs of the same event: all of them are counted with it, or none and it neither.
    `mode` tightens what the plan does above a limit and never loosens it. `dry_run` decides and writes nothing.
    `dimensions` are the declared ones it has, by name; `details` is what a log of raw events keeps besides, as JSON.
    """

    org_id: str
    feature: str
    quantity: int = 1
    event_id: str | None = None
    source: str = ""
    timestamp_ms: int | None = None
    mode: OnLimit | None = None
    dry_run: bool = False
    also: tuple[tuple[str, int], ...] = ()
    dimensions: Mapping[str, str] | None = None
    details: bytes | None = None


class Result(StrEnum):
    """What became of an event. Only RECORDED and CAPPED counted anything now."""

    RECORDED = "recorded"
    CAPPED = "capped"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REFUSED = "refused"
    DISABLED = "disabled"
    FEATURE_UNKNOWN = "feature_unknown"
    TOTAL_TOO_LARGE = "total_too_large"


@dataclass(slots=True)
class Outcome:
    """The answer to one event: the counter after it and the law it was decided under. Nobody changes one.

    `used` is the counter of the current period; `recorded` and `overage` are this event's own units.
    """

    result: Result
    plan: str
    used: int
    rule: Rule | None
    period: Period
    recorded: int = 0
    overage: int = 0
    marks: tuple[int, ...] = ()
    late: bool = False
