"""What credits pay for, and which grant pays first: the reference that `lua/shared/credits.lua` repeats.

A grant gives an organisation credits; what is left of all its grants is the pool. A feature's weight is what one unit
of it costs. A grant with a scope pays for one feature only, one credit a unit, whatever the weight.
Units and credits are integers throughout, instants ms since the epoch (UTC).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

PRIORITY_MAX: Final = 100
PRIORITY_DEFAULT: Final = 50
"""Lower burns first."""

AMOUNT_MAX: Final = 10**12
"""Largest grant, in credits."""

GRANTS_MAX: Final = 200
"""Open grants of one organisation: with them its whole pool stays an exact number, and a script reads it in time."""

POOL: Final = ""
"""The scope of a grant that pays for every feature that has a weight."""


class Kind(StrEnum):
    """Whether a grant was bought."""

    PAID = "paid"
    PROMOTIONAL = "promotional"


@dataclass(frozen=True, slots=True)
class Grant:
    """An open grant: `left` credits of it, usable from `effective_ms` to `expires_ms` (None: it never expires).

    `scope` is a feature, or POOL; `seq` counts an organisation's grants; `frozen` that a dispute holds it. Up to
    `rollover` credits go once into one more span of the same length when it expires.
    """

    grant_id: str
    left: int
    seq: int
    priority: int = PRIORITY_DEFAULT
    effective_ms: int = 0
    expires_ms: int | None = None
    scope: str = POOL
    frozen: bool = False
    rollover: int = 0
    kind: Kind = Kind.PAID

    def available(self, now_ms: int) -> bool:
        """Whether its credits may be used now."""
        unexpired = self.expires_ms is None or now_ms < self.expires_ms
        return self.left > 0 and not self.frozen and self.effective_ms <= now_ms and unexpired

    def pays_for(self, feature: str, weight: int | None) -> bool:
        """Whether its credits are for a feature of that weight (None: it takes none out of the pool)."""
        return self.scope == feature or (self.scope == POOL and weight is not None)


@dataclass(frozen=True, slots=True)
class Normalised:
    """A grant as it stands now: what expired of it since it was written, and what went into a second span."""

    grant: Grant
    expired: int = 0
    rolled_over: int = 0


def normalised(grant: Grant, now_ms: int) -> Normalised:
    """The grant with its expiry applied. Whoever meets an expired grant sees it so, whether it was written or not.

    What is left beyond `rollover` expires; the rest lives on for as long as the grant lived, once.
    """
    if grant.expires_ms is None or now_ms < grant.expires_ms:
        return Normalised(grant)
    kept = min(grant.left, grant.rollover)
    ends_ms = 2 * grant.expires_ms - grant.effective_ms
    if kept and now_ms < ends_ms:
        return Normalised(replace(grant, left=kept, expires_ms=ends_ms, rollover=0), grant.left - kept, kept)
    return Normalised(replace(grant, left=0, rollover=0), grant.left)


def in_burn_order(grants: Iterable[Grant]) -> list[Grant]:
    """The grants as they are used up: by priority, by expiry (those that never do last), by creation."""
    return sorted(grants, key=lambda one: (one.priority, one.expires_ms is None, one.expires_ms or 0, one.seq))


def usable(grants: Iterable[Grant], now_ms: int) -> list[Grant]:
    """What may be used now, normalised, in burn order."""
    return in_burn_order(one for grant in grants if (one := normalised(grant, now_ms).grant).available(now_ms))


def balance(grants: Iterable[Grant], now_ms: int, debt: int = 0) -> int:
    """Credits that may be used now, less what the organisation owes; negative where it owes more."""
    return sum(grant.left for grant in usable(grants, now_ms)) - debt


@dataclass(frozen=True, slots=True)
class Cover:
    """What pays for one feature: `own` units by grants for it alone, `credits` of the pool at `weight` a unit."""

    own: int = 0
    credits: int = 0
    weight: int | None = None

    @property
    def units(self) -> int:
        """Units that are paid for. A part of a unit is none."""
        return self.own + (0 if self.weight is None else self.credits // self.weight)


def cover(
    grants: Iterable[Grant], feature: str, weight: int | None, now_ms: int, *, debt: int = 0, reserved: int = 0
) -> Cover:
    """What pays for a feature. `reserved` credits of the pool are kept for open holds of other features."""
    own = pooled = 0
    for grant in usable(grants, now_ms):
        if grant.scope == POOL:
            pooled += grant.left
        elif grant.scope == feature:
            own += grant.left
    return Cover(own, max(0, pooled - debt - reserved), weight)


def burnt(grants: Iterable[Grant], feature: str, paid: Cover, units: int, now_ms: int) -> dict[str, int]:
    """The credits that `units` (at most what is covered) take out of each grant, by its id, in burn order.

    A unit may be paid out of two grants, but never in part: what was begun out of the pool is ended out of it.
    """
    todo, weight = units, paid.weight or 1
    budget = min(paid.units - paid.own, units) * weight
    begun = 0  # credits in the unit that is begun
    taken: dict[str, int] = {}
    for grant in usable(grants, now_ms):
        if grant.scope == feature:
            take = min(grant.left, todo - (begun > 0))
            todo -= take
        elif grant.scope == POOL:
            take = min(grant.left, budget, todo * weight - begun)
            budget -= take
            whole, begun = divmod(begun + take, weight)
            todo -= whole
        else:
            continue
        if take:
            taken[grant.grant_id] = take
    return taken


@dataclass(frozen=True, slots=True)
class Standing:
    """A counter with what open holds keep of it, where the plan stops at the limit; `own` as in Cover."""

    limit: int | None
    used: int
    held: int
    weight: int
    own: int = 0


def reserved(counters: Mapping[str, Standing], feature: str) -> int:
    """Credits of the pool that the open holds of other features keep: for the units of them above their limits."""
    return sum(_kept(counter) for name, counter in counters.items() if name != feature)


def _kept(counter: Standing) -> int:
    if counter.limit is None:
        return 0
    above = max(0, counter.used + counter.held - max(counter.limit, counter.used))
    return max(0, above - counter.own) * counter.weight
