"""A worker dies between the effect of a request with an Idempotency-Key and the keeping of its answer."""

import asyncio
import os
import secrets
import signal
from typing import Any, Final

import pytest

from metering.store.connect import connect
from metering.store.conservation import walk
from metering.store.keys import Keys
from metering.store.scripts import script
from tests.support.proxy import Proxy
from tests.support.servers import StoreServer
from tests.support.service import ServiceProcess, call
from tests.support.wait import await_until

CHANGE: Final = {"plan": "professional", "limits": {"scans": 7}}


async def update(service: ServiceProcess, key: str, org_id: str = "acme") -> tuple[int, Any]:
    """POST /billing/update under `key`, off the loop. A connection that breaks is a (0, None)."""
    headers = {"Idempotency-Key": key}
    try:
        return await asyncio.to_thread(
            call, f"{service.url}/billing/update", {"org_id": org_id, **CHANGE}, token=service.token(), headers=headers
        )
    except OSError:
        return 0, None


async def trail(client: Any) -> list[bytes]:
    """What kinds of change acme has been through."""
    return [entry[b"type"] for _, entry in await client.xrange(Keys(64).trail("acme"))]


@pytest.mark.parametrize("lost", ["request", "reply"])
async def test_a_worker_killed_before_its_answer_is_kept_has_done_its_work_once(store: StoreServer, lost: str) -> None:
    """The finish of the killed worker never reached the store, or it did and nobody heard: the repeat is right."""
    key = secrets.token_hex(16)
    async with Proxy(store.address) as proxy, connect(store.url, database=2) as plain:
        client: Any = plain
        settings = {"REDIS_URL": proxy.url, "DEBUG": "true", "JWT_SECRET": secrets.token_hex(32)}
        service = await asyncio.to_thread(ServiceProcess("--workers", "2", settings=settings).start)
        try:
            assert (await update(service, "warm", "other"))[0] == 200  # the store knows the scripts from now on
            proxy.swallow, proxy.swallow_whole = script("finish").sha.encode(), lost == "request"
            running = asyncio.create_task(update(service, key))
            await await_until(lambda: proxy.swallowed, timeout_s=10, what="the effect is there, its answer is not kept")
            assert await trail(client) == [b"org_created"]
            for pid in service.workers():
                os.kill(pid, signal.SIGKILL)
            assert (await running)[0] == 0
            proxy.swallow = None
            answers = await repeated(service, client, key)
            assert answers[-1][0] == 200
            assert answers[-1][1]["features"]["scans"]["limit"] == 7
            assert await trail(client) == [b"org_created"]
            assert (await walk(client, Keys(64))).violations == []
        finally:
            await asyncio.to_thread(service.close)


async def repeated(service: ServiceProcess, client: Any, key: str) -> list[tuple[int, Any]]:
    """The answers to repeats of the request until one is no 409. The lease is let run out at once."""
    answers: list[tuple[int, Any]] = []

    async def settled() -> bool:
        answers.append(await update(service, key))
        for name in [name async for name in client.scan_iter(match="*:k:*")]:
            if not await client.hexists(name, "answer"):
                await client.pexpire(name, 1)
        return answers[-1][0] not in {0, 409}

    await await_until(settled, timeout_s=30, what="a worker answers the repeat")
    return answers
