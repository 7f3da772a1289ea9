"""The nouns of the usage walk: an event as accepted, and what became of it."""

from dataclasses import dataclass
from enum import StrEnum

from plans.limits import Rule
from plans.periods import Period


@dataclass(slots=True)
class UsageEvent:
    """One validated usage event. `quantity` in units; times in ms since the epoch (UTC).

    Not frozen only because a frozen dataclass is twice as dear to make; nobody changes one.

    `event_id` None means the client gave none: only the service's own retries are recognised then.
    """

    org_id: str
    feature: str
    quantity: int = 1
    event_id: str | None = None
    source: str = ""
    timestamp_ms: int | None = None


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
