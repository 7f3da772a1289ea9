"""admit.lua (with release.lua, expire.lua and roll.lua on its way) against the reference model, on a real server.

A seeded generator of events, trials, events of several features, batches that are admitted together, reservations and
leases with commits above and below them, under limits, sub-windows and a rate; time jumps over their ends. At every
step used = sum of history = what the model counted, and units held = open holds.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import pytest

from metering.errors import HoldConflict, HoldNotFound
from metering.store.conservation import check_org
from metering.store.holds import HoldState
from metering.store.orgs import OrgChange
from metering.store.retention import Retention
from metering.usage import ADMITTED, Outcome, Result, UsageEvent
from plans.catalogue import Override
from plans.credits import Grant
from plans.limits import OnLimit
from plans.subwindows import ROLLING_PARTS
from tests.lua.admit_model import Ask, Model, Told, told_by
from tests.lua.granting import burned_of, give, pool_of
from tests.lua.ledger import Caller, Ledger
from tests.support.servers import StoreServer
from tests.support.soak import SEED, often

STEPS: Final = 250
ORGS: Final = ("org-a", "org-b", "org-c")
FEATURES: Final = ("scans", "checks", "calls", "closed", "open", "unknown")
MINUTE_MS: Final = 60_000
DAY_MS: Final = 24 * 60 * MINUTE_MS
CALM_MS: Final = 4_000

CATALOGUE: Final = """
version = 1
currency = "usd"
default_plan = "free"
default_feature = "scans"

[dimensions]
actor = 3

[features]
scans = { title = "Scans", unit = "scan", credits = 2 }
checks = { title = "Checks", unit = "check", credits = 1 }
calls = { title = "Calls", unit = "call", lease_expiry = "release", credits = 3 }
closed = { title = "Closed", unit = "call" }
open = { title = "Open", unit = "call" }

[plans.free]
title = "Free"
reset = "calendar"
price_minor = 0
on_limit = "overage"
[plans.free.features]
scans = { limit = 20, on_limit = "overage", windows = [{ limit = 9, per = "hour" }] }
checks = { limit = 15, on_limit = "block" }
[plans.free.features.calls]
limit = 25
on_limit = "cap"
windows = [{ limit = 12, per = "hour", rolling = true }, { limit = 20, per = "day" }]
[plans.free.features.closed]
limit = 5
on_limit = "block"
enabled = false
[plans.free.features.open]
limit = "unlimited"
windows = [{ limit = 30, per = "week", rolling = true }]

[plans.pro]
title = "Pro"
reset = "calendar"
price_minor = 4900
on_limit = "overage"
rate_limit = { events = 6, per = "hour", burst = 4 }
[plans.pro.features]
scans = { limit = 40, on_limit = "block", windows = [{ limit = 15, per = "hour" }, { limit = 60, per = "week" }] }
checks = { limit = 25, on_limit = "cap" }
calls = { limit = 30, on_limit = "overage" }
closed = { limit = 5, on_limit = "overage" }
open = { limit = 0, on_limit = "overage" }
"""


Kind = tuple[Callable[[], Awaitable[None]], int]
"""A step, and how often it is drawn beside the others."""


class Run:
    """One seeded run: draws steps, drives the store, tells the model."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        self.random = random.Random(seed)
        self.ledger = ledger
        self.model = Model(ledger.catalogue)
        self.sent: list[UsageEvent] = []
        self.named = 0
        self.results: Counter[Result] = Counter()
        self.settled: Counter[HoldState] = Counter()

    async def step(self) -> None:
        """One step of any kind, and every figure after it."""
        await self.away_from_borders()
        await self.random.choices(*zip(*self.kinds(), strict=True))[0]()
        await self.check()

    def kinds(self) -> tuple[Kind, ...]:
        """Every kind of step, and how often it is drawn."""
        return (
            (self.events, 40), (self.together, 12), (self.trial, 10), (self.place, 22), (self.settle, 22),
            (self.release, 5), (self.extend, 4), (self.jump, 12), (self.change, 6), (self.expire, 6), (self.race, 6),
            (self.lost_reply, 6), (self.aim, 10), (self.race_to_hold, 6), (self.race_to_settle, 6), (self.give, 6),
        )  # fmt: skip

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────

    async def events(self) -> None:
        """Several events at once: each for itself, in order inside an organisation."""
        events = [self.event() for _ in range(self.random.choice((1, 1, 2, 6)))]
        before = await self.ledger.now_ms()
        outcomes = await self.caller().counters.track_all(events)
        after = await self.ledger.now_ms()
        for event, outcome in zip(events, outcomes, strict=True):
            self.hold_against([Ask(event)], [outcome], before, after)

    async def together(self) -> None:
        """Events of one organisation, all or none."""
        org_id = self.random.choice(ORGS)
        events = [self.event(org_id) for _ in range(self.random.choice((2, 3, 5)))]
        before = await self.ledger.now_ms()
        outcomes = await self.caller().counters.track_all(events, atomic=True)
        self.hold_against([Ask(event) for event in events], outcomes, before, await self.ledger.now_ms())

    async def trial(self) -> None:
        """A dry run: told as the real one would be, and nothing is written."""
        event, caller = self.event(), self.caller()
        event.dry_run = True
        before = await self.ledger.now_ms()
        outcome = await caller.counters.track(event)
        self.hold_against([Ask(event, "d")], [outcome], before, await self.ledger.now_ms())
        dump = await self.ledger.dump()  # the first one may have rolled the organisation on its way
        await caller.counters.track(event)
        assert await self.ledger.dump() == dump

    async def place(self) -> None:
        """A reservation, or a lease of what is left."""
        org_id, feature = self.random.choice(ORGS), self.random.choice(FEATURES)
        hold_id, quantity = self.hold_name(org_id), self.quantity(org_id, feature)
        lease, charged = self.random.choice(((False, False), (True, True), (True, False)))
        ttl_ms = self.random.choice((90_000, 45 * MINUTE_MS, 5 * 60 * MINUTE_MS))
        event = UsageEvent(org_id, feature, quantity, hold_id)
        before = await self.ledger.now_ms()
        try:
            hold, outcome = await self.caller().holds.place(
                org_id, hold_id, feature, quantity, ttl_ms, lease=lease, charged=charged
            )
        except HoldConflict:
            hold, outcome = None, None
        ask = Ask(event, "r", hold_id, ttl_ms, charged, lease)
        after = await self.ledger.now_ms()
        if outcome is None:
            expected = self.model.answer([ask], after)
            assert expected[0][0][0] is Result.CONFLICT
            return
        self.hold_against([ask], [outcome], before, after)
        if outcome.result in {Result.RECORDED, Result.CAPPED}:
            assert hold is not None
            made = self.model.orgs[org_id].holds[hold_id]
            assert before <= hold.expires_ms - ttl_ms <= after
            made.expires_ms = hold.expires_ms
            found = (hold.quantity, hold.asked, hold.charged, hold.lease)
            assert found == (made.quantity, made.asked, made.charged, made.lease)

    async def settle(self) -> None:
        """A commit below, at or above the hold; late, repeated, or of one that never was."""
        org_id = self.random.choice(ORGS)
        known = self.model.orgs[org_id].holds if org_id in self.model.orgs else {}
        if not known:
            return
        hold_id = self.random.choice(sorted(known))
        hold = known[hold_id]
        quantity = max(1, self.random.choice((1, hold.quantity - 1, hold.quantity, hold.quantity, hold.quantity + 3)))
        late = self.random.random() < 0.3
        before = await self.ledger.now_ms()
        try:
            _, event, outcome = await self.caller().holds.settle(org_id, hold_id, quantity, late=late)
        except HoldNotFound:  # a day and its life have passed
            assert hold.expires_ms + 86_000_000 < before
            return
        verb = "l" if late else "c"
        self.hold_against([Ask(event, verb, hold_id)], [outcome], before, await self.ledger.now_ms())

    async def release(self) -> None:
        """Let go of a hold."""
        org_id, hold_id = self.some_hold()
        if hold_id:
            now = await self.ledger.now_ms()
            hold = self.model.orgs[org_id].holds[hold_id]
            open_now = hold.state_at(now) is HoldState.HELD
            assert await self.caller().holds.release(org_id, hold_id) == open_now
            if open_now:
                hold.state = HoldState.RELEASED

    async def extend(self) -> None:
        """Give a hold a longer life."""
        org_id, hold_id = self.some_hold()
        if hold_id:
            now = await self.ledger.now_ms()
            hold = self.model.orgs[org_id].holds[hold_id]
            found = await self.caller().holds.extend(org_id, hold_id, 30 * MINUTE_MS)
            assert (found is not None) == (hold.state_at(now) is HoldState.HELD)
            if found is not None:
                hold.expires_ms = found.expires_ms

    async def jump(self) -> None:
        """Time passes: over the ends of holds, windows, days and the period."""
        now = await self.ledger.now_ms()
        ahead = self.random.choice((MINUTE_MS, 20 * MINUTE_MS, 3 * 60 * MINUTE_MS, 26 * 60 * MINUTE_MS))
        ends = [org.period.end_ms for org in self.model.orgs.values()]
        target = min(ends) + 5_000 if ends and self.random.random() < 0.05 else now + ahead
        await self.ledger.jump_to(target)

    async def aim(self) -> None:
        """To where units are about to leave a rolling window, or just have; then ask for more than fits."""
        rolling = [
            (org_id, feature, window, at_ms)
            for org_id, org in self.model.orgs.items()
            for feature, rule in org.rules.items()
            for window in rule.windows if window.rolling
            for at_ms, _ in org.windows[feature, window.name]
        ]  # fmt: skip
        if not rolling:
            return
        org_id, feature, window, at_ms = self.random.choice(rolling)
        part = window.per.ms // ROLLING_PARTS
        await self.ledger.jump_to((at_ms // part + ROLLING_PARTS + self.random.choice((0, 1))) * part + 500)
        event = UsageEvent(org_id, feature, window.limit + 1, f"a-{self.named}-{at_ms}", mode=OnLimit.CAP)
        before = await self.ledger.now_ms()
        outcome = await self.caller().counters.track(event)
        self.hold_against([Ask(event)], [outcome], before, await self.ledger.now_ms())

    async def change(self) -> None:
        """Another plan, perhaps with a limit of its own."""
        org_id = self.random.choice(ORGS)
        if org_id not in self.model.orgs:
            return
        plan = self.random.choice(tuple(self.ledger.catalogue.plans))
        overrides = self.random.choice(({}, {"checks": Override(limit=self.random.choice((0, 8, 60)))}))
        org, _ = await self.caller().orgs.update(
            org_id, OrgChange(plan=plan, overrides=overrides), actor="test", create=False
        )
        assert org is not None
        self.model.org(org_id, await self.ledger.now_ms())
        self.model.change(org_id, plan, overrides)

    async def expire(self) -> None:
        """The job: what ended is charged or forgotten."""
        now = await self.ledger.now_ms()
        callers = self.random.choice((self.ledger.callers, self.ledger.callers[:1]))
        await asyncio.gather(*(caller.holds.expire() for caller in callers))
        for org_id in self.model.orgs:
            self.model.charge(org_id, now)

    async def give(self) -> None:
        """Credits for all features that take them, or for one; some expire."""
        org_id, now = self.random.choice(ORGS), await self.ledger.now_ms()
        if org_id not in self.model.orgs:
            return
        self.model.org(org_id, now)
        self.named += 1
        made = Grant(
            f"cg_{self.named}", self.random.choice((2, 5, 12, 30)), 1000 + self.named, self.random.choice((0, 50)), now,
            self.random.choice((None, None, now + 3 * DAY_MS + 77_777)), self.random.choice(("", "", "checks", "open")),
            rollover=self.random.choice((0, 4)),
        )  # fmt: skip
        await give(self.ledger, org_id, made)
        self.model.orgs[org_id].pool.give(made)

    async def race(self) -> None:
        """The same commit, or the same event, through all callers at once: counted once."""
        event = self.event(with_id=True)
        before = await self.ledger.now_ms()
        outcomes = await asyncio.gather(*(caller.counters.track(event) for caller in self.ledger.callers * 2))
        after = await self.ledger.now_ms()
        counted = [outcome for outcome in outcomes if outcome.recorded]
        assert len(counted) <= 1
        self.hold_against([Ask(event)], [*counted, *outcomes][:1], before, after)

    async def race_to_hold(self) -> None:
        """The same reservation through all callers at once, twice each: held once."""
        org_id, feature, hold_id = self.random.choice(ORGS), self.random.choice(FEATURES), self.hold_name("")
        quantity, ttl_ms = self.quantity(org_id, feature), 45 * MINUTE_MS
        before = await self.ledger.now_ms()
        found = await asyncio.gather(
            *(caller.holds.place(org_id, hold_id, feature, quantity, ttl_ms) for caller in self.ledger.callers * 2)
        )
        outcomes = [outcome for _, outcome in found]
        made = [outcome for outcome in outcomes if outcome.recorded]
        assert len(made) == (1 if any(hold for hold, _ in found) else 0)
        ask = Ask(UsageEvent(org_id, feature, quantity, hold_id), "r", hold_id, ttl_ms)
        self.hold_against([ask], [*made, *outcomes][:1], before, await self.ledger.now_ms())
        for hold, _ in found:
            if hold is not None:
                self.model.orgs[org_id].holds[hold_id].expires_ms = hold.expires_ms

    async def race_to_settle(self) -> None:
        """Commits of one reservation, of two quantities, through all callers at once: one of them counts."""
        org_id, hold_id = self.some_hold()
        if not hold_id:
            return
        quantity = self.model.orgs[org_id].holds[hold_id].quantity
        units = [max(1, quantity - number % 2) for number in range(len(self.ledger.callers) * 2)]
        before = await self.ledger.now_ms()
        try:
            found = await asyncio.gather(
                *(
                    caller.holds.settle(org_id, hold_id, number)
                    for caller, number in zip(self.ledger.callers * 2, units, strict=True)
                )
            )
        except HoldNotFound:
            return
        counted = [(event, outcome) for _, event, outcome in found if outcome.recorded]
        assert len(counted) <= 1
        event, outcome = [*counted, *((event, outcome) for _, event, outcome in found)][0]
        self.hold_against([Ask(event, "c", hold_id)], [outcome], before, await self.ledger.now_ms())

    async def lost_reply(self) -> None:
        """The connection breaks while an event with an id is out; the service asks again by itself."""
        event, caller = self.event(with_id=True), self.caller()
        before = await self.ledger.now_ms()
        task = asyncio.create_task(caller.counters.track(event))
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)
        caller.counters.reconnect()
        outcome = await task
        after = await self.ledger.now_ms()
        expected = self.expected([Ask(event)], before, after, [outcome], repeated=True)
        assert expected

    # ── the model ────────────────────────────────────────────────────────────────────────────────────────

    def hold_against(self, asks: Sequence[Ask], outcomes: Sequence[object], before: int, after: int) -> None:
        """Compare answers with the model, at whichever instant between the two the script looked."""
        assert self.expected(asks, before, after, outcomes)

    def expected(
        self, asks: Sequence[Ask], before: int, after: int, outcomes: Sequence[object], *, repeated: bool = False
    ) -> bool:
        """Whether the model gives these answers at `before` or `after`, and if so its state after them."""
        found = [told_by(outcome) if isinstance(outcome, Outcome) else outcome for outcome in outcomes]
        for outcome in outcomes:
            if isinstance(outcome, Outcome):
                self.results[outcome.result] += 1
        for ask in asks:
            if ask.event.event_id is not None and ask.verb == "t":
                self.sent.append(ask.event)
        kept = dict(self.model.orgs)
        tried = []
        for at_ms in (before, after):
            self.model.orgs = dict(kept)
            told = [shown(rows) for rows in self.model.answer(asks, at_ms)]
            if told == found:
                return True
            if repeated:
                again = [shown(rows) for rows in self.model.answer(asks, at_ms)]
                if again == found:
                    return True
            tried.append(told)
        raise AssertionError(f"{asks} gave {found}, the model says {tried}")

    async def check(self) -> None:
        """Every counter and every unit held is the model's; used is the sum of history."""
        for org_id, org in self.model.orgs.items():
            record = await self.ledger.client.hgetall(self.ledger.keys.record(org_id))
            if int(record[b"ps"]) == org.period.start_ms:
                for feature in org.rules:
                    found = [int(record.get(f"{k}:{feature}".encode(), 0)) for k in "uxya"]
                    model = [org.used[feature], org.overage[feature], org.given_back[feature], org.credit[feature]]
                    assert found == model, (org_id, feature)
                    assert found[0] == org.counted[feature] + org.corrected[feature], (org_id, feature)
            if org.pool.there:
                pool = await pool_of(self.ledger, org_id)
                assert {one.grant_id: one for one in pool.grants} == org.pool.grants, org_id
                assert await burned_of(self.ledger, org_id) == dict(org.pool.burned), org_id
            report = await check_org(self.ledger.client, self.ledger.keys, org_id, tuple(org.rules))
            assert not report.violations, report.violations

    # ── drawing ──────────────────────────────────────────────────────────────────────────────────────────

    async def away_from_borders(self) -> None:
        """A step takes some ms; no window, minute or period ends inside one."""
        now = await self.ledger.now_ms()
        if now % MINUTE_MS > MINUTE_MS - CALM_MS:
            await self.ledger.jump_to((now // MINUTE_MS + 1) * MINUTE_MS + 20)
        now = await self.ledger.now_ms()
        ends = [hold.expires_ms for org in self.model.orgs.values() for hold in org.holds.values()]
        near = [end for end in ends if now - 50 <= end <= now + CALM_MS]
        if near:
            await self.ledger.jump_to(max(near) + 60)

    def caller(self) -> Caller:
        return self.random.choice(self.ledger.callers)

    def hold_name(self, org_id: str) -> str:
        known = self.model.orgs[org_id].holds if org_id in self.model.orgs else {}
        if known and self.random.random() < 0.2:
            return self.random.choice(sorted(known))
        self.named += 1
        return f"h-{self.named}"

    def some_hold(self) -> tuple[str, str]:
        org_id = self.random.choice(ORGS)
        known = self.model.orgs[org_id].holds if org_id in self.model.orgs else {}
        return org_id, self.random.choice(sorted(known)) if known else ""

    def event(self, org_id: str | None = None, *, with_id: bool = False) -> UsageEvent:
        """An event near a limit, or one sent before."""
        org_id = org_id or self.random.choice(ORGS)
        again = [event for event in self.sent[-30:] if event.org_id == org_id]
        if again and self.random.random() < 0.2:
            event = self.random.choice(again)
            quantity = event.quantity + self.random.choice((0, 0, 1))
            return UsageEvent(org_id, event.feature, quantity, event.event_id, also=event.also, mode=event.mode)
        feature = self.random.choice(FEATURES)
        also: tuple[tuple[str, int], ...] = ()
        if self.random.random() < 0.25:
            others = [name for name in FEATURES if name != feature]
            also = tuple((name, self.quantity(org_id, name)) for name in self.random.sample(others, 2))
        self.named += 1
        return UsageEvent(
            org_id, feature, self.quantity(org_id, feature),
            f"e-{self.named}" if with_id or self.random.random() < 0.7 else None,
            mode=self.random.choice((None, None, None, OnLimit.CAP, OnLimit.BLOCK, OnLimit.OVERAGE)), also=also,
            dimensions=self.random.choice((None, {"actor": self.random.choice("vwxyz")})),
        )  # fmt: skip

    def met_enough(self) -> bool:
        """Whether credits were burned, and most kinds of answer were given."""
        return len(self.results) >= 9 and any(org.pool.burned for org in self.model.orgs.values())

    def quantity(self, org_id: str, feature: str) -> int:
        """Around what is left of the limit."""
        org = self.model.orgs.get(org_id)
        rule = org.rules.get(feature) if org else None
        if org is None or rule is None or rule.limit is None:
            return self.random.choice((1, 2, 5))
        room = rule.limit - org.used[feature]
        free = room - sum(hold.quantity for hold in org.holds.values() if hold.feature == feature and hold.open)
        return max(1, self.random.choice((1, 1, 2, 4, room, room + 1, free - 1, free, free + 1)))


def shown(rows: list[Told]) -> list[Told]:
    """What an outcome shows of an event's rows: where one was refused, that one alone."""
    refused = [row for row in rows if row[0] not in ADMITTED and row[0] is not Result.NOT_TOGETHER]
    return refused[:1] or rows


@pytest.mark.parametrize("turn", range(often(4, 4)))
async def test_admit_and_the_model_agree_on_every_answer(store: StoreServer, turn: int) -> None:
    """Every answer and every figure of a generated sequence is the model's; at the end every law holds."""
    seed = SEED + turn
    async with Ledger(
        store.url, catalogue=CATALOGUE, retention=Retention(minute_hours=48 * ((SEED + turn) % 2))
    ) as ledger:
        run = Run(ledger, seed)
        try:
            for number in range(10 * STEPS):
                if number >= STEPS and run.met_enough():
                    break
                await run.step()
            report = await ledger.walk()
            assert not report.violations, "\n".join(map(str, report.violations))
        except Exception as error:
            error.add_note(f"repeat with MODEL_SEED={seed}")
            raise
        assert run.met_enough(), f"no credits were burned, or too few kinds of answer were met: {run.results}"
