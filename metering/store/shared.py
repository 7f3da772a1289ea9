"""What the metrics want of the keys that all organisations of a partition share: one script call a partition.

A command for each of them would be a thousand commands a scrape, which hold up a worker's requests for 40 ms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any, Final, NamedTuple

from metering.errors import InternalError, OrgCorrupt
from metering.store.connect import problem_of
from metering.store.drift import FIELDS, drift_of
from metering.store.keys import Keys
from metering.store.outbox_state import LOOKED_AT, OutboxState, sealed
from metering.store.queue_state import QueueState, accepted_ms
from metering.store.scripts import script
from metering.store.totals import Client, Totals, replies_of

_KINDS: Final = (
    "totals", "plans", "orgs", "top", "queue", "dead", "inbox", "dead_inbox", "dirty", "outbox", "dead_windows",
    "unbilled", "frozen",
)  # fmt: skip
"""KEYS of read_shared.lua."""


class _Part(NamedTuple):
    """The answers of one partition, in the order of the script: hashes and scores are flat, entries are raw."""

    totals: list[bytes]
    plans: list[bytes]
    orgs: int
    top: list[bytes]
    queued: int
    next_queued: list[Any]
    dead: int
    inbox: int
    next_inbox: list[Any]
    dead_inbox: int
    dirty: int
    next_dirty: list[bytes]
    outbox: int
    next_windows: list[bytes]
    dead_windows: int
    unbilled: int
    frozen: int


_STRICT: Final = _Part._fields.index("queued")
"""Answers before this one must be of their type: sums without some of their parts would go back."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Sums over all partitions, the queues of events accepted with `ack=async`, Stripe's inboxes, the outboxes."""

    totals: Totals
    queue: QueueState
    inbox: QueueState
    outbox: OutboxState


async def read_shared(client: Client, keys: Keys, *, top: int, fake: bool = False) -> Shared:
    """All of it as it stands now, with the `top` (1 or more) highest organisations of each partition.

    One pipeline, and another one where windows are on their way; each partition is read at one instant. Queues of the
    wrong type count as empty. Raises the 503 problems, and InternalError for figures that no script wrote.
    """
    (seconds, micros), offset, drift, *answers = await _asked(client, keys, top, fake=fake)
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    parts = list(starmap(_Part, map(_checked, answers)))
    ours_ms = now_ms + int(offset or 0)
    windows = {n: part.next_windows or [] for n, part in enumerate(parts)}
    since = [int(float(part.next_dirty[1])) for part in parts if part.next_dirty] + await sealed(client, keys, windows)
    try:
        totals = _totals(parts)
    except ValueError as error:
        raise InternalError("the totals hold what no script wrote") from error
    return Shared(
        totals,
        _queue([(part.queued, part.next_queued, part.dead) for part in parts], ours_ms),
        _queue([(part.inbox, part.next_inbox, part.dead_inbox) for part in parts], now_ms),
        OutboxState(
            unsealed=sum(part.dirty or 0 for part in parts),
            windows=sum(part.outbox or 0 for part in parts),
            age_ms=max(0, ours_ms - min(since, default=ours_ms)),
            dead=sum(part.dead_windows or 0 for part in parts),
            unbilled=sum(part.unbilled or 0 for part in parts),
            drift=drift_of(drift),
            frozen=sum(part.frozen or 0 for part in parts),
        ),
    )


async def _asked(client: Client, keys: Keys, top: int, *, fake: bool) -> list[Any]:
    """Time, test clock, drift, and then the answers of every partition."""
    ask: Any = client.register_script(script("read_shared", fake=fake).text)
    pipe: Any
    async with client.pipeline(transaction=False) as pipe:  # gives its connection back, also where it is cut off
        pipe.time()  # first: what is accepted after it is not older
        pipe.get(keys.shared("clock", 0))
        pipe.hmget(keys.shared("stripe", 0), FIELDS)
        for partition in range(keys.partitions):
            await ask([keys.shared(kind, partition) for kind in _KINDS], (top, LOOKED_AT), pipe)
        return await replies_of(pipe)


def _checked(answers: Sequence[Any]) -> list[Any]:
    """One partition's answers, None for a key of the wrong type. Raises OrgCorrupt where it must be of its type."""
    checked = list(answers)
    for at, answer in enumerate(answers):
        if isinstance(answer, Exception):
            problem = problem_of(answer)
            if at < _STRICT or not isinstance(problem, OrgCorrupt):
                raise problem from answer
            checked[at] = None
    return checked


def _totals(parts: Sequence[_Part]) -> Totals:
    """The sums. Raises ValueError for what no script wrote."""
    found = Totals()
    for part in parts:
        found.add(_pairs(part.totals), _pairs(part.plans), part.orgs)
        found.top |= {name.decode(): float(score) for name, score in _pairs(part.top).items()}
    return found


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A hash, or members with their scores, as a script gives them."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _queue(parts: Sequence[tuple[int | None, Sequence[Any] | None, int | None]], now_ms: int) -> QueueState:
    """One kind of queue of all partitions: how many wait and which is the first, and how many were given up."""
    since = [accepted_ms(*first[0]) for _, first, _ in parts if first]
    age_ms = max(0, now_ms - min(since, default=now_ms))
    return QueueState(sum(waiting or 0 for waiting, _, _ in parts), age_ms, sum(dead or 0 for _, _, dead in parts))
