"""The clocks: the machine's own, and the one that is set by hand."""

import time

import pytest

from metering.clock import HandClock, SystemClock


def test_the_wall_is_the_machines_in_milliseconds() -> None:
    assert abs(SystemClock().now_ms() - time.time() * 1000) < 1000


def test_the_stopwatch_counts_seconds() -> None:
    before = time.monotonic()
    assert before <= SystemClock().monotonic() <= before + 60


def test_a_hand_clock_stands_still_until_it_is_told() -> None:
    clock = HandClock(1_000)
    assert [clock.now_ms(), clock.now_ms(), clock.monotonic()] == [1_000, 1_000, 0.0]


def test_time_that_passes_moves_wall_and_stopwatch() -> None:
    clock = HandClock(1_000)
    clock.advance(2_500)
    assert (clock.now_ms(), clock.monotonic()) == (3_500, 2.5)


def test_a_wall_that_is_set_back_does_not_move_the_stopwatch() -> None:
    clock = HandClock(1_000)
    clock.advance(2_000)
    clock.set(500)
    assert (clock.now_ms(), clock.monotonic()) == (500, 2.0)


def test_time_does_not_pass_backwards() -> None:
    with pytest.raises(ValueError, match="forwards"):
        HandClock(0).advance(-1)
