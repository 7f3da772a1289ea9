"""Waiting for something outside the test, in one place: the only poll and the only sleep of the tests."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, overload

_T = TypeVar("_T")

PAUSE_S: Final = 0.01
"""Between two looks: short against a process start (50 ms), long against what a look costs."""


def wait_until(predicate: Callable[[], _T], *, timeout_s: float, what: str) -> _T:
    """What `predicate` gives as soon as it is true. Raises AssertionError naming `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (seen := predicate()):
        _check(deadline, timeout_s, what)
        time.sleep(PAUSE_S)
    return seen


@overload
async def await_until(predicate: Callable[[], Awaitable[_T]], *, timeout_s: float, what: str) -> _T: ...
@overload
async def await_until(predicate: Callable[[], _T], *, timeout_s: float, what: str) -> _T: ...
async def await_until(predicate: Callable[[], object], *, timeout_s: float, what: str) -> object:
    """`wait_until` for a running event loop; `predicate` may be a coroutine function."""
    deadline = time.monotonic() + timeout_s
    while True:
        look = predicate()
        seen = await look if inspect.isawaitable(look) else look
        if seen:
            return seen
        _check(deadline, timeout_s, what)
        await asyncio.sleep(PAUSE_S)


def _check(deadline: float, timeout_s: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise AssertionError(f"not within {timeout_s:g} s: {what}")
