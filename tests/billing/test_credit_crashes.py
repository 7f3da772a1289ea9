"""A worker may die before or after any call while credits are paid for, given back or disputed: what was paid for is
given once, and what is gone is taken once, exactly.

Whoever asked asks again (a browser, an administrator, Stripe with its event) until it is answered. A story runs once to
learn the number of its steps, then with a death at each of them, and at any two.
"""

import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from metering.billing.credit_ledger import CreditLedger
from metering.billing.credits import CreditShop
from metering.billing.refunds import RefundOrder
from metering.billing.sales import Sale, Seals, credits_back, grant_id_of
from metering.store.credits import Credits
from metering.store.effects import Effects
from metering.store.fields import FieldCodec
from metering.store.org import Org
from metering.store.shared import read_shared
from plans.catalogue import parse
from tests.billing.credit_desk import CATALOGUE, SECRET
from tests.faults.steps import Crash, Schedule, SteppedRedis, SteppedTill, Steps, pairs, singles
from tests.lua.crediting import credits_of, joined
from tests.lua.ledger import Ledger
from tests.lua.scenes import calm, event, lawful
from tests.support.bank import Bank
from tests.support.servers import StoreServer
from tests.support.soak import drawn

SALE: Final = Sale("acme", 500, 4500, "usd")
CATALOGUE_SOLD: Final = parse(CATALOGUE, "test.toml")


@pytest.fixture(autouse=True)
def unsynced(store: StoreServer) -> Iterator[None]:
    """It is workers that die here, never the store: it need not write to the disk thousands of times."""
    assert store.say("CONFIG", "SET", "appendfsync", "no").startswith("+OK")
    yield
    assert store.say("CONFIG", "SET", "appendfsync", "always").startswith("+OK")


@dataclass
class Story:
    """Workers that follow each other on one data set and one account: where one dies the next begins."""

    ledger: Ledger
    steps: Steps
    bank: Bank = field(default_factory=Bank)
    crashes: list[str] = field(default_factory=list)

    def shop(self) -> CreditShop:
        """That of a new worker, whose every call counts."""
        one, client = self.ledger.callers[0], SteppedRedis.over(self.ledger.client, self.steps)
        till: Any = SteppedTill(self.bank, self.steps)
        book = Credits(client, self.ledger.keys, one.orgs, one.time, FieldCodec())
        effects = Effects(client, self.ledger.keys, one.orgs, self.ledger.catalogue, one.time, FieldCodec(), fake=False)
        return CreditShop(till, CATALOGUE_SOLD, Seals("d1", SECRET, livemode=False), CreditLedger(book, effects))

    async def surely(self, ask: Callable[[CreditShop], Awaitable[Any]]) -> Any:
        """Ask one worker after another until one lives to answer."""
        while True:
            try:
                return await ask(self.shop())
            except Crash as crash:
                self.crashes.append(str(crash))

    async def org(self) -> Org:
        """Who buys."""
        found = await self.ledger.callers[0].orgs.present("acme")
        assert found is not None
        return found

    async def bought(self) -> str:
        """A package that is paid for, confirmed and told of."""
        org = await self.org()
        begun = await self.surely(lambda shop: shop.begin(org, 500, "order"))
        assert len(self.bank.intents) == 1
        self.bank.pay(begun.intent_id)
        settled = await self.surely(lambda shop: shop.confirm(org, begun.intent_id))
        assert settled.balance == 500
        await self.told()
        return str(begun.intent_id)

    async def told(self) -> None:
        """Stripe tells of the payment."""
        await self.surely(lambda shop: shop.look("pi_1"))

    async def refund(self, amount: int | None, name: str, *, negative: bool = False) -> str:
        """An administrator gives money back."""
        order = RefundOrder("pi_1", amount, "asked", negative, name, "ann")
        done = await self.surely(lambda shop: shop.refund(order))
        return str(done.refund_id)

    async def burn(self, credits_: int) -> None:
        """Usage that costs so many: two a scan, above ten that are included."""
        units = credits_ // 2 + 10
        assert (await self.ledger.callers[0].counters.track(event("acme", units))).credits_used == credits_

    async def state(self) -> object:
        """All there is to see in the end; what was paid and what is gone are what the credits say."""
        book = credits_of(self.ledger)
        [grant], told = await book.grants("acme"), await book.balance("acme")
        assert grant.grant_id == grant_id_of("pi_1")
        gone = credits_back(SALE, 4500 - self.bank.kept_minor("pi_1"))
        assert (grant.amount, grant.asked, grant.taken) == (500, gone, min(gone, 500 - grant.burned))
        assert grant.left == 500 - grant.burned - grant.taken
        assert told.balance == (0 if grant.frozen else grant.left) - grant.owed
        lines, _ = await book.transactions("acme", 50)
        assert sum(line.credits for line in lines) == grant.left - grant.owed
        await lawful(self.ledger)
        sales = (await read_shared(self.ledger.client, self.ledger.keys, top=1)).totals.sales
        kept = Counter((line.kind, line.credits, line.amount, line.ref) for line in lines)
        return grant.burned, grant.owed, grant.frozen, kept, dict(sales), len(self.bank.given_back)


async def refunded(story: Story) -> None:
    """Two refunds, of which the first fails in the end; what is spent is owed for the second alone."""
    await story.bought()
    first = await story.refund(900, "a")
    await story.burn(100)
    story.bank.fail(first)
    await story.told()
    await story.refund(None, "b", negative=True)
    await story.told()


async def disputed(story: Story) -> None:
    """A refund of a part, then a dispute, which is lost."""
    await story.bought()
    await story.refund(900, "a")
    for status in ("needs_response", "lost"):
        story.bank.dispute("pi_1", status)
        await story.told()


async def lost_unheard(story: Story) -> None:
    """Paid and given back before anybody heard of either."""
    org = await story.org()
    await story.surely(lambda shop: shop.begin(org, 500, "order"))
    story.bank.pay("pi_1")
    await story.bank.create_refund({"payment_intent": "pi_1", "amount": 900}, key="dashboard")
    await story.told()


STORIES: Final = {"refunded": refunded, "disputed": disputed, "lost_unheard": lost_unheard}


async def run(store: StoreServer, name: str, schedule: Schedule) -> tuple[Story, object]:
    """A story from nothing. What fails names its schedule."""
    store.say("FLUSHALL", "SYNC")
    async with calm(store.url, partitions=1, callers=1) as ledger:
        await joined(ledger)
        story = Story(ledger, Steps(schedule))
        try:
            await STORIES[name](story)
            return story, await story.state()
        except Exception as error:
            error.add_note(f"{name}: {dict(schedule)}, {story.crashes}")
            raise


async def learned(store: StoreServer, name: str) -> tuple[int, object]:
    """The steps of a story without a death, the scripts being loaded already, and its end."""
    for _ in range(2):
        story, state = await run(store, name, {})
    sys.stdout.write(f"{name}: N = {len(story.steps.names)}\n")
    return len(story.steps.names), state


@pytest.mark.parametrize("name", STORIES)
async def test_a_worker_may_die_before_or_after_any_call(store: StoreServer, name: str) -> None:
    steps, whole = await learned(store, name)
    for schedule in drawn(singles(steps), 4):
        story, state = await run(store, name, schedule)
        assert (len(story.crashes), state) == (1, whole), dict(schedule)


@pytest.mark.parametrize("name", STORIES)
async def test_two_workers_may_die_at_any_two_calls(store: StoreServer, name: str) -> None:
    steps, whole = await learned(store, name)
    for schedule in drawn(pairs(steps), 400):
        _, state = await run(store, name, schedule)
        assert state == whole, dict(schedule)
