"""The organisations: read them rolled to the present, create them, change them, list them.

This is the rare path: track asks here only when it does not know an organisation or its copy ran out.
Every change is a compare-and-set on the stored claim, so a lost reply or a race costs one more turn, never a
second effect.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from metering.erasure_errors import OrgErased
from metering.errors import (
    ClockUnsafe,
    LedgerFull,
    OrgCorrupt,
    Overloaded,
    PlanUnknown,
    Problem,
    StorageUnavailable,
    VersionConflict,
)
from metering.store.changes import OrgChange, changed, is_written
from metering.store.claim import Claim, shards_of, tier_for
from metering.store.connect import texts
from metering.store.customers import Customers
from metering.store.fields import FieldCodec
from metering.store.keys import APPLIED, DATASET, Keys
from metering.store.org import ERASED, Org, parse
from metering.store.org_scripts import OrgScripts, asked
from metering.store.rolling import Roll, brought_to, newcomer, roll_of
from metering.store.timing import StoreTime
from plans.catalogue import Catalogue
from plans.periods import month_utc

__all__ = ["SWEEP_MAX", "SWEEP_S", "OnlyIf", "OrgChange", "Orgs"]

if TYPE_CHECKING:
    from redis.asyncio import Redis

SWEEP_S: Final = 60.0
"""Between two sweeps: a closed period of an idle organisation is archived within minutes of its end."""

SWEEP_MAX: Final = 100
"""Organisations of one partition a sweep: at most some thousand calls, a few seconds of a quiet connection."""

_TURNS: Final = 8
"""Compare-and-set turns before giving up: each lost turn means that somebody else made progress."""

OnlyIf = Callable[[Org | None, Org], None]
"""Looks at an organisation before (None: there is none) and after a change, and raises where it must not happen."""

log = structlog.get_logger(__name__)


class Orgs:
    """The organisations of one data set. Errors of the store come out as 503 problems."""

    def __init__(
        self,
        client: "Redis",
        keys: Keys,
        catalogue: Catalogue,
        time: StoreTime,
        codec: FieldCodec,
        *,
        fake: bool,
        customers: Customers | None = None,
        applied: int = 0,
    ) -> None:
        """`applied`: the version of the catalogue up to which organisations are brought to its limits on their way."""
        self._applied = applied
        self._client = client
        self._keys = keys
        self._catalogue = catalogue
        self._time = time
        self._codec = codec
        self._customers = customers
        self._scripts = OrgScripts(client, keys, time, codec, fake=fake)

    async def get(self, org_id: str) -> Org | None:
        """The organisation in the period that runs now, or None. Closes periods that ended on the way.

        Raises OrgErased.
        """
        return await self.present(org_id)

    async def living(self, org_id: str) -> Org | None:
        """As `get`, for jobs, which have nothing to do where there is none or it was erased."""
        try:
            return await self.present(org_id)
        except OrgErased:
            return None

    async def present(self, org_id: str, *, full: str | None = None) -> Org | None:
        """As `get`; `full` is the claim under which a dedupe shard was found full, so its tiers must grow."""
        for _ in range(_TURNS):
            org, now_ms = await self._load(org_id)
            roll = None if org is None else await self._roll_of(org, now_ms, full)
            if org is None or roll is None:
                return org if org is None else replace(org, profile=org.profile.at(now_ms))
            await self._scripts.roll(org, roll)
        raise VersionConflict(f"organisation {org_id} changed too often at the same time")

    async def newcomer(self, org_id: str, change: OrgChange | None = None, *, full: str | None = None) -> Org:
        """An organisation that is not stored yet, on the plan of `change` or the default one.

        `full` is a claim under which its first events did not fit one shard: it begins with more.
        """
        asked = change or OrgChange()
        law = self._catalogue.plans[asked.plan or self._catalogue.default_plan]
        now_ms = await self.server_now()
        reset, timezone = asked.reset or law.reset, asked.timezone or "UTC"
        tier = tier_for(0) if full is None else Claim.parse(full).grown()[-1]
        return newcomer(org_id, law, now_ms, self._catalogue.version, reset=reset, timezone=timezone, tier=tier)

    async def update(
        self, org_id: str, change: OrgChange, *, actor: str, create: bool, only_if: OnlyIf | None = None
    ) -> tuple[Org | None, bool]:
        """Apply `change`; returns the organisation and whether it was created.

        None when there is none and `create` is false. A change that changes nothing writes nothing. `only_if` is shown
        every turn's state before and after, and raises to stop it: what is written follows from what it saw. Raises
        PlanUnknown; VersionConflict when others keep changing it.
        """
        if change.plan is not None and change.plan not in self._catalogue.plans:
            raise PlanUnknown(f"no plan {change.plan!r}", plan=change.plan)
        tried: tuple[Org, bool] | None = None
        for _ in range(_TURNS):
            before = await self.present(org_id)
            if before is None and not create:
                return None, False
            if before and tried and is_written(tried[0], before):
                await self.link(before)
                return before, tried[1]  # by us: the reply was lost
            begun = before or await self.newcomer(org_id, change)
            after = changed(begun, change, self._catalogue, self._time.now_ms())
            if only_if is not None:
                only_if(before, after)
            if before == after:
                return after, False
            if before is not None:
                after = replace(after, claim=replace(after.claim, revision=after.claim.revision + 1))
            await self._index(before, after)
            if await self._scripts.change(before, after, actor):
                await self.link(after)
                return await self.present(org_id), before is None
            tried = after, before is None
        raise VersionConflict(f"organisation {org_id} changed too often at the same time")

    async def bring(self, org_id: str, *, actor: str) -> bool:
        """Bring an organisation to the catalogue's limits, with an entry in its trail; False where it has them.

        Raises VersionConflict when others keep changing it.
        """
        for _ in range(_TURNS):
            before = await self.living(org_id)
            after = None if before is None else brought_to(self._catalogue, before)
            if before is None or after is None or after == before:
                return False
            if await self._scripts.change(before, after, actor):
                return True
        raise VersionConflict(f"organisation {org_id} changed too often at the same time")

    async def follow_catalogue(self) -> None:
        """Learn up to which version of the catalogue organisations are brought: somebody may have applied a newer."""
        found = await asked(self._client.hget(DATASET, APPLIED))
        self._applied = max(self._applied, int(found or 0))

    async def link(self, org: Org) -> int:
        """Take up overage that was put by for want of a customer, where there is one; how many counters."""
        return 0 if org.profile.stripe_customer_id is None else await self._scripts.link(org.org_id)

    async def _index(self, before: Org | None, after: Org) -> None:
        """Note the organisation under a customer that it is about to have, first, so that none is ever missing."""
        customer = after.profile.stripe_customer_id
        known = None if before is None else before.profile.stripe_customer_id
        if self._customers is not None and customer is not None and customer != known:
            await self._customers.add(customer, after.org_id)

    async def page(self, cursor: str | None, limit: int) -> tuple[list[Org], str | None]:
        """Up to `limit` organisations after `cursor` (from the page before), and the next cursor or None."""
        partition, after = _cursor(cursor)
        names: list[str] = []
        while partition < self._keys.partitions and len(names) <= limit:
            low = f"({after}" if after else "-"
            key = self._keys.shared("orgs", partition)
            found = await asked(self._client.zrangebylex(key, low, "+", 0, limit + 1 - len(names)))
            names += [name.decode() for name in found]
            partition, after = partition + 1, ""
        orgs = [await self._listed(name) for name in names[:limit]]
        more = len(names) > limit
        last = names[limit - 1] if more else ""
        following = f"{self._keys.partition(last)}.{last}" if more else None
        return [org for org in orgs if org is not None], following

    async def _listed(self, org_id: str) -> Org | None:
        """An organisation for a list; one with corrupt data is left out rather than hiding all others."""
        try:
            return await self.living(org_id)
        except OrgCorrupt:
            log.warning("organisation left out of a list", org=org_id, code=OrgCorrupt.code)
            return None

    async def sweep(self, page: int = SWEEP_MAX) -> None:
        """Roll organisations whose claim ran out and that sent nothing since, about `page` a partition."""
        now_ms = await self.server_now()
        for partition in range(self._keys.partitions):
            await self._sweep(self._keys.shared("due", partition), now_ms, page)

    async def _sweep(self, due: str, now_ms: int, page: int) -> None:
        """Sweep one partition; organisations that cannot be rolled are passed over, the others are not."""
        rolled = stuck = 0
        while rolled < page:
            names = await asked(self._client.zrangebyscore(due, "-inf", now_ms, start=stuck, num=page))
            for name in names:
                if await self._swept(name.decode()):
                    rolled += 1
                else:
                    stuck += 1
            if len(names) < page:
                return

    async def _swept(self, org_id: str) -> bool:
        try:
            await self.present(org_id)
        except (StorageUnavailable, Overloaded, ClockUnsafe, LedgerFull):
            raise  # not this organisation's fault: the others would meet it too
        except Problem as problem:
            log.warning("organisation not swept", org=org_id, code=problem.code)
            return False
        return True

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────

    async def _load(self, org_id: str) -> tuple[Org | None, int]:
        """Record and profile as they belong together, and the store's effective time just after (ms)."""
        record, profile, time = await self._read(org_id)
        now_ms = await self._learn(time)
        if not record:
            return None, now_ms
        if ERASED in record:
            raise OrgErased(f"organisation {org_id} was erased", org_id=org_id)
        try:
            return parse(org_id, texts(record), texts(profile), self._codec), now_ms
        except (ValueError, KeyError) as error:
            raise OrgCorrupt(f"organisation {org_id} is stored in an unknown shape") from error

    async def _read(self, org_id: str) -> tuple[dict[bytes, bytes], dict[bytes, bytes], tuple[int, int]]:
        """Record, profile and TIME. Not in MULTI, which a full Redis 7.0 refuses even around reads: a claim that is
        the same before and after proves that nobody changed the organisation in between.
        """
        key = self._keys.record(org_id)
        for _ in range(_TURNS):
            pipe = self._client.pipeline(transaction=False)
            pipe.hgetall(key)
            pipe.hgetall(self._keys.profile(org_id))
            pipe.hget(key, "k")
            pipe.time()
            record, profile, claim, time = await asked(pipe.execute())
            if record.get(b"k") == claim:
                return record, profile, time
        raise VersionConflict(f"organisation {org_id} changed too often at the same time")

    async def server_now(self) -> int:
        """The store's effective time in ms; teaches it and the test clock's offset to this worker. Raises the 503s."""
        return await self._learn(await asked(self._client.time()))

    async def follow(self) -> None:
        """Learn where a test clock is that somebody else may have moved. Raises the 503s."""
        await self.server_now()

    async def _learn(self, time: tuple[int, int]) -> int:
        """TIME as effective ms; in test-clock mode with the stored offset. Teaches both to `StoreTime`."""
        if self._time.test_offset_ms is not None:
            stored = await asked(self._client.get(self._keys.shared("clock", 0)))
            self._time.test_offset_ms = int(stored or 0)
        now_ms = int(time[0]) * 1000 + int(time[1]) // 1000 + (self._time.test_offset_ms or 0)
        self._time.learn(now_ms)
        return now_ms

    # ── rolling ──────────────────────────────────────────────────────────────────────────────────────────

    async def _roll_of(self, org: Org, now_ms: int, full: str | None) -> Roll | None:
        """What the organisation must become to be current at `now_ms`, or None when it is."""
        ids = await self._ids(org) if month_utc(now_ms) != org.claim.month else 0
        return roll_of(org, now_ms, self._catalogue, full=full, ids=ids, applied=self._applied)

    async def _ids(self, org: Org) -> int:
        """About how many ids the claim's month holds: shards are uniform, so the first of a tier speaks for all."""
        total = 0
        for tier in org.claim.tiers:
            size = await asked(self._client.scard(self._keys.seen(org.org_id, org.claim.month, tier, 0)))
            total += size // 2 * shards_of(tier)
        return total


def _cursor(cursor: str | None) -> tuple[int, str]:
    """A cursor taken apart: partition and the last name of the page before. Raises ValueError."""
    if cursor is None:
        return 0, ""
    partition, _, name = cursor.partition(".")
    return int(partition), name
