"""Windows as script tests make them: sealed, sent and settled by hand, without a gateway."""

from random import Random
from typing import Any, Final

from metering.store.customers import Customers
from metering.store.fields import FieldCodec
from metering.store.orgs import OrgChange
from metering.store.outbox import Begun, Outbox, Start
from metering.store.stripe_lanes import Lanes
from metering.store.window import Sink, State, Window
from tests.lua.ledger import SECRET, Ledger

DATASET_ID: Final = "ds_test"
CUSTOMER: Final = "cus_1"


def outbox_of(ledger: Ledger, caller: int = 0, dataset_id: str = DATASET_ID, client: Any = None) -> Outbox:
    """The outbox as one caller sees it."""
    time = ledger.callers[caller].time
    return Outbox(client or ledger.client, ledger.keys, time, FieldCodec(), dataset_id)


def lanes_of(ledger: Ledger, client: Any = None) -> Lanes:
    """The lanes, with the customers' digests of the data set."""
    customers = Customers(client or ledger.client, ledger.keys, FieldCodec(), SECRET)
    return Lanes(client or ledger.client, ledger.keys, customers)


async def customer_of(ledger: Ledger, org_id: str = "acme", customer: str | None = CUSTOMER) -> None:
    """Let somebody pay for an organisation."""
    change = OrgChange(stripe_customer_id=customer)
    await ledger.callers[0].orgs.update(org_id, change, actor="test", create=True)


async def sealed(ledger: Ledger, member: str = "acme|scans") -> str:
    """The window that is cut out of a counter."""
    name = await outbox_of(ledger).seal(member)
    assert name is not None
    return name


async def window_of(ledger: Ledger, name: str, org_id: str = "acme") -> Window:
    """A window as it is stored."""
    window = await outbox_of(ledger).window(ledger.keys.partition(org_id), name)
    assert window is not None
    return window


def start_of(window: Window, customer: str = CUSTOMER, sink: Sink = Sink.METER, **other: Any) -> Start:
    """A first attempt."""
    return Start(customer, sink, **{"stamp_ms": window.cut.last_ms, "amount_minor": None, "invoiced": "", **other})


async def begun(ledger: Ledger, name: str, **start: Any) -> Window:
    """A window of acme on which an attempt has begun."""
    window = await window_of(ledger, name)
    assert (await outbox_of(ledger).attempt(window, start_of(window, **start)))[0] is Begun.YES
    return await window_of(ledger, name)


async def delivered(ledger: Ledger, name: str) -> None:
    """Settle a window, whosever it is, as one that Stripe took."""
    outbox = outbox_of(ledger)
    for partition in range(ledger.keys.partitions):
        window = await outbox.window(partition, name)
        if window is not None:
            assert await outbox.settle(window, State.DELIVERED)


async def bill(ledger: Ledger, random: Random) -> None:
    """What the exporter may do at any moment, in any partition: seal, put by, take up, send, settle."""
    outbox = outbox_of(ledger)
    for partition in range(ledger.keys.partitions):
        for member in await outbox.dirty(partition, 100):
            if random.random() < 0.5:
                await (outbox.park(member, "") if random.random() < 0.2 else outbox.seal(member))
        for name in await outbox.due(partition, await ledger.now_ms(), 100):
            window = await outbox.window(partition, name)
            assert window is not None
            await outbox.attempt(window, start_of(window))
            if random.random() < 0.7:
                await outbox.settle(window, random.choice((State.DELIVERED, State.DEAD, State.WRITTEN_OFF)))
