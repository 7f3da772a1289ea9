"""Automatic top-ups as the store keeps them: the rule of an organisation, and each attempt before Stripe hears of it.

One script decides whether an attempt begins and writes it down, so that of many workers one begins it, and the caps
hold whatever dies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from metering.errors import OrgCorrupt, OrgNotFound
from metering.store.connect import answered, text_of, texts
from metering.store.credit_words import author_words
from metering.store.fields import FieldCodec
from metering.store.grants import By
from metering.store.keys import Keys
from metering.store.ledger_calls import LedgerCalls
from metering.store.scripts import script
from metering.store.timing import StoreTime

if TYPE_CHECKING:
    from redis.asyncio import Redis

DAY_MS: Final = 86_400_000
MONTH_MS: Final = 31 * DAY_MS
"""What `per_month` holds for: any 31 days, so that no calendar month has more."""

LOOK_MS: Final = 120_000
"""Between two looks at an attempt that is under way: longer than a call to Stripe may take."""

_AT_ONCE: Final = 100
"""Organisations of one partition a turn."""

SEALED: Final = ("customer", "payer", "method")
"""Fields of Stripe's ids, which pass the codec: who pays from now on; who pays with what for the attempt under way."""

_CUSTOMER, _PAYER, _METHOD = SEALED
_NO: Final = 0


class Stop(StrEnum):
    """Why no more attempts are made until somebody sets the rule again."""

    DECLINED = "declined"
    AUTHENTICATION = "authentication-required"
    NO_METHOD = "no-payment-method"
    NO_PAYER = "no-payer"
    REFUSED = "refused-by-stripe"
    NOT_SOLD = "package-unknown"
    DISPUTED = "disputed"


@dataclass(frozen=True, slots=True)
class Rule:
    """When to buy which package, and the most that is bought: attempts in any 24 hours, minor units in any 31 days."""

    enabled: bool
    package: int
    per_day: int
    per_month: int
    cooldown_ms: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """A purchase that was written down: its id, what it buys, who pays with what, and since when it is under way."""

    attempt_id: str
    credits: int
    amount_minor: int
    currency: str
    customer: str
    method: str
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why it stopped, with Stripe's word for it, and when."""

    why: str
    detail: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class TopUp:
    """An organisation's automatic top-ups: its rule, its customer, and what was done so far.

    `tries` are instants and minor units of the attempts of the last 31 days; of one that was not paid, 0.
    """

    rule: Rule
    customer: str
    attempt: Attempt | None = None
    stopped: Stopped | None = None
    tries: Sequence[tuple[int, int]] = field(default_factory=tuple)

    def used(self, now_ms: int) -> tuple[int, int]:
        """Attempts of the last 24 hours, and minor units of the last 31 days."""
        day = sum(at_ms > now_ms - DAY_MS for at_ms, _ in self.tries)
        return day, sum(amount for at_ms, amount in self.tries if at_ms > now_ms - MONTH_MS)


class TopUps:
    """The automatic top-ups of one data set. Errors of the store come out as 503 problems; organisations are there."""

    def __init__(self, client: "Redis", keys: Keys, time: StoreTime, codec: FieldCodec, *, fake: bool = False) -> None:
        self._client: Any = client
        self._keys, self._codec, self._calls = keys, codec, LedgerCalls(keys, time)
        self._set = client.register_script(script("set_topup", fake=fake).text)
        self._begin = client.register_script(script("begin_topup", fake=fake).text)
        self._end = client.register_script(script("end_topup", fake=fake).text)

    async def find(self, org_id: str) -> TopUp | None:
        """What is kept of an organisation; None where nothing was ever set. Raises OrgCorrupt."""
        kept = texts(await answered(self._client.hgetall(self._keys.topup(org_id))))
        if not kept:
            return None
        try:
            return self._read(org_id, kept)
        except (ValueError, KeyError) as error:
            raise OrgCorrupt from error

    async def set(self, org_id: str, rule: Rule, customer: str, by: By) -> None:
        """Set the rule and who pays; whatever had stopped it is over. Raises OrgNotFound, OrgErased."""
        sealed = self._codec.encode(org_id, _CUSTOMER, customer)
        rows = [int(rule.enabled), rule.package, rule.per_day, rule.per_month, rule.cooldown_ms, sealed]
        reply = await self._ran(self._set, org_id, [*rows, "topup_set", *author_words(by)])
        if reply[0] == _NO:
            raise OrgNotFound

    async def ready(self, org_id: str, credits_: int, amount_minor: int) -> str:
        """Why no attempt for so much would begin now; '' where one would."""
        reply = await self._ran(self._begin, org_id, ["", credits_, amount_minor, "", "", "", "topup_begun"])
        return text_of(reply[1]) if reply[0] == _NO else ""

    async def begin(self, org_id: str, attempt: Attempt, by: By) -> bool:
        """Write an attempt down, which is its caller's to carry out; False where none begins."""
        sealed = self._sealed(org_id, attempt)
        what = [attempt.attempt_id, attempt.credits, attempt.amount_minor, attempt.currency, *sealed]
        reply = await self._ran(self._begin, org_id, [*what, "topup_begun", *author_words(by)])
        return bool(reply[0] != _NO)

    async def end(self, org_id: str, attempt_id: str, by: By, *, stop: Stop | None = None, detail: str = "") -> None:
        """Write down how an attempt ended: paid, or why no more are made. Repeats change nothing."""
        what = [attempt_id, int(stop is None), stop or "", detail]
        await self._ran(self._end, org_id, [*what, "topup_stopped" if stop else "topup_paid", *author_words(by)])

    async def forget(self, org_id: str, attempt_id: str, by: By) -> None:
        """Write down that Stripe never heard of an attempt: nothing was paid, and the next one may begin."""
        await self._ran(self._end, org_id, [attempt_id, 0, "", "", "topup_lost", *author_words(by)])

    async def wanting(self, now_ms: int) -> list[str]:
        """Organisations below their mark that may be topped up now."""
        pipe = self._client.pipeline(transaction=False)
        for partition in range(self._keys.partitions):
            low, able = (self._keys.shared(kind, partition) for kind in ("topups", "recharging"))
            pipe.zinter({low: 0, able: 1}, withscores=True)
        return [
            text_of(name)
            for found in await answered(pipe.execute())
            for name, not_before in found
            if not_before <= now_ms
        ]

    async def under_way(self, now_ms: int) -> list[str]:
        """Organisations whose attempt is to be looked at again, some of each partition."""
        pipe = self._client.pipeline(transaction=False)
        for partition in range(self._keys.partitions):
            due = self._keys.shared("charging", partition)
            pipe.zrangebyscore(due, "-inf", now_ms, start=0, num=_AT_ONCE)
        return [text_of(name) for found in await answered(pipe.execute()) for name in found]

    async def look_later(self, org_id: str, now_ms: int) -> None:
        """Leave an attempt that is under way alone for a while."""
        due = self._keys.shared("charging", self._keys.partition(org_id))
        await answered(self._client.zadd(due, {org_id: now_ms + LOOK_MS}, xx=True))

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────

    def _read(self, org_id: str, kept: Mapping[str, str]) -> TopUp:
        rule = Rule(
            kept["on"] == "1", int(kept["package"]), int(kept["per_day"]), int(kept["per_month"]), int(kept["cooldown"])
        )
        tries = [text.split(":") for name, text in kept.items() if name.startswith("t|")]
        return TopUp(
            rule,
            self._codec.decode(org_id, _CUSTOMER, kept["customer"]),
            self._attempt(org_id, kept),
            Stopped(kept["why"], kept["detail"], int(kept["stopped"])) if "why" in kept else None,
            tuple(sorted((int(at), int(amount)) for at, amount in tries)),
        )

    def _attempt(self, org_id: str, kept: Mapping[str, str]) -> Attempt | None:
        if "attempt" not in kept:
            return None
        return Attempt(
            kept["attempt"], int(kept["credits"]), int(kept["amount"]), kept["currency"],
            self._codec.decode(org_id, _PAYER, kept["payer"]), self._codec.decode(org_id, _METHOD, kept["method"]),
            int(kept["at"]),
        )  # fmt: skip

    def _sealed(self, org_id: str, attempt: Attempt) -> tuple[str, str]:
        encode = self._codec.encode
        return encode(org_id, _PAYER, attempt.customer), encode(org_id, _METHOD, attempt.method)

    # ── calling ──────────────────────────────────────────────────────────────────────────────────────────

    async def _ran(self, call: Any, org_id: str, what: Sequence[Any]) -> list[Any]:
        """A script's reply. Raises ClockUnsafe, OrgCorrupt, OrgErased."""
        lists = (self._keys.shared(kind, self._keys.partition(org_id)) for kind in ("recharging", "charging"))
        names = self._calls.names(org_id, self._keys.topup(org_id), *lists)
        return await self._calls.ran(call(keys=names, args=[*self._calls.clock_args(), *what]))
