"""The calls of the sandbox Stripe that are none of Stripe's: when something falls due, and doing what is due."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import aiohttp

CALL_S: Final = 30.0
"""A month of invoices of some thousand customers takes seconds."""


class NoSandboxError(Exception):
    """What answers there is no sandbox, or nothing does."""


@dataclass(frozen=True, slots=True)
class Due:
    """What the sandbox has to do: when the next thing falls due (ms), and webhooks that are on their way."""

    next_ms: int | None
    deliveries: int


class SandboxClient:
    """One sandbox, at `base`. Every call raises NoSandboxError."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session, self._base = session, base.rstrip("/")

    async def due(self) -> Due:
        """What there is to do."""
        return _due(await self._call("GET", "/sandbox/due"))

    async def run(self) -> Due:
        """Have everything done that is due by now."""
        await self._call("POST", "/sandbox/run")
        return await self.due()

    async def _call(self, method: str, path: str) -> dict[str, Any]:
        try:
            async with self._session.request(method, f"{self._base}{path}") as answer:
                if answer.status != HTTPStatus.OK:
                    raise NoSandboxError(f"{self._base}{path} answered {answer.status}")
                body: dict[str, Any] = await answer.json()
                return body
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise NoSandboxError(f"{self._base} does not answer ({type(error).__name__})") from error


@asynccontextmanager
async def sandbox_at(base: str | None) -> AsyncIterator[SandboxClient | None]:
    """A client of the sandbox at `base` while the block runs; None without one."""
    if base is None:
        yield None
        return
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_S)) as session:
        yield SandboxClient(session, base)


def _due(told: dict[str, Any]) -> Due:
    next_s = told.get("next_due")
    return Due(None if next_s is None else int(next_s) * 1000, int(told.get("deliveries") or 0))
