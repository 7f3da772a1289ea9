"""kill -9 of everything between the moment at which Stripe took overage and the one at which we write that down."""

import asyncio
import threading
from typing import Any, Final

from metering.store.connect import connect
from metering.store.keys import Keys
from metering.store.outbox import LEASE_MS
from metering.store.timing import move_test_clock
from tests.faults.test_kill import store_url
from tests.support.service import ServiceProcess
from tests.support.stripe_till import METER_EVENTS, Till, till
from tests.support.wait import wait_until

SETTINGS: Final[dict[str, str]] = {"STRIPE_SECRET_KEY": "sk_test_kill", "TEST_CLOCK": "true", "OVERAGE_PUSH_S": "1"}


def test_row_1_killed_after_the_call_and_before_its_answer_stripes_sum_stays_and_the_window_is_settled() -> None:
    """Red when an attempt has an identifier of its own, or none: the second one would count again."""
    with till() as stripe, ServiceProcess(settings={**SETTINGS, "STRIPE_API_BASE": stripe.url}) as service:
        killed = on_first(stripe, service.kill_everything)
        sent = {"org_id": "acme", "stripe_customer_id": "cus_1"}
        assert service.call("/billing/update", sent, token=service.token())[0] == 200
        used = {"org_id": "acme", "feature": "scans", "quantity": 13}
        assert service.call("/usage/track", used, token=service.token())[0] == 200
        assert killed.wait(20)
        service.start()
        assert listed(service)["counts"]["inflight"]["units"] == 3
        asyncio.run(pass_by(store_url(service.data_dir), LEASE_MS))
        wait_until(lambda: len(stripe.posts(METER_EVENTS)) == 2, timeout_s=20, what="the window is sent again")
        wait_until(lambda: listed(service, "?state=delivered")["data"], timeout_s=20, what="the window is settled")
        [window] = listed(service, "?state=delivered")["data"]
        assert (window["units"], window["attempts"], sum(stripe.metered.values())) == (3, 2, 3)


def on_first(stripe: Till, strikes: Any) -> threading.Event:
    """Set once `strikes` was called, when Stripe had taken the first meter event and not answered yet."""
    done = threading.Event()

    def strike() -> None:
        if not done.is_set():
            strikes()
            done.set()

    stripe.on_metered = strike
    return done


def listed(service: ServiceProcess, query: str = "") -> dict[str, Any]:
    """The outbox."""
    status, page = service.call(f"/v1/stripe/outbox{query}", token=service.token())
    assert status == 200, page
    return dict(page)


async def pass_by(url: str, ms: int) -> None:
    """Let time pass for the service."""
    async with connect(url, database=2) as client:
        await move_test_clock(client, Keys(64), ms)
