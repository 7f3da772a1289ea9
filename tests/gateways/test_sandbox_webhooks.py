"""How the sandbox tells what happened: signed, to everybody who asked for it, and wrong where it is told to be."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from metering.billing.sandbox.mail import RETRIES_S
from metering.billing.sandbox.switches import KINDS
from tests.support.sandbox_world import DAY_S, HOUR_S, World, a_world, utc
from tests.support.scripted import Scripted, scripted
from webhooks.signature import Verdict, check

START_S = utc(2026, 3, 17, 10, 30)
CREATED = "customer.created"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(START_S) as world:
        yield world


@pytest.fixture
async def receiver() -> AsyncIterator[Scripted]:
    async with scripted() as receiver:
        receiver.answer()
        yield receiver


def told(receiver: Scripted) -> list[dict[str, Any]]:
    """The events that came, in the order in which they came."""
    return [json.loads(request.body) for request in receiver.requests]


def verdicts(world: World, receiver: Scripted, secret: str) -> list[Verdict]:
    """What each signature that came is worth, seen at the time of the sandbox."""
    return [
        check(one.headers["stripe-signature"].encode(), one.body, [secret], world.now[0]) for one in receiver.requests
    ]


async def run(world: World) -> None:
    await world.say("POST", "/sandbox/run")


async def spoil(world: World, kind: str, **more: Any) -> None:
    await world.say("POST", "/sandbox/deliveries", kind=kind, **more)


def states(world: World) -> list[str]:
    return [row["state"] for row in world.rows("sandbox.delivery")]


async def test_an_event_goes_to_who_asked_for_it_signed_on_its_bytes(world: World, receiver: Scripted) -> None:
    secret = await world.endpoint(receiver, CREATED, "customer.deleted")
    customer = await world.customer(card="succeed")
    await run(world)
    (event,) = told(receiver)
    assert (event["object"], event["type"]) == ("event", CREATED)
    assert event["data"]["object"]["id"] == customer
    assert verdicts(world, receiver, secret) == [Verdict.GENUINE]
    assert verdicts(world, receiver, "whsec_other") == [Verdict.FORGED]


async def test_a_thin_destination_gets_the_name_of_what_changed(world: World, receiver: Scripted) -> None:
    params = {
        "name": "thin",
        "type": "webhook_endpoint",
        "event_payload": "thin",
        "enabled_events": [f"v1.{CREATED}"],
        "webhook_endpoint": {"url": receiver.url},
        "include": ["webhook_endpoint.signing_secret"],
    }
    made = await world.client.v2.core.event_destinations.create_async(params)
    customer = await world.customer(card=None)
    await run(world)
    (event,) = told(receiver)
    assert (event["object"], event["type"]) == ("v2.core.event", f"v1.{CREATED}")
    assert event["related_object"] == {"id": customer, "type": "customer", "url": f"/v1/customers/{customer}"}
    assert (await world.v1.events.retrieve_async(event["snapshot_event"])).type == CREATED
    assert verdicts(world, receiver, made.webhook_endpoint.signing_secret) == [Verdict.GENUINE]
    raw = receiver.requests[0]
    parsed = world.client.parse_event_notification(
        raw.body, raw.headers["stripe-signature"], made.webhook_endpoint.signing_secret, tolerance=None
    )
    assert parsed.type == f"v1.{CREATED}"


async def test_what_is_not_taken_is_sent_again_later_and_later(world: World, receiver: Scripted) -> None:
    await world.endpoint(receiver, CREATED)
    receiver.plays.clear()
    receiver.refuse(500, times=2)
    receiver.answer()
    await world.customer(card=None)
    await run(world)
    moments = []
    for _ in range(2):
        moments.append((await world.say("GET", "/sandbox/due"))["next_due"])
        await world.at(moments[-1])
    assert [moment - START_S for moment in moments] == [RETRIES_S[0], RETRIES_S[0] + RETRIES_S[1]]
    assert states(world) == ["delivered"]
    assert [one["status"] for one in world.rows("sandbox.delivery")[0]["answers"]] == [500, 500, 200]


async def test_after_three_days_nobody_tries_any_more(world: World, receiver: Scripted) -> None:
    await world.endpoint(receiver, CREATED)
    receiver.plays.clear()
    receiver.refuse(500)
    await world.customer(card=None)
    await world.at(START_S + 3 * DAY_S + HOUR_S)
    assert sum(RETRIES_S) == 3 * DAY_S
    assert (states(world), len(receiver.requests)) == (["given_up"], len(RETRIES_S) + 1)


async def test_nobody_at_home_is_no_answer(world: World) -> None:
    async with scripted() as receiver:
        await world.endpoint(receiver, CREATED)
    await world.customer(card=None)
    await run(world)
    assert states(world) == ["waiting"]
    assert world.rows("sandbox.delivery")[0]["answers"][0]["status"] == 0


@pytest.mark.parametrize(
    ("kind", "verdict"), [("forge", Verdict.FORGED), ("old", Verdict.STALE), ("future", Verdict.EARLY)]
)
async def test_a_bad_signature_comes_first_and_then_a_good_one(
    world: World, receiver: Scripted, kind: str, verdict: Verdict
) -> None:
    secret = await world.endpoint(receiver, CREATED)
    receiver.plays.clear()
    receiver.refuse(400)
    receiver.answer()
    await spoil(world, kind)
    await world.customer(card=None)
    await run(world)
    assert verdicts(world, receiver, secret) == [verdict]
    await world.at(START_S + RETRIES_S[0])
    assert verdicts(world, receiver, secret)[1] is Verdict.GENUINE
    assert states(world) == ["delivered"]


async def test_a_duplicate_is_the_same_event_twice(world: World, receiver: Scripted) -> None:
    await world.endpoint(receiver, CREATED)
    await spoil(world, "duplicate")
    await world.customer(card=None)
    await run(world)
    assert len(receiver.requests) == 2
    assert len({event["id"] for event in told(receiver)}) == 1


async def test_one_change_may_have_two_events(world: World, receiver: Scripted) -> None:
    await world.endpoint(receiver, CREATED)
    await spoil(world, "two_ids")
    await world.customer(card=None)
    await run(world)
    first, second = told(receiver)
    assert first["id"] != second["id"]
    assert first["data"] == second["data"]
    assert (await world.v1.events.retrieve_async(second["id"])).type == CREATED


async def test_a_reordered_event_comes_after_the_next_one(world: World, receiver: Scripted) -> None:
    await world.endpoint(receiver, CREATED)
    await spoil(world, "reorder")
    first = await world.customer(card=None)
    await run(world)
    assert receiver.requests == []
    second = await world.customer(card=None)
    await run(world)
    assert [event["data"]["object"]["id"] for event in told(receiver)] == [second, first]


async def test_a_dropped_event_never_comes(world: World, receiver: Scripted) -> None:
    await world.endpoint(receiver, CREATED)
    await spoil(world, "drop")
    await world.customer(card=None)
    await world.at(START_S + DAY_S)
    assert (receiver.requests, states(world)) == ([], ["dropped"])


async def test_a_delayed_event_comes_later(world: World, receiver: Scripted) -> None:
    secret = await world.endpoint(receiver, CREATED)
    await spoil(world, "delay", seconds=600)
    await world.customer(card=None)
    await world.at(START_S + 599)
    assert receiver.requests == []
    await world.at(START_S + 600)
    assert verdicts(world, receiver, secret) == [Verdict.GENUINE]


async def test_an_event_may_be_of_another_version(world: World, receiver: Scripted) -> None:
    await world.endpoint(receiver, CREATED)
    await spoil(world, "api_version")
    for _ in range(2):
        await world.customer(card=None)
    await run(world)
    assert [event["api_version"] for event in told(receiver)] == ["2024-06-20", "2026-10-28.endive"]


async def test_after_an_outage_everything_comes_at_once(world: World, receiver: Scripted) -> None:
    secret = await world.endpoint(receiver, CREATED)
    await spoil(world, "outage", seconds=3 * DAY_S)
    for _ in range(5):
        await world.customer(card=None)
    await world.at(START_S + 3 * DAY_S - 1)
    assert receiver.requests == []
    await world.at(START_S + 3 * DAY_S)
    assert verdicts(world, receiver, secret) == [Verdict.GENUINE] * 5


async def test_switches_are_shown_and_taken_back(world: World) -> None:
    for kind in KINDS:
        await spoil(world, kind)
    assert {one["kind"] for one in await world.say("GET", "/sandbox/deliveries")} == set(KINDS) - {"outage"}
    await world.say("DELETE", "/sandbox/deliveries")
    assert await world.say("GET", "/sandbox/deliveries") == []
    status, _, text = await world.page("POST", f"{world.url}/sandbox/deliveries")
    assert (status, "no switch" in text) == (400, True)


async def test_an_endpoint_that_is_off_is_told_nothing(world: World, receiver: Scripted) -> None:
    await world.endpoint(receiver, CREATED)
    (made,) = (await world.v1.webhook_endpoints.list_async()).data
    await world.v1.webhook_endpoints.update_async(made.id, {"disabled": True})
    await world.customer(card=None)
    assert world.rows("sandbox.delivery") == []


async def test_what_is_on_its_way_is_told(world: World, receiver: Scripted) -> None:
    await world.endpoint(receiver, CREATED)
    await world.customer(card=None)
    due = await world.say("GET", "/sandbox/due")
    assert (due["deliveries"], due["next_due"]) == (1, START_S)
    await run(world)
    assert (await world.say("GET", "/sandbox/due"))["deliveries"] == 0


async def destination(world: World, receiver: Scripted, payload: str, *types: str) -> None:
    """A destination of /v2 for events of these types."""
    params = {
        "name": payload,
        "type": "webhook_endpoint",
        "event_payload": payload,
        "enabled_events": list(types),
        "webhook_endpoint": {"url": receiver.url},
    }
    await world.client.v2.core.event_destinations.create_async(params)


async def test_a_destination_may_take_snapshots(world: World, receiver: Scripted) -> None:
    await destination(world, receiver, "snapshot", CREATED)
    await world.customer(card=None)
    await run(world)
    assert [event["object"] for event in told(receiver)] == ["event"]


async def test_usage_of_nobody_is_told_to_the_thin_destination_at_the_end_of_its_window(
    world: World, receiver: Scripted
) -> None:
    kind = "v1.billing.meter.error_report_triggered"
    await destination(world, receiver, "thin", kind)
    await world.plan()
    await world.use("cus_nobody", 7)
    due = (await world.say("GET", "/sandbox/due"))["next_due"]
    assert due == START_S + 10
    await world.at(due)
    (event,) = told(receiver)
    assert (event["type"], event["related_object"]["type"], "data" in event) == (kind, "billing.meter", False)
    whole = await world.client.v2.core.events.retrieve_async(event["id"])
    assert whole.data.reason.error_types[0].code == "meter_event_customer_not_found"
