"""What Stripe's events do to organisations: decided in Python, written by one script, once.

Whoever reads at Stripe takes a ticket first: of two readings that overlap, the one with the higher ticket began later
and holds. The script writes only over the state that the decision was made from, and leaves the event's mark with it.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from metering.errors import VersionConflict
from metering.store.changes import OrgChange, changed, trail_entry
from metering.store.connect import answered, text_of
from metering.store.fields import FieldCodec, own_text
from metering.store.keys import Keys
from metering.store.org import Org, Profile
from metering.store.org_scripts import Applied, OrgScripts
from metering.store.orgs import Orgs
from metering.store.rolling import early_roll, moved_end
from metering.store.scripts import script
from metering.store.timing import StoreTime
from plans.billing_periods import Alignment
from plans.catalogue import Catalogue
from plans.periods import Period, month_utc

if TYPE_CHECKING:
    from redis.asyncio import Redis

ACTOR: Final = "stripe"
"""Who did it, in the trail."""

_TURNS: Final = 16
"""Compare-and-set turns before giving up: as those of settings, and some more to close a period on the way."""

_ENTRIES: Final = 500
_READS_MAX: Final = 40
"""Trail entries of one read and reads of one look back: 20,000 entries, far more than a year of periods has."""

Entry = tuple[str, ...]
"""Words of a trail entry: its type, then names and values."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What an event makes of an organisation, and what the trail says of it.

    Every entry also names the event, as Stripe's ids are kept in streams; a plan change adds its own entry. `counted`
    are the totals that grow by one with it: `metering.store.totals` has their names.
    """

    plan: str
    profile: Profile
    alignment: Alignment
    entries: tuple[Entry, ...]
    counted: tuple[str, ...] = ()


Decide = Callable[[Org, int], Decision | None]
"""Decides over an organisation as it is at an instant (ms); None: there is nothing to do, not even to note.

It may be asked more than once, as long as the organisation changes meanwhile.
"""


class Effects:
    """The organisations of one data set as Stripe changes them. Errors of the store come out as 503 problems."""

    def __init__(
        self,
        client: "Redis",
        keys: Keys,
        orgs: Orgs,
        catalogue: Catalogue,
        time: StoreTime,
        codec: FieldCodec,
        *,
        fake: bool,
    ) -> None:
        self._client: Any = client
        self._keys = keys
        self._orgs = orgs
        self._catalogue = catalogue
        self._scripts = OrgScripts(client, keys, time, codec, fake=fake)
        self._ticket = client.register_script(script("ticket", fake=fake).text)
        self._freeze = client.register_script(script("freeze", fake=fake).text)

    async def ticket(self, org_id: str) -> int:
        """A number before a reading; 0 where there is no such organisation."""
        keys = [self._keys.record(org_id), self._keys.profile(org_id)]
        return int(await answered(self._ticket(keys=keys, args=[])))

    async def done(self, org_id: str, event: str) -> bool:
        """Whether an event took effect on an organisation."""
        return bool(await answered(self._client.exists(self._keys.applied(org_id, event))))

    async def apply(self, org_id: str, event: str | None, decide: Decide) -> Org | None:
        """Decide and write, with the event's mark (None: it is no event's effect). The organisation as it is then.

        An event that took effect before writes nothing. None where there is no such organisation. Raises
        VersionConflict when others keep changing it.
        """
        for _ in range(_TURNS):
            org = await self._orgs.living(org_id)
            if org is None:
                return None
            now_ms = await self._orgs.server_now()
            decision = decide(org, now_ms)
            if decision is None:
                return org
            if decision.alignment.close_ms is not None:
                await self._close(org, now_ms, decision.alignment)
                continue
            if await self._write(org, event, decision) is not Applied.LOST:
                return await self._orgs.living(org_id)
        raise VersionConflict(f"organisation {org_id} changed too often at the same time")

    async def freeze(self, org_id: str, start_ms: int, at_ms: int) -> bool:
        """Note that the closed period that began at `start_ms` is invoiced; False where it was, or has no usage.

        At `at_ms`: what is sealed of it later is on no invoice by itself.
        """
        keys = [self._keys.archive(org_id, start_ms)]
        return int(await answered(self._freeze(keys=keys, args=[at_ms]))) == 1

    async def closed(self, org_id: str, from_ms: int) -> list[Period]:
        """The closed periods with usage that ended after an instant, the newest first."""
        found: list[Period] = []
        high = "+"
        for _ in range(_READS_MAX):
            read = await answered(self._client.xrevrange(self._keys.trail(org_id), high, "-", count=_ENTRIES))
            for entry_id, fields in read:
                high = f"({text_of(entry_id)}"
                if fields.get(b"type") != b"period_closed":
                    continue
                period = Period(int(fields[b"period"]), int(fields[b"until"]))
                if period.end_ms <= from_ms:
                    return found
                found.append(period)
            if len(read) < _ENTRIES:
                break
        return found

    async def ended_grace(self) -> AsyncIterator[str]:
        """The organisations whose time of grace has run out."""
        now_ms = await self._orgs.server_now()
        for partition in range(self._keys.partitions):
            key = self._keys.shared("grace", partition)
            for name in await answered(self._client.zrangebyscore(key, "-inf", now_ms)):
                yield text_of(name)

    async def _close(self, org: Org, now_ms: int, alignment: Alignment) -> None:
        """Close the running period before its end. Where the month changed meanwhile the next turn rolls first."""
        if month_utc(now_ms) == org.claim.month:
            await self._scripts.roll(org, early_roll(org, alignment.period))

    async def _write(self, org: Org, event: str | None, decision: Decision) -> Applied:
        told = replace(org, profile=decision.profile)
        after = replace(changed(told, OrgChange(plan=decision.plan), self._catalogue), period=decision.alignment.period)
        source = () if event is None else ("event", own_text(org.org_id, "event", event, org.profile.data_key))
        entries = [(*entry, *source) for entry in decision.entries]
        if after.plan != org.plan:
            entries.append(tuple(trail_entry(org, after, ACTOR)))
        if after != org:
            after = replace(after, claim=moved_end(after.claim, after.period, after.profile))
        return await self._scripts.apply(org, after, event, entries, decision.counted)
