"""Every verb in one generated sequence, on a real server: what `test_admit_model` draws, and corrections among it.

Events, batches, reservations, leases, windows, rates and plan changes interleave with adjustments, voids and resets. At
every step used = sum of history = events counted - voids + adjustments, and units held = open holds.
"""

from collections import Counter
from typing import Any, Final

import pytest

from metering.errors import BelowZero, EventConflict, Invalid, Problem
from metering.store.correction import ALL, INCLUDED, By, Change, Corrected, Correction, adjustment, reset, void
from metering.store.pendings import content_of
from metering.store.retention import Retention
from plans.corrections import Refusal
from tests.lua.admit_model import Counted, ModelOrg
from tests.lua.granting import pool_of
from tests.lua.ledger import Ledger
from tests.lua.outboxes import bill
from tests.lua.test_admit_model import CATALOGUE, FEATURES, Kind, Run
from tests.support.servers import StoreServer
from tests.support.soak import SEED, often

STEPS: Final = 200
BY: Final = By("tester", "because", "req-1")
KNOWN: Final = tuple(feature for feature in FEATURES if feature != "unknown")


class Whole(Run):
    """A run that corrects as well. Corrections of closed periods have a model of their own."""

    def __init__(self, ledger: Ledger, seed: int) -> None:
        super().__init__(ledger, seed)
        self.voided: set[tuple[str, str, int]] = set()
        self.corrections: Counter[str] = Counter()

    def kinds(self) -> tuple[Kind, ...]:
        return (*super().kinds(), (self.adjust, 16), (self.take_back, 20), (self.set_back, 9), (self.bill, 6))

    def met_enough(self) -> bool:
        """Whether the sequence went through what it is for."""
        kinds = {"usage_adjusted", "event_voided", "usage_reset", "repeated"}
        return len(self.results) >= 7 and kinds <= set(self.corrections)

    # ── steps ────────────────────────────────────────────────────────────────────────────────────────────

    async def adjust(self) -> None:
        """Units put in or taken out, around what is there, what is held and what is left."""
        org_id, org = await self.somewhere()
        if org is None:
            return
        feature = self.random.choice(KNOWN)
        used, room = org.used[feature], self.quantity(org_id, feature)
        delta = self.random.choice((1, -1, room, -room, -used, -used - 1)) or 1
        asked = adjustment(org_id, Change(feature, delta), self.name(), BY, minted=False, period_ms=None, at_ms=None)
        await self.make(asked, org, {feature: delta})

    async def take_back(self) -> None:
        """An event of one feature or several voided; once, whoever asks how often."""
        _, org = await self.somewhere()
        found = [one for one in org.events if one.period_ms == org.period.start_ms] if org else []
        if org is None or not found:
            return None
        counted = self.random.choice(found[-12:])
        event, told = counted.event, self.random.random() < 0.5
        asked = void_of(counted, told=told)
        if (event.org_id, asked.name, counted.period_ms) in self.voided:
            return await self.repeated(asked, org)
        if self.random.random() < 0.1:
            return await self.refused(void_of(counted, told=told, more=1), EventConflict)
        if not told and any(feature in org.cut for feature, _ in content_of(event)):
            return await self.refused(asked, Invalid)
        changes = {change.feature: change.change for change in asked.changes}
        if await self.make(asked, org, changes):
            self.voided.add((event.org_id, asked.name, counted.period_ms))
        return None

    async def set_back(self) -> None:
        """Counters set back, with what was billed or without."""
        org_id, org = await self.somewhere()
        if org is None:
            return
        forgive, features = self.random.random() < 0.5, self.random.sample(KNOWN, 2)
        asked = reset(org_id, features, self.name(), BY, forgive=forgive, minted=False)
        await self.make(asked, org, dict.fromkeys(sorted(features), ALL if forgive else INCLUDED))

    async def bill(self) -> None:
        """Overage goes out, whatever else happens."""
        await bill(self.ledger, self.random)

    # ── corrections ──────────────────────────────────────────────────────────────────────────────────────

    async def make(self, asked: Correction, org: ModelOrg, changes: dict[str, Any]) -> bool:
        """Make one, and hold its answer against the model: all of its features change, or none does."""
        kept, now = {feature: figures(org, feature) for feature in changes}, await self.ledger.now_ms()
        covers = {feature: org.pool.cover(feature, org.rules[feature].credits, now) for feature in changes}
        tried = [org.correct(feature, change, covers[feature].units) for feature, change in changes.items()]
        if any(isinstance(refusal, Refusal) for refusal in tried):
            for feature, before in kept.items():
                put_back(org, feature, before)
            await self.refused(asked, BelowZero)
            return False
        answer = await self.random.choice(self.ledger.callers).corrections.make(asked)
        assert not answer.duplicate
        for row in answer.rows:
            assert (row.before.used, row.before.overage, row.before.credit) == shown(kept[row.feature]), asked
        self.told(answer, org, list(changes))
        for feature in changes:
            if (burned := org.credit[feature] - kept[feature][4]) > 0:
                org.pool.burn(feature, covers[feature], burned, now)
        await self.returned(asked.org_id, org, {f: kept[f][4] - org.credit[f] for f in changes}, now)
        self.corrections[asked.kind] += 1
        if self.random.random() < 0.2:
            await self.repeated(asked, org)
        return True

    async def returned(self, org_id: str, org: ModelOrg, undone: dict[str, int], now: int) -> None:
        """Credits given back are in grants of their own, and the model has them then."""
        due = sum(units * (org.rules[feature].credits or 1) for feature, units in undone.items() if units > 0)
        if due:
            org.pool.settle(now, {})
            pool = await pool_of(self.ledger, org_id)
            made = [one for one in pool.grants if one.grant_id not in org.pool.grants]
            assert sum(one.left for one in made) == due
            assert all(one.grant_id.startswith("cg_back_") for one in made)
            org.pool.give(*made, debt=org.pool.debt)

    def told(self, answer: Corrected, org: ModelOrg, features: list[str]) -> None:
        """The counters after it, as the answer shows them, are the model's; holds are as they were."""
        assert [row.feature for row in answer.rows] == features
        for row in answer.rows:
            assert (row.after.used, row.after.overage, row.after.credit) == shown(figures(org, row.feature))
            assert row.after.held == row.before.held

    async def repeated(self, asked: Correction, org: ModelOrg) -> None:
        """The same once more: not a byte changes."""
        before = await self.ledger.dump()
        answer = await self.caller().corrections.make(asked)
        assert answer.duplicate
        assert await self.ledger.dump() == before
        self.told(answer, org, [row.feature for row in answer.rows])
        self.corrections["repeated"] += 1

    async def refused(self, asked: Correction, problem: type[Problem]) -> None:
        """Refused whole: not a byte changes."""
        before = await self.ledger.dump()
        with pytest.raises(problem):
            await self.caller().corrections.make(asked)
        assert await self.ledger.dump() == before, f"{asked} was refused and left a trace"
        self.corrections[f"refused {problem.code}"] += 1

    async def somewhere(self) -> tuple[str, ModelOrg | None]:
        """An organisation that exists, in the period that runs, as every caller knows."""
        if not self.model.orgs:
            return "", None
        org_id = self.random.choice(sorted(self.model.orgs))
        org = self.model.org(org_id, await self.ledger.now_ms())
        for caller in self.ledger.callers:
            found = await caller.orgs.get(org_id)
            assert found is not None
            assert found.period == org.period
        return org_id, org

    def name(self) -> str:
        """A new id."""
        self.named += 1
        return f"c-{self.named}"


def void_of(counted: Counted, *, told: bool, more: int = 0) -> Correction:
    """Takes the event back, by what it recorded or by what it asked for; `more` makes its content another one."""
    event, content = counted.event, content_of(counted.event)
    changes = [
        Change(feature, -(recorded if told else quantity), recorded=told)
        for (feature, quantity), recorded in zip(content, counted.recorded, strict=True)
    ]
    asked = [(feature, quantity + more) for feature, quantity in content]
    return void(
        event.org_id, event.source, event.event_id or "", changes, asked, BY, period_ms=counted.period_ms, at_ms=None
    )


Figures = tuple[int, int, int, int, int]
"""Used, overage accrued, given back of it, what corrections came to, and what credits paid for."""


def figures(org: ModelOrg, feature: str) -> Figures:
    """One counter of the model."""
    paid = org.credit[feature]
    return org.used[feature], org.overage[feature], org.given_back[feature], org.corrected[feature], paid


def put_back(org: ModelOrg, feature: str, before: Figures) -> None:
    """The counter as it was."""
    org.used[feature], org.overage[feature], org.given_back[feature], org.corrected[feature], paid = before
    org.credit[feature] = paid


def shown(found: Figures) -> tuple[int, int, int]:
    """Used, the overage that is billed, and what credits paid for."""
    used, accrued, given_back, _, paid = found
    return used, accrued - given_back, paid


async def agree(server: StoreServer, seed: int, steps: int, *, thorough: bool = False, **options: Any) -> Whole:
    """Run a generated sequence: every answer and, after every step, every figure is what the model says.

    A `thorough` one goes on until enough kinds of answer were met, up to four times as long.
    """
    async with Ledger(server.url, catalogue=CATALOGUE, **options) as ledger:
        run = Whole(ledger, seed)
        try:
            for number in range(4 * steps if thorough else steps):
                if number >= steps and run.met_enough():
                    break
                await run.step()
            report = await ledger.walk()
            assert not report.violations, "\n".join(map(str, report.violations))
        except Exception as error:
            error.add_note(f"repeat with MODEL_SEED={seed}")
            raise
    return run


@pytest.mark.parametrize("turn", range(often(3, 3)))
async def test_every_verb_and_the_model_agree_after_every_step(store: StoreServer, turn: int) -> None:
    everything = Retention(minute_hours=48 * ((SEED + turn) % 2), events_ms=3_600_000 * ((SEED + turn) % 2))
    run = await agree(store, SEED + turn, STEPS, thorough=True, retention=everything)
    assert run.met_enough(), f"too few kinds of answer were met: {run.results}, {run.corrections}"


async def test_every_verb_and_the_model_agree_on_each_server(each_store: StoreServer) -> None:
    await agree(each_store, SEED, STEPS // 4)


async def test_every_verb_and_the_model_agree_on_a_cluster(cluster: StoreServer) -> None:
    await agree(cluster, SEED, STEPS // 4, one_partition=True, partitions=4)
