"""What a correction does to one counter: the reference that `adjust.lua` repeats.

Overage accrues and is never edited: a second total, which only grows too, holds what corrections gave back of it. What
is billed is the difference.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from plans.limits import TOTAL_MAX

DELTA_MAX: Final = 10**12
"""Largest correction, in units: as much as one event may hold."""


@dataclass(frozen=True, slots=True)
class Counter:
    """One feature's counter in one period: units used, overage accrued and what was given back of it, units that
    credits paid for.
    """

    used: int
    accrued: int = 0
    given_back: int = 0
    credit: int = 0

    @property
    def overage(self) -> int:
        """What is billed: the overage accrued less what was given back."""
        return self.accrued - self.given_back


class Refusal(StrEnum):
    """Why a correction is not made. Nothing changes then."""

    BELOW_ZERO = "below_zero"
    TOTAL_TOO_LARGE = "total_too_large"


def corrected(limit: int | None, counter: Counter, delta: int, cover: int = 0) -> Counter | Refusal:
    """The counter after `delta` units (negative: taken out). `limit` None is unlimited.

    Units taken out give back the overage they had caused, then units that credits paid for: the part of them above the
    limit, or above what stays where that is more; never more than there is, and so much that what stays holds the
    overage and the paid units that stay. Units put in count above any limit, and are paid for as an event's would be:
    `cover` units by credits, the rest is overage.
    """
    after = counter.used + delta
    if after < 0:
        return Refusal.BELOW_ZERO
    if after > TOTAL_MAX:
        return Refusal.TOTAL_TOO_LARGE
    if delta > 0:
        more = 0 if limit is None else max(0, after - max(limit, counter.used))
        credit = min(more, cover)
        return Counter(after, counter.accrued + more - credit, counter.given_back, counter.credit + credit)
    caused = 0 if limit is None else counter.used - max(limit, after)
    paid = counter.overage + counter.credit
    undone = max(0, min(paid, caused), paid - after)
    back = min(counter.overage, undone)
    return Counter(after, counter.accrued, counter.given_back + back, counter.credit - (undone - back))


def cleared(counter: Counter, *, forgive: bool) -> Counter:
    """The counter after a reset: at zero with `forgive`, which gives all overage back, and all credits.

    Without it the units that are overage or paid for stay counted, as they stay so: what was included becomes zero.
    """
    if forgive:
        return Counter(0, counter.accrued, counter.accrued)
    return Counter(counter.overage + counter.credit, counter.accrued, counter.given_back, counter.credit)
