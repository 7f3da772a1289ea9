"""Reactions over a ledger and an account, and the state they end in."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

from redis.asyncio import Redis

from metering.billing.meter_reports import MeterReport
from metering.billing.payers import Payers
from metering.billing.prices import Prices
from metering.billing.reactions import Hooks, Reactions
from metering.billing.subscriptions import Policy
from metering.store.customers import Customers
from metering.store.effects import Effects
from metering.store.fields import FieldCodec
from metering.store.org import Org
from metering.store.orgs import Orgs
from tests.billing.account import Account
from tests.lua.ledger import CATALOGUE, SECRET, Ledger
from tests.lua.scenes import calm
from tests.lua.scenes import event as usage

GRACE_DAYS: Final = 7

TEAM: Final = """
[plans.team]
title = "Team"
reset = "anniversary"
price_minor = 9900
on_limit = "overage"
[plans.team.features]
scans = { limit = 100, on_limit = "overage" }
checks = { limit = 25, on_limit = "cap" }
calls = { limit = 30, on_limit = "block" }
closed = { limit = 5, on_limit = "overage" }
open = { limit = 0, on_limit = "overage" }
"""

VOLATILE: Final = {
    "record": ("k", "t:"),
    "profile": ("created", "updated", "anchor", "key", "ticket", "tickets"),
    "archive": ("k", "t:", "closed"),
}
"""What may differ between two ways to one state: revisions, instants of this run, the data key, counts of readings."""


class Crash(BaseException):
    """The worker dies: no handler of the code under test may take this for an error."""


@dataclass(slots=True)
class Steps:
    """Counts calls of store and Stripe, and dies at one of them: before it happened, or after and unheard."""

    at: int = 0
    after: bool = False
    taken: int = 0

    def begin(self) -> None:
        """A call is about to be made."""
        self.taken += 1
        if self.taken == self.at and not self.after:
            raise Crash

    def end(self) -> None:
        """It was made."""
        if self.taken == self.at and self.after:
            raise Crash


class SteppedStore(Redis):
    """A client whose every command is a step."""

    steps: Steps

    @classmethod
    def over(cls, client: Any, steps: Steps) -> Self:
        """The same server, in steps."""
        made = cls(connection_pool=client.connection_pool)
        made.steps = steps
        return made

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """One step."""
        self.steps.begin()
        reply = await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        self.steps.end()
        return reply


@dataclass(slots=True)
class Told:
    """What the hooks were told."""

    flushed: list[tuple[str, int]] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    reports: list[MeterReport] = field(default_factory=list)

    async def flush(self, org_id: str, start_ms: int) -> None:
        self.flushed.append((org_id, start_ms))

    async def link(self, org_id: str) -> None:
        self.linked.append(org_id)

    async def report(self, report: MeterReport) -> None:
        self.reports.append(report)


class Rig:
    """A ledger with acme in it, an account, and workers that react."""

    def __init__(self, ledger: Ledger, *, downgrades: bool = False) -> None:
        self.ledger, self.account, self.told = ledger, Account(), Told()
        self._policy = Policy(ledger.catalogue.default_plan, GRACE_DAYS, downgrades)
        self.orgs = self._orgs(0, ledger.client)
        self.reactions = self.worker()

    def _orgs(self, caller: int, client: Any) -> Orgs:
        """Organisations with an index of their customers."""
        ledger, codec = self.ledger, FieldCodec()
        customers, time = Customers(client, ledger.keys, codec, SECRET), ledger.callers[caller].time
        return Orgs(client, ledger.keys, ledger.catalogue, time, codec, fake=False, customers=customers)

    def worker(self, caller: int = 0, *, client: Any = None, account: Account | None = None) -> Reactions:
        """One more worker, over a client and an account of its own if given."""
        ledger, one, codec = self.ledger, self.ledger.callers[caller], FieldCodec()
        client, source = client or ledger.client, account or self.account
        customers = Customers(client, ledger.keys, codec, SECRET)
        orgs = self._orgs(caller, client)
        effects = Effects(client, ledger.keys, orgs, ledger.catalogue, one.time, codec, fake=False)
        prices = Prices(ledger.catalogue, {})
        hooks = Hooks(self.told.flush, self.told.link, self.told.report)
        return Reactions(source, Payers(source, customers, orgs, effects, prices), effects, prices, self._policy, hooks)

    async def track(self, units: int, *, org_id: str = "acme") -> None:
        """Usage of scans."""
        await self.ledger.callers[0].counters.track(usage(org_id, units))

    async def org(self, org_id: str = "acme") -> Org:
        """An organisation as it stands."""
        org = await self.ledger.callers[0].orgs.get(org_id)
        assert org is not None
        return org

    async def trail(self, org_id: str = "acme") -> Counter[str]:
        """How many entries of each type the trail has."""
        entries = await self.ledger.client.xrange(self.ledger.keys.trail(org_id))
        return Counter(entry[b"type"].decode() for _, entry in entries)

    async def latest(self, org_id: str = "acme") -> dict[str, str]:
        """The newest entry of the trail."""
        [(_, entry)] = await self.ledger.client.xrevrange(self.ledger.keys.trail(org_id), count=1)
        return {name.decode(): value.decode() for name, value in entry.items()}

    async def state(self) -> dict[str, dict[str, str]]:
        """Every hash of every organisation, and the plans, without what is VOLATILE."""
        found = {}
        client = self.ledger.client
        for kind, pattern in (("record", "*:o:*"), ("profile", "*:p:*"), ("archive", "*:u:*"), ("plans", "*:plans")):
            async for key in client.scan_iter(match=pattern):
                values = {name.decode(): value.decode() for name, value in (await client.hgetall(key)).items()}
                gone = VOLATILE.get(kind, ())
                kept = {n: v for n, v in values.items() if n not in gone and f"{n.partition(':')[0]}:" not in gone}
                found[key.decode()] = {n: v for n, v in kept.items() if kind != "plans" or v != "0"}
        return found


@asynccontextmanager
async def rigged(
    url: str, *, at: str = "01-17T10:19:50", downgrades: bool = False, **options: Any
) -> AsyncIterator[Rig]:
    """A rig at an instant of next year."""
    catalogue = CATALOGUE + TEAM
    async with calm(url, at=at, catalogue=catalogue, **options) as ledger:
        yield Rig(ledger, downgrades=downgrades)
