"""Credits as script tests give and take them."""

from typing import Any, Final

from metering.store.credits import Credits
from metering.store.fields import FieldCodec
from metering.store.grants import By, GrantOrder
from metering.store.orgs import OrgChange
from metering.store.past import Past, Step
from metering.store.trail import Trail
from plans.credits import Kind
from tests.lua.ledger import Ledger

ANN: Final = By("ann", "goodwill", "req-1")


def credits_of(ledger: Ledger, caller: int = 0, *, low: int | None = None) -> Credits:
    """The credit ledger as one caller has it."""
    one = ledger.callers[caller]
    return Credits(ledger.client, ledger.keys, one.orgs, one.time, FieldCodec(), low=low)


async def joined(ledger: Ledger, org_id: str = "acme") -> None:
    """An organisation without credits, on the default plan."""
    await ledger.callers[0].orgs.update(org_id, OrgChange(plan="free"), actor="ann", create=True)


def order(grant_id: str = "cg_1", amount: int = 100, **other: Any) -> GrantOrder:
    """A grant to make."""
    return GrantOrder(grant_id, amount, **({"kind": Kind.PROMOTIONAL} | other))


async def texts_of(ledger: Ledger, key: str) -> dict[str, str]:
    """A hash."""
    return {name.decode(): text.decode() for name, text in (await ledger.client.hgetall(key)).items()}


async def lines_of(ledger: Ledger, org_id: str = "acme") -> list[tuple[str, str, int, int]]:
    """The ledger's lines, oldest first: type, grant, credits, balance."""
    found = await ledger.client.xrange(ledger.keys.ledger(org_id))
    told = [{name.decode(): text.decode() for name, text in fields.items()} for _, fields in found]
    return [(one["type"], one["grant"], int(one["credits"]), int(one["balance"])) for one in told]


async def spend(ledger: Ledger, credits_: int, grant_id: str = "cg_1", org_id: str = "acme") -> None:
    """Burn credits of an open grant, as usage does: out of the pool, into what is burned."""
    key = ledger.keys.pool(org_id)
    text = (await ledger.client.hget(key, grant_id)).decode()
    left, _, rest = text.partition(":")
    if int(left) == credits_:
        await ledger.client.hdel(key, grant_id)
    else:
        await ledger.client.hset(key, grant_id, f"{int(left) - credits_}:{rest}")
    await ledger.client.hincrby(ledger.keys.burned(org_id), f"20310110|scans|{grant_id}", credits_)


async def history_of(ledger: Ledger, org_id: str = "acme") -> list[Step]:
    """The billing history, the newest first."""
    codec = FieldCodec()
    trail = Trail(ledger.client, ledger.keys, ledger.callers[0].time, codec)
    steps, _ = await Past(ledger.client, ledger.keys, codec, trail).page(org_id, 50, None)
    return steps
