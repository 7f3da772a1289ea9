"""Credits are sold once, for what was paid, to whom it was sold; what is given back of it is taken back."""

import asyncio
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from metering.billing.credit_events import CreditEvents
from metering.billing.credits import Begun, CreditShop
from metering.billing.gateway import StripeObject
from metering.billing.refunds import RefundOrder
from metering.billing.sales import CREDITS_TAG, SEAL_TAG, Sale, Seals, credits_back
from metering.billing.sales import refunds_of as counted
from metering.erasure_errors import OrgErased
from metering.errors import PaymentFailed, Problem, StripeUnavailable
from metering.payment_errors import NotRefundable, PackageUnknown, PaymentMismatch, PaymentNotFound
from metering.store.grants import Refunds
from plans.catalogue import parse
from tests.billing.account import event
from tests.billing.credit_desk import CATALOGUE, START_S, Desk, Lying, an_org, desk, seals
from tests.support.sandbox_world import DAY_S

__all__ = ["desk"]


def refunds_of(desk: Desk, begun: Begun) -> Refunds | None:
    """What was counted of a payment's refunds."""
    gone = desk.row(begun).gone
    return None if gone is None else gone.refunds


async def test_a_payment_costs_what_its_package_costs_and_nothing_is_credited_before_it_is_paid(desk: Desk) -> None:
    begun = await desk.begin()
    intent = await desk.gateway.payment_intent(begun.intent_id)
    assert (intent["amount"], intent["currency"], intent["setup_future_usage"]) == (4500, "usd", "off_session")
    assert begun.client_secret == intent["client_secret"]
    settled = await desk.confirm(begun)
    assert (settled.status, settled.made, desk.book.rows) == ("requires_payment_method", False, {})


async def test_a_package_that_is_not_sold_is_refused_with_those_that_are(desk: Desk) -> None:
    with pytest.raises(PackageUnknown) as caught:
        await desk.begin(50)
    assert (caught.value.extra["packages"], desk.world.rows("payment_intent")) == ([100, 500], [])


async def test_a_repeat_of_an_order_is_the_same_payment(desk: Desk) -> None:
    assert (await desk.begin(name="a")).intent_id == (await desk.begin(name="a")).intent_id
    assert (await desk.begin(name="b")).intent_id != (await desk.begin(name="a")).intent_id


async def test_a_paid_package_is_credited_once_by_confirms_and_events_together(desk: Desk) -> None:
    begun = await desk.sold()
    confirms = asyncio.gather(*(desk.confirm(begun) for _ in range(5)))
    told = await desk.told()
    reacts = asyncio.gather(*(desk.events().react(one) for one in told))
    confirmed, _ = await confirms, await reacts
    assert sum(one.made for one in confirmed) <= 1
    assert (len(desk.book.rows), await desk.book.balance("acme")) == (1, 500)


async def test_an_event_alone_credits_it(desk: Desk) -> None:
    await desk.sold()
    for one in await desk.told():
        await desk.events().react(one)
    assert await desk.book.balance("acme") == 500


async def test_a_declined_payment_is_told_with_its_reason(desk: Desk) -> None:
    begun = await desk.sold("pm_card_visa_chargeDeclined")
    with pytest.raises(PaymentFailed) as caught:
        await desk.confirm(begun)
    assert caught.value.extra == {"stripe_code": "card_declined", "decline_code": "generic_decline"}
    assert desk.book.rows == {}


@pytest.mark.parametrize(
    ("method", "balance"), [("pm_usBankAccount_success", 500), ("pm_usBankAccount_accountClosed", 0)]
)
async def test_row_21_a_slow_payment_credits_when_it_has_come_and_not_before(
    desk: Desk, method: str, balance: int
) -> None:
    begun = await desk.sold(method)
    assert ((await desk.confirm(begun)).status, desk.book.rows) == ("processing", {})
    await desk.world.at(START_S + 4 * DAY_S)
    for one in await desk.told():
        await desk.events().react(one)
    assert await desk.book.balance("acme") == balance


LIES: list[tuple[str, dict[str, Any], type[Problem]]] = [
    ("another amount", {"amount": 1, "amount_received": 1}, PaymentMismatch),
    ("less came in than was asked for", {"amount_received": 4499}, PaymentMismatch),
    ("another currency", {"currency": "jpy"}, PaymentMismatch),
    ("more credits", {"metadata": {CREDITS_TAG: "500000"}}, PaymentMismatch),
    ("credits that are no number", {"metadata": {CREDITS_TAG: "5e2"}}, PaymentMismatch),
    ("another owner", {"metadata": {"org_id": "other"}}, PaymentMismatch),
    ("no seal", {"metadata": {SEAL_TAG: ""}}, PaymentMismatch),
    ("another mode", {"livemode": True}, PaymentMismatch),
    ("another data set", {"metadata": {"metering_dataset": "d2"}}, PaymentNotFound),
]


@pytest.mark.parametrize(("fields", "problem"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
async def test_row_22_what_was_not_sold_so_is_never_credited(
    desk: Desk, fields: dict[str, Any], problem: type[Problem]
) -> None:
    begun = await desk.sold()
    lying: Any = Lying(desk.gateway, **fields)
    shop = CreditShop(lying, parse(CATALOGUE, "test.toml"), seals(), desk.book)
    with pytest.raises(problem):
        await shop.confirm(an_org(), begun.intent_id)
    assert await CreditEvents(lying, shop).react(event("payment_intent.succeeded", begun.intent_id)) is None
    with pytest.raises(problem):
        await shop.refund(RefundOrder(begun.intent_id, None, "r", allow_negative=False, name="n"))
    assert (desk.book.rows, desk.world.rows("refund")) == ({}, [])


async def test_row_22_a_payment_of_another_product_on_the_account_is_not_there(desk: Desk) -> None:
    params = {"amount": 4500, "currency": "usd", "metadata": {"order": "7"}}
    foreign = await desk.gateway.create_payment_intent(params, key="x")
    await desk.world.say("POST", "/sandbox/payments", payment_intent=foreign["id"], method="pm_card_visa")
    for intent_id in (foreign["id"], "pi_of_nobody", "no id"):
        with pytest.raises(PaymentNotFound):
            await desk.shop.confirm(an_org(), intent_id)
    for one in await desk.told():
        assert await desk.events().react(one) is None
    assert desk.book.rows == {}


async def test_row_22_a_payment_of_another_organisation_is_not_there(desk: Desk) -> None:
    begun = await desk.sold()
    with pytest.raises(PaymentNotFound):
        await desk.confirm(begun, "other")
    assert await desk.book.balance("other") == 0


async def test_money_for_an_organisation_that_is_gone_is_told_until_it_went_back(desk: Desk) -> None:
    """What is given back of a payment, or was never paid, is nobody's; what came in and stays must not pass unseen."""
    begun, unpaid = await desk.sold(), await desk.begin(name="other order")
    desk.book.orgs.clear()
    paid, opened = (event(f"payment_intent.{what}", begun.intent_id) for what in ("succeeded", "created"))
    assert await desk.events().react(opened) is None
    assert await desk.events().react(event("payment_intent.payment_failed", unpaid.intent_id)) is None
    for amount in (1000, 3500):
        with pytest.raises(OrgErased):
            await desk.events().react(paid)
        refund = await desk.gateway.create_refund(
            {"payment_intent": begun.intent_id, "amount": amount}, key=f"by hand {amount}"
        )
        assert await desk.events().react(event("refund.created", refund["id"])) is None
    assert await desk.events().react(paid) is None
    assert desk.book.rows == {}


async def test_a_price_that_changed_since_changes_no_sale(desk: Desk) -> None:
    begun = await desk.sold()
    dearer = parse(CATALOGUE.replace("4500", "5000"), "test.toml")
    settled = await CreditShop(desk.gateway, dearer, seals(), desk.book).confirm(an_org(), begun.intent_id)
    assert (settled.made, settled.sale) == (True, Sale("acme", 500, 4500, "usd"))


async def test_a_refund_takes_the_credits_that_the_money_bought(desk: Desk) -> None:
    begun = await desk.sold()
    await desk.confirm(begun)
    first = await desk.refund(begun, 900, "a")
    assert [(author.actor, author.reason) for author in desk.book.authors[-1:]] == [("ann", "asked")]
    assert (first.status, first.credits_removed, first.settled.balance) == ("succeeded", 100, 400)
    rest = await desk.refund(begun, None, "b")
    assert (rest.amount_minor, rest.credits_removed, rest.settled.balance) == (3600, 400, 0)
    assert (await desk.refund(begun, 900, "a")).refund_id == first.refund_id


@pytest.mark.parametrize("amount", [4501, 10**9])
async def test_more_than_was_paid_is_not_given_back(desk: Desk, amount: int) -> None:
    begun = await desk.sold()
    with pytest.raises(NotRefundable) as caught:
        await desk.refund(begun, amount)
    assert (caught.value.extra["left_minor"], desk.world.rows("refund")) == (4500, [])


async def test_what_was_not_paid_is_not_given_back(desk: Desk) -> None:
    with pytest.raises(NotRefundable):
        await desk.refund(await desk.begin())


@pytest.mark.parametrize(("negative", "balance"), [(False, 0), (True, -200)])
async def test_spent_credits_are_told_and_are_owed_only_where_so_asked(
    desk: Desk, negative: bool, balance: int
) -> None:
    begun = await desk.sold()
    await desk.confirm(begun)
    desk.row(begun).burned = 200
    done = await desk.refund(begun, negative=negative)
    assert (done.credits_removed, done.credits_spent, done.settled.balance) == (300, 200, balance)
    for one in await desk.told():  # events know of it, too
        await desk.events().react(one)
    assert await desk.book.balance("acme") == balance


async def test_a_refund_on_the_dashboard_takes_credits_by_its_events(desk: Desk) -> None:
    begun = await desk.sold()
    await desk.confirm(begun)
    await desk.world.say("POST", "/sandbox/refunds", payment_intent=begun.intent_id, amount=900)
    for one in await desk.told():
        await desk.events().react(one)
    assert (desk.row(begun).taken, await desk.book.balance("acme")) == (100, 400)


async def test_row_23_events_of_two_refunds_in_any_order_and_twice_take_each_once(desk: Desk) -> None:
    begun = await desk.sold()
    for amount in (900, 450):
        await desk.world.say("POST", "/sandbox/refunds", payment_intent=begun.intent_id, amount=amount)
    told = [one for one in await desk.told() if "refund" in one.type or one.type == "payment_intent.succeeded"]
    assert len(told) == 5
    for order in list(permutations(told))[::17]:
        desk.book.rows.clear()
        for one in (*order, *order[:2]):
            await desk.events().react(one)
        assert (desk.row(begun).taken, await desk.book.balance("acme")) == (150, 350)
        assert refunds_of(desk, begun) == Refunds("usd", 2, 1350, 0, 0)


async def test_row_23_a_refund_that_fails_gives_the_credits_back(desk: Desk) -> None:
    begun = await desk.sold("pm_card_refundFail")
    assert (await desk.refund(begun)).settled.balance == 0
    await desk.world.at(START_S + DAY_S)
    for one in await desk.told():
        await desk.events().react(one)
    assert await desk.book.balance("acme") == 500
    assert refunds_of(desk, begun) == Refunds("usd", 1, 4500, 1, 4500)


def test_refunds_are_counted_without_the_tax_in_them_and_all_of_them_as_the_price() -> None:
    taxed = Sale("acme", 500, 4500, "usd", tax_minor=855)
    for amounts, net in (((1,), 0), ((1000,), 840), ((1000, 1000), 1680), ((1000, 1000, 3355), 4500)):
        refunds = [{"amount": amount, "status": "succeeded"} for amount in amounts]
        assert counted(taxed, refunds) == Refunds("usd", len(amounts), net, 0, 0)


async def test_row_23_an_older_look_changes_nothing_that_a_newer_one_said(desk: Desk) -> None:
    begun = await desk.sold()
    held, seen = asyncio.Event(), asyncio.Event()

    class Slow(Lying):
        async def disputes(self, intent_id: str) -> list[StripeObject]:
            seen.set()
            await held.wait()
            return await desk.gateway.disputes(intent_id)

    slow: Any = Slow(desk.gateway)
    await desk.refund(begun, 900, "a")
    shop = CreditShop(slow, parse(CATALOGUE, "test.toml"), seals(), desk.book)
    older = asyncio.create_task(shop.look(begun.intent_id))
    await seen.wait()
    await desk.refund(begun, None, "b")
    held.set()
    await older
    assert (desk.row(begun).taken, await desk.book.balance("acme")) == (500, 0)


@pytest.mark.parametrize(("status", "balance"), [("won", 500), ("lost", 0)])
async def test_a_dispute_freezes_and_its_end_thaws_or_takes(desk: Desk, status: str, balance: int) -> None:
    begun = await desk.sold("pm_card_createDispute")
    await desk.confirm(begun)
    await desk.world.at(START_S + 1)
    for one in await desk.told():
        await desk.events().react(one)
    assert (desk.row(begun).frozen, await desk.book.balance("acme")) == (True, 0)
    with pytest.raises(NotRefundable, match="disputed"):
        await desk.refund(begun)
    await desk.world.say("POST", "/sandbox/disputes", payment_intent=begun.intent_id, status=status)
    for one in reversed(await desk.told()):
        await desk.events().react(one)
    assert (desk.row(begun).frozen, await desk.book.balance("acme")) == (False, balance)


async def test_stripe_away_is_told_as_that(desk: Desk) -> None:
    begun = await desk.sold()
    await desk.world.say("POST", "/sandbox/faults", kind="error_before", count=3)
    with pytest.raises(StripeUnavailable):
        await desk.confirm(begun)
    assert (await desk.confirm(begun)).made


async def test_an_answer_that_was_lost_begins_no_second_payment(desk: Desk) -> None:
    await desk.world.say("POST", "/sandbox/faults", kind="reset_after", path="/v1/payment_intents")
    await desk.begin(name="a")
    await desk.begin(name="a")
    assert len(desk.world.rows("payment_intent")) == 1


def test_credits_go_back_in_proportion_and_all_with_all_of_the_money() -> None:
    sale = Sale("acme", 500, 4500, "usd")
    assert [credits_back(sale, amount) for amount in (0, 8, 9, 900, 4499, 4500, 9000)] == [0, 0, 1, 100, 499, 500, 500]


def test_a_seal_holds_for_one_data_set_one_secret_and_every_part_of_a_sale() -> None:
    sale = Sale("acme", 500, 4500, "usd")
    others = [replace(sale, org_id="acm"), replace(sale, credits=501), replace(sale, amount_minor=450)]
    made = [seals().metadata(one)[SEAL_TAG] for one in (sale, replace(sale, currency="eur"), *others)]
    made += [seals("d2").metadata(sale)[SEAL_TAG], Seals("d1", b"t" * 32, livemode=False).metadata(sale)[SEAL_TAG]]
    assert len(set(made)) == len(made)
    assert seals().metadata(sale) == seals().metadata(sale)
