"""Organisations that lived, and their end, as script tests make them."""

import re
from typing import Any, Final

from metering.auth import USAGE_WRITE
from metering.store.api_key import NewKey
from metering.store.correction import By as WhoCorrects
from metering.store.correction import Change, adjustment
from metering.store.customers import Customers
from metering.store.erasure import Erasure, Erasures
from metering.store.fields import FieldCodec
from metering.store.grants import By
from metering.store.orgs import OrgChange
from metering.store.removal import Removal
from metering.store.shared import read_shared
from metering.store.totals import Totals
from metering.store.window import State
from tests.lua.crediting import ANN, credits_of, order
from tests.lua.ledger import SECRET, Ledger
from tests.lua.outboxes import CUSTOMER, outbox_of
from tests.lua.scenes import event
from tests.lua.topping import RULE, topups_of
from tests.lua.vault import Worker

DPO: Final = By("dpo", "request 4711", "req-9")
JOB: Final = "era_1"
CORRECTOR: Final = WhoCorrects("ann", "a mistake", "req-1")


def erasures_of(ledger: Ledger, caller: int = 0, client: Any = None) -> Erasures:
    """The erasures as one caller has them."""
    one = ledger.callers[caller]
    return Erasures(client or ledger.client, ledger.keys, one.orgs, one.time, FieldCodec())


def removal_of(ledger: Ledger, client: Any = None) -> Removal:
    """The job of a worker, whose clients are the only ones it has."""
    asked = client or ledger.client
    keys = Worker(ledger, client=asked).keys
    server_now = ledger.callers[0].orgs.server_now
    return Removal(asked, ledger.keys, erasures_of(ledger, client=asked), keys, server_now, "w1")


async def erased(ledger: Ledger, org_id: str = "acme", *, write_off: bool = False) -> Erasure:
    """Ask for the end of an organisation."""
    return await erasures_of(ledger).ask(org_id, JOB, DPO, write_off=write_off)


async def lived(ledger: Ledger, org_id: str = "acme") -> str:
    """An organisation with something under every noun, all its overage at Stripe; the text of its API key."""
    caller = ledger.callers[0]
    await caller.orgs.update(org_id, OrgChange(stripe_customer_id=CUSTOMER), actor="ann", create=True)
    await Customers(ledger.client, ledger.keys, FieldCodec(), SECRET).add(CUSTOMER, org_id)
    for number, feature in enumerate(("checks", "calls", "checks")):
        await caller.counters.track(event(org_id, 3, f"e{number}", feature))
    await caller.counters.track(event(org_id, 3))  # without an id
    await caller.orgs.update(org_id, OrgChange(plan="pro"), actor="ann", create=False)
    await caller.counters.track(event(org_id, 3, "e9", "open"))
    await delivered(ledger, f"{org_id}|open")
    change = Change("checks", -1)
    await caller.corrections.make(adjustment(org_id, change, "a1", CORRECTOR, minted=False, period_ms=None, at_ms=None))
    await caller.holds.place(org_id, "r1", "scans", 1, 60_000)
    await credits_of(ledger).grant(org_id, order("cg_1", 5, expires_ms=await ledger.now_ms() + 10**9), ANN)
    await credits_of(ledger).mark_low(org_id, 50, ANN)
    await topups_of(ledger).set(org_id, RULE, CUSTOMER, ANN)
    _, text = await Worker(ledger).keys.create(NewKey("collector", org_id, (USAGE_WRITE,)), actor="ann")
    return text


async def delivered(ledger: Ledger, member: str) -> None:
    """What a counter has of overage is sealed, and Stripe took it."""
    outbox, org_id = outbox_of(ledger), member.partition("|")[0]
    while name := await outbox.seal(member):
        window = await outbox.window_of(org_id, name)
        assert window is not None
        assert await outbox.settle(window, State.DELIVERED)


async def left_of(ledger: Ledger, org_id: str = "acme") -> set[str]:
    """Every key that is an organisation's, and every one that names it in what it holds."""
    found = set()
    async for raw in ledger.client.scan_iter(count=1000):
        key = raw.decode()
        kind = (await ledger.client.type(raw)).decode()
        if org_id in key.split(":"):
            found.add(key)
        found |= {f"{key}#{org_id}" for text in await _texts(ledger, raw, kind) if _names(org_id, text)}
    return found


async def _texts(ledger: Ledger, key: bytes, kind: str) -> list[str]:
    """Every member, field and value of a key."""
    client = ledger.client
    match kind:
        case "zset":
            found = await client.zrange(key, 0, -1)
        case "set":
            found = await client.smembers(key)
        case "string":
            found = [await client.get(key) or b""]
        case "hash":
            found = [text for pair in (await client.hgetall(key)).items() for text in pair]
        case _:
            found = [text for _, row in await client.xrange(key) for pair in row.items() for text in pair]
    return [text.decode(errors="replace") for text in found]


def _names(org_id: str, text: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(org_id)}(?![\w.-])", text) is not None


async def sums(ledger: Ledger) -> Totals:
    """The figures of the whole data set."""
    return (await read_shared(ledger.client, ledger.keys, top=1)).totals
