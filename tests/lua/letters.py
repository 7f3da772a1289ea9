"""Stripe events as tests of the inbox make them, and what a data set has of them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from metering.store.connect import connect
from metering.store.inbox import Inbox
from metering.store.keys import Keys
from tests.lua.ledger import SECRET
from tests.support.servers import StoreServer
from webhooks.stripe_events import StripeEvent

KEYS: Final = Keys(2)


@asynccontextmanager
async def client_of(server: StoreServer) -> AsyncIterator[Any]:
    """A client of a server, of which nothing is known to the type checker."""
    async with connect(server.url) as client:
        yield client


def stripe_event(number: int = 1, kind: str = "customer.subscription.updated", **fields: Any) -> StripeEvent:
    """An event about subscription `number`."""
    made: dict[str, Any] = {
        "event_id": f"evt_{number}",
        "dedupe_id": f"evt_{number}",
        "type": kind,
        "object_id": f"sub_{number}",
        "customer": f"cus_{number}",
        "created_ms": 1_790_000_000_000 + number,
        "livemode": False,
        "api_version": "2026-10-28.endive",
        "thin": False,
    }
    return StripeEvent(**(made | fields))


def inbox_of(client: Any, **options: Any) -> Inbox:
    """The inbox of the data set of these tests."""
    return Inbox(client, KEYS, SECRET, **options)


async def entries(client: Any, kind: str = "inbox") -> list[dict[bytes, bytes]]:
    """The fields of every entry."""
    found: list[dict[bytes, bytes]] = []
    for partition in range(KEYS.partitions):
        found += [fields for _, fields in await client.xrange(KEYS.shared(kind, partition))]
    return found


async def ids(client: Any, kind: str = "inbox") -> Sequence[str]:
    """The ids of the events there, sorted."""
    return sorted(fields[b"event"].decode() for fields in await entries(client, kind))


async def counted(client: Any) -> dict[str, int]:
    """Billing events counted, by type."""
    found: dict[str, int] = {}
    for partition in range(KEYS.partitions):
        for name, value in (await client.hgetall(KEYS.shared("totals", partition))).items():
            if name.startswith(b"e:"):
                kind = name[2:].decode()
                found[kind] = found.get(kind, 0) + int(value)
    return found
