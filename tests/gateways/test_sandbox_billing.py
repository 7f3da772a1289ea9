"""What the sandbox bills, period by period, spoken to through Stripe's own client."""

from collections.abc import AsyncIterator

import pytest
import stripe

from tests.support.sandbox_world import DAY_S, HOUR_S, World, a_world, sums, utc

START_S = utc(2026, 3, 17, 10, 30)
END_S = utc(2026, 4, 17, 10, 30)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(START_S) as world:
        await world.plan()
        yield world


async def test_the_first_invoice_is_of_the_licensed_item_alone_and_paid_at_once(world: World) -> None:
    customer = await world.customer()
    subscription = await world.subscribe(customer, "base", "over")
    assert subscription.status == "active"
    periods = {(item.current_period_start, item.current_period_end) for item in subscription["items"].data}
    assert periods == {(START_S, END_S)}
    (invoice,) = await world.invoices(customer)
    assert (invoice.status, invoice.billing_reason, invoice.total) == ("paid", "subscription_create", 2900)
    assert invoice.parent.subscription_details.subscription == subscription.id
    assert invoice.lines.data[0].pricing.price_details.price == world.prices["base"]


async def test_a_renewal_bills_the_period_to_come_and_the_usage_of_the_one_that_is_over(world: World) -> None:
    customer = await world.customer()
    subscription = await world.subscribe(customer, "base", "over")
    await world.use(customer, 25)
    await world.at(END_S - 1)
    await world.use(customer, 10)
    await world.use(customer, 1000, END_S)
    await world.at(END_S)
    draft = (await world.invoices(customer))[-1]
    assert (draft.status, draft.billing_reason) == ("draft", "subscription_cycle")
    assert draft.automatically_finalizes_at == END_S + HOUR_S
    await world.at(END_S + HOUR_S)
    invoice = (await world.invoices(customer))[-1]
    assert (invoice.id, invoice.status) == (draft.id, "paid")
    assert sums(invoice) == [(1, 2900), (35, 25)]  # 24.5 cents are rounded up
    usage = invoice.lines.data[1]
    assert (usage.period.start, usage.period.end) == (START_S, END_S)
    assert usage.parent.subscription_item_details.subscription == subscription.id
    now = await world.subscription(subscription.id)
    assert now["items"].data[0].current_period_start == END_S
    assert now.latest_invoice == invoice.id


async def test_usage_that_comes_while_the_invoice_is_a_draft_is_on_it(world: World) -> None:
    customer = await world.customer()
    await world.subscribe(customer, "over")
    await world.at(END_S + HOUR_S - 1)
    await world.use(customer, 100, END_S - 1)
    assert sums((await world.invoices(customer))[-1]) == [(100, 70)]
    await world.at(END_S + HOUR_S)
    assert (await world.invoices(customer))[-1].amount_paid == 70


async def test_usage_that_comes_after_the_invoice_is_final_is_on_none(world: World) -> None:
    customer = await world.customer()
    await world.subscribe(customer, "over")
    await world.at(END_S + HOUR_S)
    await world.use(customer, 100, END_S - 1)
    await world.at(utc(2026, 5, 17, 12))
    assert [invoice.total for invoice in await world.invoices(customer)] == [0, 0, 0]


async def test_a_cancelled_subscription_drops_its_usage_unless_it_is_billed_now(world: World) -> None:
    totals = {}
    for invoice_now in (False, True):
        customer = await world.customer()
        subscription = await world.subscribe(customer, "base", "over")
        await world.use(customer, 200)
        await world.at(world.now[0] + DAY_S)
        ended = await world.v1.subscriptions.cancel_async(subscription.id, {"invoice_now": invoice_now})
        assert (ended.status, ended.ended_at) == ("canceled", world.now[0])
        totals[invoice_now] = [(one.status, one.total) for one in await world.invoices(customer)]
    assert totals == {False: [("paid", 2900)], True: [("paid", 2900), ("paid", 140)]}
    await world.at(utc(2026, 6, 1))
    assert len(world.rows("invoice")) == 3


async def test_one_that_stops_with_its_period_bills_its_last_usage(world: World) -> None:
    customer = await world.customer()
    subscription = await world.subscribe(customer, "base", "over")
    changed = await world.v1.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})
    assert (changed.status, changed.cancel_at) == ("active", END_S)
    await world.use(customer, 200)
    await world.at(END_S + HOUR_S)
    assert (await world.subscription(subscription.id)).status == "canceled"
    assert [one.total for one in await world.invoices(customer)] == [2900, 140]


async def test_a_declined_renewal_is_tried_again_until_it_is_paid(world: World) -> None:
    customer = await world.customer()
    subscription = await world.subscribe(customer, "base")
    await world.say("POST", "/sandbox/cards", customer=customer, card="decline")
    await world.at(END_S + HOUR_S)
    invoice = (await world.invoices(customer))[-1]
    assert (invoice.status, invoice.attempt_count) == ("open", 1)
    assert invoice.next_payment_attempt == END_S + HOUR_S + 2 * DAY_S
    assert (await world.subscription(subscription.id)).status == "past_due"
    await world.say("POST", "/sandbox/cards", customer=customer, card="succeed")
    await world.at(END_S + HOUR_S + 2 * DAY_S)
    invoice = (await world.invoices(customer))[-1]
    assert (invoice.status, invoice.attempt_count, invoice.amount_remaining) == ("paid", 2, 0)
    assert (await world.subscription(subscription.id)).status == "active"
    told = await world.events()
    assert [kind for kind in told if kind.startswith("invoice.p")][-3:] == [
        "invoice.payment_failed",
        "invoice.paid",
        "invoice.payment_succeeded",
    ]


@pytest.mark.parametrize(("setting", "status"), [(None, "canceled"), ("unpaid", "unpaid")])
async def test_after_four_declined_attempts_the_subscription_is_given_up(
    world: World, setting: str | None, status: str
) -> None:
    if setting:
        world.sandbox.db.put("sandbox.setting", {"id": "after_retries", "value": setting})
    customer = await world.customer()
    subscription = await world.subscribe(customer, "base")
    await world.say("POST", "/sandbox/cards", customer=customer, card="decline")
    await world.at(END_S + HOUR_S + 11 * DAY_S)
    assert (await world.subscription(subscription.id)).status == status
    invoice = (await world.invoices(customer))[-1]
    assert (invoice.status, invoice.attempt_count, invoice.next_payment_attempt) == ("open", 4, None)


async def test_periods_of_an_anchor_on_the_31st_come_back_to_it() -> None:
    async with a_world(utc(2026, 1, 31, 10)) as world:
        await world.plan()
        customer = await world.customer()
        subscription = await world.subscribe(customer, "base", "over")
        ends = []
        for _ in range(4):
            end = (await world.subscription(subscription.id))["items"].data[1].current_period_end
            ends.append(end)
            await world.at(end)
        assert ends == [utc(2026, month, day, 10) for month, day in ((2, 28), (3, 31), (4, 30), (5, 31))]


async def test_a_yearly_base_and_monthly_usage_have_periods_of_their_own(world: World) -> None:
    await world.price("year", unit_amount=29_000, recurring={"interval": "year"})
    customer = await world.customer()
    subscription = await world.subscribe(customer, "year", "over")
    ends = [item.current_period_end for item in subscription["items"].data]
    assert ends == [utc(2027, 3, 17, 10, 30), END_S]
    await world.use(customer, 1000)
    await world.at(END_S + HOUR_S)
    assert [sums(one) for one in await world.invoices(customer)] == [[(1, 29_000)], [(1000, 700)]]
    await world.at(utc(2027, 3, 17, 11, 30))
    assert sums((await world.invoices(customer))[-1]) == [(1, 29_000)]
    assert len(await world.invoices(customer)) == 13


async def test_invoice_items_wait_for_the_next_invoice(world: World) -> None:
    customer = await world.customer()
    await world.subscribe(customer, "base")
    params = {"customer": customer, "amount": 123, "currency": "usd", "metadata": {"window": "w1"}}
    item = await world.v1.invoice_items.create_async(params)
    assert item.invoice is None
    await world.at(END_S + HOUR_S)
    invoice = (await world.invoices(customer))[-1]
    assert (invoice.total, invoice.status) == (3023, "paid")
    line = next(one for one in invoice.lines.data if one.metadata.to_dict() == {"window": "w1"})
    assert line.parent.invoice_item_details.invoice_item == item.id
    (listed,) = (await world.v1.invoice_items.list_async({"customer": customer})).data
    assert listed.invoice == invoice.id


async def test_a_swap_of_the_base_price_leaves_period_and_usage_alone(world: World) -> None:
    await world.price("big", unit_amount=9900)
    customer = await world.customer()
    subscription = await world.subscribe(customer, "base", "over")
    await world.use(customer, 1000)
    await world.at(START_S + (END_S - START_S) // 2)
    change = {"items": [{"id": subscription["items"].data[0].id, "price": world.prices["big"]}]}
    changed = await world.v1.subscriptions.update_async(subscription.id, {**change, "proration_behavior": "none"})
    assert changed["items"].data[0].price.id == world.prices["big"]
    assert changed["items"].data[0].current_period_end == END_S
    await world.at(END_S + HOUR_S)
    assert sums((await world.invoices(customer))[-1]) == [(1, 9900), (1000, 700)]


async def test_a_swap_gives_back_the_old_price_and_asks_for_the_new_to_the_second(world: World) -> None:
    await world.price("big", unit_amount=9900)
    customer = await world.customer()
    subscription = await world.subscribe(customer, "base")
    await world.at(START_S + (END_S - START_S) // 2)
    change = {"items": [{"id": subscription["items"].data[0].id, "price": world.prices["big"]}]}
    await world.v1.subscriptions.update_async(subscription.id, {**change, "proration_behavior": "always_invoice"})
    invoice = (await world.invoices(customer))[-1]
    assert (invoice.billing_reason, invoice.status) == ("subscription_update", "paid")
    assert [line.amount for line in invoice.lines.data] == [-1450, 4950]


async def test_a_first_period_that_is_cut_short_costs_its_share(world: World) -> None:
    customer = await world.customer()
    config = {"day_of_month": 1, "hour": 0, "minute": 0, "second": 0}
    subscription = await world.subscribe(customer, "base", "over", billing_cycle_anchor_config=config)
    assert subscription["items"].data[1].current_period_end == utc(2026, 4, 1)
    (invoice,) = await world.invoices(customer)
    whole, some = utc(2026, 4, 1) - utc(2026, 3, 1), utc(2026, 4, 1) - START_S
    assert invoice.total == (2 * 2900 * some + whole) // (2 * whole)
    await world.at(utc(2026, 4, 1))
    assert (await world.subscription(subscription.id))["items"].data[1].current_period_end == utc(2026, 5, 1)


async def test_without_a_card_there_is_no_subscription(world: World) -> None:
    customer = await world.customer(card=None)
    with pytest.raises(stripe.InvalidRequestError):
        await world.subscribe(customer, "base")
    assert world.rows("subscription") == []


async def test_a_first_payment_that_fails_leaves_it_incomplete_until_it_lapses(world: World) -> None:
    customer = await world.customer(card="decline")
    subscription = await world.subscribe(customer, "base")
    assert subscription.status == "incomplete"
    await world.at(START_S + 23 * HOUR_S)
    assert (await world.subscription(subscription.id)).status == "incomplete_expired"
    assert [one.status for one in await world.invoices(customer)] == ["void"]
    with pytest.raises(stripe.CardError):
        await world.subscribe(customer, "base", payment_behavior="error_if_incomplete")
    assert len(world.rows("subscription")) == 1


async def test_an_invoice_is_paid_voided_or_given_up_by_hand(world: World) -> None:
    statuses = []
    for verb in ("pay_async", "void_invoice_async", "mark_uncollectible_async"):
        customer = await world.customer(card="decline")
        await world.subscribe(customer, "base")
        (invoice,) = await world.invoices(customer)
        await world.say("POST", "/sandbox/cards", customer=customer, card="succeed")
        statuses.append((await getattr(world.v1.invoices, verb)(invoice.id)).status)
    assert statuses == ["paid", "void", "uncollectible"]


async def test_the_next_invoice_can_be_looked_at(world: World) -> None:
    customer = await world.customer()
    subscription = await world.subscribe(customer, "base", "over")
    await world.use(customer, 100)
    found = await world.v1.invoices.create_preview_async({"customer": customer, "subscription": subscription.id})
    assert (sums(found), found.billing_reason) == ([(1, 2900), (100, 70)], "upcoming")
    assert len(await world.invoices(customer)) == 1


async def test_a_change_is_looked_at_without_a_trace_and_what_is_too_much_paid_is_credit(world: World) -> None:
    await world.price("large", unit_amount=9000)
    subscription = await world.subscribe(customer := await world.customer(), "large")
    await world.at(START_S + 15 * DAY_S + DAY_S // 2)
    items = [{"id": subscription["items"].data[0].id, "price": world.prices["base"]}]
    before = [world.rows(kind) for kind in ("subscription", "invoiceitem", "invoice", "event")]
    looks = [
        await world.v1.invoices.create_preview_async(
            {"subscription": subscription.id, "subscription_details": {"items": items, "proration_behavior": behavior}}
        )
        for behavior in ("always_invoice", "create_prorations", "none")
    ]
    assert [world.rows(kind) for kind in ("subscription", "invoiceitem", "invoice", "event")] == before
    assert [(look.total, look.amount_due) for look in looks] == [(-3050, 0), (-150, 0), (2900, 2900)]
    await world.v1.subscriptions.update_async(subscription.id, {"items": items, "proration_behavior": "always_invoice"})
    (bill,) = [one for one in await world.invoices(customer) if one.billing_reason == "subscription_update"]
    assert (bill.total, bill.amount_due, bill.ending_balance, bill.status) == (-3050, 0, -3050, "paid")
    assert (await world.v1.customers.retrieve_async(customer)).balance == -3050
    told = []
    for _ in range(2):
        (row,) = world.rows("subscription")
        await world.at(row["items"]["data"][0]["current_period_end"] + HOUR_S)
        last = (await world.invoices(customer))[-1]
        told.append((last.total, last.starting_balance, last.amount_due, last.ending_balance, last.status))
    assert told == [(2900, -3050, 0, -150, "paid"), (2900, -150, 2750, 0, "paid")]


async def test_a_change_that_would_wait_for_its_payment_is_not_built(world: World) -> None:
    customer, large = await world.customer(), await world.price("large", unit_amount=9000)
    subscription = await world.subscribe(customer, "base")
    await world.say("POST", "/sandbox/cards", customer=customer, card="decline")
    items = [{"id": subscription["items"].data[0].id, "price": large}]
    params = {"items": items, "proration_behavior": "always_invoice", "payment_behavior": "pending_if_incomplete"}
    with pytest.raises(stripe.APIError) as raised:
        await world.v1.subscriptions.update_async(subscription.id, params)
    assert (raised.value.http_status, (await world.subscription(subscription.id)).status) == (501, "active")
    await world.v1.subscriptions.update_async(subscription.id, {**params, "payment_behavior": "allow_incomplete"})
    assert (await world.subscription(subscription.id)).status == "past_due"


@pytest.mark.parametrize(
    "params",
    [
        {"trial_period_days": 3},
        {"collection_method": "send_invoice"},
        {"items": [{"price": "base", "discounts": [{"coupon": "x"}]}]},
        {"billing_mode": {"type": "classic"}},
    ],
)
async def test_what_is_not_built_is_said_to_be_so(world: World, params: dict[str, object]) -> None:
    customer = await world.customer()
    known = {"customer": customer, "items": [{"price": world.prices["base"]}]}
    with pytest.raises(stripe.APIError) as raised:
        await world.v1.subscriptions.create_async({**known, **params})
    assert raised.value.http_status == 501


async def test_a_metered_item_has_no_quantity(world: World) -> None:
    customer = await world.customer()
    params = {"customer": customer, "items": [{"price": world.prices["over"], "quantity": 1}]}
    with pytest.raises(stripe.InvalidRequestError, match="quantity"):
        await world.v1.subscriptions.create_async(params)


async def test_a_deleted_customer_has_no_subscription_and_no_invoice_any_more(world: World) -> None:
    customer = await world.customer()
    subscription = await world.subscribe(customer, "base", "over")
    await world.use(customer, 1000)
    await world.v1.customers.delete_async(customer)
    assert (await world.subscription(subscription.id)).status == "canceled"
    await world.at(utc(2026, 6, 1))
    assert [row["total"] for row in world.rows("invoice")] == [2900]
