"""The credit ledger: grants made, taken back, frozen and let lapse, each by one script, and what is told of them.

Every change may be repeated: a grant is made once by its id, what is taken back is a total, and of two readings of a
payment that of the higher ticket holds.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from metering.encryption_errors import EncryptionKeyUnknown
from metering.erasure_errors import OrgErased
from metering.errors import (
    GrantConflict,
    GrantNotFound,
    Invalid,
    OrgCorrupt,
    OrgNotFound,
    TooManyGrants,
    VersionConflict,
)
from metering.store.connect import answered, text_of, texts
from metering.store.credit_lines import Cursor, Line, burns, entries, merged
from metering.store.credit_words import author_words, named, ref_word, refund_word, scope_words
from metering.store.fields import FieldCodec, sealed_name
from metering.store.grants import (
    NO_CAUSE,
    NO_REFUNDS,
    By,
    Causes,
    GrantOrder,
    GrantState,
    Refunds,
    Spans,
    source_of,
    states_from,
)
from metering.store.keys import Keys
from metering.store.ledger_calls import LedgerCalls
from metering.store.org import Org
from metering.store.orgs import Orgs
from metering.store.pool import LETTERS, Pool, is_open, pool_from, reserved_of
from metering.store.scripts import script
from metering.store.timing import StoreTime
from plans.credits import Grant, balance, usable

if TYPE_CHECKING:
    from redis.asyncio import Redis

LAPSE_S: Final = 60.0
"""Between two looks for credits that expired: nobody sees them meanwhile, only their line in the ledger is late."""

_LAPSES_MAX: Final = 100
"""Organisations of one partition a look: at most some hundred calls."""

_TURNS: Final = 8
"""Compare-and-set turns before giving up, as those of settings."""

_NO_REFS: Final = ("", "", "", "")

_GONE, _STALE = 0, 0
_MADE, _REPEATED, _OTHER, _FULL, _OVER = 1, 2, 3, 4, 5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Granted:
    """What a grant came to: whether it was made now, and what may be used then, less what is owed."""

    made: bool
    balance: int


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A grant of which credits are taken back: asked for in all, taken, and owed; and the organisation's balance.

    `current` False: a newer reading was taken over before, and these are its figures.
    """

    asked: int
    taken: int
    owed: int
    balance: int
    current: bool = True

    @property
    def spent(self) -> int:
        """Credits that were gone already, whether they are owed or not."""
        return max(0, self.asked - self.taken)


@dataclass(frozen=True, slots=True)
class Balance:
    """An organisation's credits: what may be used less what is owed, and what open holds keep of it.

    `grants` are those that may be used now, in burn order; `later` those that are open and may not.
    """

    balance: int
    reserved: int
    owed: int
    low_mark: int | None
    grants: Sequence[Grant]
    later: Sequence[Grant]

    @property
    def low(self) -> bool:
        """Whether it is below its mark."""
        return self.low_mark is not None and self.balance < self.low_mark


class Credits:
    """The credits of one data set. Errors of the store come out as 503 problems. Every call raises OrgNotFound."""

    def __init__(
        self, client: "Redis", keys: Keys, orgs: Orgs, time: StoreTime, codec: FieldCodec, *, low: int | None = None,
        fake: bool = False,
    ) -> None:  # fmt: skip
        """`low` is the mark of organisations that have none of their own when they first get credits."""
        self._client: Any = client
        self._keys, self._orgs, self._time, self._codec = keys, orgs, time, codec
        self._calls = LedgerCalls(keys, time)
        self._low = low
        self._grant = client.register_script(script("grant", fake=fake).text)
        self._take_back = client.register_script(script("take_back", fake=fake).text)
        self._freeze = client.register_script(script("freeze_grant", fake=fake).text)
        self._mark = client.register_script(script("mark_low", fake=fake).text)
        self._lapse = client.register_script(script("lapse", fake=fake).text)
        self._read = client.register_script(script("read_credits", fake=fake).text)

    # ── changing ─────────────────────────────────────────────────────────────────────────────────────────

    async def grant(self, org_id: str, order: GrantOrder, by: By) -> Granted:
        """Make a grant, once by its id.

        Raises GrantConflict for an id that made another grant, TooManyGrants, Invalid where it has expired before it
        begins.
        """
        entry = ["credits_granted", *author_words(by), "kind", order.kind, *scope_words(order.scope)]
        for _ in range(_TURNS):
            org = await self._present(org_id)
            paid = named(org, "payment_intent", order.source.get("payment_intent"))
            args = [
                *self._calls.clock_args(),
                org.claim.text(),
                _raised(org),
                *self._asked_of(org, order, by),
                *entry,
                *paid,
            ]
            reply = await self._calls.ran(self._grant(keys=self._calls.names(org_id), args=args))
            if reply[0] != _STALE:
                return _granted(order, reply)
        raise VersionConflict(f"organisation {org_id} changed too often at the same time")

    async def take_back(
        self, org_id: str, grant_id: str, asked: int, by: By, *, ticket: int,
        owable: Spans = (), causes: Causes = NO_CAUSE, refunds: Refunds | None = None,
    ) -> TakenBack:  # fmt: skip
        """Bring a grant to where `asked` credits of it are taken back in all, as a reading with that ticket says.

        The first of them are taken, the last were spent or have expired: of these the `owable` spans, each from a
        number of credits up to another, are owed. `refunds` are those that the reading found. Raises GrantNotFound.
        """
        org = await self._present(org_id)
        spans = ",".join(f"{start}:{end}" for start, end in owable)
        both = (causes.taken, causes.restored)
        refs = [*(ref_word(org, one) for one in both), *(refund_word(org, one) for one in both)]
        figures = refunds.words() if refunds else NO_REFUNDS
        told = named(org, "refunded_minor", refunds and refunds.begun_minor - refunds.failed_minor)
        what = [asked, ticket, spans, *refs, *figures, "credits_taken_back", *author_words(by), *told]
        return await self._taken(org_id, grant_id, what)

    async def revoke(self, org_id: str, grant_id: str, by: By) -> TakenBack:
        """Take back all that is left of a grant, for good. Raises GrantNotFound."""
        await self._present(org_id)
        return await self._taken(
            org_id, grant_id, [0, "", "", *_NO_REFS, *NO_REFUNDS, "credits_revoked", *author_words(by)]
        )

    async def freeze(self, org_id: str, grant_id: str, by: By, *, ticket: int, ref: str | None = None) -> int:
        """Keep what is left of a grant from being used, as a reading with that ticket says; the balance then.

        `ref` is Stripe's id of the dispute. Raises GrantNotFound.
        """
        return await self._held(org_id, grant_id, "1", ticket, ref, ["credits_frozen", *author_words(by)])

    async def thaw(self, org_id: str, grant_id: str, by: By, *, ticket: int, ref: str | None = None) -> int:
        """Let a frozen grant be used again; the balance then. Raises GrantNotFound."""
        return await self._held(org_id, grant_id, "0", ticket, ref, ["credits_thawed", *author_words(by)])

    async def mark_low(self, org_id: str, low: int | None, by: By) -> int:
        """Set the balance below which credits are low (None: they never are); the balance now."""
        entry = ["credits_mark_set", *author_words(by)]
        for _ in range(_TURNS):
            org = await self._present(org_id)
            args = [*self._calls.clock_args(), org.claim.text(), _raised(org), "" if low is None else low, *entry]
            reply = await self._calls.ran(self._mark(keys=self._calls.names(org_id), args=args))
            if reply[0] != _STALE:
                return int(reply[1])
        raise VersionConflict(f"organisation {org_id} changed too often at the same time")

    async def lapse(self) -> None:
        """Write down what expired, of about a hundred organisations a partition."""
        now_ms = await self._orgs.server_now()
        for partition in range(self._keys.partitions):
            due = self._keys.shared("lapsing", partition)
            for name in await answered(self._client.zrangebyscore(due, "-inf", now_ms, start=0, num=_LAPSES_MAX)):
                await self._lapsed(text_of(name))

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────

    async def balance(self, org_id: str) -> Balance:
        """What may be used now, and what it comes from."""
        return await self.balance_of(await self._present(org_id))

    async def balance_of(self, org: Org) -> Balance:
        """The same of an organisation that was read just now."""
        now_ms, pool, _ = await self._found(org.org_id, every=False)
        ready = usable(pool.grants, now_ms)
        names = {one.grant_id for one in ready}
        return Balance(
            balance(pool.grants, now_ms, pool.debt),
            reserved_of(org, pool, now_ms),
            pool.debt,
            pool.low,
            ready,
            [one for one in pool.grants if one.grant_id not in names and is_open(one, now_ms)],
        )

    async def grants(self, org_id: str) -> list[GrantState]:
        """Every grant there ever was, the newest first."""
        await self._present(org_id)
        now_ms, pool, kept = await self._found(org_id, every=True)
        try:
            return states_from(org_id, kept, {one.grant_id: one for one in pool.grants}, now_ms, self._codec)
        except (ValueError, KeyError) as error:
            raise OrgCorrupt from error

    async def find(self, org_id: str, grant_id: str) -> GrantState:
        """One grant as it stands. Raises GrantNotFound."""
        for one in await self.grants(org_id):
            if one.grant_id == grant_id:
                return one
        raise GrantNotFound

    async def transactions(self, org_id: str, limit: int, cursor: str | None = None) -> tuple[list[Line], str | None]:
        """One page of what became of credits, the newest first, and the cursor of the next (None: that is all).

        The first page writes down what expired since the job looked, so that all lines together are what there is.
        """
        org = await self._present(org_id)
        place, now_ms = Cursor.parse(cursor), self._time.now_ms()
        if cursor is None and await self._is_due(org_id, now_ms):
            await self._lapsed(org_id)
        high = f"({place.entry}" if place.entry else "+"
        ledger = await answered(
            self._client.xrevrange(self._keys.ledger(org_id), high, "-", count=limit + 1),
        )
        burned = await answered(self._client.hgetall(self._keys.burned(org_id)))
        try:
            told = list(entries(org_id, ledger, self._codec, org.profile.data_key))
            return merged(told, burns(texts(burned), place.burn, now_ms), limit, place)
        except (ValueError, KeyError) as error:
            raise OrgCorrupt from error

    async def sources(self, org_id: str, grant_ids: Collection[str]) -> dict[str, Mapping[str, Any]]:
        """Where grants come from, by id: `payment_intent`, `amount_minor`, `currency`, or nothing."""
        names = sorted(grant_ids)
        if not names:
            return {}
        found = await answered(self._client.hmget(self._keys.grants(org_id), names))
        try:
            return {
                name: source_of(org_id, text_of(text), self._codec)
                for name, text in zip(names, found, strict=True)
                if text is not None
            }
        except (ValueError, KeyError) as error:
            raise OrgCorrupt from error

    # ── the calls ────────────────────────────────────────────────────────────────────────────────────────

    async def _taken(self, org_id: str, grant_id: str, what: Sequence[Any]) -> TakenBack:
        args = [*self._calls.clock_args(), grant_id, *what]
        code, *figures = await self._calls.ran(self._take_back(keys=self._calls.names(org_id), args=args))
        if code == _GONE:
            raise GrantNotFound
        asked, taken, owed, left = map(int, figures)
        return TakenBack(asked, taken, owed, left, current=code == _MADE)

    def _asked_of(self, org: Org, order: GrantOrder, by: By) -> list[Any]:
        """What is asked of the script, from the grant's id to the price of what it sells."""
        return [
            order.grant_id, order.amount, order.priority,
            "" if order.effective_ms is None else max(0, order.effective_ms),
            "" if order.expires_ms is None else order.expires_ms,
            order.scope, order.rollover, LETTERS[order.kind],
            order.details(org.org_id, by, self._codec), order.digest(), "" if self._low is None else self._low,
            ref_word(org, order.source.get("payment_intent")), *order.sold(), "1" if order.held else "0",
        ]  # fmt: skip

    async def _held(
        self, org_id: str, grant_id: str, frozen: str, ticket: int, ref: str | None, entry: Sequence[str]
    ) -> int:
        org = await self._present(org_id)
        args = [*self._calls.clock_args(), grant_id, frozen, ticket, ref_word(org, ref), *entry]
        reply = await self._calls.ran(self._freeze(keys=self._calls.names(org_id), args=args))
        if reply[0] == _GONE:
            raise GrantNotFound
        return int(reply[1])

    async def _is_due(self, org_id: str, now_ms: int) -> bool:
        """Whether credits of an organisation expired, and nobody wrote it down."""
        due = self._keys.shared("lapsing", self._keys.partition(org_id))
        next_ms = await answered(self._client.zscore(due, org_id))
        return next_ms is not None and next_ms <= now_ms

    async def _lapsed(self, org_id: str) -> None:
        """Write down what expired of one organisation; one that cannot be read is passed over."""
        try:
            org = await self._present(org_id)
            args = [*self._calls.clock_args(), sealed_name(org_id, org.profile.data_key), org.period.start_ms]
            crossings = self._keys.shared("crossings", self._keys.partition(org_id))
            await self._calls.ran(self._lapse(keys=self._calls.names(org_id, crossings), args=args))
        except (EncryptionKeyUnknown, OrgCorrupt, OrgErased, OrgNotFound, VersionConflict) as problem:
            log.warning("credits of an organisation not looked at", org=org_id, code=problem.code)

    async def _found(self, org_id: str, *, every: bool) -> tuple[int, Pool, dict[str, str]]:
        """The store's time, the pool, and what is kept of every grant. Raises OrgCorrupt."""
        names = [self._keys.pool(org_id), self._keys.grants(org_id), *self._calls.clock_key(org_id)]
        args = [*self._calls.clock_args(), "1" if every else ""]
        now_ms, pool, kept = await self._calls.ran(self._read(keys=names, args=args))
        try:
            return int(now_ms), pool_from(_pairs(pool)), _pairs(kept)
        except (ValueError, KeyError) as error:
            raise OrgCorrupt from error

    async def _present(self, org_id: str) -> Org:
        org = await self._orgs.present(org_id)
        if org is None:
            raise OrgNotFound
        return org


def _raised(org: Org) -> str:
    """The claim by which every copy of the organisation runs out."""
    return replace(org.claim, revision=org.claim.revision + 1).text()


def _granted(order: GrantOrder, reply: Sequence[Any]) -> Granted:
    """What a grant came to. Raises GrantConflict, TooManyGrants, Invalid."""
    if reply[0] == _OTHER:
        raise GrantConflict(f"{order.grant_id} was made with another content", id=order.grant_id)
    if reply[0] == _FULL:
        raise TooManyGrants
    if reply[0] == _OVER:
        detail = "lies not after `effective_at` and now"
        errors = [{"pointer": "/expires_at", "code": "out-of-range", "detail": detail}]
        raise Invalid(f"/expires_at: {detail}", errors=errors)
    return Granted(reply[0] == _MADE, int(reply[1]))


def _pairs(flat: Sequence[Any]) -> dict[str, str]:
    return texts(dict(zip(flat[::2], flat[1::2], strict=True)))
