"""What the sandbox makes of an Idempotency-Key: https://docs.stripe.com/api/idempotent_requests."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import stripe

from tests.support.sandbox_world import DAY_S, World, a_world, utc
from tests.support.wait import await_until

NOW_S = utc(2026, 3, 17, 10, 30)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world(NOW_S) as world:
        yield world


async def make(world: World, key: str, **params: Any) -> Any:
    """A product under a key."""
    return await world.v1.products.create_async({"name": "a", **params}, {"idempotency_key": key})


async def raw(
    world: World, key: str, path: str = "/v1/products", **params: str
) -> tuple[int, bytes, Mapping[str, str]]:
    """The same without the client."""
    headers = {"Authorization": "Bearer sk_test_1", "Idempotency-Key": key}
    async with world.http.post(world.url + path, data={"name": "a", **params}, headers=headers) as answer:
        return answer.status, await answer.read(), answer.headers


async def test_the_same_request_under_one_key_happens_once_and_is_answered_twice(world: World) -> None:
    first = await raw(world, "k")
    again = await raw(world, "k")
    assert (first[:2], "Idempotent-Replayed" in first[2]) == (again[:2], False)
    assert again[2]["Idempotent-Replayed"] == "true"
    assert again[2]["Original-Request"] == first[2]["Request-Id"] != again[2]["Request-Id"]
    assert len(world.rows("product")) == 1


async def test_other_parameters_under_one_key_are_an_idempotency_error(world: World) -> None:
    await make(world, "k")
    with pytest.raises(stripe.IdempotencyError) as caught:
        await make(world, "k", name="b")
    assert caught.value.http_status == 400
    with pytest.raises(stripe.IdempotencyError):
        await world.v1.customers.create_async({}, {"idempotency_key": "k"})


@pytest.mark.parametrize(("kind", "happened"), [("error_before", 0), ("error_after", 1)])
async def test_a_500_is_kept_and_given_again_whether_it_happened_or_not(world: World, kind: str, happened: int) -> None:
    await world.say("POST", "/sandbox/faults", kind=kind)
    first = await raw(world, "k")
    again = await raw(world, "k")
    assert (first[0], again[0], again[1], again[2]["Idempotent-Replayed"]) == (500, 500, first[1], "true")
    assert len(world.rows("product")) == happened
    await make(world, "another")
    assert len(world.rows("product")) == happened + 1


async def test_a_refusal_of_the_call_itself_is_kept(world: World) -> None:
    await make(world, "k1", id="prod_a")
    assert (await raw(world, "k2", id="prod_a"))[0] == 400
    assert (await raw(world, "k2", id="prod_a"))[2]["Idempotent-Replayed"] == "true"


async def test_parameters_that_are_refused_use_no_key_up(world: World) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await make(world, "k", color="red")
    await make(world, "k")


@pytest.mark.parametrize("kind", ["conflict", "rate_limit", "html"])
async def test_an_answer_that_no_call_gave_uses_no_key_up(world: World, kind: str) -> None:
    await world.say("POST", "/sandbox/faults", kind=kind)
    assert (await raw(world, "k"))[0] in {409, 429, 502}
    assert (await raw(world, "k"))[0] == 200


async def test_a_key_whose_request_is_in_work_is_409(world: World) -> None:
    await world.say("POST", "/sandbox/faults", kind="timeout_before")
    first = asyncio.create_task(raw(world, "k"))
    await await_until(lambda: not world.sandbox.faults.shown(), timeout_s=10, what="the first request hangs")
    status, body, headers = await raw(world, "k")
    assert (status, b"idempotency_key_in_use" in body, "Stripe-Should-Retry" in headers) == (409, True, False)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)

    async def free() -> bool:
        return (await raw(world, "k"))[0] == 200

    await await_until(free, timeout_s=10, what="the key of a caller who left is free")
    assert len(world.rows("product")) == 1


async def test_after_24_hours_on_the_sandboxs_clock_a_key_is_new(world: World) -> None:
    await make(world, "k")
    world.now[0] += DAY_S - 1
    with pytest.raises(stripe.IdempotencyError):
        await make(world, "k", name="b")
    world.now[0] += 1
    await make(world, "k", name="b")
    assert len(world.rows("product")) == 2


async def test_reads_and_deletions_have_no_use_for_a_key(world: World) -> None:
    customer = await world.v1.customers.create_async({})
    await world.v1.customers.retrieve_async(customer.id, options={"idempotency_key": "k"})
    await world.v1.customers.delete_async(customer.id, options={"idempotency_key": "k"})
    await make(world, "k")


async def test_v2_keeps_what_worked_and_tries_again_what_did_not(world: World) -> None:
    destination = {
        "name": "n",
        "type": "webhook_endpoint",
        "event_payload": "thin",
        "enabled_events": ["v1.customer.created"],
        "webhook_endpoint": {"url": "http://127.0.0.1:1/hook"},
    }
    create = world.client.v2.core.event_destinations.create_async
    await world.say("POST", "/sandbox/faults", kind="error_before")
    with pytest.raises(stripe.APIError):
        await create(destination, {"idempotency_key": "k"})
    made = await create(destination, {"idempotency_key": "k"})
    again = await create(destination, {"idempotency_key": "k"})
    assert made.id == again.id
    assert len(world.rows("v2.core.event_destination")) == 1


async def test_a_key_has_at_most_255_characters(world: World) -> None:
    assert (await raw(world, "k" * 255))[0] == 200
    assert (await raw(world, "k" * 256))[0] == 400
