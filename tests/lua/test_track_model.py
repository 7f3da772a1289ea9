"""track.lua (with roll.lua and change_plan.lua on its way) against the reference model, on a real server.

A seeded generator aims at the borders: limit - 1, limit, limit + 1, period and month ends, repeated ids, conflicts
sent twice, two callers with caches and clocks of their own, several organisations in one partition.
"""

import asyncio
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from redis.exceptions import ResponseError

from metering.errors import Problem
from metering.store.codes import OTHER_DAY
from metering.store.orgs import OrgChange
from metering.store.retention import Retention
from metering.store.spent import SpentIds
from metering.usage import Outcome, Result, UsageEvent
from plans.catalogue import Override
from plans.credits import Grant
from plans.limits import QUANTITY_MAX, OnLimit
from plans.periods import AHEAD_MAX_MS, month_span_utc, oldest_accepted_ms, period_at
from tests.lua.credit_model import ModelPool
from tests.lua.granting import burned_of, freeze, give, lines_of, pool_of, texts_of
from tests.lua.ledger import Caller, Ledger
from tests.lua.model import HOUR_MS, Model
from tests.lua.raw import BAD, STALE, raw_call
from tests.support.servers import StoreServer
from tests.support.soak import SEED, often

STEPS: Final = 220
ORGS: Final = tuple(f"org-{letter}" for letter in "abcdef")
FEATURES: Final = ("scans", "checks", "calls", "closed", "open", "unknown")
DAY_MS: Final = 24 * HOUR_MS


class Run:
    """One seeded run: draws steps, drives the store, tells the model."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        self.random = random.Random(seed)
        self.ledger = ledger
        self.model = Model(ledger.catalogue)
        self.sent: list[UsageEvent] = []
        self.minted = self.granted = 0
        self.results: Counter[Result] = Counter()

    async def step(self) -> None:
        """One step of any kind."""
        kinds = (
            (self.burst, 60), (self.race, 8), (self.lost_reply, 8), (self.crash, 8), (self.change, 8), (self.jump, 6),
            (self.forget, 4), (self.flush_scripts, 3), (self.skew, 3), (self.check, 4), (self.bad_quantity, 3),
            (self.unlink_spent, 3), (self.give, 14), (self.freeze, 2),
        )  # fmt: skip
        kind = self.random.choices([k for k, _ in kinds], [weight for _, weight in kinds])[0]
        await kind()

    def met_enough(self) -> bool:
        """Whether much was counted, credits were burned, and most kinds of answer were given."""
        much = self.results[Result.RECORDED] > STEPS / 10
        return much and len(self.results) >= 6 and any(org.pool.burned for org in self.model.orgs.values())

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────

    async def burst(self) -> None:
        """Several events at once through one caller: answered in order."""
        events = [await self.event() for _ in range(self.random.choice((1, 1, 2, 5, 12)))]
        before = await self.ledger.now_ms()
        outcomes = await asyncio.gather(*(self.caller().counters.track(event) for event in events[:1]))
        rest = self.caller()
        outcomes += await asyncio.gather(*(rest.counters.track(event) for event in events[1:]))
        after = await self.ledger.now_ms()
        for event, outcome in zip(events, outcomes, strict=True):
            self.note(event, outcome)
            self.model.applied(event, outcome, before, after)

    async def race(self) -> None:
        """The same event through two callers at the same moment: counted once."""
        await self.away_from_borders()
        event = await self.event(with_id=True)
        before = await self.ledger.now_ms()
        outcomes = await asyncio.gather(
            *(caller.counters.track(event) for caller in (*self.ledger.callers, *self.ledger.callers))
        )
        after = await self.ledger.now_ms()
        counted = [o for o in outcomes if o.recorded]
        assert len(counted) <= 1, f"{event} was counted {len(counted)} times"
        for outcome in counted or outcomes[:1]:
            self.note(event, outcome)
            self.model.applied(event, outcome, before, after)

    async def lost_reply(self) -> None:
        """The connection breaks while calls are out; the service repeats them by itself."""
        await self.away_from_borders()
        caller = self.caller()
        drawn = [await self.event() for _ in range(self.random.choice((1, 3)))]
        events = list({event.org_id: event for event in drawn}.values())  # a repeat's balance shows later events
        before = await self.ledger.now_ms()
        tasks = [asyncio.create_task(caller.counters.track(event)) for event in events]
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)
        caller.counters.reconnect()
        outcomes = await asyncio.gather(*tasks)
        after = await self.ledger.now_ms()
        for event, outcome in zip(events, outcomes, strict=True):
            self.note(event, outcome)
            self.model.repeated(event, outcome, before, after)

    async def crash(self) -> None:
        """A caller dies with an event under way; its client asks another caller, with the same id."""
        await self.away_from_borders()
        event = await self.event(with_id=True)
        before = await self.ledger.now_ms()
        doomed = await self.ledger.add_caller()
        self.ledger.callers.remove(doomed)
        task = asyncio.create_task(doomed.counters.track(event))
        for _ in range(self.random.randrange(40)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, doomed.counters.abort(), return_exceptions=True)
        outcome = await self.caller().counters.track(event)
        after = await self.ledger.now_ms()
        self.note(event, outcome)
        self.model.repeated(event, outcome, before, after)

    async def change(self) -> None:
        """Another plan or other overrides, set by a third party."""
        await self.away_from_borders()
        org_id = self.random.choice(ORGS)
        if org_id not in self.model.orgs:
            return
        plan = self.random.choice(tuple(self.ledger.catalogue.plans))
        used = self.model.orgs[org_id].used["scans"]
        overrides = self.random.choice(
            ({}, {"scans": Override(limit=used + self.random.choice((-1, 0, 1, 7)))}, {"calls": Override(limit=None)},
             {"checks": Override(limit=3, on_limit=OnLimit.OVERAGE)})
        )  # fmt: skip
        if any(isinstance(o.limit, int) and o.limit < 0 for o in overrides.values()):
            return
        before = await self.ledger.now_ms()
        end = self.random.choice((None, *(before + days * DAY_MS + 5_555 for days in (1, 4, 33))))
        overrides = {name: replace(override, until_ms=end) for name, override in overrides.items()}
        org, created = await self.caller().orgs.update(
            org_id, OrgChange(plan=plan, overrides=overrides), actor="test", create=False
        )
        assert org is not None
        assert not created
        self.model._into(self.model.orgs[org_id], org.period, before, await self.ledger.now_ms())  # noqa: SLF001
        self.model.change_plan(org_id, plan, overrides)
        self.model.orgs[org_id].anchor_ms = org.profile.anchor_ms

    async def give(self) -> None:
        """Credits of any sort for an organisation, with another low mark or debt."""
        await self.away_from_borders()
        name = self.random.choice(ORGS)
        if name not in self.model.orgs:
            return
        now = await self.ledger.now_ms()
        self.granted += 1
        effective = now + self.random.choice((-DAY_MS, -DAY_MS, 3 * DAY_MS + 11_111))
        made = Grant(
            f"cg_{self.granted}", self.random.choice((1, 3, 4, 25, 90)), self.granted,
            priority=self.random.choice((0, 50, 50, 100)), effective_ms=effective,
            expires_ms=self.random.choice((None, None, effective + 4 * DAY_MS + 7_777, effective + 30 * DAY_MS + 777)),
            scope=self.random.choice(("", "", "", "scans", "calls")), rollover=self.random.choice((0, 0, 5)),
        )  # fmt: skip
        law = {"low": self.random.choice((None, 5, 20)), "debt": self.random.choice((0, 0, 3))}
        before = await self.ledger.now_ms()
        org = await self.caller().orgs.get(name)
        assert org is not None
        self.model._into(self.model.orgs[name], org.period, before, await self.ledger.now_ms())  # noqa: SLF001
        await give(self.ledger, name, made, **law)  # type: ignore[arg-type]
        self.model.orgs[name].pool.give(made, **law)  # type: ignore[arg-type]

    async def freeze(self) -> None:
        """A grant that a dispute holds, or lets go."""
        open_ = [(name, grant_id) for name, org in self.model.orgs.items() for grant_id in org.pool.grants]
        if open_:
            name, grant_id = self.random.choice(open_)
            self.model.orgs[name].pool.grants[grant_id] = await freeze(self.ledger, name, grant_id)

    async def jump(self) -> None:
        """Time passes: to just before or just after a border, or by days."""
        now = await self.ledger.now_ms()
        ends = [org.period.end_ms for org in self.model.orgs.values()] or [now]
        border = self.random.choice((min(ends), month_span_utc(now).end_ms, (now // DAY_MS + 1) * DAY_MS))
        agreed = [end for org in self.model.orgs.values() for end in org.ends.values() if end > now]
        if agreed and self.random.random() < 0.5:
            await self.ledger.jump_to(self.random.choice(agreed) + self.random.choice((0, 1)))
            return
        target = self.random.choice((border - 300, border - 1, border, border + 1, now + 5 * DAY_MS, now + 40 * DAY_MS))
        await self.ledger.jump_to(target)

    async def away_from_borders(self) -> None:
        """An event repeated across a period's end would be counted in a period that no answer names.

        The period that ends may be one that the model has not heard of: a jump leaves several behind.
        """
        now = await self.ledger.now_ms()
        spans = [period_at(now, reset=org.reset, anchor_ms=org.anchor_ms) for org in self.model.orgs.values()]
        ends = [span.end_ms for span in (*spans, month_span_utc(now))]
        ends += [end for org in self.model.orgs.values() for end in org.ends.values()]
        near = [end for end in ends if now < end < now + 5_000]
        if near:
            await self.ledger.jump_to(max(near) + 1)

    async def unlink_spent(self) -> None:
        """The job that removes ids of months past: no id that is still looked up may go."""
        caller = self.caller()
        await SpentIds(self.ledger.client, self.ledger.keys, caller.time).unlink()

    async def forget(self) -> None:
        """A caller loses its caches."""
        caller = self.caller()
        for org_id in ORGS:
            caller.counters.forget(org_id)

    async def flush_scripts(self) -> None:
        """The server forgets every script."""
        await self.ledger.client.script_flush()

    async def skew(self) -> None:
        """A caller's clock is set wrong, inside what the guard allows."""
        self.caller().clock.skew_ms = self.random.choice((-50_000, -5_000, 0, 5_000, 50_000))

    async def bad_quantity(self) -> None:
        """A quantity that is no whole number from 1 to 1e12 is refused by the script itself; nothing is written."""
        org_id = self.random.choice(ORGS)
        if org_id not in self.model.orgs:
            return
        await self.away_from_borders()
        await self.caller().orgs.get(org_id)  # rolls it, so that the call itself has nothing to roll
        before = await self.ledger.dump()
        for text in ("0", "-1", "1.5", "0.5", "nan", "inf", "-inf", "1e13", "1000000000001", "x", ""):
            try:
                reply = await raw_call(self.ledger, self.caller(), org_id, "scans", text)
            except ResponseError as error:
                raise AssertionError(f"quantity {text!r} broke the script halfway: {error}") from error
            assert reply[1] in (BAD, STALE, OTHER_DAY), f"quantity {text!r} gave {reply}"
        assert await self.ledger.dump() == before, "a quantity that was refused left a trace"

    async def check(self) -> None:
        """Every law over every key."""
        report = await self.ledger.walk()
        assert not report.violations, "\n".join(map(str, report.violations))

    # ── drawing ──────────────────────────────────────────────────────────────────────────────────────────

    def caller(self) -> Caller:
        """Any caller."""
        return self.random.choice(self.ledger.callers)

    async def event(self, *, with_id: bool = False) -> UsageEvent:
        """A new event, or one that was sent before: as it was, or with its id and another content."""
        # An id that meets a month's end inside its call is remembered for a month that no answer names.
        now = await self.ledger.now_ms()
        unnamed = not with_id and month_span_utc(now).end_ms - now < 2_000
        if self.sent and not unnamed and self.random.random() < 0.25:
            old = self.random.choice(self.sent[-40:])
            other = self.random.random() < 0.3
            quantity = old.quantity + (1 if old.quantity < QUANTITY_MAX else -1) if other else old.quantity
            return UsageEvent(old.org_id, old.feature, quantity, old.event_id, old.source)
        org_id, feature = self.random.choice(ORGS), self.random.choice(FEATURES)
        self.minted += 1
        event_id = f"evt-{self.minted}" if with_id or (self.random.random() < 0.7 and not unnamed) else None
        source = self.random.choice(("", "svc"))
        return UsageEvent(
            org_id, feature, self.quantity(org_id, feature), event_id, source, await self.timestamp(org_id)
        )

    def quantity(self, org_id: str, feature: str) -> int:
        """Mostly around what is left: one less, exactly, one more."""
        org = self.model.orgs.get(org_id)
        rule = org.rules.get(feature) if org else None
        room = (rule.limit - org.used[feature]) if org and rule and rule.limit is not None else 10
        drawn = self.random.choice((1, 2, room - 1, room, room + 1, room + 2, room + 7, QUANTITY_MAX))
        return min(max(1, drawn), QUANTITY_MAX)

    async def timestamp(self, org_id: str) -> int | None:
        """None, or an instant of the period, of the one before it, of the next, or at a border."""
        now = await self.ledger.now_ms()
        current = all(abs(caller.time.now_ms() - now) < 1_000 for caller in self.ledger.callers)
        if self.random.random() < 0.6 or not current:  # a guess from before a jump would refuse it
            return None
        org = self.model.orgs.get(org_id)
        start = org.period.start_ms if org else now
        drawn = self.random.choice((now - HOUR_MS, start - 1, start, start + 1, now + AHEAD_MAX_MS - 60_000))
        return drawn if oldest_accepted_ms(now + 60_000) + 60_000 < drawn < now + AHEAD_MAX_MS - 55_000 else None

    def note(self, event: UsageEvent, outcome: Outcome) -> None:
        """Remember an event, so that it can be repeated."""
        self.results[outcome.result] += 1
        if event.event_id is not None:
            self.sent.append(event)


async def compare(run: Run) -> None:
    """At rest: every counter, archive, bucket, total, crossing and trail entry against the model."""
    ledger, model = run.ledger, run.model
    await run.check()
    totals: Counter[tuple[str, str]] = Counter()
    crossings: Counter[tuple[str, int]] = Counter()
    lows = 0
    for partition in range(ledger.keys.partitions):
        stored = await ledger.client.hgetall(ledger.keys.shared("totals", partition))
        for name, value in stored.items():
            if name.startswith(b"u:"):
                _, plan, feature = name.decode().split(":")
                totals[plan, feature] += int(value)
        for _, entry in await ledger.client.xrange(ledger.keys.shared("crossings", partition)):
            if entry[b"mark"] == b"credits":
                lows += 1
            else:
                crossings[entry[b"feature"].decode(), int(entry[b"mark"])] += 1
    assert totals == model.totals
    assert crossings == model.crossings
    assert lows == sum(org.pool.lows for org in model.orgs.values())
    for org_id, expected in model.orgs.items():
        before = await ledger.now_ms()
        org = await ledger.callers[0].orgs.get(org_id)
        assert org is not None
        model._into(expected, org.period, before, await ledger.now_ms())  # noqa: SLF001
        assert {name: u.used for name, u in org.features.items() if u.used} == +expected.used
        assert {name: u.overage for name, u in org.features.items() if u.overage} == +expected.overage
        assert {name: u.credit for name, u in org.features.items() if u.credit} == +expected.credit
        for start_ms, credit in expected.credits_closed.items():
            archive = await texts_of(ledger, ledger.keys.archive(org_id, start_ms))
            assert {k[2:]: int(v) for k, v in archive.items() if k[:2] == "a:"} == credit
        await same_credits(ledger, org_id, expected.pool)
        assert {name: u.rule for name, u in org.features.items()} == {
            name: expected.rule(name, before) for name in expected.rules
        }
        for start_ms, (used, overage) in expected.closed.items():
            archive = await ledger.client.hgetall(ledger.keys.archive(org_id, start_ms))
            assert {k[2:].decode(): int(v) for k, v in archive.items() if k[:2] == b"u:"} == used
            assert {k[2:].decode(): int(v) for k, v in archive.items() if k[:2] == b"x:"} == overage
        trail = await ledger.client.xrange(ledger.keys.trail(org_id))
        started = sum(entry[b"type"] == b"overage_started" for _, entry in trail)
        assert started == model.overages_started[org_id]
        if not expected.fuzzy:
            assert await hours(ledger, org_id) == +expected.history


async def same_credits(ledger: Ledger, org_id: str, expected: ModelPool) -> None:
    """Open grants, what was burned and what expired are what the model says."""
    pool = await pool_of(ledger, org_id)
    assert {one.grant_id: one for one in pool.grants} == expected.grants
    assert await burned_of(ledger, org_id) == dict(expected.burned)
    grants = await texts_of(ledger, ledger.keys.grants(org_id))
    assert {name[:-2]: int(n) for name, n in grants.items() if name.endswith("|x")} == +expected.expired
    low = [line for line in await lines_of(ledger, org_id) if line["type"] == "low"]
    assert len(low) == expected.lows


async def hours(ledger: Ledger, org_id: str) -> Counter[tuple[str, int]]:
    """Every history bucket of an organisation: (feature, hour since the epoch) -> units."""
    found: Counter[tuple[str, int]] = Counter()
    async for raw in ledger.client.scan_iter(match=f"*:h:{org_id}:*", count=1000):
        _, _, _, feature, day = raw.decode().split(":")
        midnight = int(datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).timestamp()) // 3600
        for bucket, value in (await ledger.client.hgetall(raw)).items():
            if not bucket.startswith(b"x"):
                found[feature, midnight + int(bucket[:2])] += int(value)
    return found


@pytest.mark.parametrize("turn", range(often(3, 3)))
async def test_script_and_model_agree_on_every_answer_and_every_counter(store: StoreServer, turn: int) -> None:
    """Every answer of a generated sequence, and every stored figure at its end, is what the model says."""
    await agree(store, SEED + turn)


@pytest.mark.parametrize("turn", range(often(2, 2)))
async def test_admit_answers_plain_events_as_track_does(store: StoreServer, turn: int) -> None:
    """The same sequences through the other script, where every event goes while minutes are kept."""
    await agree(store, SEED + turn, retention=Retention(minute_hours=48))


async def agree(store: StoreServer, seed: int, **options: Any) -> None:
    """Drive one sequence and compare."""
    async with Ledger(store.url, **options) as ledger:
        run = Run(ledger, seed)
        try:
            for number in range(10 * STEPS):
                if number >= STEPS and run.met_enough():
                    break
                await run.step()
            await compare(run)
        except Problem as problem:
            raise AssertionError(f"a valid event was refused: {problem!r}; repeat with MODEL_SEED={seed}") from problem
        except Exception as error:
            error.add_note(f"repeat with MODEL_SEED={seed}")
            raise
        assert run.met_enough(), f"no credits were burned, or too few kinds of answer were met: {run.results}"
