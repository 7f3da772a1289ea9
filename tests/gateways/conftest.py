"""What the tests of the gateway share: a server that answers as told, and a gateway that speaks to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from metering.billing.gateways.live import LiveGateway
from metering.clock import HandClock
from tests.support.scripted import Scripted, scripted

Build = Callable[..., LiveGateway]


@pytest.fixture
async def stripe_says() -> AsyncIterator[Scripted]:
    """Stripe, as the test tells it to answer."""
    async with scripted() as script:
        yield script


@pytest.fixture
def clock() -> HandClock:
    """The stopwatch of the gateway."""
    return HandClock(0)


@pytest.fixture
def pauses() -> list[float]:
    """The pauses that the client asked for between its repeats."""
    return []


@pytest.fixture
async def build(stripe_says: Scripted, clock: HandClock, pauses: list[float]) -> AsyncIterator[Build]:
    """Makes gateways that speak to the scripted server and lose no time between repeats."""
    async with contextlib.AsyncExitStack() as stack:

        async def pause(seconds: float) -> None:
            pauses.append(seconds)
            await asyncio.sleep(0)

        def make(**settings: Any) -> LiveGateway:
            known = {"api_base": stripe_says.url, "clock": clock, "pause": pause}
            gateway = LiveGateway("sk_test_1", **{**known, **settings})
            stack.push_async_callback(gateway.close)
            return gateway

        yield make


@pytest.fixture
def gateway(build: Build) -> LiveGateway:
    """A gateway as the service has it."""
    return build()
