"""The scripts' answers, in words: numbers of a reply -> Outcome."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from metering.store.admission import ADMIT_WIDTH, AdmitRow, rows_of
from metering.store.calls import PAID_WIDTH, Answer, Pending
from metering.store.frames import Frame
from metering.store.pendings import content_of
from metering.usage import ADMITTED, Outcome, Result, Standing, UsageEvent
from plans.thresholds import MARKS

_RESULTS: Final = {
    1: Result.RECORDED,
    2: Result.DUPLICATE,
    3: Result.CONFLICT,
    4: Result.REFUSED,
    5: Result.CAPPED,
    6: Result.TOTAL_TOO_LARGE,
    8: Result.FEATURE_UNKNOWN,
    9: Result.DISABLED,
    11: Result.RATE_LIMITED,
    12: Result.NOT_TOGETHER,
    13: Result.HOLD_GONE,
    14: Result.TOO_MANY_HOLDS,
}

_MARKS: Final = tuple(tuple(mark for bit, mark in enumerate(MARKS) if bits >> bit & 1) for bits in range(16))


def outcome_of(event: UsageEvent, pending: Pending, answer: Answer) -> Outcome:
    """What became of one event: of its first feature, the others beside it; where one was refused, of that one."""
    if answer[3] == ADMIT_WIDTH:
        return next(outcomes_of((event,), pending, answer))
    frame, reply, at, width = answer
    code = reply[at]
    result = _RESULTS[code & 15]
    recorded = overage = 0
    if result is Result.RECORDED:
        recorded, overage = event.quantity, reply[at + 2]
    elif result is Result.CAPPED:
        recorded = reply[at + 2]
    rule, marks = frame.rules.get(event.feature), _MARKS[code >> 4]
    outcome = Outcome(result, frame.plan, reply[at + 1], rule, frame.period, recorded, overage, marks, pending.late)
    if width == PAID_WIDTH or result is Result.REFUSED:
        _with_credits(outcome, reply[at + 3] if width == PAID_WIDTH else None)
    return outcome


def _with_credits(outcome: Outcome, cell: int | None) -> None:
    """Tell what an answer's last number says of credits; None: the organisation never had any."""
    if outcome.result is not Result.REFUSED:
        outcome.credits_used = cell or 0
    elif cell is None or cell < 0:
        outcome.credits_left = None if outcome.rule is None or outcome.rule.credits is None else 0
    else:
        outcome.credits_left = cell


def outcomes_of(events: Sequence[UsageEvent], pending: Pending, answer: Answer) -> Iterator[Outcome]:
    """What became of each of the events that were admitted together."""
    frame, reply, at, _ = answer
    rows = iter(rows_of(pending))
    for event in events:
        parts = []
        for feature, quantity in content_of(event):
            parts.append(_part(feature, quantity, frame, reply[at : at + ADMIT_WIDTH], reply[0], next(rows)))
            at += ADMIT_WIDTH
        yield _whole(parts)


def _whole(parts: list[Outcome]) -> Outcome:
    """One outcome for all features of an event."""
    first, *others = parts
    if not others:
        return first
    refused = [part for part in parts if part.result not in ADMITTED and part.result is not Result.NOT_TOGETHER]
    return refused[0] if refused else replace(first, others=tuple(others))


def _part(feature: str, quantity: int, frame: Frame, cells: list[int], now_ms: int, row: AdmitRow) -> Outcome:
    """The outcome of one row of admit. Its period is the one that it was counted in."""
    code, used, extra, held, decided_by, opens_in_ms, left, full_in_ms, capped_overage, paid = cells
    result = _RESULTS[code & 15]
    recorded = overage = 0
    if result is Result.RECORDED:
        recorded, overage = quantity, extra
    elif result is Result.CAPPED:
        recorded, overage = extra, capped_overage
    standing = Standing(
        held, decided_by, now_ms + opens_in_ms if opens_in_ms else 0, frame.org.rate, max(left, 0), full_in_ms,
        wait_ms=extra if result is Result.RATE_LIMITED else 0,
        hold_state=extra if result is Result.HOLD_GONE else 0,
    )  # fmt: skip
    period = frame.org.before if row.archived and frame.org.before is not None else frame.period
    outcome = Outcome(
        result, frame.plan, used, frame.rules.get(feature), period, recorded, overage, _MARKS[code >> 4], row.late,
        standing, feature=feature,
    )  # fmt: skip
    _with_credits(outcome, paid)
    return outcome
