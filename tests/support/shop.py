"""A service over a shipped catalogue and a sandbox Stripe that is set up for it, both in this process."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import uvicorn

from metering.billing.sandbox.app import Sandbox
from metering.billing.sandbox.db import Db
from metering.clock import SystemClock
from metering.settings import Settings
from metering.stripe_setup import planned
from tests.service.running import Running, token
from tests.support.sandbox_world import KEEP_ALIVE_S
from tests.support.wait import wait_until

KEY: Final = "sk_test_tests"

NOWHERE: Final = "http://127.0.0.1:1"
"""Where Stripe's events go until it is known where the service listens."""

TAKES_S: Final = 20.0


@dataclass(frozen=True)
class Shop:
    """`service` sells what `stripe` (an address) has a price for."""

    service: Running
    stripe: str

    def call(self, org: str, method: str, path: str, *, scopes: tuple[str, ...] = (), **sent: Any) -> Any:
        """One request of an organisation; the answer, which must be one, as JSON."""
        answer = self.service.call(method, path, token(org, *scopes), **sent)
        assert answer.is_success, answer.text
        return answer.json()

    def pay(self, page: str, choice: str = "pay") -> int:
        """Press a button of a page of Stripe's, and let Stripe tell what came of it; the page's status."""
        status = httpx2.post(page, data={"choice": choice}).status_code
        self.tell()
        return status

    def tell(self) -> None:
        """Let Stripe send what it has to tell."""
        assert httpx2.post(f"{self.stripe}/sandbox/run").status_code == 200

    def on_plan(self, org: str, plan: str) -> None:
        """Wait until an organisation has a plan: what Stripe tells takes effect after it was answered."""

        def has() -> bool:
            return bool(self.call(org, "GET", "/usage")["plan"] == plan)

        wait_until(has, timeout_s=TAKES_S, what=f"{org} is on {plan}")


@contextmanager
def shop(catalogue: str, webhook_path: str, **more: Any) -> Iterator[Shop]:
    """A shop whose Stripe tells what happens at `webhook_path`; `more` are further settings."""
    with _sandbox() as stripe:
        asked: dict[str, Any] = {"plans_file": catalogue, "stripe_secret_key": KEY, "stripe_api_base": stripe, **more}
        settings = Settings.model_validate(asked)
        secrets = ",".join(asyncio.run(_set_up(settings, NOWHERE + webhook_path)))
        with Running(tidies=True, stripe_webhook_secret=secrets, **asked) as service:
            asyncio.run(_set_up(settings, f"http://127.0.0.1:{service.port}{webhook_path}"))
            yield Shop(service, stripe)


async def _set_up(settings: Settings, webhook_url: str) -> list[str]:
    """Make what lacks; the secrets that Stripe told."""
    async with planned(settings, SystemClock(), webhook_url) as setting:
        return [done.secret async for done in setting.carry_out() if done.secret]


@contextmanager
def _sandbox() -> Iterator[str]:
    """A sandbox in a thread of its own: its database belongs to the thread that made it."""
    ends = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(_serve(listener, ends)), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ends.set()
            thread.join(TAKES_S)


async def _serve(listener: socket.socket, ends: threading.Event) -> None:
    sandbox = Sandbox(Db(), lambda: int(time.time()))
    server = uvicorn.Server(
        uvicorn.Config(
            sandbox.app, interface="asgi3", lifespan="off", log_level="error", timeout_keep_alive=KEEP_ALIVE_S
        )
    )
    serving = asyncio.create_task(server.serve([listener]))
    await asyncio.to_thread(ends.wait)
    await sandbox.close()
    server.should_exit = True
    await serving
