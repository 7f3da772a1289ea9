"""What goes wrong on demand, as Stripe's own client sees it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import stripe

from metering.billing.sandbox.faults import KINDS
from tests.support.sandbox_world import World, a_world, utc
from tests.support.wait import await_until

NOW_S = utc(2026, 3, 17, 10, 30)
KEY = {"Authorization": "Bearer sk_test_1"}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(NOW_S) as world:
        yield world


async def fault(world: World, kind: str, **more: Any) -> None:
    """Set a switch."""
    await world.say("POST", "/sandbox/faults", kind=kind, **more)


async def make(world: World, timeout_s: float = 30.0) -> tuple[int, bytes]:
    """A product, asked for without the client."""
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with world.http.post(f"{world.url}/v1/products", data={"name": "a"}, headers=KEY, timeout=timeout) as answer:
        return answer.status, await answer.read()


@pytest.mark.parametrize(("kind", "happened"), [("timeout_before", 0), ("timeout_after", 1), ("slow_body", 1)])
async def test_an_answer_that_never_ends_leaves_open_what_happened(world: World, kind: str, happened: int) -> None:
    await fault(world, kind)
    with pytest.raises(TimeoutError):
        await make(world, timeout_s=0.5)
    assert len(world.rows("product")) == happened


@pytest.mark.parametrize(("kind", "happened"), [("reset_before", 0), ("reset_after", 1)])
async def test_a_broken_connection_leaves_open_what_happened(world: World, kind: str, happened: int) -> None:
    await fault(world, kind)
    with pytest.raises(stripe.APIConnectionError):
        await world.v1.products.create_async({"name": "a"})
    assert len(world.rows("product")) == happened


async def test_a_slow_answer_comes_whole_where_the_caller_waits(world: World) -> None:
    await fault(world, "slow_body", seconds=0.01)
    status, body = await make(world)
    assert (status, body.endswith(b"}")) == (200, True)


async def test_a_conflict_is_409(world: World) -> None:
    await fault(world, "conflict")
    with pytest.raises(stripe.StripeError) as caught:
        await world.v1.products.create_async({"name": "a"})
    assert (caught.value.http_status, world.rows("product")) == (409, [])


async def test_too_many_requests_are_429_with_the_headers_that_were_asked_for(world: World) -> None:
    await fault(world, "rate_limit")
    await fault(world, "rate_limit", headers={"Retry-After": "7", "Stripe-Should-Retry": "true"})
    for told in (None, "7"):
        with pytest.raises(stripe.RateLimitError) as caught:
            await world.v1.products.create_async({"name": "a"})
        headers: Any = caught.value.headers
        assert headers.get("Retry-After") == told
        assert headers.get("Stripe-Should-Retry") == (told and "true")


@pytest.mark.parametrize("kind", ["error_before", "error_after"])
async def test_a_500_is_an_error_of_stripes(world: World, kind: str) -> None:
    await fault(world, kind)
    with pytest.raises(stripe.APIError) as caught:
        await world.v1.products.create_async({"name": "a"})
    assert caught.value.http_status == 500


async def test_somebody_on_the_way_answers_with_a_page(world: World) -> None:
    await fault(world, "html")
    status, body = await make(world)
    assert (status, body[:6], world.rows("product")) == (502, b"<html>", [])


async def test_a_switch_is_met_by_the_requests_it_names_and_as_often_as_it_says(world: World) -> None:
    await fault(world, "error_before", method="POST", path="/v1/products", count=2)
    await world.v1.customers.create_async({})
    await world.v1.products.list_async()
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            await world.v1.products.create_async({"name": "a"})
    await world.v1.products.create_async({"name": "a"})
    assert await world.say("GET", "/sandbox/faults") == []


async def test_switches_can_be_taken_back(world: World) -> None:
    await fault(world, "html", count=100)
    await world.say("DELETE", "/sandbox/faults")
    await world.v1.products.create_async({"name": "a"})


@pytest.mark.parametrize("body", [{"kind": "earthquake"}, {"size": 3}, {}])
async def test_a_switch_that_there_is_not_is_refused_by_name(world: World, body: dict[str, Any]) -> None:
    async with world.http.post(f"{world.url}/sandbox/faults", json=body) as answer:
        told = await answer.json()
        assert answer.status == 400
        assert all(kind in told["error"]["message"] for kind in (KINDS if "kind" in body else ("kind", "path")))


@pytest.mark.parametrize(
    ("where", "body"),
    [
        ("faults", {"kind": "timeout_after", "count": "x"}),
        ("faults", {"kind": "timeout_after", "seconds": "x"}),
        ("faults", {"kind": "html", "headers": {"A\r\nB": "c"}}),
        ("faults", {"kind": "html", "headers": 5}),
        ("faults", {"kind": "html", "path": 5}),
        ("deliveries", {"kind": "delay", "count": "x"}),
        ("deliveries", {"kind": "delay", "seconds": "x"}),
        ("deliveries", {"kind": "outage", "seconds": "x"}),
        ("deliveries", {"kind": "drop", "type": 5}),
    ],
    ids=str,
)
async def test_a_switch_that_would_break_every_request_is_refused(
    world: World, where: str, body: dict[str, Any]
) -> None:
    async with world.http.post(f"{world.url}/sandbox/{where}", json=body) as answer:
        assert answer.status == 400
    await make(world)


async def test_requests_of_others_go_on_while_one_hangs(world: World) -> None:
    await fault(world, "timeout_after", path="/v1/products")
    hanging = asyncio.create_task(make(world))
    await await_until(lambda: not world.sandbox.faults.shown(), timeout_s=10, what="the request hangs")
    await world.v1.customers.create_async({})
    assert not hanging.done()
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
