"""How billing is put together, in one place: what the routes need of it, and what runs beside them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from metering.billing.intake import Intake
from metering.settings import Settings
from metering.store.inbox import Inbox
from metering.store.keys import Keys
from metering.store.totals import Client


@dataclass(frozen=True, slots=True)
class Job:
    """Something done again and again: how many seconds lie between two turns; `woken` set begins one at once."""

    name: str
    turn: Callable[[], Awaitable[None]]
    every_s: float
    woken: asyncio.Event | None = None


@dataclass(frozen=True, slots=True)
class Billing:
    """Billing, put together."""

    intake: Intake
    jobs: tuple[Job, ...] = ()


def open_billing(settings: Settings, client: Client, keys: Keys, secret: bytes, *, fake: bool) -> Billing:
    """Put billing together on the data set whose secret is `secret`; `client` repeats what is safe to repeat."""
    inbox = Inbox(client, keys, secret, fake=fake)
    return Billing(Intake(inbox, secrets=settings.webhook_secrets(), livemode=settings.stripe_livemode()))
