"""One reading for all who ask at the same time, and none that began before they asked."""

import asyncio
from dataclasses import dataclass, field

import pytest

from metering.together import Together


@dataclass
class Source:
    """What is read: a number that grows, once the test lets it be read."""

    value: int = 0
    begun: int = 0
    let: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def read(self) -> int:
        self.begun += 1
        found = self.value
        await self.let.acquire()
        if found < 0:
            raise ValueError(found)
        return found


async def settle() -> None:
    """Let all tasks come to where they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_those_who_come_during_a_reading_share_the_next_and_see_what_happened_before_they_asked() -> None:
    source = Source(1)
    together = Together(source.read)
    first = asyncio.create_task(together())
    await settle()
    source.value = 2
    others = [asyncio.create_task(together()) for _ in range(100)]
    await settle()
    assert source.begun == 1
    for _ in range(2):
        source.let.release()
        await settle()
    assert source.begun == 2
    assert (await first, {await one for one in others}) == (1, {2})


async def test_readings_go_on_one_after_the_other_while_some_always_ask() -> None:
    source = Source()
    together = Together(source.read)
    asked = []
    for value in range(5):
        source.value = value
        asked += [asyncio.create_task(together()) for _ in range(3)]
        await settle()
        source.let.release()
        await settle()
    source.let.release()
    found = await asyncio.gather(*asked)
    assert all(one >= asked_at // 3 for asked_at, one in enumerate(found))
    assert source.begun <= 6


async def test_who_gives_up_stops_nobody_else_and_an_error_is_everybodys_and_over() -> None:
    source = Source(1)
    together = Together(source.read)
    first, left, stays = (asyncio.create_task(together()) for _ in range(3))
    await settle()
    source.value = -1
    source.let.release()
    await settle()
    left.cancel()
    await settle()
    source.let.release()
    with pytest.raises(ValueError, match="-1"):
        await stays
    assert await first == 1
    source.value = 3
    source.let.release()
    assert await together() == 3


async def test_what_is_under_way_ends_with_its_owner() -> None:
    source = Source(1)
    together = Together(source.read)
    asked = [asyncio.create_task(together()) for _ in range(2)]
    await settle()
    together.close()
    for one in asked:
        with pytest.raises(asyncio.CancelledError):
            await one
