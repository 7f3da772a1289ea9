"""What corrections must come to: sheets of dictionaries and `plans/`, no Lua.

A sheet is one period of one organisation. What was counted is kept as a list of entries, apart from the counters, so
that counters can be held against the sum of everything that ever happened to them.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Final

from metering.store.correction import ALL, INCLUDED, Corrected, Correction, Kind
from metering.usage import UsageEvent
from plans.corrections import Counter as Figure
from plans.corrections import Refusal, cleared, corrected
from plans.limits import Rule
from plans.periods import Period, month_utc

HOUR_MS: Final = 3_600_000


@dataclass(slots=True)
class Live:
    """An event that was counted: what it recorded, in which period, and whether it was taken back."""

    event: UsageEvent
    recorded: int
    period: Period
    month: str
    voided: str = ""  # the month of the void


@dataclass(slots=True)
class Sheet:
    """One period: its rules (a closed one keeps those it closed with), its counters, its hours."""

    period: Period
    rules: dict[str, Rule]
    figures: dict[str, Figure] = field(default_factory=lambda: defaultdict(lambda: Figure(0)))
    hours: dict[str, dict[int, list[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(lambda: [0, 0]))
    )
    entries: Counter[str] = field(default_factory=Counter)
    kept: bool = False  # something was counted: only such a period is archived

    def bucket(self, at_ms: int) -> int:
        """The instant at which the bucket that holds `at_ms` begins: an hour, or the period inside one."""
        return max(at_ms // HOUR_MS * HOUR_MS, self.period.start_ms)

    def add(self, feature: str, at_ms: int, units: int, overage: int, credit: int = 0) -> None:
        """Units that count."""
        self.kept = True
        figure = self.figures[feature]
        self.figures[feature] = Figure(
            figure.used + units, figure.accrued + overage, figure.given_back, figure.credit + credit
        )
        hour = self.hours[feature][self.bucket(at_ms)]
        hour[0] += units
        hour[1] += overage

    def after(self, feature: str, change: int | str, cover: int = 0) -> Figure | Refusal:
        """The counter after a change."""
        if change in (ALL, INCLUDED):
            return cleared(self.figures[feature], forgive=change == ALL)
        return corrected(self.rules[feature].limit, self.figures[feature], int(change), cover)

    def correct(self, feature: str, after: Figure, at_ms: int | None, now_ms: int) -> int:
        """Put the counter to `after`, its hours with it; the units put in (negative: taken out)."""
        before = self.figures[feature]
        delta = after.used - before.used
        if delta > 0:
            ends_ms = self.period.end_ms - 1
            overage, credit = after.accrued - before.accrued, after.credit - before.credit
            self.add(feature, at_ms or (min(now_ms, ends_ms)), delta, overage, credit)
        else:
            self.figures[feature] = after
            self._take(feature, at_ms, -delta, after.given_back - before.given_back)
        self.entries[feature] += delta
        return delta

    def _take(self, feature: str, at_ms: int | None, units: int, overage: int) -> None:
        """From the hour of `at_ms` (else the newest) back, then forward: overage first, then units above overage."""
        hours = self.hours[feature]
        first = self.bucket(at_ms) if at_ms is not None else self.period.end_ms
        order = sorted((at for at in hours if at <= first), reverse=True) + sorted(at for at in hours if at > first)
        for at in order:
            taken = min(overage, hours[at][1])
            hours[at][1] -= taken
            overage -= taken
        for at in order:
            taken = min(units, hours[at][0] - hours[at][1])
            hours[at][0] -= taken
            units -= taken
        assert (units, overage) == (0, 0)


@dataclass(slots=True)
class Account:
    """One organisation: its sheets, its events, its corrections and their months."""

    plan: str
    rules: dict[str, Rule]
    sheets: dict[int, Sheet] = field(default_factory=dict)
    running_ms: int = 0
    live: list[Live] = field(default_factory=list)
    made: list[tuple[Correction, str]] = field(default_factory=list)
    covers: dict[str, int] = field(default_factory=dict)  # feature -> units that credits could pay for, before the last

    @property
    def running(self) -> Sheet:
        """The sheet of the running period."""
        return self.sheets[self.running_ms]

    def into(self, period: Period) -> Sheet:
        """The sheet of the period that the store says runs; the one before is closed with the rules it has."""
        if period.start_ms not in self.sheets:
            self.sheets[period.start_ms] = Sheet(period, dict(self.rules))
        self.running_ms = max(self.running_ms, period.start_ms)
        return self.sheets[period.start_ms]

    def cut(self, live: Live) -> bool:
        """Whether an event of its period and feature was recorded in part, so that its quantity says too little."""
        return any(
            other.recorded < other.event.quantity
            for other in self.live
            if (other.period, other.event.feature) == (live.period, live.event.feature)
        )

    def used(self, start_ms: int, feature: str) -> int:
        """Live events less voids plus adjustments, added up from what happened."""
        counted = sum(
            live.recorded for live in self.live if live.period.start_ms == start_ms and live.event.feature == feature
        )
        return counted + self.sheets[start_ms].entries[feature]

    def corrected(self, answer: Corrected, now_ms: int) -> Counter[tuple[str, bool]]:
        """Apply a correction that was answered as made, and compare; units by (feature, whether put in)."""
        correction, sheet = answer.correction, self.sheets[answer.period.start_ms]
        moved: Counter[tuple[str, bool]] = Counter()
        changes = {change.feature: change.change for change in correction.changes}
        if correction.kind is Kind.RESET and not changes:
            word = ALL if correction.content[0][1] else INCLUDED
            changes = {feature: word for feature in sorted(sheet.rules) if sheet.figures[feature].used}
        assert [row.feature for row in answer.rows] == list(changes)
        for row in answer.rows:
            cover = self.covers.get(row.feature, 0)
            before, after = sheet.figures[row.feature], sheet.after(row.feature, changes[row.feature], cover)
            assert isinstance(after, Figure), f"{correction} was made, the model says {after}"
            limit = sheet.rules[row.feature].limit
            found = [(f.used, f.overage, f.credit, f.limit) for f in (row.before, row.after)]
            assert found == [(f.used, f.overage, f.credit, limit) for f in (before, after)], f"{correction}: {found}"
            delta = sheet.correct(row.feature, after, correction.at_ms, now_ms)
            assert (row.delta, bool(row.audit_id)) == (delta, delta != 0)
            moved[row.feature, delta > 0] += abs(delta)
        self.made.append((correction, month_utc(now_ms)))
        return moved
