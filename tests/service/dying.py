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


def died(service: Running, org_id: str) -> str:
    """Seal what an organisation has above its limit, and let Stripe refuse it; the window's id."""
    return asyncio.run(_died(service.server_store.url, org_id))


def one_dead(service: Running) -> str:
    """A dead window of an organisation of its own."""
    org_id = f"org-{secrets.token_hex(6)}"
    assert service.track(org_id=org_id, feature="scans", quantity=13).status_code == 200
    return died(service, org_id)


async def _died(url: str, org_id: str) -> str:
    async with opened(Settings(redis_url=SecretStr(url))) as access:
        outbox = Outbox(access.client, access.keys, StoreTime(SystemClock()), FieldCodec(), access.dataset.id)
        name = await outbox.seal(f"{org_id}|scans")
        assert name is not None
        window = await outbox.window_of(org_id, name)
        assert window is not None
        await outbox.attempt(window, Start("cus_1", Sink.METER, window.cut.last_ms, None, ""))
        assert await outbox.settle(window, State.DEAD, "400 no such customer", attempts=1, nothing=True)
    return name
