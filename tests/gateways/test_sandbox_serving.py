"""The sandbox as a process has it: its file, the data set's clock, and what happens by itself."""

import asyncio
import contextlib
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import uvicorn

from metering.billing.sandbox.serving import FollowedClock, serving
from metering.clock import HandClock
from tests.support.wait import await_until

NOW_MS = 1_795_000_000_500


class Store:
    """Where the offset of the test clock is kept; it may be away."""

    def __init__(self) -> None:
        self.offset_ms = 0
        self.away = False
        self.closed = 0

    async def offset(self) -> int:
        if self.away:
            raise ConnectionError("away")
        return self.offset_ms

    async def close(self) -> None:
        self.closed += 1


@asynccontextmanager
async def served(app: Callable[..., Any]) -> AsyncIterator[str]:
    """The app on a free port, with its lifespan."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        config = uvicorn.Config(app, interface="asgi3", lifespan="on", log_level="error", date_header=False)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve([listener]))
        await await_until(lambda: server.started, timeout_s=10, what="the sandbox serves")
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def call(method: str, url: str, **form: str) -> tuple[dict[str, Any], str]:
    """One call with a test key: the answer, and the time that it tells."""
    auth = {"Authorization": "Bearer sk_test_x"}
    async with (
        aiohttp.ClientSession(headers=auth) as session,
        session.request(method, url, data=form or None) as answer,
    ):
        assert answer.headers.getall("Date") == [answer.headers["Date"]]
        found: dict[str, Any] = await answer.json()
        return found, answer.headers["Date"]


async def test_every_answer_is_of_the_time_of_the_data_set(tmp_path: Path) -> None:
    store = Store()
    async with served(serving(None, HandClock(NOW_MS), store.offset, store.close)) as url:
        customer, _ = await call("POST", f"{url}/v1/customers", email="ada@example.org")
        assert customer["created"] == NOW_MS // 1000
        store.offset_ms = 86_400_000
        customer, date = await call("POST", f"{url}/v1/customers")
        assert customer["created"] == NOW_MS // 1000 + 86_400
        assert date == "Thu, 19 Nov 2026 11:06:40 GMT"
    assert store.closed == 1


async def test_what_falls_due_is_done_without_being_asked(tmp_path: Path) -> None:
    store = Store()
    async with served(serving(None, HandClock(NOW_MS), store.offset, store.close)) as url:
        await call("POST", f"{url}/v1/products", id="prod_1", name="n")
        price, _ = await call(
            "POST",
            f"{url}/v1/prices",
            **{"product": "prod_1", "currency": "usd", "unit_amount": "5", "recurring[interval]": "month"},
        )
        params = {
            "mode": "subscription",
            "success_url": "http://127.0.0.1/",
            "line_items[0][price]": price["id"],
            "line_items[0][quantity]": "1",
        }
        session, _ = await call("POST", f"{url}/v1/checkout/sessions", **params)
        assert session["url"] == f"{url}/c/pay/{session['id']}"
        store.offset_ms = 86_400_000

        async def expired() -> bool:
            events, _ = await call("GET", f"{url}/v1/events")
            return [one["type"] for one in events["data"]][:1] == ["checkout.session.expired"]

        await await_until(expired, timeout_s=10, what="the session expires")


async def test_a_second_start_knows_what_the_first_one_knew(tmp_path: Path) -> None:
    store, file = Store(), tmp_path / "sandbox.sqlite"
    async with served(serving(file, HandClock(NOW_MS), store.offset, store.close)) as url:
        customer, _ = await call("POST", f"{url}/v1/customers")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    async with served(serving(file, HandClock(NOW_MS), store.offset, store.close)) as url:
        assert (await call("GET", f"{url}/v1/customers/{customer['id']}"))[0] == customer


async def test_a_store_that_is_away_leaves_the_time_as_it_was() -> None:
    store = Store()
    followed = FollowedClock(HandClock(NOW_MS), store.offset)
    seen = []
    for offset_ms, away in ((5000, False), (9000, True), (1000, False)):
        store.offset_ms, store.away = offset_ms, away
        await followed.look()
        seen.append(followed.now_s() - NOW_MS // 1000)
    assert seen == [5, 5, 5]
