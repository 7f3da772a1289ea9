"""Credentials of a data set as tests drive them: workers with keys, denied ids and a memory of their own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from metering.auth import ADMIN, KEYS, USAGE_WRITE, Authenticator, Caller, Verifier
from metering.clock import SystemClock
from metering.errors import Unauthenticated
from metering.jwts import JwtVerifier
from metering.store.api_key import NewKey
from metering.store.api_keys import KEYS_MAX, ApiKeys
from metering.store.scripts import script
from metering.store.withdrawn import Withdrawn
from tests.lua.ledger import Ledger
from tests.lua.scenes import event
from tests.service.running import SECRET

WRITER: Final = NewKey("collector", "acme", (USAGE_WRITE, KEYS))
OPERATOR: Final = NewKey("operator", None, (ADMIN,))


class ShiftedClock(SystemClock):
    """The machine's clock, ahead by what a test says."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        """The machine's time, and what was added."""
        return super().now_ms() + self.ahead_ms


class Worker:
    """One worker's view of the credentials."""

    def __init__(self, ledger: Ledger, *, live: bool = True, client: Any = None, most: int = KEYS_MAX) -> None:
        verifiers: list[Verifier] = []
        self.clock = ShiftedClock()
        self.auth = Authenticator(verifiers, self.clock)
        asked = client or ledger.client
        self.withdrawn = Withdrawn(asked, asked, ledger.keys, self.clock, forget=self.auth.forget, fake=False)
        self.keys = ApiKeys(
            asked, ledger.keys, self.clock, live=live, withdrew=self.withdrawn.withdrew, fake=False, most=most
        )
        jwts = JwtVerifier(SECRET, self.clock, denied=self.withdrawn.denies)
        verifiers += (self.keys, jwts)

    async def caller(self, text: str) -> Caller | None:
        """Who calls with this key or token; None where nobody gets in."""
        try:
            return await self.auth.identify(f"Bearer {text}".encode())
        except Unauthenticated:
            return None


@asynccontextmanager
async def vault(url: str, *, workers: int = 1, **options: Any) -> AsyncIterator[tuple[Ledger, list[Worker]]]:
    """A ledger with the organisations acme and beta, and `workers` that have read what was withdrawn."""
    async with Ledger(url, callers=1, **options) as ledger:
        for org_id in ("acme", "beta"):
            await ledger.callers[0].counters.track(event(org_id))
        found = [Worker(ledger) for _ in range(workers)]
        for worker in found:
            await worker.withdrawn.open()
        yield ledger, found


async def run(ledger: Ledger, name: str, keys: list[str], *args: object) -> Any:
    """Run a script with these words."""
    return await ledger.client.execute_command("EVAL", script(name).text, len(keys), *keys, *args)


async def trail(ledger: Ledger, org_id: str) -> list[dict[str, str]]:
    """The entries about keys in an organisation's trail, oldest first, without their instants."""
    entries = await ledger.client.xrange(ledger.keys.trail(org_id))
    texts = [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in entries]
    for text in texts:
        assert abs(int(text.pop("at")) - await ledger.now_ms()) < 60_000
    return [text for text in texts if text["type"].startswith("key_")]
