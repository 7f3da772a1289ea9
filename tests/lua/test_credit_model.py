"""The credit ledger against plain sums, over drawn sequences: payments whose readings come late, twice, in any order,
usage that burns, corrections that put it in and give back, expiry, workers that die at any call, and several that do
the same, or different things, at once. Grants are for all features, or for one.

granted - refunded - burned - expired = what is left >= 0, and included + credit + overage = used, after every step.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from metering.errors import BelowZero, FeatureUnknown
from metering.store.correction import By, Change, adjustment
from metering.store.credits import Credits
from metering.store.fields import FieldCodec
from metering.store.grants import GrantOrder
from plans.credits import POOL, Kind
from tests.faults.steps import Crash, SteppedRedis, Steps
from tests.lua.crediting import ANN, credits_of, joined
from tests.lua.effecting import effects_of
from tests.lua.ledger import Ledger
from tests.lua.scenes import DAY_MS, HOUR_MS, calm, event, lawful, move_to
from tests.support.servers import StoreServer
from tests.support.soak import SEED

RUNS: Final = 2
STEPS: Final = 100
DAYS_MAX: Final = 7
"""That a run may take: the period, whose counters are added up, does not end."""

MET: Final = {
    "sold", "burned", "refund", "refund failed", "disputed", "old reading", "expired", "revoked", "died", "together",
    "own grant", "put in", "given back",
}  # fmt: skip
TURNS_MAX: Final = 60
"""Far more than it takes to meet all of them, most of which each sequence does."""


@dataclass
class Payment:
    """A payment at Stripe: what is gone of it now, in credits, and whether a dispute holds it."""

    order: GrantOrder
    gone: int = 0
    held: bool = False
    negative: bool = False


Reading = tuple[int, int, bool, bool]
"""Ticket, credits asked back in all, held, whether spent ones are owed."""


@dataclass
class Run:
    """One sequence: what Stripe holds, what is on its way, and what was seen."""

    ledger: Ledger
    draw: random.Random
    org: str
    payments: dict[str, Payment] = field(default_factory=dict)
    newest: dict[str, Reading] = field(default_factory=dict)
    late: list[tuple[str, Reading]] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    minted: int = 0
    met: Counter[str] = field(default_factory=Counter)

    def book(self) -> Credits:
        """Any worker's ledger."""
        return credits_of(self.ledger, self.draw.randrange(2))

    async def surely(self, change: Callable[[Credits], Awaitable[Any]]) -> None:
        """A change by a worker that may die at a call of it, repeated by two others at once."""
        if self.draw.random() < 0.5:
            steps = Steps({self.draw.choice([1, 1, 2]): self.draw.choice(["before", "after"])})
            one = self.ledger.callers[0]
            client = SteppedRedis.over(self.ledger.client, steps)
            try:
                await change(Credits(client, self.ledger.keys, one.orgs, one.time, FieldCodec()))
            except Crash:
                self.met["died"] += 1
        await asyncio.gather(change(credits_of(self.ledger, 0)), change(credits_of(self.ledger, 1)))

    # ── what happens ─────────────────────────────────────────────────────────────────────────────────────

    async def sell(self) -> None:
        """A payment succeeds; browser and webhook tell it at the same time."""
        now_ms = await self.ledger.now_ms()
        ends = self.draw.choice([None, None, now_ms + self.draw.randrange(1, 48) * HOUR_MS])
        begins = now_ms if ends is None else self.draw.choice([now_ms, now_ms + HOUR_MS // 2])
        order = GrantOrder(
            f"cg_{len(self.payments)}", self.draw.choice([1, 7, 40, 100]), self.draw.choice(list(Kind)),
            scope=self.draw.choice([POOL, POOL, "scans", "checks"]), priority=self.draw.choice([10, 50, 50]),
            effective_ms=begins, expires_ms=ends,
            rollover=0 if ends is None else self.draw.choice([0, 5, 1000]),
        )  # fmt: skip
        await self.surely(lambda book: book.grant(self.org, order, ANN))
        self.payments[order.grant_id] = Payment(order)
        self.met["sold"] += 1
        self.met["own grant"] += order.scope != POOL

    async def sell_again(self) -> None:
        """Somebody confirms a payment that was told long ago."""
        if self.payments:
            order = self.draw.choice(list(self.payments.values())).order
            assert not (await self.book().grant(self.org, order, ANN)).made

    async def use(self) -> None:
        """Usage, some of it above the limit."""
        quantity, feature = self.draw.choice([1, 3, 8]), self.draw.choice(["scans", "checks"])
        counters = self.ledger.callers[self.draw.randrange(2)].counters
        outcome = await counters.track(event(self.org, quantity, None, feature))
        self.met["burned"] += outcome.credits_used > 0

    async def correct(self) -> None:
        """An administrator puts units in or takes some out, and asks again, perhaps both at once."""
        self.minted += 1
        feature, units = self.draw.choice(["scans", "checks"]), self.draw.choice([-9, -3, -1, 1, 5])
        change = Change(feature, units, place="/delta")
        made = adjustment(
            self.org, change, f"a{self.minted}", By("ann", "why", ""), minted=False, period_ms=None, at_ms=None
        )
        callers = self.ledger.callers
        try:
            first, second = await asyncio.gather(*(one.corrections.make(made) for one in callers[:2]))
        except (BelowZero, FeatureUnknown):
            return
        assert first.duplicate is not second.duplicate
        [row] = (second if first.duplicate else first).rows
        self.met["put in"] += row.after.credit > row.before.credit
        self.met["given back"] += row.after.credit < row.before.credit

    async def together(self) -> None:
        """A confirmation, usage and two readings, told by whoever has them, all at once."""
        await asyncio.gather(self.sell_again(), self.use(), self.hear(), self.hear(), self.revoke())
        self.met["together"] += 1

    async def change_at_stripe(self) -> None:
        """A refund, one that fails, or a dispute; whoever hears of it reads, and what was read is told some time."""
        if not self.payments:
            return
        name = self.draw.choice(list(self.payments))
        one = self.payments[name]
        kind = self.draw.choice(["refund", "refund", "refund failed", "disputed"])
        if kind == "refund":
            one.gone = min(one.order.amount, one.gone + self.draw.randrange(1, one.order.amount + 1))
            one.negative = self.draw.random() < 0.3
        elif kind == "refund failed":
            one.gone = self.draw.randrange(one.gone + 1)
        else:
            one.held = not one.held
        self.met[kind] += 1
        ticket = await effects_of(self.ledger).ticket(self.org)
        self.late.append((name, (ticket, one.gone, one.held, one.negative)))

    async def hear(self) -> None:
        """Some reading is told, perhaps for the second time."""
        if not self.late:
            return
        at = self.draw.randrange(len(self.late))
        name, reading = self.late[at]
        if self.draw.random() < 0.7:
            del self.late[at]
        ticket, asked, held, negative = reading
        self.met["old reading"] += reading < self.newest.get(name, reading)

        async def settle(book: Credits) -> None:
            await book.take_back(self.org, name, asked, ANN, ticket=ticket, owable=[(0, asked)] if negative else [])
            await (book.freeze if held else book.thaw)(self.org, name, ANN, ticket=ticket)

        await self.surely(settle)
        self.newest[name] = max(reading, self.newest.get(name, reading))

    async def revoke(self) -> None:
        """An administrator takes back what is left."""
        if not self.payments or self.draw.random() < 0.7:
            return
        name = self.draw.choice(list(self.payments))
        await self.surely(lambda book: book.revoke(self.org, name, ANN))
        self.revoked.add(name)
        self.met["revoked"] += 1

    async def wait(self) -> None:
        """Time passes, and the job may look."""
        hours = self.draw.choice([1, 5, 20])
        await move_to(self.ledger, await self.ledger.now_ms() + hours * HOUR_MS)
        if self.draw.random() < 0.5:
            await self.book().lapse()

    # ── what holds ───────────────────────────────────────────────────────────────────────────────────────

    async def holds(self) -> None:
        """Every sum."""
        now_ms, book = await self.ledger.now_ms(), self.book()
        states = await book.grants(self.org)
        told = await book.balance(self.org)
        back = [one for one in states if one.grant_id.startswith("cg_back_")]
        assert {one.grant_id for one in states} == {one.grant_id for one in back} | set(self.payments)
        owed = 0
        ready = sum(one.left for one in back)
        for one in back:
            assert (one.taken, one.expired, one.owed) == (0, 0, 0)
            assert 0 <= one.left <= one.amount, one
        for one in (state for state in states if state not in back):
            order = self.payments[one.grant_id].order
            _, asked, held, negative = self.newest.get(one.grant_id, (0, 0, False, False))
            figures = (one.amount, one.burned, one.taken, one.expired, one.left)
            assert one.amount == order.amount
            assert min(figures) >= 0, (one, figures)
            assert (one.asked, one.frozen, one.revoked) == (asked, held, one.grant_id in self.revoked), one
            if one.revoked:
                assert one.left == 0, one
            elif one.left:
                assert one.taken == asked, one
            assert one.taken <= asked or one.revoked, one
            assert one.owed == (max(0, asked - one.taken) if negative else 0), one
            assert not one.expired or (order.expires_ms is not None and order.expires_ms <= now_ms), one
            if order.expires_ms is not None and order.expires_ms <= now_ms:
                assert one.left <= order.rollover, one
                self.met["expired"] += one.expired > 0
            ready += one.left if not one.frozen and one.effective_ms <= now_ms else 0
            owed += one.owed
        assert told.balance == ready - owed
        assert told.balance >= 0 or owed
        await self.covered(sum(one.burned for one in states), sum(one.amount for one in back))

    async def covered(self, burned: int, back: int) -> None:
        """included + credit + overage = used, and every credit that was burned pays for a unit, or came back."""
        org = await self.ledger.callers[0].orgs.get(self.org)
        assert org is not None
        paid = 0
        for name, usage in org.features.items():
            limit = usage.used if usage.rule.limit is None else usage.rule.limit
            assert 0 <= usage.used - usage.credit - usage.overage <= limit, usage
            text = await self.ledger.client.hget(self.ledger.keys.record(self.org), f"f:{name}")
            own, pooled = map(int, text.split(b":")) if text else (0, 0)
            assert own + pooled // (usage.rule.credits or 1) == usage.credit, usage
            paid += own + pooled
        assert burned == paid + back


async def sequence(ledger: Ledger, seed: int, org: str) -> Run:
    """Drawn steps, with every sum looked at after each; at last all that is on its way is told."""
    run = Run(ledger, random.Random(seed), org)
    await joined(ledger, org)
    ends = await ledger.now_ms() + DAYS_MAX * DAY_MS
    steps = [
        run.sell, run.sell, run.use, run.use, run.use, run.change_at_stripe, run.change_at_stripe, run.hear, run.hear,
        run.hear, run.revoke, run.wait, run.sell_again, run.correct, run.correct, run.together,
    ]  # fmt: skip
    for _ in range(STEPS):
        step = run.draw.choice(steps)
        if step == run.wait and await ledger.now_ms() > ends:
            continue
        await step()
        await run.holds()
    while run.late:
        await run.hear()
    await run.holds()
    return run


async def test_every_credit_of_every_grant_has_one_place_whatever_happens(store: StoreServer) -> None:
    met: Counter[str] = Counter()
    async with calm(store.url, at="01-05T12:30:05") as ledger:
        for turn in range(TURNS_MAX):
            if turn >= RUNS and set(met) >= MET:
                break
            try:
                met += (await sequence(ledger, SEED + turn, f"org-{turn}")).met
            except BaseException as error:
                error.add_note(f"repeat with MODEL_SEED={SEED + turn}")
                raise
        await lawful(ledger)
    assert set(met) >= MET, met
