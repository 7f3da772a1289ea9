"""How the period of a Stripe subscription's item moves the period that an organisation runs in.

Stripe bills usage by the period of the item it belongs to (`items.data[].current_period_start` and `_end`:
https://docs.stripe.com/api/subscription_items/object), so ours must have the same borders. Periods stay half-open and
contiguous whatever Stripe says and whenever we hear of it: a border moves only where nothing was counted after it.
"""

from dataclasses import dataclass
from typing import Final

from plans.periods import AHEAD_MAX_MS, Period, Reset, period_at

_HOUR_MS: Final = 3_600_000

_MONTH_MAX_MS: Final = 32 * 24 * _HOUR_MS
"""Longer than any month, clocks set back included: an item with such a period is billed by more than a month."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """What becomes of the running period: it closes at `close_ms` (None: it goes on), and then `period` runs."""

    close_ms: int | None
    period: Period


def aligned(running: Period, item: Period, now_ms: int, last_ms: int | None) -> Alignment:
    """What the item's period does to the running one, which holds `now_ms`. Applied twice it does no more than once.

    `last_ms` is the last instant at which the running period has something counted (None: nothing). An item that began
    inside the running period closes it at the item's start, or just after `last_ms`; where that is still to come, it
    becomes the running period's end. One that began before only moves the end. One that has ended is old news.
    """
    if item.end_ms <= now_ms:
        return Alignment(None, running)
    free_ms = running.start_ms + 1 if last_ms is None else last_ms + 1
    if item.start_ms <= running.start_ms:
        return Alignment(None, Period(running.start_ms, max(item.end_ms, free_ms)))
    border_ms = max(item.start_ms, free_ms)
    if border_ms <= now_ms:
        return Alignment(border_ms, Period(border_ms, item.end_ms))
    return Alignment(None, Period(running.start_ms, min(running.end_ms, border_ms)))


def ended(running: Period, end_ms: int, now_ms: int, last_ms: int | None) -> Alignment:
    """What the end of a subscription does to the running period, which holds `now_ms`: as if an item began there.

    What follows it ends when the running one would have, so that resets stay where they were announced. A period that
    began later knows of the end already.
    """
    if end_ms <= running.start_ms:
        return Alignment(None, running)
    return aligned(running, Period(end_ms, max(end_ms, running.end_ms)), now_ms, last_ms)


def following(running: Period, now_ms: int, anchor_ms: int) -> Period:
    """The period after one that ended, as our own clock finds it before Stripe says so: the anchor's month, in UTC.

    Stripe computes its borders from the anchor too, so a 31st comes back after February
    (https://docs.stripe.com/billing/subscriptions/billing-cycle).
    """
    found = period_at(now_ms, reset=Reset.ANNIVERSARY, anchor_ms=anchor_ms)
    return Period(max(found.start_ms, running.end_ms), found.end_ms)


def monthly(item: Period, now_ms: int) -> Period:
    """The item's period, or of a longer one the month that holds now: what a plan includes, it includes every month."""
    if item.end_ms - item.start_ms <= _MONTH_MAX_MS or not item.contains(now_ms):
        return item
    month = period_at(now_ms, reset=Reset.ANNIVERSARY, anchor_ms=item.start_ms)
    return Period(month.start_ms, min(month.end_ms, item.end_ms))


def last_counted_ms(counted_ms: int) -> int:
    """The last instant that history may name for what was counted until `counted_ms`.

    History is kept by the hour an event belongs to, and an event may be stamped a little ahead: near the end of an hour
    the next one may have begun.
    """
    return max(counted_ms, (counted_ms + AHEAD_MAX_MS) // _HOUR_MS * _HOUR_MS)
