"""Top-ups over a ledger and a Stripe in memory."""

from dataclasses import replace
from typing import Any, Final

from metering.billing.credit_ledger import CreditLedger
from metering.billing.credits import CreditShop
from metering.billing.sales import Seals
from metering.billing.topups import AutoTopUp
from metering.store.credits import Credits
from metering.store.effects import Effects
from metering.store.fields import FieldCodec
from metering.store.orgs import Orgs
from metering.store.topups import TopUp, TopUps
from plans.catalogue import Catalogue, parse
from tests.lua.crediting import ANN, joined, order
from tests.lua.ledger import CATALOGUE, SECRET, Ledger
from tests.lua.outboxes import outbox_of
from tests.lua.topping import MARK, RULE
from tests.support.card_till import CardTill
from tests.support.selling import PACKAGES

SOLD: Final[Catalogue] = parse(CATALOGUE + PACKAGES, "test.toml")


class Shelf:
    """What one worker has: `client` and `till` may count its calls."""

    def __init__(self, ledger: Ledger, till: Any, client: Any = None) -> None:
        client, caller = client or ledger.client, ledger.callers[0]
        codec = FieldCodec()
        self.orgs = Orgs(client, ledger.keys, SOLD, caller.time, codec, fake=False)
        self.credits = Credits(client, ledger.keys, self.orgs, caller.time, codec)
        effects = Effects(client, ledger.keys, self.orgs, SOLD, caller.time, codec, fake=False)
        seals = Seals("d1", SECRET, livemode=False)
        self.shop = CreditShop(till, SOLD, seals, CreditLedger(self.credits, effects))
        self.book = TopUps(client, ledger.keys, caller.time, codec)
        now_ms, frozen = caller.time.now_ms, outbox_of(ledger, client=client).frozen
        self.top_up = AutoTopUp(till, self.shop, self.book, self.credits, self.orgs, now_ms, frozen)

    async def balance(self) -> int:
        return (await self.credits.balance("acme")).balance

    async def kept(self) -> TopUp:
        kept = await self.book.find("acme")
        assert kept is not None
        return kept


async def wanting(ledger: Ledger, **rule: Any) -> CardTill:
    """An organisation with ten credits that wants more, and its Stripe."""
    till = CardTill(ledger.now_ms)
    shelf = Shelf(ledger, till)
    await joined(ledger)
    await shelf.credits.mark_low("acme", MARK, ANN)
    await shelf.credits.grant("acme", order(amount=10), ANN)
    await shelf.book.set("acme", replace(RULE, **rule), "cus_1", ANN)
    return till
