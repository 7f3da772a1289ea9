"""The reference model: dictionaries and `plans/`, no Lua. It says what every answer and every counter must be."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from metering.usage import Outcome, Result, UsageEvent
from plans.catalogue import Catalogue, Override, rules_with
from plans.limits import Rule, Verdict, decide
from plans.periods import Period, Reset, month_utc, period_at, previous_month
from tests.lua.credit_model import ModelPool

_RESULT_OF: Final = {
    Verdict.COUNTED: Result.RECORDED,
    Verdict.CAPPED: Result.CAPPED,
    Verdict.REFUSED: Result.REFUSED,
    Verdict.DISABLED: Result.DISABLED,
    Verdict.TOTAL_TOO_LARGE: Result.TOTAL_TOO_LARGE,
}

HOUR_MS: Final = 3_600_000

Expected = tuple[Result, int, int, int, tuple[int, ...], int, int | None]
"""Result, used, recorded, overage, marks, credits burned, credits that could have been used."""


@dataclass(slots=True)
class ModelOrg:
    """One organisation as the model holds it."""

    plan: str
    rules: dict[str, Rule]
    period: Period
    reset: Reset
    anchor_ms: int = 0
    used: Counter[str] = field(default_factory=Counter)
    overage: Counter[str] = field(default_factory=Counter)
    closed: dict[int, tuple[Counter[str], Counter[str]]] = field(default_factory=dict)
    seen: dict[tuple[str, str], tuple[tuple[str, int], str]] = field(default_factory=dict)
    history: Counter[tuple[str, int]] = field(default_factory=Counter)  # (feature, hour) -> units
    credit: Counter[str] = field(default_factory=Counter)
    credits_closed: dict[int, Counter[str]] = field(default_factory=dict)
    pool: ModelPool = field(default_factory=ModelPool)
    fuzzy: bool = False  # an hour passed during a call: its bucket is not known
    plain: dict[str, Rule] = field(default_factory=dict)  # the plan's own rules
    ends: dict[str, int] = field(default_factory=dict)  # when what was agreed of a feature ends

    def rule(self, feature: str, at_ms: int) -> Rule | None:
        """The rule at an instant: the plan's again from the end of what was agreed."""
        over = feature in self.ends and self.ends[feature] <= at_ms
        return (self.plain if over else self.rules).get(feature)


class Model:
    """Every organisation, and the sums over all of them."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.orgs: dict[str, ModelOrg] = {}
        self.totals: Counter[tuple[str, str]] = Counter()
        self.crossings: Counter[tuple[str, int]] = Counter()
        self.overages_started: Counter[str] = Counter()

    def change_plan(self, org_id: str, plan: str, overrides: dict[str, Override]) -> None:
        """Another plan: rules change, counters and the running period do not."""
        org, law = self.orgs[org_id], self.catalogue.plans[plan]
        if plan != org.plan:
            org.reset = law.reset
        org.plan, org.rules, org.plain = plan, rules_with(law, overrides), dict(law.rules)
        org.ends = {name: one.until_ms for name, one in overrides.items() if one.until_ms is not None}

    def applied(self, event: UsageEvent, outcome: Outcome, before_ms: int, after_ms: int) -> None:
        """Apply an event that was answered with `outcome` between two instants of the store, and compare."""
        org = self._org(event.org_id, outcome, before_ms)
        self._into(org, outcome.period, before_ms, after_ms)
        expected = self._expected(org, event, after_ms)
        found = (
            outcome.result, outcome.used, outcome.recorded, outcome.overage, outcome.marks, outcome.credits_used,
            outcome.credits_left,
        )  # fmt: skip
        assert found == expected, f"{event} gave {found}, the model says {expected}"
        self._count(org, event, outcome, before_ms, after_ms)

    def repeated(self, event: UsageEvent, outcome: Outcome, before_ms: int, after_ms: int) -> None:
        """Apply an event that was sent more than once, its first answer lost: once, whichever answer came."""
        if outcome.result is Result.DUPLICATE and self._unseen(event, after_ms):
            self._silently(event, outcome, before_ms, after_ms)
        else:
            self.applied(event, outcome, before_ms, after_ms)

    def _silently(self, event: UsageEvent, outcome: Outcome, before_ms: int, after_ms: int) -> None:
        org = self._org(event.org_id, outcome, before_ms)
        self._into(org, outcome.period, before_ms, after_ms)
        result, used, recorded, overage, marks, *_ = self._expected(org, event, after_ms)
        assert outcome.used == used, f"{event} repeated: used {outcome.used}, the model says {used}"
        first = Outcome(result, org.plan, used, None, org.period, recorded, overage, marks)
        self._count(org, event, first, before_ms, after_ms)

    def _unseen(self, event: UsageEvent, at_ms: int) -> bool:
        org = self.orgs.get(event.org_id)
        return org is None or self._first(org, event, at_ms) is None

    def _org(self, org_id: str, outcome: Outcome, before_ms: int) -> ModelOrg:
        """The organisation; a new one is on the default plan in the period that holds now."""
        if org_id not in self.orgs:
            law = self.catalogue.plans[self.catalogue.default_plan]
            period = period_at(before_ms, reset=law.reset, anchor_ms=before_ms)
            return ModelOrg(law.name, dict(law.rules), period, law.reset, before_ms)
        assert outcome.plan == self.orgs[org_id].plan, f"{org_id} answered under plan {outcome.plan}"
        return self.orgs[org_id]

    def _into(self, org: ModelOrg, period: Period, before_ms: int, after_ms: int) -> None:
        """Close the model's period when the store did; check that it did so neither early nor late."""
        if period == org.period:
            assert before_ms < org.period.end_ms, f"counted in {org.period}, which ended before {before_ms}"
            return
        end_ms = org.period.end_ms
        assert after_ms >= end_ms, f"{org.period} was closed early, at {after_ms}"
        # A border may lie between the two instants: the script decided at one of both sides.
        sides = [period_at(at, reset=org.reset, anchor_ms=org.anchor_ms) for at in (max(before_ms, end_ms), after_ms)]
        expected = [Period(max(found.start_ms, end_ms), found.end_ms) for found in sides]
        assert period in expected, f"after {org.period} came {period}, the model says {expected}"
        if +org.used:
            org.closed[org.period.start_ms] = (+org.used, +org.overage)
            org.credits_closed[org.period.start_ms] = +org.credit
        org.period, org.used, org.overage, org.credit = period, Counter(), Counter(), Counter()

    def _first(self, org: ModelOrg, event: UsageEvent, at_ms: int) -> tuple[str, int] | None:
        """The content that this id was first counted with, while it is remembered: this and the last month."""
        if event.event_id is None or (event.source, event.event_id) not in org.seen:
            return None
        content, month = org.seen[event.source, event.event_id]
        now = month_utc(at_ms)
        return content if month in (now, previous_month(now)) else None

    def _expected(self, org: ModelOrg, event: UsageEvent, at_ms: int) -> Expected:
        rule = org.rule(event.feature, at_ms)
        if rule is None:
            return Result.FEATURE_UNKNOWN, 0, 0, 0, (), 0, None
        used = org.used[event.feature]
        first = self._first(org, event, at_ms)
        if first is not None:
            same = first == (event.feature, event.quantity)
            return Result.DUPLICATE if same else Result.CONFLICT, used, 0, 0, (), 0, None
        paid = org.pool.cover(event.feature, rule.credits, at_ms)
        made = decide(rule, used, event.quantity, cover=paid.units)
        burned = org.pool.copy().burn(event.feature, paid, made.credit, at_ms)
        left = org.pool.usable(event.feature, paid, at_ms) if made.verdict is Verdict.REFUSED else None
        return _RESULT_OF[made.verdict], made.used, made.recorded, made.overage, made.marks, burned, left

    def _count(self, org: ModelOrg, event: UsageEvent, outcome: Outcome, before_ms: int, after_ms: int) -> None:
        if not outcome.recorded:
            return
        self.orgs[event.org_id] = org
        feature, rule = event.feature, org.rule(event.feature, after_ms)
        assert rule is not None
        paid = org.pool.cover(feature, rule.credits, after_ms)
        credit = decide(rule, org.used[feature], event.quantity, cover=paid.units).credit
        org.pool.burn(feature, paid, credit, after_ms)
        org.credit[feature] += credit
        org.used[feature] += outcome.recorded
        if outcome.overage and not org.overage[feature]:
            self.overages_started[event.org_id] += 1
        org.overage[feature] += outcome.overage
        if event.event_id is not None:
            org.seen[event.source, event.event_id] = ((feature, event.quantity), month_utc(after_ms))
        self.totals[org.plan, feature] += outcome.recorded
        for mark in outcome.marks:
            self.crossings[feature, mark] += 1
        at_ms = event.timestamp_ms
        if at_ms is None or not org.period.start_ms <= at_ms < org.period.end_ms:
            org.fuzzy = org.fuzzy or before_ms // HOUR_MS != after_ms // HOUR_MS
            at_ms = after_ms
        org.history[feature, at_ms // HOUR_MS] += outcome.recorded
