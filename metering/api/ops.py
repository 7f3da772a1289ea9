"""For those who run the service: is it well, should traffic come here, what do its metrics say."""

import hmac
import os
from typing import Final

from metering.api.route import Call, Reply, json_reply
from metering.api.services import Services
from metering.auth import refused
from metering.errors import Unauthenticated
from metering.moments import rfc3339
from metering.setting_kinds import StripeMode

_DOWN: Final = 503
_AWAY: Final = "unreachable"


async def get_health(call: Call) -> Reply:
    """The state of the service and of what it needs."""
    services = call.services
    store, stripe = await services.vitals.store(), _stripe(services)
    degraded = store.lossy or stripe == _AWAY
    status = "unhealthy" if not store.answers else "degraded" if degraded else "healthy"
    body = {
        "status": status,
        "timestamp": rfc3339(services.clock.now_ms()),
        "services": {
            "redis": "healthy" if store.answers else "unhealthy",
            "stripe": stripe,
        },
        "stripe": services.stripe_mode.value,
        "version": services.version,
        "store": {
            "kind": store.kind,
            "version": store.version,
            "durability": store.durability,
            "lossy": store.lossy,
        },
    }
    return json_reply(body, 200 if store.answers else _DOWN)


def _stripe(services: Services) -> str:
    """As the last call found it: nobody is asked, as whoever asks for the health may do so without credentials."""
    if services.stripe_mode is StripeMode.NONE:
        return "not_configured"
    return "configured" if services.stripe_answers() else _AWAY


async def get_live(_: Call) -> Reply:
    """The process answers. Touches nothing else, so that a broken store does not get a sound process killed."""
    return json_reply({"status": "alive"})


async def get_ready(call: Call) -> Reply:
    """Whether traffic should come here."""
    reasons = await call.services.vitals.unready()
    return json_reply({"status": "not_ready" if reasons else "ready", "reasons": reasons}, _DOWN if reasons else 200)


async def get_metrics(call: Call) -> Reply:
    """The metrics, for the scraper."""
    _check_scraper(call)
    page, kind = await call.services.measures.exposition(call.headers.get(b"accept", b"").decode("latin-1"))
    return Reply(page, kind=kind.encode(), headers={"X-Worker-Pid": str(os.getpid())})


def _check_scraper(call: Call) -> None:
    """Raises Unauthenticated unless the metrics are open to all or the scraper has the token."""
    if call.services.metrics_open:
        return
    token = call.services.metrics_token
    if token is None:
        raise Unauthenticated("set METRICS_TOKEN to scrape a server that is not bound to loopback")
    given = call.headers.get(b"authorization", b"")
    if not hmac.compare_digest(given, b"Bearer " + token.encode()):
        raise refused("the metrics want METRICS_TOKEN as bearer token")
