"""The loops beside the requests: they turn, they wake, and a turn that fails ends nothing."""

import asyncio

import pytest

from metering.errors import StorageUnavailable
from metering.workers import Loop, Workers
from tests.support.wait import await_until

LONG_S = 3600.0


class Turns:
    """A job that counts its turns, the first of which fail."""

    def __init__(self, *errors: Exception) -> None:
        self.count = 0
        self._errors = list(errors)

    async def turn(self) -> None:
        self.count += 1
        if self._errors:
            raise self._errors.pop(0)


async def test_a_loop_turns_again_and_again() -> None:
    job = Turns()
    async with Workers(Loop("job", job.turn, 0.01)):
        await await_until(lambda: job.count >= 3, timeout_s=10, what="three turns")


async def test_a_turn_that_fails_is_followed_by_another() -> None:
    job = Turns(StorageUnavailable(), ValueError("a fault"))
    async with Workers(Loop("job", job.turn, 0.01)):
        await await_until(lambda: job.count >= 4, timeout_s=10, what="four turns")


async def test_a_loop_that_is_woken_turns_at_once() -> None:
    job, woken = Turns(), asyncio.Event()
    async with Workers(Loop("job", job.turn, LONG_S, woken)):
        for turns in (1, 2):
            woken.set()
            await await_until(lambda: job.count == turns, timeout_s=10, what="a turn")  # noqa: B023
        assert not woken.is_set()


async def test_a_loop_that_is_not_woken_turns_in_its_time() -> None:
    job = Turns()
    async with Workers(Loop("job", job.turn, 0.01, asyncio.Event())):
        await await_until(lambda: job.count >= 2, timeout_s=10, what="two turns")


async def test_leaving_ends_every_loop() -> None:
    job = Turns()
    async with Workers(Loop("job", job.turn, LONG_S), Loop("other", job.turn, LONG_S, asyncio.Event())):
        pass
    assert job.count == 0
    assert len(asyncio.all_tasks()) == 1


class Deaf:
    """A job whose turn takes its cancellation for a failure and reports that instead, as a driver may."""

    def __init__(self) -> None:
        self.began = asyncio.Event()

    async def turn(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise StorageUnavailable from None


@pytest.mark.parametrize("woken", [False, True])
async def test_a_turn_that_swallows_its_cancellation_does_not_hold_the_end(woken: bool) -> None:
    job, event = Deaf(), asyncio.Event()
    async with asyncio.timeout(5):
        async with Workers(Loop("deaf", job.turn, 0.001, event if woken else None)):
            await job.began.wait()
