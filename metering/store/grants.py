"""A grant of credits: as it is asked for, as it stands, and the words that the store keeps of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, TypeAlias

from metering.store.fields import FieldCodec
from metering.store.pool import grant_from
from plans.credits import POOL, PRIORITY_DEFAULT, Grant, Kind, normalised

DETAILS: Final = "grant"
"""The field's name for the codec."""


@dataclass(frozen=True, slots=True)
class By:
    """Who changes credits, why, and in which request (its id, '' where nobody asked)."""

    actor: str
    reason: str
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Refunds:
    """The refunds of one payment: how many were ever begun and of how many minor units, and those that failed of them.

    None of the four ever falls, so what they grow by can be counted.
    """

    currency: str
    begun: int
    begun_minor: int
    failed: int
    failed_minor: int

    def words(self) -> list[Any]:
        """As the script takes them."""
        return [self.currency, self.begun, self.begun_minor, self.failed, self.failed_minor]


REFUND_IDS: Final = ("re_", "pyr_")
"""How Stripe's ids of refunds begin."""

NO_REFUNDS: Final = ("", 0, 0, 0, 0)
"""The same where nobody looked for any."""


Spans: TypeAlias = Sequence[tuple[int, int]]
"""Parts of the credits of a grant, each from a number up to another."""


@dataclass(frozen=True, slots=True)
class Causes:
    """Stripe's ids of what took credits, of what gave some back, and of what holds them or did last."""

    taken: str | None = None
    restored: str | None = None
    held: str | None = None


NO_CAUSE: Final = Causes()


@dataclass(frozen=True, slots=True)
class Gone:
    """What a reading of a payment found gone of its grant: `asked` credits in all, and whether the rest is frozen.

    Of those that are spent already the `owable` spans are owed; `refunds` are counted.
    """

    asked: int
    refunds: Refunds
    owable: Spans = ()
    frozen: bool = False
    causes: Causes = NO_CAUSE


@dataclass(frozen=True, slots=True)
class GrantOrder:
    """A grant to make, by an id of its own: the same id again makes nothing.

    `effective_ms` None: from now on; `expires_ms` None: never. `source` is where it comes from, for whoever asks later:
    `payment_intent`, `amount_minor`, `currency`, or nothing. `held`: it is made frozen.
    """

    grant_id: str
    amount: int
    kind: Kind
    scope: str = POOL
    priority: int = PRIORITY_DEFAULT
    effective_ms: int | None = None
    expires_ms: int | None = None
    rollover: int = 0
    source: Mapping[str, Any] = field(default_factory=dict)
    held: bool = False

    def sold(self) -> tuple[str, int]:
        """What it sells, as the totals name it (currency:credits), and its price in minor units; ('', 0): nothing."""
        if self.kind is not Kind.PAID or not {"amount_minor", "currency"} <= self.source.keys():
            return "", 0
        return f"{self.source['currency']}:{self.amount}", int(self.source["amount_minor"])

    def digest(self) -> str:
        """What tells the same grant, asked for again, from another one of its id."""
        content = [
            self.amount, self.kind, self.scope, self.priority, self.effective_ms, self.expires_ms, self.rollover,
        ]  # fmt: skip
        return sha256(json.dumps(content).encode()).hexdigest()[:32]

    def details(self, org_id: str, by: By, codec: FieldCodec) -> str:
        """What is kept of it for ever."""
        told = {
            "amount": self.amount, "kind": self.kind, "scope": self.scope, "priority": self.priority,
            "effective_ms": self.effective_ms, "expires_ms": self.expires_ms, "rollover": self.rollover,
            "reason": by.reason, "by": by.actor, "source": dict(self.source),
        }  # fmt: skip
        return codec.encode(org_id, DETAILS, json.dumps(told))


@dataclass(frozen=True, slots=True)
class GrantState:
    """A grant as it stands now. Always `amount` = `burned` + `taken` + `expired` + `left`.

    `asked` credits are asked back of it in all, of which `taken` were there to take and `owed` are owed. `expires_ms`
    is that of its second span, where it is in one.
    """

    grant_id: str
    amount: int
    kind: Kind
    scope: str
    priority: int
    effective_ms: int
    expires_ms: int | None
    rollover: int
    reason: str
    by: str
    source: Mapping[str, Any]
    created_ms: int
    left: int
    asked: int = 0
    taken: int = 0
    expired: int = 0
    owed: int = 0
    frozen: bool = False
    revoked: bool = False

    @property
    def burned(self) -> int:
        """Credits that usage burned."""
        return self.amount - self.taken - self.expired - self.left


def source_of(org_id: str, text: str, codec: FieldCodec) -> Mapping[str, Any]:
    """Where a grant comes from, out of what is kept of it. Raises ValueError or KeyError."""
    source: Mapping[str, Any] = json.loads(codec.decode(org_id, DETAILS, text)).get("source", {})
    return source


def states_from(
    org_id: str, kept: Mapping[str, str], open_grants: Mapping[str, Grant], now_ms: int, codec: FieldCodec
) -> list[GrantState]:
    """Every grant of an organisation, the newest first. Raises ValueError or KeyError at what no script wrote."""
    names = (name for name in kept if "|" not in name)
    found = [_state(org_id, name, kept, open_grants.get(name), now_ms, codec) for name in names]
    return sorted(found, key=lambda one: (-one.created_ms, one.grant_id))


def _state(
    org_id: str, name: str, kept: Mapping[str, str], grant: Grant | None, now_ms: int, codec: FieldCodec
) -> GrantState:
    def figure(kind: str) -> int:
        return int(kept.get(f"{name}|{kind}", 0))

    told: dict[str, Any] = json.loads(codec.decode(org_id, DETAILS, kept[name]))
    first = grant_from(name, kept[f"{name}|g"]) if f"{name}|g" in kept else None
    now = None if grant is None else normalised(grant, now_ms)
    shown = now.grant if now is not None and now.grant.left else first or grant
    return GrantState(
        grant_id=name,
        amount=int(told["amount"]) if "amount" in told else first.left if first else 0,
        kind=Kind(told.get("kind", Kind.PROMOTIONAL)),
        scope=told.get("scope", shown.scope if shown else POOL),
        priority=int(told.get("priority", PRIORITY_DEFAULT)),
        effective_ms=shown.effective_ms if shown else int(told.get("effective_ms") or 0),
        expires_ms=shown.expires_ms if shown else told.get("expires_ms"),
        rollover=int(told.get("rollover", 0)),
        reason=told.get("reason", ""),
        by=told.get("by", ""),
        source=told.get("source", {}),
        created_ms=figure("c") or (shown.effective_ms if shown else 0),
        left=now.grant.left if now else 0,
        asked=figure("a"),
        taken=figure("t"),
        expired=figure("x") + (now.expired if now else 0),
        owed=figure("o"),
        frozen=kept.get(f"{name}|f") == "1",
        revoked=kept.get(f"{name}|r") == "1",
    )
