"""Effects of Stripe's events as script tests make them, without Stripe."""

from dataclasses import replace
from typing import Any

from metering.store.effects import Decide, Decision, Effects, Entry
from metering.store.fields import FieldCodec
from metering.store.org import Org, Subscription
from plans.billing_periods import Alignment, aligned, last_counted_ms
from plans.periods import Period
from tests.lua.ledger import Ledger

TOLD: tuple[Entry, ...] = (("customer.subscription.updated", "actor", "stripe"),)


def effects_of(ledger: Ledger, caller: int = 0) -> Effects:
    """The effects as one caller makes them."""
    one = ledger.callers[caller]
    return Effects(ledger.client, ledger.keys, one.orgs, ledger.catalogue, one.time, FieldCodec(), fake=False)


def subscribed(item: Period, *, plan: str = "pro", ticket: int = 1, **other: Any) -> Decide:
    """Decides that a subscription with this item is current."""
    sold = Subscription("sub_1", "active", plan, item.start_ms, item.start_ms, item)

    def decide(org: Org, now_ms: int) -> Decision:
        profile = replace(org.profile, subscription=replace(sold, **other), ticket=ticket)
        return Decision(plan, profile, moved(org, item, now_ms), TOLD)

    return decide


def moved(org: Org, item: Period, now_ms: int) -> Alignment:
    """What the item does to the period that runs."""
    counted = [usage.last_updated_ms for usage in org.features.values() if usage.last_updated_ms]
    return aligned(org.period, item, now_ms, last_counted_ms(max(counted)) if counted else None)


async def trail_of(ledger: Ledger, org_id: str = "acme") -> list[dict[str, str]]:
    """The trail, oldest first, without instants."""
    entries = await ledger.client.xrange(ledger.keys.trail(org_id))
    told = [{name.decode(): value.decode() for name, value in entry.items()} for _, entry in entries]
    return [{name: value for name, value in entry.items() if name != "at"} for entry in told]
