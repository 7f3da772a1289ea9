"""Meters and what is told to them: each documented rule is one test. https://docs.stripe.com/api/billing/meter-event"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe

from metering.billing.gateways.live import LiveGateway
from metering.billing.sandbox.context import Options
from metering.clock import HandClock
from tests.support.sandbox_world import DAY_S, HOUR_S, World, a_world, utc
from tests.support.stripe_schema import check_object
from tests.support.wait import await_until

NOW_S = utc(2026, 3, 17, 10, 30)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(NOW_S) as world:
        yield world


async def send(world: World, customer: str, value: str = "1", **more: Any) -> Any:
    """An event for the meter `scans`."""
    payload = more.pop("payload", {"stripe_customer_id": customer, "value": value})
    return await world.v1.billing.meter_events.create_async({"event_name": "scans", "payload": payload, **more})


async def refused(world: World, customer: str, value: str = "1", **more: Any) -> stripe.InvalidRequestError:
    """The refusal of an event."""
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await send(world, customer, value, **more)
    assert caught.value.http_status == 400
    return caught.value


async def summed(world: World, meter: str, customer: str, **more: Any) -> list[float]:
    """The values of the summaries from an hour ago to the next hour."""
    start = NOW_S - HOUR_S
    params = {"customer": customer, "start_time": start, "end_time": start + 2 * HOUR_S, **more}
    return [
        row.aggregated_value for row in (await world.v1.billing.meters.event_summaries.list_async(meter, params)).data
    ]


async def reports(world: World) -> list[Any]:
    """The thin events about wrong meter events, each held to the client's schema."""
    rows = [
        row["id"] for row in world.rows("v2.core.event") if ".meter.error" in row["type"] or "no_meter" in row["type"]
    ]
    found = [(await world.client.v2.core.events.retrieve_async(name)) for name in rows]
    for one in found:
        check_object(one.to_dict(), version=2)
    return found


async def a_meter(world: World, formula: str = "sum", **more: Any) -> tuple[str, str]:
    """A meter and a customer."""
    params = {"display_name": "s", "event_name": "scans", "default_aggregation": {"formula": formula}, **more}
    return (await world.v1.billing.meters.create_async(params)).id, await world.customer(None)


# Meters


async def test_an_event_name_is_unique_among_active_meters(world: World) -> None:
    meter = await world.meter()
    with pytest.raises(stripe.InvalidRequestError):
        await world.meter()
    await world.v1.billing.meters.deactivate_async(meter)
    second = await world.meter()
    with pytest.raises(stripe.InvalidRequestError):
        await world.v1.billing.meters.reactivate_async(meter)
    await world.v1.billing.meters.deactivate_async(second)
    assert (await world.v1.billing.meters.reactivate_async(meter)).status == "active"


async def test_only_the_name_to_show_of_a_meter_can_be_changed(world: World) -> None:
    meter = await world.meter()
    assert (await world.v1.billing.meters.update_async(meter, {"display_name": "b"})).display_name == "b"
    with pytest.raises(stripe.InvalidRequestError, match="unknown parameter"):
        await world.v1.billing.meters.update_async(meter, {"event_name": "b"})


async def test_a_meter_tells_since_when_it_is_inactive(world: World) -> None:
    meter = await world.meter()
    world.now[0] += 5
    off = await world.v1.billing.meters.deactivate_async(meter)
    assert (off.status, off.status_transitions.deactivated_at) == ("inactive", NOW_S + 5)
    listed = await world.v1.billing.meters.list_async({"status": "inactive"})
    assert [row.id for row in listed.data] == [meter]
    on = await world.v1.billing.meters.reactivate_async(meter)
    assert (on.status, on.status_transitions.deactivated_at) == ("active", None)


# Events


async def test_an_identifier_counts_once_and_the_repeat_says_so(world: World) -> None:
    meter, customer = await a_meter(world)
    assert (await send(world, customer, "5", identifier="w-1")).identifier == "w-1"
    error = await refused(world, customer, "5", identifier="w-1")
    assert "An event already exists with identifier w-1" in str(error)
    headers: Any = error.headers
    assert headers.get("Stripe-Should-Retry") == "false"
    assert await summed(world, meter, customer) == [5.0]


async def test_an_identifier_is_known_for_24_hours_from_when_it_came_and_counts_again_after_them(world: World) -> None:
    meter, customer = await a_meter(world)
    await send(world, customer, "5", identifier="w-1", timestamp=NOW_S)
    world.now[0] += DAY_S - 1
    await refused(world, customer, identifier="w-1")
    world.now[0] += 1
    await send(world, customer, "5", identifier="w-1", timestamp=NOW_S)
    assert await summed(world, meter, customer) == [10.0]


async def test_an_event_without_an_identifier_gets_one_of_its_own(world: World) -> None:
    _, customer = await a_meter(world)
    first, second = await send(world, customer), await send(world, customer)
    assert first.identifier != second.identifier


async def test_a_refused_event_leaves_its_identifier_free(world: World) -> None:
    _, customer = await a_meter(world)
    await refused(world, customer, "1.5", identifier="w-1")
    await send(world, customer, "1", identifier="w-1")


async def test_an_event_is_taken_35_days_back_and_no_more(world: World) -> None:
    _, customer = await a_meter(world)
    oldest = NOW_S - 35 * DAY_S
    await send(world, customer, timestamp=oldest)
    error = await refused(world, customer, timestamp=oldest - 1)
    assert f"cannot be more than 35 days in past. Expected a timestamp greater than or equal to {oldest}" in str(error)


async def test_an_event_is_taken_five_minutes_ahead_and_no_more(world: World) -> None:
    _, customer = await a_meter(world)
    await send(world, customer, timestamp=NOW_S + 300)
    assert "future" in str(await refused(world, customer, timestamp=NOW_S + 301))


async def test_an_event_without_a_time_is_of_now(world: World) -> None:
    _, customer = await a_meter(world)
    assert (await send(world, customer)).timestamp == NOW_S


@pytest.mark.parametrize("value", ["1.5", "1e3", "five", " 1", "0x1", "+1", "1_000", "\u0661"])
async def test_a_value_is_a_whole_number(world: World, value: str) -> None:
    _, customer = await a_meter(world)
    await refused(world, customer, value)


async def test_a_value_has_at_most_15_digits(world: World) -> None:
    meter, customer = await a_meter(world)
    await send(world, customer, "9" * 15)
    error = await refused(world, customer, "1" + "0" * 15)
    assert error.code == "meter_event_value_too_many_digits"
    assert await summed(world, meter, customer) == [999_999_999_999_999.0]


async def test_a_negative_value_takes_away(world: World) -> None:
    meter, customer = await a_meter(world)
    await send(world, customer, "10")
    await send(world, customer, "-4")
    assert await summed(world, meter, customer) == [6.0]


@pytest.mark.parametrize(
    "payload", [{"value": "1"}, {"stripe_customer_id": "cus_1"}, {"customer": "cus_1", "value": "1"}]
)
async def test_customer_and_value_stand_under_the_meters_keys(world: World, payload: dict[str, str]) -> None:
    await a_meter(world)
    await refused(world, "", payload=payload)


async def test_a_meter_may_name_its_keys(world: World) -> None:
    mapping = {"type": "by_id", "event_payload_key": "who"}
    values = {"event_payload_key": "many"}
    meter, customer = await a_meter(world, customer_mapping=mapping, value_settings=values)
    await send(world, "", payload={"who": customer, "many": "7"})
    await refused(world, customer)
    assert await summed(world, meter, customer) == [7.0]


@pytest.mark.parametrize("more", [{"color": "red"}, {"identifier": "i" * 101}, {"timestamp": "soon"}])
async def test_an_event_has_its_own_fields_and_bounds(world: World, more: dict[str, Any]) -> None:
    _, customer = await a_meter(world)
    await refused(world, customer, **more)


async def test_there_is_no_way_to_read_an_event_back(world: World) -> None:
    async with world.http.get(
        f"{world.url}/v1/billing/meter_events", headers={"Authorization": "Bearer sk_test_1"}
    ) as answer:
        assert answer.status == 404


async def test_one_call_a_customer_and_meter_at_a_time(world: World) -> None:
    _, customer = await a_meter(world)
    other = await world.customer(None)
    await world.say("POST", "/sandbox/faults", kind="timeout_before")
    first = asyncio.create_task(send(world, customer, identifier="w-1"))
    await await_until(lambda: not world.sandbox.faults.shown(), timeout_s=10, what="the first call hangs")
    with pytest.raises(stripe.RateLimitError):
        await send(world, customer, identifier="w-2")
    await send(world, other, identifier="w-3")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)

    async def free() -> bool:
        try:
            await send(world, customer)
        except stripe.RateLimitError:
            return False
        return True

    await await_until(free, timeout_s=10, what="the lane is free again")


# What comes out


@pytest.mark.parametrize(("formula", "value"), [("sum", 60.0), ("count", 3.0), ("last", 10.0)])
async def test_a_meter_adds_up_by_its_formula(world: World, formula: str, value: float) -> None:
    meter, customer = await a_meter(world, formula)
    for number, amount in enumerate(("20", "30", "10")):
        await send(world, customer, amount, timestamp=NOW_S + number)
    await send(world, await world.customer(None), "500")
    assert await summed(world, meter, customer) == [value]


async def test_a_window_of_an_hour_keeps_its_newest_event(world: World) -> None:
    meter, customer = await a_meter(world, event_time_window="hour")
    await send(world, customer, "20", timestamp=NOW_S - 1)
    await send(world, customer, "30", timestamp=NOW_S)
    await send(world, customer, "7", timestamp=NOW_S - 1800 - 1)
    assert await summed(world, meter, customer) == [37.0]


async def test_summaries_are_of_their_start_and_not_of_their_end(world: World) -> None:
    meter, customer = await a_meter(world)
    start, end = NOW_S - HOUR_S, NOW_S + HOUR_S
    for moment in (start - 1, start, end - HOUR_S):
        await send(world, customer, timestamp=moment)
    world.now[0] = end
    for moment in (end - 1, end):
        await send(world, customer, timestamp=moment)
    assert await summed(world, meter, customer) == [3.0]


async def test_summaries_are_asked_for_at_whole_minutes(world: World) -> None:
    meter, customer = await a_meter(world)
    for wrong in ({"start_time": NOW_S - 59}, {"end_time": NOW_S + 1}, {"value_grouping_window": "hour"}):
        with pytest.raises(stripe.InvalidRequestError, match="aligned"):
            await summed(world, meter, customer, **wrong)


async def test_summaries_by_the_hour_leave_out_hours_without_events(world: World) -> None:
    meter, customer = await a_meter(world)
    start = NOW_S - 1800 - HOUR_S
    await send(world, customer, "2", timestamp=start)
    await send(world, customer, "3", timestamp=NOW_S)
    found = {"start_time": start - HOUR_S, "end_time": start + 2 * HOUR_S, "value_grouping_window": "hour"}
    assert await summed(world, meter, customer, **found) == [3.0, 2.0]
    assert await summed(world, meter, await world.customer(None)) == []


async def test_summaries_lag_behind() -> None:
    async with a_world(NOW_S, options=Options(summary_lag_s=60)) as world:
        meter, customer = await a_meter(world)
        await send(world, customer, "5")
        world.now[0] += 59
        assert await summed(world, meter, customer) == []
        world.now[0] += 1
        assert await summed(world, meter, customer) == [5.0]


# What is taken back


async def cancel(world: World, identifier: str, name: str = "scans") -> Any:
    """Take an event back."""
    params = {"event_name": name, "type": "cancel", "cancel": {"identifier": identifier}}
    return await world.v1.billing.meter_event_adjustments.create_async(params)


async def test_an_event_is_taken_back_and_its_identifier_stays_known(world: World) -> None:
    meter, customer = await a_meter(world)
    await send(world, customer, "5", identifier="w-1")
    await send(world, customer, "2", identifier="w-2")
    assert (await cancel(world, "w-1")).status == "complete"
    assert await summed(world, meter, customer) == [2.0]
    await refused(world, customer, "5", identifier="w-1")
    with pytest.raises(stripe.InvalidRequestError, match="No such meter event"):
        await cancel(world, "w-1")


async def test_an_event_is_taken_back_within_24_hours_and_by_its_own_meter(world: World) -> None:
    _, customer = await a_meter(world)
    await send(world, customer, identifier="w-1")
    with pytest.raises(stripe.InvalidRequestError):
        await cancel(world, "w-1", "other")
    world.now[0] += DAY_S + 1
    with pytest.raises(stripe.InvalidRequestError, match="24 hours"):
        await cancel(world, "w-1")


# What is told later


async def test_an_unknown_customer_is_taken_and_reported_in_a_thin_event(world: World) -> None:
    meter, _ = await a_meter(world)
    for number in range(7):
        await send(world, "cus_nobody", identifier=f"w-{number}")
    assert await reports(world) == []
    world.now[0] += 10
    await world.say("POST", "/sandbox/run")
    (report,) = await reports(world)
    assert (report.type, report.related_object.id) == ("v1.billing.meter.error_report_triggered", meter)
    (kind,) = report.data.reason.error_types
    assert (kind.code, kind.error_count, report.data.reason.error_count) == ("meter_event_customer_not_found", 7, 7)
    assert [row.request.identifier for row in kind.sample_errors] == [f"w-{number}" for number in range(5)]
    notices = [event.type for event in (await world.v1.events.list_async()).data]
    assert not [kind for kind in notices if "error_report" in kind]


async def test_an_archived_meter_is_reported_and_no_such_event_counts(world: World) -> None:
    meter, customer = await a_meter(world)
    await world.v1.billing.meters.deactivate_async(meter)
    await send(world, customer)
    world.now[0] += 10
    await world.say("POST", "/sandbox/run")
    (report,) = await reports(world)
    assert report.data.reason.error_types[0].code == "archived_meter"
    assert await summed(world, meter, customer) == []


async def test_an_event_for_no_meter_is_reported_without_one(world: World) -> None:
    customer = await world.customer(None)
    await send(world, customer)
    world.now[0] += 10
    await world.say("POST", "/sandbox/run")
    (report,) = await reports(world)
    assert (report.type, hasattr(report, "related_object")) == ("v1.billing.meter.no_meter_found", False)
    assert report.data.reason.error_types[0].code == "no_meter"


async def test_a_deleted_customer_is_an_unknown_one(world: World) -> None:
    meter, customer = await a_meter(world)
    await world.v1.customers.delete_async(customer)
    await send(world, customer)
    assert await summed(world, meter, customer) == []
    assert (await world.say("GET", "/sandbox/due"))["next_due"] == NOW_S + 10


async def test_each_window_of_ten_seconds_has_a_report_of_its_own(world: World) -> None:
    await a_meter(world)
    await send(world, "cus_nobody")
    world.now[0] += 10
    await send(world, "cus_nobody")
    world.now[0] += 10
    await world.say("POST", "/sandbox/run")
    assert [report.data.reason.error_count for report in await reports(world)] == [1, 1]


async def test_the_audit_shows_what_was_taken_and_what_was_refused(world: World) -> None:
    _, customer = await a_meter(world)
    await send(world, customer, "5", identifier="w-1")
    await refused(world, customer, "5", identifier="w-1")
    await refused(world, customer, "x", identifier="w-2")
    await send(world, "cus_nobody", identifier="w-3")
    audit = await world.say("GET", "/sandbox/audit")
    assert [(row["identifier"], row["customer"], row["value"]) for row in audit["accepted"]] == [("w-1", customer, 5)]
    assert [(row["identifier"], row["code"]) for row in audit["rejected"]] == [
        ("w-1", "duplicate_meter_event"),
        ("w-2", "meter_event_invalid_value"),
        ("w-3", "meter_event_customer_not_found"),
    ]


async def test_reports_are_listed_since_a_moment_and_by_type(world: World) -> None:
    meter = await world.meter()
    assert meter
    await world.use("cus_none", 1)
    await world.at(NOW_S + 20)
    gateway = LiveGateway("sk_test_tests", clock=HandClock(0), api_base=world.url)
    (report,) = [row for row in world.rows("v2.core.event") if ".meter.error" in row["type"]]
    kind = "v1.billing.meter.error_report_triggered"
    assert [one["id"] for one in await gateway.thin_events([kind])] == [report["id"]]
    assert [one["id"] for one in await gateway.thin_events([kind], since_s=NOW_S)] == [report["id"]]
    assert await gateway.thin_events([kind], since_s=NOW_S + 60) == []
    assert await gateway.thin_events(["v1.billing.meter.no_meter_found"]) == []
    for one in await gateway.thin_events([kind]):
        check_object(one, version=2)
    await gateway.close()
