"""The service's own gateway and the sandbox: what goes wrong there has the meaning here that it has at Stripe."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from metering.billing.errors import (
    Barred,
    Duplicate,
    GatewayError,
    KeyReused,
    NotThere,
    Refused,
    TooMany,
    Unknown,
)
from metering.billing.gateway import MeterEvent
from metering.billing.gateways.live import LiveGateway, Timeouts
from metering.billing.sandbox.context import Options
from metering.clock import HandClock
from tests.support.sandbox_world import HOUR_S, World, a_world, utc

NOW_S = utc(2026, 3, 17, 10, 30)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(NOW_S) as world:
        yield world


async def no_pause(seconds: float) -> None:
    """Between the client's own repeats no time is lost."""


@pytest.fixture
async def gateway(world: World) -> AsyncIterator[LiveGateway]:
    timeouts = Timeouts(read_s=0.5, attempt_s=1.0)
    gateway = LiveGateway("sk_test_1", clock=HandClock(0), api_base=world.url, timeouts=timeouts, pause=no_pause)
    yield gateway
    await gateway.close()


def event(customer: str, identifier: str = "w-1", timestamp_s: int = NOW_S, units: int = 5) -> MeterEvent:
    """Usage of the meter `scans`."""
    return MeterEvent("scans", customer, units, timestamp_s, identifier)


async def test_usage_arrives_once_and_is_told_by_the_hour(world: World, gateway: LiveGateway) -> None:
    meter, customer = await world.meter(), await world.customer(None)
    await gateway.send_meter_event(event(customer), attempt=1)
    with pytest.raises(Duplicate):
        await gateway.send_meter_event(event(customer), attempt=2)
    start = NOW_S - NOW_S % HOUR_S
    assert await gateway.meter_usage(meter, customer, start, start + HOUR_S) == 5


@pytest.mark.parametrize("kind", ["timeout_after", "reset_after", "error_after", "slow_body"])
async def test_after_any_lost_answer_the_next_attempt_finds_the_event_there(
    world: World, gateway: LiveGateway, kind: str
) -> None:
    meter, customer = await world.meter(), await world.customer(None)
    await world.say("POST", "/sandbox/faults", kind=kind)
    with pytest.raises(Unknown):
        await gateway.send_meter_event(event(customer), attempt=1)
    with pytest.raises(Duplicate):
        await gateway.send_meter_event(event(customer), attempt=2)
    start = NOW_S - NOW_S % HOUR_S
    assert await gateway.meter_usage(meter, customer, start, start + HOUR_S) == 5


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("timeout_before", Unknown),
        ("reset_before", Unknown),
        ("error_before", Unknown),
        ("html", Unknown),
        ("conflict", Unknown),
        ("rate_limit", TooMany),
    ],
)
async def test_after_any_lost_request_the_next_attempt_gets_through(
    world: World, gateway: LiveGateway, kind: str, error: type[GatewayError]
) -> None:
    await world.meter()
    customer = await world.customer(None)
    await world.say("POST", "/sandbox/faults", kind=kind)
    with pytest.raises(error):
        await gateway.send_meter_event(event(customer), attempt=1)
    await gateway.send_meter_event(event(customer), attempt=2)
    assert [row["identifier"] for row in world.rows("sandbox.accepted")] == ["w-1"]


@pytest.mark.parametrize(
    "wrong", [{"timestamp_s": NOW_S + 3600}, {"timestamp_s": NOW_S - 40 * 86_400}, {"units": 10**15}]
)
async def test_an_event_that_is_wrong_is_refused(world: World, gateway: LiveGateway, wrong: dict[str, int]) -> None:
    await world.meter()
    with pytest.raises(Refused) as caught:
        await gateway.send_meter_event(event(await world.customer(None), **wrong), attempt=1)  # type: ignore[arg-type]
    assert not isinstance(caught.value, Duplicate)


async def test_a_read_is_repeated_after_a_500_and_a_write_under_its_key_is_not_done_twice(
    world: World, gateway: LiveGateway
) -> None:
    await world.say("POST", "/sandbox/faults", kind="error_before", method="GET")
    assert await gateway.products() == []
    await world.say("POST", "/sandbox/faults", kind="reset_after", path="/v1/products")
    made = await gateway.create_product({"name": "a"}, key="k")
    assert [row["id"] for row in await gateway.products()] == [made["id"]]
    with pytest.raises(KeyReused):
        await gateway.create_product({"name": "b"}, key="k")


async def test_stripes_time_is_the_sandboxs(world: World, gateway: LiveGateway) -> None:
    await gateway.account()
    assert gateway.stripe_ms() == NOW_S * 1000


async def test_what_is_not_there_and_who_may_not_ask(world: World, gateway: LiveGateway) -> None:
    for read in (gateway.customer("cus_none"), gateway.thin_event("evt_none"), gateway.price("price_none")):
        with pytest.raises(NotThere):
            await read
    stranger = LiveGateway("sk_test_" + "x", clock=HandClock(0), api_base=world.url + "/v3", pause=no_pause)
    with pytest.raises(GatewayError):
        await stranger.account()
    await stranger.close()


async def test_a_key_that_is_not_the_services_own_bars() -> None:
    async with a_world(NOW_S, options=Options(key="sk_sandbox_ours")) as world:
        gateway = LiveGateway("sk_sandbox_other", clock=HandClock(0), api_base=world.url, pause=no_pause)
        with pytest.raises(Barred):
            await gateway.account()
        await gateway.close()


async def test_lists_longer_than_a_page_are_read_whole(world: World, gateway: LiveGateway) -> None:
    made: list[Any] = [await gateway.create_product({"name": str(number)}, key=f"k{number}") for number in range(101)]
    assert [row["id"] for row in await gateway.products()] == [row["id"] for row in reversed(made)]
    events = await gateway.events(since_s=NOW_S)
    assert [row["data"]["object"]["id"] for row in events] == [row["id"] for row in made]
    assert [row["id"] for row in await gateway.events(after=events[98]["id"])] == [row["id"] for row in events[99:]]
