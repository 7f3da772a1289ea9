"""A sandbox Stripe in this process, spoken to by Stripe's own client, on a clock that the test moves."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import stripe
import uvicorn

from metering.billing.sandbox.app import Sandbox
from metering.billing.sandbox.context import Options
from metering.billing.sandbox.db import Db, Obj
from metering.billing.sandbox.expand import rendered
from tests.support.scripted import Scripted
from tests.support.stripe_schema import check_all, check_object
from tests.support.stripe_witness import Witness

HOUR_S: Final = 3600
DAY_S: Final = 86_400

KEEP_ALIVE_S: Final = 600
"""Longer than a test takes: on a busy machine a connection that ends by itself meets a call that was about to start."""


def utc(*moment: int) -> int:
    """Year, month, day and so on as seconds since the epoch."""
    return int(datetime(*moment, tzinfo=UTC).timestamp())  # type: ignore[misc,arg-type]


@dataclass
class World:
    """The sandbox, its clock, and a client."""

    sandbox: Sandbox
    url: str
    client: Any
    http: aiohttp.ClientSession
    now: list[int]
    prices: dict[str, str] = field(default_factory=dict)

    @property
    def v1(self) -> Any:
        """The client's calls."""
        return self.client.v1

    async def at(self, moment_s: int) -> None:
        """Let time go on to a moment, stopping wherever something is due, and do it."""
        while (due := (await self.say("GET", "/sandbox/due"))["next_due"]) is not None and due < moment_s:
            self.now[0] = max(self.now[0], due)
            await self.say("POST", "/sandbox/run")
        self.now[0] = moment_s
        await self.say("POST", "/sandbox/run")

    async def say(self, method: str, path: str, /, **body: Any) -> Any:
        """One of the sandbox's own calls."""
        async with self.http.request(method, self.url + path, json=body or None) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def page(self, method: str, address: str, **pressed: str) -> tuple[int, str, str]:
        """A page as a browser gets it: status, where it leads, text."""
        form = pressed or None
        async with self.http.request(method, address, data=form, allow_redirects=False) as answer:
            return answer.status, answer.headers.get("Location", ""), await answer.text()

    async def meter(self, name: str = "scans") -> str:
        """A meter that sums."""
        params = {"display_name": name, "event_name": name, "default_aggregation": {"formula": "sum"}}
        return str((await self.v1.billing.meters.create_async(params)).id)

    async def price(self, name: str, **params: Any) -> str:
        """A monthly price of its own product, unless `params` say otherwise; known to the test by its name."""
        made = await self.v1.products.create_async({"name": name})
        known = {"currency": "usd", "product": made.id, "nickname": name, "recurring": {"interval": "month"}}
        self.prices[name] = (await self.v1.prices.create_async({**known, **params})).id
        return self.prices[name]

    async def plan(self) -> None:
        """What most tests sell: `base` for 29 dollars a month, `over` for 0.7 cents a unit of the meter `scans`."""
        await self.price("base", unit_amount=2900)
        recurring = {"interval": "month", "usage_type": "metered", "meter": await self.meter()}
        await self.price("over", unit_amount_decimal="0.7", recurring=recurring)

    async def customer(self, card: str | None = "succeed") -> str:
        """A customer with such a card, or with none."""
        made = await self.v1.customers.create_async({"email": "ada@example.org"})
        if card:
            await self.say("POST", "/sandbox/cards", customer=made.id, card=card)
        return str(made.id)

    async def subscribe(self, customer: str, *names: str, **params: Any) -> Any:
        """A subscription to these prices."""
        items = [{"price": self.prices[name]} for name in names]
        return await self.v1.subscriptions.create_async({"customer": customer, "items": items, **params})

    async def subscription(self, subscription_id: str) -> Any:
        """A subscription as it is now."""
        return await self.v1.subscriptions.retrieve_async(subscription_id)

    async def use(self, customer: str, units: int, at_s: int | None = None, name: str = "scans") -> None:
        """Usage."""
        payload = {"stripe_customer_id": customer, "value": str(units)}
        params = {"event_name": name, "payload": payload, "timestamp": self.now[0] if at_s is None else at_s}
        await self.v1.billing.meter_events.create_async(params)

    async def invoices(self, customer: str) -> list[Any]:
        """All of a customer, the oldest first."""
        return list(reversed((await self.v1.invoices.list_async({"customer": customer, "limit": 100})).data))

    async def events(self) -> list[str]:
        """The types of all events, the oldest first; each of them is held to the client's schema."""
        found = (await self.v1.events.list_async({"limit": 100})).data
        for event in found:
            check_object(event.to_dict())
        return [event.type for event in reversed(found)]

    async def endpoint(self, receiver: Scripted, *types: str, **params: Any) -> str:
        """An endpoint for snapshots of these types (default: all); its secret."""
        known = {"url": receiver.url, "enabled_events": list(types) or ["*"]}
        made = await self.v1.webhook_endpoints.create_async({**known, **params})
        return str(made.secret)

    def rows(self, kind: str) -> list[Obj]:
        """What the sandbox keeps of a kind, by creation."""
        return self.sandbox.db.all(kind)


def sums(invoice: Any) -> list[tuple[int, int]]:
    """Quantity and amount of each line."""
    return [(line.quantity, line.amount) for line in invoice.lines.data]


@asynccontextmanager
async def a_world(
    now_s: int,
    *,
    options: Options | None = None,
    stopwatch: Callable[[], float] | None = None,
    passed_s: Callable[[], int] = lambda: 0,
) -> AsyncIterator[World]:
    """A new sandbox on a free port of loopback. At its end all that was said, events too, has to be Stripe's language.

    Its clock stands where the test puts it, plus `passed_s`.
    """
    now = [now_s]
    sandbox = Sandbox(Db(), lambda: now[0] + passed_s(), options, stopwatch=stopwatch)
    witness = Witness(sandbox.app)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            witness, interface="asgi3", lifespan="off", log_level="error", date_header=False, server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )  # fmt: skip
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        http: Any = stripe.AIOHTTPClient()
        bases: Any = dict.fromkeys(("api", "files", "connect", "meter_events"), url)
        client = stripe.StripeClient("sk_test_tests", base_addresses=bases, http_client=http)
        async with aiohttp.ClientSession() as session:
            try:
                yield World(sandbox, url, client, session, now)
                for kind, version in (("event", 1), ("v2.core.event", 2)):
                    check_all([rendered(sandbox.db, row, ()) for row in sandbox.db.all(kind)], version=version)
            finally:
                await http.close_async()
                await session.close()
                await sandbox.close()
                server.should_exit = True
                with contextlib.suppress(asyncio.CancelledError):
                    await serving
    assert witness.faults == [], "\n".join(witness.faults)
