"""Dead windows of a running service: overage that Stripe is said to have refused."""

import asyncio
import secrets

from pydantic import SecretStr

from metering.clock import SystemClock
from metering.settings import Settings
from metering.store.fields import FieldCodec
from metering.store.outbox import Outbox, Start
from metering.store.timing import StoreTime
from metering.store.window import Sink, State
from metering.store_access import opened
from tests.service.running import Running


def died(service: Running, org_id: str, *, doubt_ms: int | None = None) -> str:
    """Seal what an organisation has above its limit, and let Stripe refuse it; the window's id.

    With `doubt_ms` an attempt so long ago may have arrived.
    """
    return asyncio.run(_died(service.server_store.url, org_id, doubt_ms))


def one_dead(service: Running) -> str:
    """A dead window of an organisation of its own."""
    org_id = f"org-{secrets.token_hex(6)}"
    assert service.track(org_id=org_id, feature="scans", quantity=13).status_code == 200
    return died(service, org_id)


async def _died(url: str, org_id: str, doubt_ms: int | None) -> str:
    async with opened(Settings(redis_url=SecretStr(url))) as access:
        outbox = Outbox(access.client, access.keys, StoreTime(SystemClock()), FieldCodec(), access.dataset.id)
        name = await outbox.seal(f"{org_id}|scans")
        assert name is not None
        window = await outbox.window_of(org_id, name)
        assert window is not None
        await outbox.attempt(window, Start("cus_1", Sink.METER, window.cut.last_ms, None, ""))
        why = "400 no such customer"
        assert await outbox.settle(window, State.DEAD, why, attempts=1, nothing=doubt_ms is None)
        if doubt_ms is not None:
            tried_ms = SystemClock().now_ms() - doubt_ms
            await access.client.hset(access.keys.window(org_id, name), "tried", str(tried_ms))
    return name
