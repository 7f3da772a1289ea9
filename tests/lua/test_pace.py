"""pace.lua: calls of all workers together keep to a rate, and a clock that goes back holds nobody up."""

from typing import Any

from redis.asyncio import Redis

from metering.store.scripts import script

KEY = "{p00}:stripe"


async def ask(client: Redis, interval_us: int, early_us: int) -> int:
    pace: Any = client.register_script(script("pace").text)
    return int(await pace(keys=[KEY], args=[interval_us, early_us]))


async def test_a_burst_goes_at_once_and_the_rest_waits_its_turn(client: Redis) -> None:
    waits = [await ask(client, 10_000_000, 20_000_000) for _ in range(5)]
    assert waits[:3] == [0, 0, 0]
    assert all(9_000_000 < wait <= 10_000_000 for wait in waits[3:])


async def test_who_must_wait_takes_no_place(client: Redis) -> None:
    assert await ask(client, 10_000_000, 0) == 0
    before = await client.hgetall(KEY)
    assert await ask(client, 10_000_000, 0) > 0
    assert await client.hgetall(KEY) == before


async def test_a_place_far_ahead_of_the_clock_is_no_place(client: Redis) -> None:
    await client.hset(KEY, "pace_us", 2**52)
    assert await ask(client, 10, 0) == 0
