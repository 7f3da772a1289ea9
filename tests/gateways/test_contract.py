"""The rules of docs/stripe-contract.md, as Stripe keeps them: on the sandbox always, on a real account with a key.

With STRIPE_TEST_KEY set to a test key, each test of the first part runs a second time, unchanged, against that account.
The second part needs things to go wrong, or time to pass: that only the sandbox does on demand.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from stripe import InvalidRequestError

from metering.billing.errors import Barred, Declined, Duplicate, KeyReused, NotThere, Refused, Unknown
from metering.billing.gateway import MeterEvent
from metering.billing.gateways import verbs
from metering.billing.gateways.live import LiveGateway
from metering.clock import HandClock
from tests.support.sandbox_world import DAY_S, HOUR_S, World, a_world, utc
from tests.support.stripe_party import KEY, Party, key_of, stranger, the_account, the_sandbox
from tests.support.wait import await_until

ACCOUNT = key_of(os.environ)


@pytest.fixture(params=["sandbox", "account"] if ACCOUNT else ["sandbox"])
async def stripe(request: pytest.FixtureRequest) -> AsyncIterator[Party]:
    """Stripe, or its stand-in."""
    async with the_account(ACCOUNT) if ACCOUNT and request.param == "account" else the_sandbox() as party:
        yield party


@pytest.mark.parametrize("key", ["sk_live_1", "rk_live_1", "pk_test_1", "anything"])
def test_only_a_test_key_runs_these_tests(key: str) -> None:
    with pytest.raises(ValueError, match=KEY):
        key_of({KEY: key})
    assert [key_of({KEY: good}) for good in ("sk_test_1", "rk_test_1", "sk_sandbox_1")]
    assert key_of({}) is key_of({KEY: ""}) is None


# Usage


async def test_m1_an_identifier_counts_once_and_its_repeat_says_so(stripe: Party) -> None:
    meter, customer = await stripe.meter(), await stripe.customer()
    event = await stripe.send(meter, customer, 7)
    for attempt in (2, 3):
        with pytest.raises(Duplicate):
            await stripe.gateway.send_meter_event(event, attempt=attempt)
    await stripe.sums_to(meter, customer, 7)


async def test_m2_an_event_is_taken_35_days_back_and_5_minutes_ahead(stripe: Party) -> None:
    meter, customer = await stripe.meter(), await stripe.customer()
    for good_s in (-34 * DAY_S, 4 * 60):
        await stripe.send(meter, customer, at_s=stripe.now_s() + good_s)
    for bad_s in (-36 * DAY_S, 6 * 60):
        with pytest.raises(Refused) as caught:
            await stripe.send(meter, customer, at_s=stripe.now_s() + bad_s)
        assert not isinstance(caught.value, Duplicate)
    params = {"event_name": meter["event_name"], "payload": {"stripe_customer_id": customer, "value": "1"}}
    untimed = await stripe.v1.billing.meter_events.create_async(params)
    assert abs(untimed.timestamp - stripe.now_s()) <= 60


async def test_m3_a_value_is_a_whole_number_of_at_most_15_digits(stripe: Party) -> None:
    meter, customer = await stripe.meter(), await stripe.customer()
    await stripe.send(meter, customer, 10**15 - 1)
    for units in (10**15, 1.5):
        with pytest.raises(Refused):
            await stripe.send(meter, customer, units)  # type: ignore[arg-type]


async def test_m4_customer_and_value_stand_under_the_usual_names_unless_the_meter_says_otherwise(stripe: Party) -> None:
    usual, customer = await stripe.meter(), await stripe.customer()
    await stripe.send(usual, customer, 3)
    await stripe.sums_to(usual, customer, 3)
    mapping = {"type": "by_id", "event_payload_key": "who"}
    other = await stripe.meter(customer_mapping=mapping, value_settings={"event_payload_key": "many"})
    keys = [(m["customer_mapping"]["event_payload_key"], m["value_settings"]["event_payload_key"])
            for m in (usual, other)]  # fmt: skip
    assert keys == [("stripe_customer_id", "value"), ("who", "many")]


async def test_m5_summaries_are_asked_for_at_whole_minutes_and_leave_out_their_end(stripe: Party) -> None:
    meter, customer = await stripe.meter(), await stripe.customer()
    minute = stripe.now_s() // 60 * 60 - 60
    for at_s, units in ((minute - 1, 1), (minute, 10), (minute + 59, 100), (minute + 60, 1000)):
        await stripe.send(meter, customer, units, at_s)
    await stripe.sums_to(meter, customer, 1111)
    assert await stripe.gateway.meter_usage(meter["id"], customer, minute, minute + 60) == 110
    for start_s, end_s in ((minute + 1, minute + 60), (minute, minute + 59)):
        with pytest.raises(Refused):
            await stripe.gateway.meter_usage(meter["id"], customer, start_s, end_s)


async def test_m8_a_metered_price_needs_a_meter(stripe: Party) -> None:
    with pytest.raises(Refused):
        await stripe.price(unit_amount=25, recurring={"interval": "month", "usage_type": "metered"})
    assert (await stripe.overage(await stripe.meter()))["recurring"]["usage_type"] == "metered"


# Calls


async def test_a1_the_same_key_with_the_same_parameters_is_given_the_same_answer(stripe: Party) -> None:
    key = stripe.new()
    first, second = [await stripe.gateway.create_product({"name": stripe.name}, key=key) for _ in range(2)]
    stripe.tidy.push_async_callback(stripe.v1.products.update_async, first["id"], {"active": False})
    assert first == second


async def test_a2_the_same_key_with_other_parameters_is_refused(stripe: Party) -> None:
    key = stripe.new()
    made = await stripe.gateway.create_product({"name": stripe.name}, key=key)
    stripe.tidy.push_async_callback(stripe.v1.products.update_async, made["id"], {"active": False})
    with pytest.raises(KeyReused):
        await stripe.gateway.create_product({"name": "another"}, key=key)


async def test_a3_what_failed_is_told_by_status_code_and_parameter(stripe: Party) -> None:
    unknown = stranger(stripe)
    with pytest.raises(Barred) as barred:
        await unknown.account()
    await unknown.close()
    with pytest.raises(NotThere) as missing:
        await stripe.gateway.customer("cus_of_nobody")
    with pytest.raises(Refused) as wrong:
        await stripe.meter(default_aggregation={"formula": "median"})
    with pytest.raises(Refused) as strange:
        await stripe.meter(color="red")
    assert (barred.value.status, missing.value.status, missing.value.code) == (401, 404, "resource_missing")
    assert (wrong.value.status, wrong.value.param) == (400, "default_aggregation[formula]")
    assert (strange.value.status, strange.value.code, strange.value.param) == (400, "parameter_unknown", "color")


async def test_a6_a_list_says_whether_there_is_more_and_has_100_a_page_at_most(stripe: Party) -> None:
    customer = await stripe.customer()
    params = {"customer": customer, "amount": 100, "currency": "usd"}
    made = [(await stripe.gateway.create_invoice_item(params, key=stripe.new()))["id"] for _ in range(3)]
    assert sorted(row["id"] for row in await stripe.gateway.invoice_items(customer)) == sorted(made)

    async def page(limit: int, **more: str) -> Any:
        return await stripe.v1.invoice_items.list_async({"customer": customer, "limit": limit, **more})

    first = await page(2)
    rest = await page(2, starting_after=first.data[-1].id)
    assert (first.has_more, rest.has_more) == (True, False)
    assert sorted(row.id for row in [*first.data, *rest.data]) == sorted(made)
    with pytest.raises(InvalidRequestError):
        await page(verbs.PAGE + 1)


async def test_a9_prices_are_found_by_ten_lookup_keys_at_a_time(stripe: Party) -> None:
    keys = [stripe.new() for _ in range(verbs.LOOKUP_KEYS_MAX + 1)]
    made = [(await stripe.price(unit_amount=100, lookup_key=key))["id"] for key in (keys[0], keys[10])]
    assert sorted(row["id"] for row in await stripe.gateway.prices(keys)) == sorted(made)
    with pytest.raises(InvalidRequestError):
        await stripe.v1.prices.list_async({"lookup_keys": keys})


async def test_a12_a_number_with_decimals_is_a_text(stripe: Party) -> None:
    made = await stripe.price(unit_amount_decimal="0.25")
    assert (await stripe.gateway.price(made["id"]))["unit_amount_decimal"] == "0.25"


# What is sold


async def test_s1_s3_s5_items_tell_the_period_an_anchor_is_an_object_and_an_invoice_has_a_parent(stripe: Party) -> None:
    sold = await stripe.subscribed(payer := await stripe.payer(), await stripe.price(unit_amount=100))
    (item,) = sold["items"]["data"]
    assert item["current_period_start"] < item["current_period_end"]
    assert "current_period_end" not in sold
    change = stripe.gateway.update_subscription
    assert (await change(sold["id"], {"billing_cycle_anchor": {"type": "unchanged"}}, key=stripe.new()))["id"]
    with pytest.raises(Refused):
        await change(sold["id"], {"billing_cycle_anchor": "unchanged"}, key=stripe.new())
    (invoice,) = await stripe.gateway.invoices(payer)
    assert invoice["parent"]["subscription_details"]["subscription"] == sold["id"]


@pytest.mark.parametrize("invoice_now", [False, True])
async def test_s4_cancelling_drops_usage_unless_it_is_invoiced_now(stripe: Party, invoice_now: bool) -> None:
    meter, payer = await stripe.meter(), await stripe.payer()
    sold = await stripe.subscribed(payer, await stripe.price(unit_amount=100), await stripe.overage(meter))
    await stripe.send(meter, payer, 4, sold["items"]["data"][0]["current_period_start"])
    await stripe.sums_to(meter, payer, 4)
    await stripe.a_while()
    ended = await stripe.gateway.cancel_subscription(sold["id"], invoice_now=invoice_now, key=stripe.new())
    totals = [invoice["total"] for invoice in await stripe.gateway.invoices(payer)]
    assert (ended["status"], totals) == ("canceled", [100, 100] if invoice_now else [100])


async def test_s11_invoices_come_by_pages_the_newest_first_and_a_final_one_has_addresses(stripe: Party) -> None:
    payer, price = await stripe.payer(), await stripe.price(unit_amount=100)
    await stripe.subscribed(payer, price)
    await stripe.subscribed(payer, price)

    async def page(**wanted: Any) -> tuple[list[Any], bool]:
        asked: dict[str, Any] = {"customer": payer, "status": None, "after": None, "limit": 1} | wanted
        return await stripe.gateway.invoice_page(**asked)

    (newest,), more = await page()
    (older,), rest = await page(after=newest["id"])
    assert (more, rest) == (True, False)
    assert newest["id"] != older["id"]
    assert newest["hosted_invoice_url"].startswith("http")
    assert newest["invoice_pdf"].startswith("http")
    assert await page(status="draft") == ([], False)
    assert len((await page(customer=None, limit=2))[0]) == 2
    with pytest.raises(Refused) as caught:
        await page(after="in_of_nobody")
    assert (caught.value.code, caught.value.param) == ("resource_missing", "starting_after")


async def test_s7_an_invoice_item_without_an_invoice_goes_on_the_next_one(stripe: Party) -> None:
    payer = await stripe.payer()
    sold = await stripe.subscribed(payer, await stripe.price(unit_amount=100))
    params = {"customer": payer, "amount": 123, "currency": "usd"}
    item = await stripe.gateway.create_invoice_item(params, key=stripe.new())
    assert item["invoice"] is None
    wanted = {"customer": payer, "subscription": sold["id"]}
    coming = await stripe.v1.invoices.create_preview_async(wanted)
    assert 123 in [line.amount for line in coming.lines.data]


async def test_s8_a_metered_price_has_no_quantity_in_a_checkout(stripe: Party) -> None:
    base, over = await stripe.price(unit_amount=100), await stripe.overage(await stripe.meter())
    metered = {"price": over["id"]}

    async def begin(line: dict[str, object]) -> str:
        lines = [{"price": base["id"], "quantity": 1}, line]
        urls = {"success_url": "https://example.org/done", "cancel_url": "https://example.org/back"}
        params = {"mode": "subscription", "customer": await stripe.customer(), "line_items": lines, **urls}
        return str((await stripe.gateway.create_checkout(params, key=stripe.new()))["id"])

    with pytest.raises(Refused):
        await begin({**metered, "quantity": 1})
    session = await begin(metered)
    stripe.tidy.push_async_callback(stripe.v1.checkout.sessions.expire_async, session)
    assert (await stripe.gateway.checkout(session))["status"] == "open"


async def test_s9_a_portal_session_is_one_customers_and_follows_the_configuration_that_it_names(stripe: Party) -> None:
    features = {"invoice_history": {"enabled": True}}
    made = await stripe.gateway.create_portal_configuration({"features": features}, key=stripe.new())
    wanted = {
        "customer": await stripe.customer(),
        "configuration": made["id"],
        "return_url": "https://example.org/back",
    }
    session = await stripe.gateway.create_portal_session(wanted, key=stripe.new())
    assert (session["customer"], session["configuration"]) == (wanted["customer"], made["id"])
    assert session["url"].startswith("http")
    with pytest.raises(Refused) as caught:
        await stripe.gateway.create_portal_session({**wanted, "customer": "cus_of_nobody"}, key=stripe.new())
    assert (caught.value.code, caught.value.param) == ("resource_missing", "customer")


async def test_s10_a_subscription_is_told_to_end_with_its_period_and_told_to_go_on(stripe: Party) -> None:
    sold = await stripe.subscribed(await stripe.payer(), await stripe.price(unit_amount=100))
    change, end_s = stripe.gateway.update_subscription, sold["items"]["data"][0]["current_period_end"]
    told = []
    for ends in (True, True, False, False):
        after = await change(sold["id"], {"cancel_at_period_end": ends}, key=stripe.new())
        told.append((after["status"], after["cancel_at_period_end"], after["cancel_at"]))
    assert told == [("active", True, end_s)] * 2 + [("active", False, None)] * 2
    await stripe.gateway.cancel_subscription(sold["id"], invoice_now=True, key=stripe.new())
    for ends in (True, False):
        with pytest.raises(Refused):
            await change(sold["id"], {"cancel_at_period_end": ends}, key=stripe.new())
    with pytest.raises(Refused):
        await stripe.gateway.cancel_subscription(sold["id"], invoice_now=True, key=stripe.new())


async def test_s12_a_change_of_price_costs_what_its_preview_said_and_leaves_metered_items_alone(stripe: Party) -> None:
    meter, payer = await stripe.meter(), await stripe.payer()
    small, large = [await stripe.price(unit_amount=amount) for amount in (1000, 3000)]
    sold = await stripe.subscribed(payer, small, await stripe.overage(meter))
    base, metered = sold["items"]["data"]
    items = [{"id": base["id"], "price": large["id"]}]
    details = {"items": items, "proration_behavior": "always_invoice"}
    known = {"customer": payer, "subscription": sold["id"]}
    shown = await stripe.gateway.preview_invoice({**known, "subscription_details": details})
    coming = await stripe.gateway.preview_invoice(
        {**known, "subscription_details": {**details, "proration_behavior": "create_prorations"}}
    )
    assert len(await stripe.gateway.invoices(payer)) == 1
    params = {"items": items, "proration_behavior": "always_invoice", "payment_behavior": "error_if_incomplete"}
    after = await stripe.gateway.update_subscription(sold["id"], params, key=stripe.new())
    made, _ = await stripe.gateway.invoices(payer)
    assert (shown["currency"], abs(shown["total"] - 2000) <= 1) == ("usd", True)
    assert abs(made["total"] - shown["total"]) <= 1  # some seconds lie between the two
    assert abs(coming["total"] - 5000) <= 1
    for one in (shown, made):
        details_of = [line["parent"][f"{line['parent']['type']}"] for line in one["lines"]["data"]]
        assert [details["proration"] for details in details_of] == [True, True]
    assert [item["id"] for item in after["items"]["data"]] == [base["id"], metered["id"]]
    assert after["items"]["data"][0]["price"]["id"] == large["id"]


# What only the sandbox shows: faults on demand, time that passes, reports that come when they are due

NOW_S = utc(2026, 3, 17, 10, 30)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(NOW_S) as world:
        yield world


@pytest.fixture
async def gateway(world: World) -> AsyncIterator[LiveGateway]:
    gateway = LiveGateway("sk_test_tests", clock=HandClock(0), api_base=world.url)
    yield gateway
    await gateway.close()


async def test_m6_m7_a_wrong_event_is_taken_and_reported_by_a_thin_event_alone(
    world: World, gateway: LiveGateway
) -> None:
    meter = await world.meter()
    for number in range(7):
        await gateway.send_meter_event(MeterEvent("scans", "cus_of_nobody", 1, NOW_S, f"w-{number}"), attempt=1)
    await world.at(NOW_S + 10)
    (name,) = [row["id"] for row in world.rows("v2.core.event") if "error_report" in row["type"]]
    told = await gateway.thin_event(name)
    assert (told["type"], told["related_object"]["id"]) == ("v1.billing.meter.error_report_triggered", meter)
    (kind,) = told["data"]["reason"]["error_types"]
    assert (kind["code"], kind["error_count"]) == ("meter_event_customer_not_found", 7)
    samples = [sample["request"]["identifier"] for sample in kind["sample_errors"]]
    assert samples == [f"w-{number}" for number in range(len(samples))]
    assert 0 < len(samples) < 7
    assert not [event for event in await gateway.events(since_s=NOW_S) if "error_report" in event["type"]]


@pytest.mark.parametrize(("kind", "happened"), [("error_before", False), ("error_after", True)])
async def test_a1_a_500_is_kept_under_its_key_so_every_attempt_has_one_of_its_own(
    world: World, gateway: LiveGateway, kind: str, happened: bool
) -> None:
    await world.meter()
    event = MeterEvent("scans", await world.customer(None), 5, NOW_S, "w-1")
    await world.say("POST", "/sandbox/faults", kind=kind)
    for _ in range(2):
        with pytest.raises(Unknown):
            await gateway.send_meter_event(event, attempt=1)
    if happened:
        with pytest.raises(Duplicate):
            await gateway.send_meter_event(event, attempt=2)
    else:
        await gateway.send_meter_event(event, attempt=2)
    assert [row["identifier"] for row in world.rows("sandbox.accepted")] == ["w-1"]


async def test_a2_a_key_that_is_still_in_work_leaves_it_open(world: World, gateway: LiveGateway) -> None:
    params = {"customer": await world.customer(None), "amount": 1, "currency": "usd"}
    await world.say("POST", "/sandbox/faults", kind="timeout_before")
    first = asyncio.create_task(gateway.create_invoice_item(params, key="k"))
    await await_until(lambda: not world.sandbox.faults.shown(), timeout_s=10, what="the first call hangs")
    with pytest.raises(Unknown) as caught:
        await gateway.create_invoice_item(params, key="k")
    assert caught.value.status == 409
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_s6_a_renewal_is_a_draft_for_an_hour(world: World, gateway: LiveGateway) -> None:
    await world.plan()
    customer = await world.customer()
    sold = await world.subscribe(customer, "base", "over")
    end_s = sold["items"].data[0].current_period_end
    statuses = []
    for moment in (end_s, end_s + HOUR_S - 1, end_s + HOUR_S):
        await world.at(moment)
        statuses.append((await gateway.invoices(customer))[0]["status"])
    assert statuses == ["draft", "draft", "paid"]


async def test_s13_a_change_whose_invoice_is_not_paid_is_an_error_and_no_change(
    world: World, gateway: LiveGateway
) -> None:
    await world.plan()
    large = await world.price("large", unit_amount=9900)
    customer = await world.customer()
    sold = await gateway.subscription((await world.subscribe(customer, "base", "over")).id)
    await world.say("POST", "/sandbox/cards", customer=customer, card="decline")
    events = await world.events()
    params = {
        "items": [{"id": sold["items"]["data"][0]["id"], "price": large}],
        "proration_behavior": "always_invoice",
        "payment_behavior": "error_if_incomplete",
    }
    with pytest.raises(Declined):
        await gateway.update_subscription(sold["id"], params, key="change")
    assert await gateway.subscription(sold["id"]) == sold
    assert (len(await gateway.invoices(customer)), await gateway.invoice_items(customer)) == (1, [])
    assert await world.events() == events
