"""Refunds of credits: each once and for what it is, whatever else is given back, disputed or lost meanwhile."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from metering.billing.checkout import Order
from metering.billing.credits import CreditShop
from metering.billing.gateway import StripeObject
from metering.billing.sales import reversal_of
from metering.errors import StripeUnavailable, TooManyGrants
from metering.payment_errors import NotRefundable, PaymentNotFound, RefundConflict
from metering.store.grants import Causes
from plans.catalogue import parse
from tests.billing.credit_desk import CATALOGUE, START_S, Desk, Lying, an_org, desk, seals
from tests.support.sandbox_world import DAY_S

__all__ = ["desk"]

REFUNDS = "/v1/refunds"
TRIES = 3
"""Of the client, under one key."""


async def test_of_two_refunds_at_once_of_all_one_is_made_and_the_other_told_that_nothing_is_left(desk: Desk) -> None:
    begun = await desk.sold()
    found = await asyncio.gather(*(desk.refund(begun, 3000, name) for name in "ab"), return_exceptions=True)
    refused = [one for one in found if isinstance(one, BaseException)]
    assert [type(one) for one in refused] == [NotRefundable]
    assert getattr(refused[0], "extra", {})["left_minor"] == 1500
    assert (len(desk.world.rows("refund")), desk.row(begun).taken) == (1, 333)


async def test_two_partial_refunds_at_once_take_the_credits_of_each_once(desk: Desk) -> None:
    begun = await desk.sold()
    await desk.confirm(begun)
    done = await asyncio.gather(*(desk.refund(begun, amount, str(amount)) for amount in (900, 450)))
    assert [(one.credits_removed, one.credits_spent) for one in done] == [(100, 0), (50, 0)]
    assert await desk.book.balance("acme") == 350


async def test_a_refund_on_the_dashboard_while_ours_runs_is_taken_beside_it(desk: Desk) -> None:
    begun = await desk.sold()

    class Beside(Lying):
        async def create_refund(self, params: Any, *, key: str) -> StripeObject:
            await desk.world.say("POST", "/sandbox/refunds", payment_intent=begun.intent_id, amount=900)
            return await desk.gateway.create_refund(params, key=key)

    beside: Any = Beside(desk.gateway)
    desk.shop = CreditShop(beside, parse(CATALOGUE, "test.toml"), seals(), desk.book)
    done = await desk.refund(begun, 450)
    assert (done.amount_minor, done.credits_removed, done.settled.balance) == (450, 50, 350)


async def test_an_id_is_of_one_refund_and_of_one_amount(desk: Desk) -> None:
    begun = await desk.sold()
    first = await desk.refund(begun, 900, "a")
    with pytest.raises(RefundConflict) as caught:
        await desk.refund(begun, 901, "a")
    assert caught.value.extra == {"amount": 900, "refund_id": first.refund_id}
    assert (await desk.refund(begun, None, "a")).refund_id == first.refund_id
    assert len(desk.world.rows("refund")) == 1


@pytest.mark.parametrize("kind", ["error_before", "error_after"])
async def test_row_4_a_refund_whose_500_stripe_keeps_is_made_once_all_the_same(desk: Desk, kind: str) -> None:
    begun = await desk.sold()
    await desk.world.say("POST", "/sandbox/faults", kind=kind, path=REFUNDS, method="POST")
    done = await desk.refund(begun, 900, "a")
    assert (done.credits_removed, len(desk.world.rows("refund"))) == (100, 1)


@pytest.mark.parametrize(("kind", "count"), [("html", TRIES), ("reset_after", 1), ("reset_before", TRIES)])
async def test_a_refund_that_may_still_be_at_work_is_asked_for_under_the_same_key_alone(
    desk: Desk, kind: str, count: int
) -> None:
    begun = await desk.sold()
    await desk.world.say("POST", "/sandbox/faults", kind=kind, path=REFUNDS, method="POST", count=count)
    with suppress(StripeUnavailable):  # the client asks again by itself
        await desk.refund(begun, 900, "a")
    assert (await desk.refund(begun, 900, "a")).credits_removed == 100
    assert len(desk.world.rows("refund")) == 1


async def test_a_payment_whose_500_stripe_keeps_can_be_begun_again(desk: Desk) -> None:
    await desk.world.say("POST", "/sandbox/faults", kind="error_before", path="/v1/payment_intents")
    assert (await desk.begin(name="a")).intent_id == (await desk.begin(name="a")).intent_id


async def test_spent_credits_are_owed_for_the_refund_that_said_so_alone(desk: Desk) -> None:
    begun = await desk.sold()
    await desk.confirm(begun)
    desk.row(begun).burned = 500
    first = await desk.refund(begun, 900, "a")
    assert (first.credits_removed, first.credits_spent, first.settled.balance) == (0, 100, 0)
    second = await desk.refund(begun, 450, "b", negative=True)
    assert (second.credits_removed, second.credits_spent, second.settled.balance) == (0, 50, -50)


async def test_somebody_elses_payment_is_neither_told_of_nor_looked_after(desk: Desk) -> None:
    begun = await desk.sold()
    with pytest.raises(PaymentNotFound):
        await desk.confirm(begun, "other")
    assert desk.book.rows == {}


async def test_credits_whose_money_is_gone_before_anybody_heard_of_them_never_burn(desk: Desk) -> None:
    begun = await desk.sold()
    await desk.world.say("POST", "/sandbox/refunds", payment_intent=begun.intent_id, amount=900)
    assert (await desk.confirm(begun)).balance == 400
    assert (desk.row(begun).held, desk.row(begun).frozen) == (True, False)


async def test_who_has_as_many_grants_as_may_be_begins_no_payment_and_what_was_begun_is_credited(desk: Desk) -> None:
    begun = await desk.sold()
    desk.book.full = True
    with pytest.raises(TooManyGrants):
        await desk.begin(name="b")
    with pytest.raises(TooManyGrants):
        await desk.shop.checkout(an_org(), 500, Order("", "https://a.example", "https://a.example", "c"))
    assert (len(desk.world.rows("payment_intent")), (await desk.confirm(begun)).balance) == (1, 500)


async def test_what_took_credits_is_named_by_what_stripe_calls_it(desk: Desk) -> None:
    begun = await desk.sold("pm_card_refundFail")
    first = await desk.refund(begun, 900, "a")
    second = await desk.refund(begun, 450, "b")
    gone = desk.row(begun).gone
    assert gone is not None
    assert gone.causes == Causes(taken=second.refund_id)
    await desk.world.at(START_S + DAY_S)  # both come back
    await desk.shop.look(begun.intent_id)
    gone = desk.row(begun).gone
    assert gone is not None
    assert (gone.causes.restored in {first.refund_id, second.refund_id}, gone.causes.taken) == (True, None)


@pytest.mark.parametrize(
    ("status", "moved", "gone", "held"),
    [
        ("prevented", [-4500], 4500, False), ("prevented", [], 0, False), ("prevented", [-4500, 4500], 0, False),
        ("lost", [], 4500, False), ("won", [-4500, 4500], 0, False), ("needs_response", [-4500], 0, True),
        ("warning_needs_response", [], 0, False), ("appeal_under_review", [-4500], 0, True),
        ("a status to come", [], 0, False),
    ],
)  # fmt: skip
def test_a_dispute_is_lost_where_its_money_is_gone(status: str, moved: list[int], gone: int, held: bool) -> None:
    entries = [{"amount": amount} for amount in moved]
    found = reversal_of([], [{"id": "du_1", "status": status, "amount": 4500, "balance_transactions": entries}])
    assert (found.amount_minor, found.held) == (gone, held)
