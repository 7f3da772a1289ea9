"""Tax that Stripe adds in a checkout: credits are those of the price that was sealed, whatever the tax is."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from metering.billing.checkout import Order
from metering.billing.credits import CreditShop
from metering.billing.gateway import StripeObject
from metering.billing.gateways.live import LiveGateway
from metering.billing.refunds import RefundOrder
from metering.billing.sales import CREDITS_TAG, PRICE_TAG, Lie, NotOurs, Sale, credits_back
from metering.clock import HandClock
from plans.catalogue import parse
from tests.billing.credit_desk import CATALOGUE, START_S, Desk, an_org, seals
from tests.support.credit_book import CreditBook
from tests.support.sandbox_world import a_world

SALE = Sale("acme", 500, 4500, "usd")
ORDER = Order("", "http://127.0.0.1:1/done", "http://127.0.0.1:1/back", "order")


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with a_world(START_S) as world:
        gateway = LiveGateway("sk_test_tests", clock=HandClock(0), api_base=world.url)
        book = CreditBook()
        shop = CreditShop(gateway, parse(CATALOGUE, "test.toml"), seals(), book, automatic_tax=True)
        yield Desk(world, gateway, book, shop, await world.customer(None))
        await gateway.close()


async def _bought(desk: Desk, choice: str) -> StripeObject:
    """The session of a package of 500 credits, paid."""
    begun = await desk.shop.checkout(an_org("acme", desk.customer), 500, ORDER)
    status, _, _ = await desk.world.page("POST", begun.url, choice=choice)
    assert status == 303
    return await desk.gateway.checkout(begun.id)


@pytest.mark.parametrize(("choice", "tax"), [("taxed", 900), ("pm_card_visa", 0)])
async def test_credits_are_those_of_the_price_whatever_tax_is_on_top(desk: Desk, choice: str, tax: int) -> None:
    session = await _bought(desk, choice)
    assert (session["amount_subtotal"], session["amount_total"]) == (4500, 4500 + tax)
    settled = await desk.shop.confirm(an_org(), session["payment_intent"])
    assert (settled.made, settled.balance, settled.sale) == (True, 500, replace(SALE, tax_minor=tax))
    assert settled.intent["amount_received"] == 4500 + tax


async def test_what_is_given_back_holds_its_share_of_tax(desk: Desk) -> None:
    session = await _bought(desk, "taxed")

    async def refund(amount: int | None, name: str) -> tuple[int, int, int]:
        order = RefundOrder(session["payment_intent"], amount, "asked", False, name, "ann")
        made = await desk.shop.refund(order)
        return made.amount_minor, made.credits_removed, made.settled.balance

    assert await refund(2700, "half") == (2700, 250, 250)
    assert await refund(None, "rest") == (2700, 250, 0)


def test_all_credits_go_with_all_that_was_paid_and_not_before() -> None:
    sale = replace(SALE, tax_minor=900)
    assert [credits_back(sale, amount) for amount in (0, 4500, 5399, 5400, 6000)] == [0, 416, 499, 500, 500]


def _intent(
    asked: int, received: int | None = None, *, taxed: bool = True, told: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A payment of a sale as it was sealed, with other metadata in its place."""
    metadata = seals().metadata(SALE, taxed=taxed) | dict(told or {})
    paid = asked if received is None else received
    return {
        "livemode": False, "metadata": metadata, "amount": asked, "currency": "usd", "status": "succeeded",
        "amount_received": paid,
    }  # fmt: skip


@pytest.mark.parametrize("asked", [4500, 4501, 5400])
def test_beyond_the_price_is_tax(asked: int) -> None:
    assert seals().sale_of(_intent(asked)) == replace(SALE, tax_minor=asked - 4500)


@pytest.mark.parametrize(
    ("intent", "lie"),
    [
        (_intent(4499), Lie.AMOUNT),  # less than it costs
        (_intent(5400, 4500), Lie.AMOUNT),  # the tax was not paid
        (_intent(1, told={PRICE_TAG: "1"}), Lie.SEAL),
        (_intent(5400, told={PRICE_TAG: "04500x"}), Lie.SEAL),
        (_intent(5400, taxed=False), Lie.SEAL),  # nobody said that there is tax
        (_intent(5400, taxed=False, told={PRICE_TAG: "4500"}), Lie.SEAL),  # somebody else did
        (_intent(5400, told={CREDITS_TAG: "5000"}), Lie.SEAL),
    ],
)
def test_what_was_not_sealed_so_is_not_credited(intent: dict[str, Any], lie: Lie) -> None:
    with pytest.raises(NotOurs) as caught:
        seals().sale_of(intent)
    assert caught.value.lie is lie


async def test_a_payment_without_a_checkout_has_no_tax_and_costs_what_the_package_costs(desk: Desk) -> None:
    begun = await desk.sold()
    settled = await desk.confirm(begun)
    assert (settled.sale, settled.intent["amount_received"]) == (SALE, 4500)
    assert PRICE_TAG not in settled.intent["metadata"]
