"""A worker under its parent's eyes: it beats, and one that stops beating is replaced."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from metering.clock import SystemClock
from metering.serve_pool import Worker
from tests.support.service import START_S, call, clean_environment, gone
from tests.support.wait import await_until

TINY_WORKER = "tests.support.tiny_worker"


@pytest.fixture
async def worker(listener: socket.socket, told: list[str]) -> AsyncIterator[Worker]:
    worker = Worker(listener, clean_environment(), SystemClock(), told.append, module=TINY_WORKER, silence_s=3)
    assert await worker.start()
    yield worker
    await worker.stop()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener


@pytest.fixture
async def kept(worker: Worker) -> AsyncIterator[Worker]:
    """A worker that is being watched."""
    keeping = asyncio.create_task(worker.keep())
    yield worker
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping


async def _ask(listener: socket.socket, path: str) -> str:
    """The answer to one GET, asked from outside the loop."""
    port = listener.getsockname()[1]
    status, answer = await asyncio.to_thread(call, f"http://127.0.0.1:{port}{path}")
    assert status == 200
    return str(answer)


async def test_a_worker_that_hangs_is_killed_and_replaced(
    kept: Worker, listener: socket.socket, told: list[str]
) -> None:
    hung = kept.pid
    with pytest.raises(OSError, match=r"closed|reset"):
        await _ask(listener, "/hang")
    await await_until(lambda: any("serves" in line for line in told), timeout_s=START_S, what="another one serves")
    assert gone(hung)
    assert await _ask(listener, "/pid") == str(kept.pid)


async def test_a_worker_that_beats_is_left_alone(kept: Worker, told: list[str]) -> None:
    first = kept.pid
    started_s = SystemClock().monotonic()
    await await_until(lambda: SystemClock().monotonic() - started_s > 4, timeout_s=START_S, what="four seconds pass")
    assert (kept.pid, told) == (first, [])


async def test_a_worker_in_a_stopped_process_counts_as_hanging(kept: Worker, told: list[str]) -> None:
    stopped = kept.pid
    os.kill(stopped, signal.SIGSTOP)
    await await_until(lambda: any("serves" in line for line in told), timeout_s=START_S, what="another one serves")
    assert gone(stopped)


async def test_a_worker_that_was_stopped_is_gone(worker: Worker) -> None:
    await worker.stop()
    assert gone(worker.pid)
