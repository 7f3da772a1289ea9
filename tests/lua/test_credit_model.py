"""The credit ledger against plain sums, over drawn sequences: payments whose readings come late, twice, in any order,
usage that burns, expiry, workers that die at every call, and several that do the same at once.

granted - refunded - burned - expired = what is left >= 0, and included + credit + overage = used, after every step.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from metering.store.credits import Credits
from metering.store.fields import FieldCodec
from metering.store.grants import GrantOrder
from plans.credits import Kind
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

MET: Final = {"sold", "burned", "refund", "refund failed", "disputed", "old reading", "expired", "revoked", "died"}


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
    burned: int = 0
    met: Counter[str] = field(default_factory=Counter)

    def book(self) -> Credits:
        """Any worker's ledger."""
        return credits_of(self.ledger, self.draw.randrange(2))

    async def surely(self, change: Callable[[Credits], Awaitable[Any]]) -> None:
        """A change by a worker that may die at a call of it, repeated by two others at once."""
        if self.draw.random() < 0.5:
            steps = Steps({1: self.draw.choice(["before", "after"])})
            one = self.ledger.callers[0]
            client = SteppedRedis.over(self.ledger.client, steps)
            with suppress(Crash):
                await change(Credits(client, self.ledger.keys, one.orgs, one.time, FieldCodec()))
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
            priority=self.draw.choice([10, 50, 50]), effective_ms=begins, expires_ms=ends,
            rollover=0 if ends is None else self.draw.choice([0, 5, 1000]),
        )  # fmt: skip
        await self.surely(lambda book: book.grant(self.org, order, ANN))
        self.payments[order.grant_id] = Payment(order)
        self.met["sold"] += 1

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
        self.burned += outcome.credits_used
        self.met["burned"] += outcome.credits_used > 0

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
        assert {one.grant_id for one in states} == set(self.payments)
        assert sum(one.burned for one in states) == self.burned
        ready = owed = 0
        for one in states:
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
        await self.covered()

    async def covered(self) -> None:
        """included + credit + overage = used, and every credit that was burned paid for a unit."""
        org = await self.ledger.callers[0].orgs.get(self.org)
        assert org is not None
        paid = 0
        for usage in org.features.values():
            limit = usage.used if usage.rule.limit is None else usage.rule.limit
            assert min(usage.used, limit) + usage.credit + usage.overage == usage.used, usage
            paid += usage.credit * (usage.rule.credits or 0)
        assert paid == self.burned


async def sequence(ledger: Ledger, seed: int, org: str) -> Run:
    """Drawn steps, with every sum looked at after each; at last all that is on its way is told."""
    run = Run(ledger, random.Random(seed), org)
    await joined(ledger, org)
    ends = await ledger.now_ms() + DAYS_MAX * DAY_MS
    steps = [
        run.sell, run.sell, run.use, run.use, run.use, run.change_at_stripe, run.change_at_stripe, run.hear, run.hear,
        run.hear, run.revoke, run.wait, run.sell_again,
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
        for turn in range(4 * RUNS):
            if turn >= RUNS and set(met) >= MET:
                break
            try:
                met += (await sequence(ledger, SEED + turn, f"org-{turn}")).met
            except BaseException as error:
                error.add_note(f"repeat with MODEL_SEED={SEED + turn}")
                raise
        await lawful(ledger)
    assert set(met) >= MET, met
