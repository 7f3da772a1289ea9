"""A shop over a sandbox Stripe, its grants in memory, and what its payers, its events and its administrators do."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from metering.billing.credit_events import CreditEvents
from metering.billing.credits import Begun, CreditShop
from metering.billing.gateway import StripeObject
from metering.billing.gateways.live import LiveGateway
from metering.billing.refunds import Refunded, RefundOrder, Settled
from metering.billing.sales import Seals, grant_id_of
from metering.clock import HandClock
from metering.store.org import Org, Profile
from plans.catalogue import parse
from tests.billing.account import event
from tests.support.credit_book import CreditBook, Row
from tests.support.sandbox_world import World, a_world, utc
from webhooks.stripe_events import Reaction

START_S = utc(2026, 3, 17, 10, 30)
CATALOGUE = """
version = 1
currency = "usd"
default_plan = "free"
default_feature = "scans"
[features.scans]
title = "Scans"
unit = "scan"
credits = 1
[plans.free]
title = "Free"
reset = "calendar"
price_minor = 0
on_limit = "block"
[plans.free.features.scans]
limit = 10
[[credit_packages]]
credits = 100
price_minor = 1000
[[credit_packages]]
credits = 500
price_minor = 4500
"""
SECRET = b"s" * 32
MONEY = {Reaction.PAYMENT, Reaction.REFUND, Reaction.DISPUTE}


@dataclass
class Desk:
    """A shop over a sandbox, its grants, and what it is paid with."""

    world: World
    gateway: LiveGateway
    book: CreditBook
    shop: CreditShop
    customer: str

    async def begin(self, credits_asked: int = 500, name: str = "order", org_id: str = "acme") -> Begun:
        return await self.shop.begin(an_org(org_id, self.customer), credits_asked, name)

    async def pay(self, begun: Begun, method: str = "pm_card_visa") -> None:
        """As the payer's browser does, declined or not."""
        body = {"payment_intent": begun.intent_id, "method": method}
        async with self.world.http.post(f"{self.world.url}/sandbox/payments", json=body) as answer:
            assert answer.status in {200, 402}

    async def sold(self, method: str = "pm_card_visa") -> Begun:
        begun = await self.begin()
        await self.pay(begun, method)
        return begun

    async def confirm(self, begun: Begun, org_id: str = "acme") -> Settled:
        return await self.shop.confirm(an_org(org_id), begun.intent_id)

    async def refund(
        self, begun: Begun, amount: int | None = None, name: str = "r", *, negative: bool = False
    ) -> Refunded:
        return await self.shop.refund(RefundOrder(begun.intent_id, amount, "asked", negative, name, "ann"))

    def row(self, begun: Begun) -> Row:
        return self.book.rows["acme", grant_id_of(begun.intent_id)]

    async def told(self) -> list[Any]:
        """All that happened at Stripe, as events."""
        found = await self.gateway.events(since_s=0)
        events = [event(one["type"], one["data"]["object"]["id"], name=one["id"]) for one in found]
        return [one for one in events if one.reaction in MONEY]

    def events(self) -> CreditEvents:
        return CreditEvents(self.gateway, self.shop)


def an_org(org_id: str = "acme", customer: str = "") -> Org:
    """An organisation as far as a sale looks at it."""
    found = object.__new__(Org)
    profile = object.__new__(Profile)
    object.__setattr__(profile, "stripe_customer_id", customer)
    object.__setattr__(found, "org_id", org_id)
    object.__setattr__(found, "profile", profile)
    return found


def seals(dataset: str = "d1", *, livemode: bool = False) -> Seals:
    return Seals(dataset, SECRET, livemode=livemode)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with a_world(START_S) as world:
        gateway = LiveGateway("sk_test_tests", clock=HandClock(0), api_base=world.url)
        book = CreditBook()
        shop = CreditShop(gateway, parse(CATALOGUE, "test.toml"), seals(), book)
        yield Desk(world, gateway, book, shop, await world.customer(None))
        await gateway.close()


class Lying:
    """Stripe, whose payments somebody tampered with."""

    def __init__(self, gateway: LiveGateway, **fields: Any) -> None:
        self._gateway, self._fields = gateway, fields

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gateway, name)

    async def payment_intent(self, intent_id: str) -> StripeObject:
        intent = await self._gateway.payment_intent(intent_id)
        metadata = {**intent["metadata"], **self._fields.get("metadata", {})}
        return {**intent, **self._fields, "metadata": metadata}
