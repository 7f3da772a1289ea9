"""Reservations and leases: units kept back from a counter until they are used, given back, or their time is over.

A hold lies on the same ledger as the limits: what it keeps nobody else can have. From its end on it counts for
nothing, or, where it was granted so, all of it counts as used; no job is needed for that to hold.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import structlog

from metering.erasure_errors import OrgErased
from metering.errors import (
    ClockUnsafe,
    HoldConflict,
    HoldNotFound,
    LedgerFull,
    OrgCorrupt,
    Overloaded,
    Problem,
    StorageUnavailable,
)
from metering.store.admission import AdmitRow, HoldAsk, Verb
from metering.store.connect import answered, texts
from metering.store.counters import Counters
from metering.store.frames import bulk, integer
from metering.store.keys import Keys
from metering.store.org import ERASED
from metering.store.orgs import Orgs
from metering.store.scripts import script
from metering.store.timing import StoreTime
from metering.usage import ADMITTED, Outcome, Result, UsageEvent

if TYPE_CHECKING:
    from redis.asyncio import Redis

EXPIRE_S: Final = 10.0
"""Between two turns of the job that writes down what ended; what ended counts for nothing before that as well."""

TTL_MAX_MS: Final = 86_400_000
"""A hold lives a day at most: a longer one is usage."""

_RESERVED: Final = "r"
_CHARGED: Final = "c"
"""Letters that the store knows kinds of holds by: reservations, and leases that are charged at their end."""

_CORRUPT: Final = -2
"""What a script answers when a figure cannot be."""

_ERASED: Final = -3

_PAGE: Final = 500
_TURNS: Final = 2

log = structlog.get_logger(__name__)


class HoldState(StrEnum):
    """What became of a hold."""

    HELD = "held"
    EXPIRED = "expired"
    COMMITTED = "committed"
    RELEASED = "released"
    CHARGED = "charged"


@dataclass(frozen=True, slots=True)
class Hold:
    """A reservation, or a `lease`. Units: `asked` for, `quantity` kept back, `committed` in the end.

    `charged` says that all of it counts as used where it is not settled before `expires_ms`.
    """

    hold_id: str
    feature: str
    asked: int
    quantity: int
    expires_ms: int
    charged: bool
    state: HoldState
    committed: int = 0
    lease: bool = False


def unnoted(org_id: str, units: int) -> None:
    """Tell nobody that units counted."""


class Holds:
    """The holds of one data set. Errors of the store come out as 503 problems.

    `counted` is told of the units that settling and charging count: organisation and units.
    """

    def __init__(
        self,
        client: "Redis",
        keys: Keys,
        time: StoreTime,
        orgs: Orgs,
        counters: Counters,
        *,
        fake: bool,
        counted: Callable[[str, int], None] = unnoted,
    ) -> None:
        self._client: Any = client
        self._keys, self._time, self._orgs, self._counters = keys, time, orgs, counters
        self._counted = counted
        self._release = client.register_script(script("release", fake=fake).text)
        self._expire = client.register_script(script("expire", fake=fake).text)

    async def find(self, org_id: str, hold_id: str) -> Hold | None:
        """The hold as it is now; ended or settled ones are told of for a day more. None: there is none.

        Raises OrgErased, as a hold may be there a little longer than its organisation.
        """
        stored, erased, now_ms = await asyncio.gather(
            answered(self._client.hgetall(self._keys.hold(org_id, hold_id))),
            answered(self._client.hexists(self._keys.record(org_id), ERASED)),
            self._orgs.server_now(),
        )
        if erased:
            raise OrgErased
        return _hold(hold_id, texts(stored), now_ms) if stored else None

    async def place(
        self,
        org_id: str,
        hold_id: str,
        feature: str,
        quantity: int,
        ttl_ms: int,
        *,
        lease: bool = False,
        charged: bool = False,
    ) -> tuple[Hold | None, Outcome]:
        """Keep units back; a `lease` as many of them as fit. The hold (None: refused) and what decided.

        The same call again gives the same hold. Raises HoldConflict where the name stands for another one, and what
        `Counters.track` raises.
        """
        event = UsageEvent(org_id, feature, quantity, hold_id=hold_id)
        ids = self._counters.pendings.hold_ids(org_id, hold_id, feature, quantity)
        row = self._counters.pendings.settling(feature, quantity, ids)
        row.verb, row.hold = Verb.RESERVE, HoldAsk(hold_id, charged, ttl_ms, lease)
        outcome = await self._counters.decide(event, row)
        if outcome.result is Result.CONFLICT:
            raise HoldConflict(f"{hold_id} was used for something else", id=hold_id)
        if outcome.result not in ADMITTED:
            return None, outcome
        hold = await self.find(org_id, hold_id)
        if hold is None:
            raise OrgCorrupt(f"{hold_id} was made and is not there")
        return hold, outcome

    async def settle(
        self, org_id: str, hold_id: str, quantity: int | None, *, late: bool = False, lease: bool | None = None
    ) -> tuple[Hold, UsageEvent, Outcome]:
        """Count units against a hold (None: all it keeps) and let go of the rest; once, however often it is asked.

        More than it keeps is decided as any event. `late`: one that ended is counted as if it had never been. `lease`
        says which of the two it has to be (None: either). Raises HoldNotFound, and what `Counters.track` raises.
        """
        hold = await self.find(org_id, hold_id)
        if hold is None or lease not in {None, hold.lease}:
            raise HoldNotFound(f"no reservation or lease {hold_id}", id=hold_id)
        units = hold.quantity if quantity is None else quantity
        event = UsageEvent(org_id, hold.feature, units, hold_id=hold_id)
        row = self._counters.pendings.settling(
            hold.feature, units, self._counters.pendings.hold_ids(org_id, hold_id, hold.feature, units)
        )
        row.verb = Verb.LATE_COMMIT if late else Verb.COMMIT
        row.hold = HoldAsk(hold_id)
        return hold, event, await self._count(event, row)

    async def release(self, org_id: str, hold_id: str) -> bool:
        """Let go of a hold; whether it was open. One that ended or was settled stays as it is."""
        return (await self._change(org_id, hold_id, ""))[0] == 1

    async def extend(self, org_id: str, hold_id: str, ttl_ms: int) -> Hold | None:
        """Give an open hold `ttl_ms` from now; None where there is none that is open."""
        done, _ = await self._change(org_id, hold_id, ttl_ms)
        return await self.find(org_id, hold_id) if done == 1 else None

    async def ended_units(self, org_id: str) -> dict[str, int]:
        """Units by feature of holds that ended, count for nothing, and still stand in the record."""
        now_ms = self._time.now_ms()
        members = await answered(self._client.zrangebyscore(self._keys.holds(org_id), "-inf", now_ms))
        ended: dict[str, int] = {}
        for member in members:
            _, feature, units, kind = member.decode().split("|")
            if kind != _CHARGED:
                ended[feature] = ended.get(feature, 0) + int(units)
        return ended

    # ── what ended ───────────────────────────────────────────────────────────────────────────────────────

    async def expire(self) -> None:
        """Write down what ended: charge what is charged at its end, forget the rest. Every worker may do it."""
        now_ms = await self._orgs.server_now()
        for partition in range(self._keys.partitions):
            key = self._keys.shared("expiring", partition)
            due = await answered(self._client.zrangebyscore(key, "-inf", now_ms, start=0, num=_PAGE))
            for raw in due:
                await self._expire_of(raw.decode())

    async def _expire_of(self, org_id: str) -> None:
        try:
            await self._forget(org_id, await self._charge(org_id))
        except (StorageUnavailable, Overloaded, ClockUnsafe, LedgerFull):
            raise  # not this organisation's fault: the others would meet it too
        except Problem as problem:
            log.warning("holds not expired", org=org_id, code=problem.code)

    async def _forget(self, org_id: str, gone: set[str]) -> None:
        """Run expire.lua; `gone` are features whose holds are forgotten however they end."""
        partition = self._keys.partition(org_id)
        keys = [self._keys.record(org_id), self._keys.holds(org_id), self._keys.shared("expiring", partition)]
        reply = await answered(self._expire(keys=[*keys, *self._clock(partition)], args=[*self._clock_args(), *gone]))
        if reply[0] == _CORRUPT:
            raise OrgCorrupt

    async def _charge(self, org_id: str) -> set[str]:
        """Count what was granted on condition of being settled in time; the features that are no longer there."""
        gone = set()
        members = await answered(
            self._client.zrangebyscore(self._keys.holds(org_id), "-inf", self._time.now_ms(), start=0, num=_PAGE)
        )
        for member in members:
            hold_id, feature, units, kind = member.decode().split("|")
            if kind != _CHARGED:
                continue
            event = UsageEvent(org_id, feature, int(units), hold_id=hold_id)
            tail = bulk(feature.encode()) + integer(event.quantity) + bulk(b"") + bulk(b"")
            row = AdmitRow(feature, None, tail, verb=Verb.CHARGE, hold=HoldAsk(hold_id, charged=True, lease=True))
            outcome = await self._count(event, row)
            if outcome.recorded:
                log.info("lease charged", org=org_id, hold=hold_id, units=outcome.recorded)
            if outcome.result is Result.FEATURE_UNKNOWN:
                gone.add(feature)
        return gone

    async def _count(self, event: UsageEvent, row: AdmitRow) -> Outcome:
        """Have units counted that a hold kept."""
        row.box = self._counters.pendings.box_of(event)
        outcome = await self._counters.decide(event, row)
        if outcome.recorded:
            self._counted(event.org_id, outcome.recorded)
        return outcome

    # ── the store ────────────────────────────────────────────────────────────────────────────────────────

    async def _change(self, org_id: str, hold_id: str, ttl_ms: int | str) -> tuple[int, int]:
        """Run release.lua. Raises ClockUnsafe, OrgCorrupt, OrgErased."""
        partition = self._keys.partition(org_id)
        keys = [
            self._keys.record(org_id), self._keys.holds(org_id), self._keys.hold(org_id, hold_id),
            self._keys.shared("expiring", partition), *self._clock(partition),
        ]  # fmt: skip
        for _ in range(_TURNS):
            done, figure = await answered(self._release(keys=keys, args=[*self._clock_args(), hold_id, ttl_ms]))
            if done >= 0:
                return done, figure
            if done == _CORRUPT:
                raise OrgCorrupt
            if done == _ERASED:
                raise OrgErased
            await self._orgs.server_now()  # the test clock may have moved
        raise ClockUnsafe(headers={"Retry-After": "5"})

    def _clock_args(self) -> list[Any]:
        return [self._time.caller_ms(), self._time.offset_text()]

    def _clock(self, partition: int) -> list[str]:
        return [] if self._time.test_offset_ms is None else [self._keys.shared("clock", partition)]


def _hold(hold_id: str, stored: Mapping[str, str], now_ms: int) -> Hold:
    """A hold as stored. Raises OrgCorrupt for a shape that no script wrote."""
    try:
        state = HoldState(stored["status"])
        expires_ms = int(stored["expires"])
        if state is HoldState.HELD and expires_ms <= now_ms:
            state = HoldState.EXPIRED
        return Hold(
            hold_id, stored["feature"], int(stored["asked"]), int(stored["quantity"]), expires_ms,
            stored["kind"] == _CHARGED, state, int(stored.get("committed", 0)), stored["kind"] != _RESERVED,
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        raise OrgCorrupt from error
