"""pace.lua: calls of all workers together keep to a rate, and a clock that goes back holds nobody up."""

import asyncio
from typing import Any

from redis.asyncio import Redis

from metering.settings import Settings
from metering.store.keys import Keys
from metering.store.pace import StorePace
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


async def test_row_30_all_workers_together_stay_below_what_a_test_account_takes(client: Redis) -> None:
    """At most 25 calls a second (https://docs.stripe.com/rate-limits), with what the burst lets go at once."""
    rate = Settings.model_fields["stripe_rate"].default
    workers = [StorePace(client, Keys(1), rate) for _ in range(3)]
    before_s, before_us = await client.time()
    waits = await asyncio.gather(*(worker.wait_s() for worker in workers * 40))
    after_s, after_us = await client.time()
    passed_s = after_s - before_s + (after_us - before_us) / 1_000_000
    assert 0 < waits.count(0) <= 1 + 25 * (passed_s + 0.25)
