"""Payments, refunds, disputes and checkouts of one payment in the sandbox, through Stripe's own client."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe

from tests.support.sandbox_world import DAY_S, World, a_world, utc
from tests.support.scripted import scripted

START_S = utc(2026, 3, 17, 10, 30)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(START_S) as world:
        yield world


async def intent(world: World, **params: Any) -> Any:
    """A payment of 45 dollars."""
    known = {"amount": 4500, "currency": "usd", "metadata": {"org_id": "acme"}}
    return await world.v1.payment_intents.create_async({**known, **params})


async def paid(world: World, method: str = "pm_card_visa", **params: Any) -> Any:
    """The same, paid with a test method."""
    return await intent(world, confirm=True, payment_method=method, **params)


async def charge_of(world: World, payment: Any) -> Any:
    """The last charge of a payment."""
    now = await world.v1.payment_intents.retrieve_async(payment.id)
    return await world.v1.charges.retrieve_async(now.latest_charge)


async def test_a_payment_waits_for_a_method_and_is_paid_by_the_number_that_the_payer_types(world: World) -> None:
    made = await intent(world)
    assert (made.status, made.client_secret.startswith(f"{made.id}_secret_")) == ("requires_payment_method", True)
    assert "45.00 USD" in (await world.page("GET", f"{world.url}/pay/{made.id}"))[2]
    assert (await world.page("POST", f"{world.url}/pay/{made.id}", choice="4242 4242 4242 4242"))[0] == 303
    now = await world.v1.payment_intents.retrieve_async(made.id, {"expand": ["latest_charge"]})
    assert (now.status, now.amount_received, now.latest_charge.paid) == ("succeeded", 4500, True)
    assert now.latest_charge.metadata.to_dict() == {"org_id": "acme"}
    assert await world.events() == ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"]


async def test_a_declined_card_is_a_402_and_the_payment_waits_for_another_one(world: World) -> None:
    with pytest.raises(stripe.CardError) as caught:
        await paid(world, "pm_card_visa_chargeDeclined")
    assert (caught.value.http_status, caught.value.code) == (402, "card_declined")
    (kept,) = (await world.v1.payment_intents.list_async()).data
    assert (kept.status, kept.last_payment_error.code) == ("requires_payment_method", "card_declined")
    assert kept.last_payment_error.decline_code == "generic_decline"
    assert await world.events() == ["payment_intent.created", "charge.failed", "payment_intent.payment_failed"]
    done = await world.v1.payment_intents.confirm_async(kept.id, {"payment_method": "pm_card_visa"})
    assert (done.status, done.last_payment_error) == ("succeeded", None)
    with pytest.raises(stripe.InvalidRequestError):
        await world.v1.payment_intents.confirm_async(kept.id, {"payment_method": "pm_card_visa"})


async def test_the_answer_to_a_decline_is_kept_under_its_key(world: World) -> None:
    params = {
        "amount": 4500, "currency": "usd", "confirm": True, "payment_method": "pm_card_visa_chargeDeclined"
    }  # fmt: skip
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            await world.v1.payment_intents.create_async(params, {"idempotency_key": "k"})
    assert len(world.rows("payment_intent")) == 1


@pytest.mark.parametrize(("choice", "status"), [("yes", "succeeded"), ("no", "requires_payment_method")])
async def test_a_card_that_asks_waits_for_its_holder(world: World, choice: str, status: str) -> None:
    made = await paid(world, "pm_card_authenticationRequired")
    assert (made.status, made.next_action.type) == ("requires_action", "use_stripe_sdk")
    assert "It is me" in (await world.page("GET", f"{world.url}/pay/{made.id}"))[2]
    await world.page("POST", f"{world.url}/pay/{made.id}", choice=choice)
    assert (await world.v1.payment_intents.retrieve_async(made.id)).status == status


async def test_off_session_nobody_is_asked(world: World) -> None:
    customer = await world.customer("authentication_required")
    (saved,) = (await world.v1.customers.payment_methods.list_async(customer)).data
    with pytest.raises(stripe.CardError) as caught:
        await paid(world, saved.id, customer=customer, off_session=True)
    assert caught.value.code == "authentication_required"
    with pytest.raises(stripe.InvalidRequestError):
        await intent(world, off_session=True)


async def test_what_paid_is_saved_for_later_where_so_asked_and_pays_off_session(world: World) -> None:
    customer = await world.customer(None)
    await paid(world, customer=customer)
    assert (await world.v1.customers.payment_methods.list_async(customer)).data == []
    await paid(world, customer=customer, setup_future_usage="off_session")
    (saved,) = (await world.v1.customers.payment_methods.list_async(customer)).data
    again = await paid(world, saved.id, customer=customer, off_session=True)
    assert (again.status, saved.card.last4) == ("succeeded", "4242")
    with pytest.raises(stripe.InvalidRequestError):
        await paid(world, saved.id)
    await world.v1.payment_methods.detach_async(saved.id)
    assert (await world.v1.customers.payment_methods.list_async(customer)).data == []


@pytest.mark.parametrize(
    ("method", "status", "told"),
    [
        ("pm_usBankAccount_success", "succeeded", "payment_intent.succeeded"),
        ("pm_usBankAccount_accountClosed", "requires_payment_method", "payment_intent.payment_failed"),
    ],
)
async def test_a_slow_method_ends_some_days_later(world: World, method: str, status: str, told: str) -> None:
    made = await paid(world, method)
    assert (made.status, made.amount_received) == ("processing", 0)
    with pytest.raises(stripe.InvalidRequestError):
        await world.v1.payment_intents.cancel_async(made.id)
    await world.at(START_S + 4 * DAY_S)
    assert (await world.v1.payment_intents.retrieve_async(made.id)).status == status
    events = await world.events()
    assert events[:3] == ["payment_intent.created", "charge.pending", "payment_intent.processing"]
    assert events[-1] == told


async def test_a_payment_that_nobody_wants_is_cancelled_for_good(world: World) -> None:
    made = await intent(world)
    assert (await world.v1.payment_intents.cancel_async(made.id)).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError):
        await world.v1.payment_intents.confirm_async(made.id, {"payment_method": "pm_card_visa"})


@pytest.mark.parametrize(
    "params",
    [{"amount": 0}, {"amount": 45, "currency": "isk"}, {"customer": "cus_none"}, {"payment_method": "pm_none"}],
)
async def test_a_payment_that_cannot_be_is_refused(world: World, params: dict[str, Any]) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await intent(world, **params)
    assert world.rows("payment_intent") == []


async def test_refunds_add_up_and_never_pass_what_was_paid(world: World) -> None:
    payment = await paid(world)
    seen = []
    for amount in (900, 3600):
        refund = await world.v1.refunds.create_async({"payment_intent": payment.id, "amount": amount})
        charge = await charge_of(world, payment)
        seen.append((refund.status, charge.amount_refunded, charge.refunded))
    assert seen == [("succeeded", 900, False), ("succeeded", 4500, True)]
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await world.v1.refunds.create_async({"payment_intent": payment.id})
    assert caught.value.code == "charge_already_refunded"
    assert (await world.events())[-4:] == ["refund.created", "charge.refunded"] * 2
    assert len((await world.v1.refunds.list_async({"payment_intent": payment.id})).data) == 2


async def test_refunds_are_listed_the_newest_first(world: World) -> None:
    payment = await paid(world)
    made = []
    for amount in (900, 450):
        await world.at(world.now[0] + 1)
        made.append((await world.v1.refunds.create_async({"payment_intent": payment.id, "amount": amount})).id)
    listed = (await world.v1.refunds.list_async({"payment_intent": payment.id})).data
    assert [one.id for one in listed] == list(reversed(made))
    assert listed[0].created > listed[1].created


async def test_more_than_is_left_or_what_was_never_paid_is_not_refunded(world: World) -> None:
    payment = await paid(world)
    for params in ({"payment_intent": payment.id, "amount": 4501}, {"payment_intent": (await intent(world)).id}, {}):
        with pytest.raises(stripe.InvalidRequestError):
            await world.v1.refunds.create_async(params)
    assert (await charge_of(world, payment)).amount_refunded == 0


@pytest.mark.parametrize(
    ("method", "first", "last", "refunded"),
    [("pm_card_pendingRefund", "pending", "succeeded", 4500), ("pm_card_refundFail", "succeeded", "failed", 0)],
)
async def test_a_refund_may_take_a_day_or_fail_after_it(
    world: World, method: str, first: str, last: str, refunded: int
) -> None:
    payment = await paid(world, method)
    made = await world.v1.refunds.create_async({"payment_intent": payment.id})
    assert (made.status, (await charge_of(world, payment)).amount_refunded) == (first, 4500)
    await world.at(START_S + DAY_S)
    assert (await world.v1.refunds.retrieve_async(made.id)).status == last
    assert (await charge_of(world, payment)).amount_refunded == refunded
    told = [name for name in await world.events() if name.startswith("refund.")]
    assert told == ["refund.created", "refund.updated"] + ["refund.failed"] * (last == "failed")


@pytest.mark.parametrize(("word", "status"), [("winning_evidence", "won"), ("losing_evidence", "lost")])
async def test_evidence_ends_a_dispute(world: World, word: str, status: str) -> None:
    payment = await paid(world, "pm_card_createDispute")
    await world.at(START_S + 1)
    (dispute,) = (await world.v1.disputes.list_async({"payment_intent": payment.id})).data
    assert (dispute.status, (await charge_of(world, payment)).disputed) == ("needs_response", True)
    with pytest.raises(stripe.InvalidRequestError):
        await world.v1.refunds.create_async({"payment_intent": payment.id})
    ended = await world.v1.disputes.update_async(dispute.id, {"evidence": {"uncategorized_text": word}})
    assert (ended.status, ended.is_charge_refundable) == (status, status == "won")
    with pytest.raises(stripe.InvalidRequestError):
        await world.v1.disputes.close_async(dispute.id)
    back = ["charge.dispute.funds_reinstated"] if status == "won" else []
    begun = ["charge.dispute.created", "charge.dispute.funds_withdrawn"]
    events = [name for name in await world.events() if "dispute" in name]
    assert events == [*begun, *back, "charge.dispute.updated", "charge.dispute.closed"]


async def test_people_pay_refund_and_dispute_beside_the_api(world: World) -> None:
    made = await intent(world)
    said = await world.say("POST", "/sandbox/payments", payment_intent=made.id, method="4242424242424242")
    assert said["status"] == "succeeded"
    refund = await world.say("POST", "/sandbox/refunds", payment_intent=made.id, amount=100)
    assert refund["status"] == "succeeded"
    assert (await world.say("POST", "/sandbox/disputes", payment_intent=made.id))["status"] == "needs_response"
    assert (await world.say("POST", "/sandbox/disputes", payment_intent=made.id, status="lost"))["status"] == "lost"
    assert len((await world.say("GET", "/sandbox/audit"))["payments"]) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("payments", {"payment_intent": "pi_none", "method": "4242424242424242"}),
        ("payments", {"method": "4242424242424242"}),
        ("refunds", {"payment_intent": "pi_none"}),
        ("disputes", {"payment_intent": "pi_none"}),
    ],
)
async def test_what_people_do_to_a_payment_that_there_is_not_is_refused(
    world: World, path: str, body: dict[str, Any]
) -> None:
    async with world.http.post(f"{world.url}/sandbox/{path}", json=body) as answer:
        assert answer.status == 400


async def checkout(world: World, **params: Any) -> Any:
    """A session for a pack of credits, whose price is made for it."""
    price = {"currency": "usd", "unit_amount": 4500, "product_data": {"name": "500 credits"}}
    known = {
        "mode": "payment",
        "client_reference_id": "acme",
        "line_items": [{"price_data": price, "quantity": 1}],
        "payment_intent_data": {"metadata": {"org_id": "acme"}, "setup_future_usage": "off_session"},
        "metadata": {"org_id": "acme"},
        "success_url": "http://127.0.0.1:1/done",
        "cancel_url": "http://127.0.0.1:1/back",
    }
    return await world.v1.checkout.sessions.create_async({**known, **params})


async def test_a_checkout_of_one_payment_leads_to_a_payment_with_its_metadata(world: World) -> None:
    session = await checkout(world, customer=await world.customer(None))
    assert (session.amount_total, session.payment_intent) == (4500, None)
    assert "500 credits" in (await world.page("GET", session.url))[2]
    assert (await world.page("POST", session.url, choice="pm_card_visa_chargeDeclined"))[0] == 402
    assert (await world.page("POST", session.url, choice="gold"))[0] == 400
    assert (await world.page("POST", session.url, choice="pm_card_visa"))[:2] == (303, "http://127.0.0.1:1/done")
    done = await world.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["payment_intent"]})
    assert (done.status, done.payment_status, done.payment_intent.amount) == ("complete", "paid", 4500)
    assert done.payment_intent.metadata.to_dict() == {"org_id": "acme"}
    assert (await world.events())[-1] == "checkout.session.completed"


@pytest.mark.parametrize(
    ("method", "told", "status"),
    [
        ("pm_usBankAccount_success", "checkout.session.async_payment_succeeded", "paid"),
        ("pm_usBankAccount_accountClosed", "checkout.session.async_payment_failed", "unpaid"),
    ],
)
async def test_a_checkout_with_a_slow_method_is_complete_and_not_paid_until_it_is_told_so(
    world: World, method: str, told: str, status: str
) -> None:
    session = await checkout(world)
    await world.page("POST", session.url, choice=method)
    done = await world.v1.checkout.sessions.retrieve_async(session.id)
    assert (done.status, done.payment_status) == ("complete", "unpaid")
    await world.at(START_S + 4 * DAY_S)
    assert (await world.v1.checkout.sessions.retrieve_async(session.id)).payment_status == status
    assert (await world.events())[-1] == told


@pytest.mark.parametrize(
    "params",
    [
        {"subscription_data": {"metadata": {"a": "b"}}},
        {"line_items": [{"quantity": 1}]},
        {"line_items": [{"price_data": {"currency": "usd", "unit_amount": 1, "product_data": {"name": "a"}}}]},
    ],
)
async def test_a_checkout_of_one_payment_that_cannot_be_is_refused(world: World, params: dict[str, Any]) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await checkout(world, **params)


async def test_what_becomes_of_payments_is_sent_to_the_endpoints(world: World) -> None:
    async with scripted() as receiver:
        receiver.answer({})
        await world.endpoint(receiver, "payment_intent.succeeded", "charge.refunded", "refund.created")
        payment = await paid(world)
        await world.v1.refunds.create_async({"payment_intent": payment.id})
        await world.say("POST", "/sandbox/run")
        types = [json.loads(request.body)["type"] for request in receiver.requests]
    assert types == ["payment_intent.succeeded", "refund.created", "charge.refunded"]
