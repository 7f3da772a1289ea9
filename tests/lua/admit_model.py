"""The reference model of admit: dictionaries and `plans/`, no Lua. What every row is answered, and what it leaves."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from metering.store.correction import ALL
from metering.store.holds import HoldState
from metering.store.pendings import content_of
from metering.usage import ADMITTED, Outcome, Result, UsageEvent
from metering.usage import Standing as TellsMore
from plans.catalogue import Catalogue, Override, rules_with
from plans.corrections import Counter as Figure
from plans.corrections import Refusal, cleared, corrected
from plans.credits import Cover, Standing
from plans.limits import PLAN_LIMIT, OnLimit, Rule, Verdict, decide
from plans.periods import Period, Reset, month_utc, period_at, previous_month
from plans.subwindows import RateLimit, conforming
from tests.lua.credit_model import ModelPool

BARE: Final = TellsMore()

_RESULT_OF: Final = {
    Verdict.COUNTED: Result.RECORDED,
    Verdict.CAPPED: Result.CAPPED,
    Verdict.REFUSED: Result.REFUSED,
    Verdict.DISABLED: Result.DISABLED,
    Verdict.TOTAL_TOO_LARGE: Result.TOTAL_TOO_LARGE,
}

Told = tuple[Result, int, int, int, int, int, int | None]
"""Result, used, recorded, overage, units held, credits burned, credits that could have been used: what an answer must
say of one feature."""


@dataclass
class ModelHold:
    """A hold as the model keeps it."""

    feature: str
    asked: int
    quantity: int
    expires_ms: int
    charged: bool
    lease: bool
    state: HoldState = HoldState.HELD

    @property
    def open(self) -> bool:
        """Whether nothing was decided about it yet, but perhaps by time."""
        return self.state is HoldState.HELD

    def state_at(self, now_ms: int) -> HoldState:
        """The state at an instant."""
        ended = self.state is HoldState.HELD and self.expires_ms <= now_ms
        return HoldState.EXPIRED if ended else self.state


@dataclass(frozen=True)
class Counted:
    """An event with an id that was counted: what it recorded of each feature, and in which period."""

    event: UsageEvent
    recorded: tuple[int, ...]
    period_ms: int


@dataclass
class ModelOrg:
    """One organisation as the model holds it."""

    plan: str
    rules: dict[str, Rule]
    rate: RateLimit | None
    period: Period
    used: Counter[str] = field(default_factory=Counter)
    overage: Counter[str] = field(default_factory=Counter)
    ever: Counter[str] = field(default_factory=Counter)
    windows: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    holds: dict[str, ModelHold] = field(default_factory=dict)
    seen: dict[tuple[str, str], tuple[tuple[tuple[str, int], ...], str]] = field(default_factory=dict)
    tat_us: int = 0
    counted: Counter[str] = field(default_factory=Counter)  # in this period by events, whatever was corrected
    corrected: Counter[str] = field(default_factory=Counter)  # in this period by corrections
    given_back: Counter[str] = field(default_factory=Counter)
    cut: set[str] = field(default_factory=set)
    events: tuple[Counted, ...] = ()
    credit: Counter[str] = field(default_factory=Counter)
    pool: ModelPool = field(default_factory=ModelPool)

    def paid(self, feature: str, now_ms: int) -> Cover:
        """What credits pay for, less what holds of other features may need."""
        standings = {
            name: Standing(rule.limit, self.used[name], self.held(name, now_ms), rule.credits)
            for name, rule in self.rules.items()
            if rule.credits is not None and rule.on_limit is not OnLimit.OVERAGE
        }
        return self.pool.cover(feature, self.rules[feature].credits, now_ms, standings, feature)

    def correct(self, feature: str, change: int | str, cover: int = 0) -> Refusal | None:
        """What a correction does to one counter, or why it does not. Sub-windows, rate and holds stay as they are."""
        rule = self.rules[feature]
        figure = Figure(self.used[feature], self.overage[feature], self.given_back[feature], self.credit[feature])
        made = (
            corrected(rule.limit, figure, change, cover)
            if isinstance(change, int)
            else cleared(figure, forgive=change == ALL)
        )
        if isinstance(made, Refusal):
            return made
        self.corrected[feature] += made.used - figure.used
        self.used[feature], self.overage[feature], self.given_back[feature] = made.used, made.accrued, made.given_back
        self.credit[feature] = made.credit
        return None

    def held(self, feature: str, now_ms: int) -> int:
        """Units that open holds keep. One that is charged at its end keeps them until it is."""
        return sum(
            hold.quantity
            for hold in self.holds.values()
            if hold.feature == feature
            and (hold.state_at(now_ms) is HoldState.HELD or (hold.charged and hold.state is HoldState.HELD))
        )

    def windows_used(self, feature: str, now_ms: int) -> tuple[int, ...]:
        """What each sub-window of the feature's rule has used."""
        return tuple(
            sum(units for at_ms, units in self.windows[feature, w.name] if at_ms >= w.start_ms(now_ms))
            for w in self.rules[feature].windows
        )


@dataclass
class Ask:
    """One row with what it asks for besides the event's own: the verb, and a hold."""

    event: UsageEvent
    verb: str = "t"
    hold_id: str = ""
    ttl_ms: int = 0
    charged: bool = False
    lease: bool = False


class Model:
    """Every organisation. `answer` says what must be told and applies it."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.orgs: dict[str, ModelOrg] = {}

    def org(self, org_id: str, now_ms: int) -> ModelOrg:
        """The organisation in the period that runs now; a new one on the default plan, not kept yet."""
        org = self.orgs.get(org_id)
        if org is None:
            law = self.catalogue.plans[self.catalogue.default_plan]
            period = period_at(now_ms, reset=Reset.CALENDAR, anchor_ms=now_ms)
            return ModelOrg(law.name, dict(law.rules), law.rate_limit, period)
        if now_ms >= org.period.end_ms:
            found = period_at(now_ms, reset=Reset.CALENDAR, anchor_ms=now_ms)
            org.period = Period(max(found.start_ms, org.period.end_ms), found.end_ms)
            org.used, org.overage, org.given_back = Counter(), Counter(), Counter()
            org.counted, org.corrected, org.cut, org.credit = Counter(), Counter(), set(), Counter()
        return org

    def change(self, org_id: str, plan: str, overrides: dict[str, Override]) -> None:
        """Another plan: rules and rate change, nothing else does."""
        org, law = self.orgs[org_id], self.catalogue.plans[plan]
        org.plan, org.rules, org.rate = plan, rules_with(law, overrides), law.rate_limit

    def answer(self, asks: Sequence[Ask], now_ms: int) -> list[list[Told]]:
        """What the asks of one organisation, admitted together or not at all, must be answered; applies them."""
        org_id = asks[0].event.org_id
        before = self.org(org_id, now_ms)
        org = _copy(before)
        told = [self._event(org, ask, now_ms) for ask in asks]
        bad = [rows for rows in told if any(row[0] not in ADMITTED for row in rows)]
        if bad:
            return self._refused(before, asks, told, now_ms)
        if asks[0].verb != "d" and any(row[2] for rows in told for row in rows):
            self.orgs[org_id] = org
        return told

    def _refused(self, org: ModelOrg, asks: Sequence[Ask], told: list[list[Told]], now_ms: int) -> list[list[Told]]:
        """As the script: the first row that was refused says why, all others that it was with it."""
        found: list[list[Told]] = []
        refused = False
        for ask, rows in zip(asks, told, strict=True):
            out: list[Told] = []
            for (feature, _), row in zip(content_of(ask.event), rows, strict=True):
                bad = row[0] not in ADMITTED and not refused
                refused = refused or bad
                known = feature in org.rules
                used, held = (org.used[feature], org.held(feature, now_ms)) if known else (0, 0)
                result, left = (row[0], row[6]) if bad else (Result.NOT_TOGETHER, None)
                out.append((result, used, 0, 0, held, 0, left))
            found.append(out)
        return found

    def _event(self, org: ModelOrg, ask: Ask, now_ms: int) -> list[Told]:
        """All features of one event, each as if those before it were counted."""
        rows: list[Told] = []
        for place, (feature, quantity) in enumerate(content_of(ask.event)):
            if place and rows[0][0] in {Result.DUPLICATE, Result.CONFLICT}:
                result = rows[0][0]
                held = org.held(feature, now_ms) if feature in org.rules else 0
                rows.append((result, org.used[feature], 0, 0, held, 0, None))
                continue
            rows.append(self._row(org, ask, feature, quantity, now_ms, first=not place))
            if rows[-1][0] not in ADMITTED:
                rest = len(content_of(ask.event)) - place - 1
                return rows + [(Result.NOT_TOGETHER, 0, 0, 0, 0, 0, None)] * rest
        if ask.verb == "t" and ask.event.event_id is not None and rows[0][2]:
            recorded = tuple(row[2] for row in rows)
            org.events = (*org.events, Counted(ask.event, recorded, org.period.start_ms))
        return rows

    def _row(  # noqa: PLR0911 - each refusal in its turn
        self, org: ModelOrg, ask: Ask, feature: str, quantity: int, now_ms: int, *, first: bool
    ) -> Told:
        rule = org.rules.get(feature)
        if rule is None:
            return (Result.FEATURE_UNKNOWN, 0, 0, 0, 0, 0, None)

        def told(result: Result, recorded: int = 0, overage: int = 0) -> Told:
            return (result, org.used[feature], recorded, overage, org.held(feature, now_ms), 0, None)

        hold = org.holds.get(ask.hold_id) if ask.hold_id else None
        if ask.verb == "r" and hold is not None:
            same = (hold.feature, hold.asked, hold.lease) == (feature, quantity, ask.lease)
            return told(Result.DUPLICATE if same else Result.CONFLICT)
        content = self._seen(org, ask, now_ms) if first else None
        if content is not None:
            same = ask.verb != "r" and content == tuple(content_of(ask.event))
            return told(Result.DUPLICATE if same else Result.CONFLICT)
        own = self._own(ask, hold, now_ms)
        if own is None:
            return told(Result.HOLD_GONE)
        if not rule.enabled and quantity > own:
            return told(Result.DISABLED)
        if first and not self._conforms(org, ask, now_ms):
            return told(Result.RATE_LIMITED)
        return self._counted(org, ask, rule, feature, quantity, now_ms, own)

    def _own(self, ask: Ask, hold: ModelHold | None, now_ms: int) -> int | None:
        """The units a row brings with its hold; None where it may not settle it."""
        if ask.verb not in {"c", "l"}:
            return 0
        if hold is None:
            return None
        state = hold.state_at(now_ms)
        if state is HoldState.HELD:
            return hold.quantity
        return 0 if state is HoldState.EXPIRED and ask.verb == "l" and not hold.charged else None

    def _conforms(self, org: ModelOrg, ask: Ask, now_ms: int) -> bool:
        if org.rate is None or ask.verb in {"c", "l"}:
            return True
        after = conforming(org.rate, org.tat_us, now_ms * 1000)
        org.tat_us = org.tat_us if after is None else after
        return after is not None

    def _counted(self, org: ModelOrg, ask: Ask, rule: Rule, feature: str, quantity: int, now_ms: int, own: int) -> Told:
        held, paid = org.held(feature, now_ms) - own, org.paid(feature, now_ms)
        made = decide(
            rule, org.used[feature], quantity,
            held=held, mode=ask.event.mode, windows_used=org.windows_used(feature, now_ms), own=own, partly=ask.lease,
            cover=paid.units,
        )  # fmt: skip
        result = _RESULT_OF[made.verdict]
        if not made.recorded:
            by_plan = made.verdict is Verdict.REFUSED and made.decided_by == PLAN_LIMIT
            left = org.pool.usable(feature, paid, now_ms) if by_plan else None
            return (result, org.used[feature], 0, 0, held + own, 0, left)
        if ask.verb == "r":
            org.holds[ask.hold_id] = ModelHold(
                feature, quantity, made.recorded, now_ms + ask.ttl_ms, ask.charged, ask.lease
            )
            return (result, org.used[feature], made.recorded, 0, held + made.recorded, 0, None)
        if ask.hold_id:
            org.holds[ask.hold_id] = replace(org.holds[ask.hold_id], state=HoldState.COMMITTED)
        if made.recorded < quantity:
            org.cut.add(feature)
        self.count(org, feature, made.recorded, made.overage, now_ms)
        org.credit[feature] += made.credit
        burned = org.pool.burn(feature, paid, made.credit, now_ms)
        self._remember(org, ask, now_ms)
        return (result, org.used[feature], made.recorded, made.overage, held, burned, None)

    def count(self, org: ModelOrg, feature: str, recorded: int, overage: int, now_ms: int) -> None:
        """Units on a counter, in its windows and its sum since ever."""
        org.used[feature] += recorded
        org.ever[feature] += recorded
        org.counted[feature] += recorded
        org.overage[feature] += overage
        for window in org.rules[feature].windows:
            org.windows[feature, window.name].append((now_ms, recorded))

    def charge(self, org_id: str, now_ms: int) -> None:
        """What the job does: leases that ended unsettled count as used."""
        org = self.org(org_id, now_ms)
        for hold_id, hold in sorted(org.holds.items(), key=_end):
            if hold.charged and hold.state_at(now_ms) is HoldState.EXPIRED:
                used, rule = org.used[hold.feature], org.rules[hold.feature]
                above = 0 if rule.limit is None else max(0, used + hold.quantity - max(rule.limit, used))
                paid = org.paid(hold.feature, now_ms)
                credit = min(above, paid.units)
                org.holds[hold_id] = replace(hold, state=HoldState.CHARGED)
                self.count(org, hold.feature, hold.quantity, above - credit, now_ms)
                org.credit[hold.feature] += credit
                org.pool.burn(hold.feature, paid, credit, now_ms)

    def _key(self, ask: Ask) -> tuple[str, str] | None:
        if ask.hold_id:
            return ("\0hold", ask.hold_id)
        return None if ask.event.event_id is None else (ask.event.source, ask.event.event_id)

    def _seen(self, org: ModelOrg, ask: Ask, now_ms: int) -> tuple[tuple[str, int], ...] | None:
        """What this id was first counted with, while it is remembered: this and the last month."""
        key = self._key(ask)
        if key is None or key not in org.seen:
            return None
        content, month = org.seen[key]
        now = month_utc(now_ms)
        return content if month in (now, previous_month(now)) else None

    def _remember(self, org: ModelOrg, ask: Ask, now_ms: int) -> None:
        key = self._key(ask)
        if key is not None:
            org.seen[key] = (tuple(content_of(ask.event)), month_utc(now_ms))


def _end(named: tuple[str, ModelHold]) -> tuple[int, str]:
    return (named[1].expires_ms, f"{named[0]}|")


def told_by(outcome: Outcome) -> list[Told]:
    """What an outcome says, feature by feature."""
    parts = (outcome, *outcome.others)
    return [_told_by(part) for part in parts]


def _told_by(part: Outcome) -> Told:
    standing = part.standing or BARE
    left = None if standing.decided_by else part.credits_left
    return (part.result, part.used, part.recorded, part.overage, standing.held, part.credits_used, left)


def _copy(org: ModelOrg) -> ModelOrg:
    """A copy that can be thrown away."""
    windows: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    windows |= {key: list(units) for key, units in org.windows.items()}
    return replace(
        org, used=Counter(org.used), overage=Counter(org.overage), ever=Counter(org.ever), windows=windows,
        holds=dict(org.holds), seen=dict(org.seen), counted=Counter(org.counted), corrected=Counter(org.corrected),
        given_back=Counter(org.given_back), cut=set(org.cut), credit=Counter(org.credit), pool=org.pool.copy(),
    )  # fmt: skip
