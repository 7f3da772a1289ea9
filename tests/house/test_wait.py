"""The one place that waits: it hands on what it saw, and says what did not come."""

import pytest

from tests.support.wait import await_until, wait_until


def test_waiting_hands_on_the_first_true_thing() -> None:
    looks = iter([0, None, "", 7])
    assert wait_until(lambda: next(looks), timeout_s=5, what="a number") == 7


def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.02 s: rain"):
        wait_until(lambda: False, timeout_s=0.02, what="rain")


async def test_waiting_in_a_loop_takes_a_plain_function() -> None:
    looks = iter([False, True])
    assert await await_until(lambda: next(looks), timeout_s=5, what="truth")


async def test_waiting_in_a_loop_takes_a_coroutine_function() -> None:
    looks = iter([0, 7])

    async def look() -> int:
        return next(looks)

    assert await await_until(look, timeout_s=5, what="a number") == 7


async def test_waiting_in_a_loop_in_vain_says_for_what() -> None:
    with pytest.raises(AssertionError, match="rain"):
        await await_until(lambda: False, timeout_s=0.02, what="rain")
