"""An organisation's pool of credits as the store holds it: one hash, read whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from metering.store.org import Org
from plans.credits import POOL, Grant, Kind, Standing, cover, reserved
from plans.limits import OnLimit

LETTERS: Final = {Kind.PAID: "p", Kind.PROMOTIONAL: "f"}
"""The letter that the scripts know a kind by."""

_KINDS: Final = {letter: kind for kind, letter in LETTERS.items()}

DEBT, LOW, SEQ = "debt", "low", "seq"
"""Fields that are no grants: credits owed, the mark below which the balance is low, the number of the last grant."""

_OTHERS: Final = frozenset({DEBT, LOW, SEQ})


@dataclass(frozen=True, slots=True)
class Pool:
    """Open grants as they were written last, credits owed, and the low mark (None: there is none)."""

    grants: tuple[Grant, ...] = ()
    debt: int = 0
    low: int | None = None
    seq: int = 0


def pool_from(fields: Mapping[str, str]) -> Pool:
    """Read a pool. Raises ValueError or KeyError where a script would not have written it so."""
    grants = tuple(grant_from(name, text) for name, text in fields.items() if name not in _OTHERS)
    low = fields.get(LOW)
    return Pool(grants, int(fields.get(DEBT, 0)), None if low is None else int(low), int(fields.get(SEQ, 0)))


def grant_from(grant_id: str, text: str) -> Grant:
    """Read one open grant. Raises ValueError or KeyError."""
    left, priority, effective, expires, seq, scope, frozen, rollover, kind = text.split(":")
    return Grant(
        grant_id, int(left), int(seq), int(priority), int(effective), int(expires) or None, scope, frozen == "1",
        int(rollover), _KINDS[kind],
    )  # fmt: skip


def grant_text(grant: Grant) -> str:
    """One open grant as the scripts read it: `left:priority:effective:expires:seq:scope:frozen:rollover:kind`."""
    numbers = (grant.left, grant.priority, grant.effective_ms, grant.expires_ms or 0, grant.seq)
    front = ":".join(map(str, numbers))
    return f"{front}:{grant.scope}:{int(grant.frozen)}:{grant.rollover}:{LETTERS[grant.kind]}"


def is_open(grant: Grant, now_ms: int) -> bool:
    """Whether a grant that may not be used now can be later."""
    return grant.left > 0 and (grant.expires_ms is None or now_ms < grant.expires_ms)


def reserved_of(org: Org, pool: Pool, now_ms: int) -> int:
    """Credits of the pool that open holds keep."""
    standings = {}
    for feature, usage in org.features.items():
        rule = usage.rule
        if rule.credits is not None and rule.on_limit is not OnLimit.OVERAGE and rule.limit is not None:
            own = cover(pool.grants, feature, None, now_ms).own
            standings[feature] = Standing(rule.limit, usage.used, usage.held, rule.credits, own)
    return reserved(standings, POOL)
