"""The nouns of the usage walk: an event as accepted, and what became of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from plans.limits import OnLimit, Rule
from plans.periods import Period
from plans.subwindows import RateLimit


@dataclass(slots=True)
class UsageEvent:
    """One validated usage event. `quantity` in units; times in ms since the epoch (UTC).

    Not frozen only because a frozen dataclass is twice as dear to make; nobody changes one.

    `event_id` None means the client gave none: only the service's own retries are recognised then. `also` holds
    further (feature, quantity) pairs of the same event: all of them are counted with it, or none and it neither.
    `mode` tightens what the plan does above a limit and never loosens it. `dry_run` decides and writes nothing.
    `dimensions` are the declared ones it has, by name; `details` is what a log of raw events keeps besides, as JSON.
    `accepted_ms` is when an event was accepted that is counted later: it counts as of then, also into a period that
    closed meanwhile. `hold_id` names the reservation or lease that the event settles.
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
    accepted_ms: int | None = None
    hold_id: str | None = None


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
    RATE_LIMITED = "rate_limited"
    NOT_TOGETHER = "not_together"  # another one, with which it is counted or not at all, was refused
    HOLD_GONE = "hold_gone"
    TOO_MANY_HOLDS = "too_many_holds"


HOLD_UNKNOWN: Final = 1
HOLD_EXPIRED: Final = 2
HOLD_SETTLED: Final = 3
"""Values of `Standing.hold_state`."""

ADMITTED: Final = frozenset({Result.RECORDED, Result.CAPPED, Result.DUPLICATE})
"""What an event asked for was done, now or before."""


@dataclass(slots=True)
class Standing:
    """What else an answer tells where more than a plain counter decided.

    `held` units of open holds; `decided_by` 0 for the plan's limit, n for the n-th sub-window of the rule, which
    gives way at `opens_ms` (0: not told); `rate` the rate limit, with `events_left` under it now and all of them again
    in `full_in_ms`; `wait_ms` before an event conforms again; `hold_state` why a hold was not settled.
    """

    held: int = 0
    decided_by: int = 0
    opens_ms: int = 0
    rate: RateLimit | None = None
    events_left: int = 0
    full_in_ms: int = 0
    wait_ms: int = 0
    hold_state: int = 0


@dataclass(slots=True)
class Outcome:
    """The answer to one event: the counter after it and the law it was decided under. Nobody changes one.

    `used` is the counter of the current period; `recorded` and `overage` are this event's own units. `others` are the
    outcomes of the event's further features; `feature` is the one told of, where it may be another than the first.
    `credits_used` is what it burned; `credits_left` of a refusal what could have been used (None: credits do not pay
    for the feature).
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
    standing: Standing | None = None
    others: "tuple[Outcome, ...]" = ()
    feature: str = ""
    credits_used: int = 0
    credits_left: int | None = None
