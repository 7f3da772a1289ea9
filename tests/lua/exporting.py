"""The exporter as tests run it: over a ledger, with a Stripe in memory and hands on its clocks."""

from typing import Any, Final

from metering.billing.breaker import Breaker
from metering.billing.exporter import Exporter, Parts
from metering.billing.late import Late
from metering.billing.sending import Sender
from metering.clock import HandClock
from metering.store.org import Org, Subscription
from metering.store.outbox import Outbox
from metering.store.pace import StorePace
from metering.store.window import Window
from plans.periods import Period
from tests.lua.ledger import CATALOGUE, Ledger
from tests.lua.outboxes import lanes_of, outbox_of
from tests.support.till import Till

SOLD: Final = CATALOGUE.replace(
    'scans = { title = "Scans", unit = "scan", ',
    'scans = { title = "Scans", unit = "scan", stripe_meter_event = "scans_over", overage_price_minor = 25, ',
).replace(
    'open = { title = "Open", unit = "call" }',
    'open = { title = "Open", unit = "call", stripe_meter_event = "open_over" }',
)
"""The tests' catalogue; scans and open have a meter, and scans alone a price."""


class Trusting:
    """Believes that an invoice is to come for whatever has a customer, so that Stripe need not be asked."""

    def paid(self, org: Org, feature: str, closed_ms: int | None) -> bool | None:
        """Yes."""
        return True

    async def ask_paid(self, org: Org, customer: str, feature: str) -> bool:
        """Nobody asks."""
        raise NotImplementedError

    def doubts(self, window: Window, sold: Subscription | None, now_ms: int) -> bool:
        """No."""
        return False

    async def ask_final(
        self, org_id: str, period: Period, customer: str, sold: Subscription | None, now_ms: int
    ) -> bool:
        """Nobody asks."""
        raise NotImplementedError


async def no_pause(seconds: float) -> None:
    """Waiting is for those who have time."""


async def always_drained(org_id: str, at_ms: int) -> bool:
    """Nothing waits to be counted."""
    return True


def till_of(ledger: Ledger) -> Till:
    """A Stripe that knows the ledger's time."""
    return Till(ledger.now_ms)


def parts_of(ledger: Ledger, till: Any, *, client: Any = None, outbox: Outbox | None = None, **other: Any) -> Parts:
    """What an exporter stands on; `client` takes the place of the ledger's for the outbox, lanes and pace."""
    late = Late(ledger.catalogue, writes_off=other.pop("writes_off", False))
    given = {
        "orgs": ledger.callers[0].orgs,
        "outbox": outbox or outbox_of(ledger, client=client),
        "lanes": lanes_of(ledger, client=client),
        "sender": Sender(till, ledger.catalogue.currency),
        "late": late,
        "coverage": Trusting(),
        "pace": StorePace(client or ledger.client, ledger.keys, 1000),
        "breaker": Breaker(HandClock(0).monotonic),
        "stripe_ms": till.stripe_ms,
        "drained": always_drained,
        "partitions": ledger.keys.partitions,
        "pause": no_pause,
        **other,
    }
    return Parts(**given)


def exporter_of(ledger: Ledger, till: Any, **other: Any) -> Exporter:
    """An exporter of its own process: its breaker is its own."""
    return Exporter(parts_of(ledger, till, **other))
