"""Events as they wait for the store: digests made, arguments encoded. The plain ones go to track, all else to admit."""

import asyncio
import itertools
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

from metering.store.admission import Admission, AdmitRow, HoldAsk, Verb
from metering.store.calls import BUDGET_S, Pending
from metering.store.digests import Digests, Ids, digits, shard_of
from metering.store.frames import EMPTY, bulk, integer
from metering.store.raw_events import boxed
from metering.usage import UsageEvent

NO_IDS: Final = EMPTY + EMPTY


class Pendings:
    """Makes them for one worker. Make it inside a running loop.

    `dimensions` are the declared ones and their most values; `keeps_events` says that raw events are kept;
    `late_original` that late events go to the period they belong to.
    """

    def __init__(
        self, secret: bytes, *, dimensions: Mapping[str, int], keeps_events: bool, late_original: bool
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._digests = Digests(secret)
        self._dimensions, self._keeps_events, self._late_original = dimensions, keeps_events, late_original
        self._minted_prefix = b"m" + secrets.token_hex(8).encode()
        self._minted = itertools.count()

    def of(self, event: UsageEvent) -> Pending:
        """One event. Most are plain: what they need stands here, for every call costs a hundredth of an event."""
        if (
            self._keeps_events
            or event.mode
            or event.dry_run
            or event.also
            or event.dimensions
            or event.accepted_ms is not None
            or event.hold_id is not None
            or (self._late_original and event.timestamp_ms is not None)
        ):
            return self.together(event.org_id, self.rows(event))
        org_id, feature, quantity, event_id = event.org_id, event.feature, event.quantity, event.event_id
        name, shard, loop = feature.encode(), None, self._loop
        if event_id is None:
            ids = self._minted_ids()
        else:
            first, second = self._digests.ids(org_id, event.source, event_id, ((name, quantity),))
            shard, ids = int.from_bytes(first, "big"), bulk(digits(first)) + bulk(digits(second))
        tail = bulk(name) + integer(quantity) + ids
        deadline = loop.time() + BUDGET_S
        return Pending(org_id, feature, quantity, shard, tail, event.timestamp_ms, loop.create_future(), deadline)

    def all_of(self, events: Iterable[UsageEvent]) -> Admission:
        """Several events of one organisation that are counted together or not at all."""
        listed = list(events)
        return self.together(listed[0].org_id, [row for event in listed for row in self.rows(event)])

    def together(self, org_id: str, rows: Sequence[AdmitRow]) -> Admission:
        """Rows that are admitted together or not at all."""
        return Admission(org_id, list(rows), self._loop.create_future(), self._loop.time() + BUDGET_S)

    def rows(self, event: UsageEvent) -> list[AdmitRow]:
        """The event's rows: one a feature."""
        shard, ids = self._ids(event)
        at_ms = event.accepted_ms if event.timestamp_ms is None else event.timestamp_ms
        made: list[AdmitRow] = []
        for feature, quantity in content_of(event):
            row = AdmitRow(feature, shard, bulk(feature.encode()) + integer(quantity) + ids, at_ms, further=bool(made))
            row.verb, row.mode = _verb(event), event.mode
            row.hold = None if event.hold_id is None else HoldAsk(event.hold_id, charged=False)
            row.dimensions = self._declared(event)
            row.original, row.accepted_ms = self._late_original or event.accepted_ms is not None, event.accepted_ms
            row.box = self.box_of(event)
            made.append(row)
            shard, ids = None, NO_IDS
        return made

    def box_of(self, event: UsageEvent) -> Callable[[bytes], str] | None:
        """What makes the box of the event's entry in the log of raw events; None where none is kept."""
        return partial(boxed, event) if self._keeps_events and not event.dry_run else None

    def settling(self, feature: str, quantity: int, ids: Ids) -> AdmitRow:
        """A row that counts units under given digests."""
        first, second = ids
        tail = bulk(feature.encode()) + integer(quantity) + bulk(digits(first)) + bulk(digits(second))
        return AdmitRow(feature, shard_of(first), tail)

    def hold_ids(self, org_id: str, hold_id: str, feature: str, quantity: int) -> Ids:
        """The digests that the settlement of a hold is known by."""
        return self._digests.ids(org_id, "", hold_id, ((feature.encode(), quantity),), kind=b"hold")

    def _ids(self, event: UsageEvent) -> tuple[int | None, bytes]:
        """The shard and the encoded digests: of the client's id, of the hold, or of a minted id for our own repeats."""
        if event.hold_id is not None:
            first, second = self.hold_ids(event.org_id, event.hold_id, event.feature, event.quantity)
            return shard_of(first), bulk(digits(first)) + bulk(digits(second))
        if event.event_id is None:
            if event.dry_run:
                return None, NO_IDS
            return None, self._minted_ids()
        content = ((feature.encode(), quantity) for feature, quantity in content_of(event))
        first, second = self._digests.ids(event.org_id, event.source, event.event_id, content)
        return shard_of(first), bulk(digits(first)) + bulk(digits(second))

    def _minted_ids(self) -> bytes:
        return bulk(b"%b.%x" % (self._minted_prefix, next(self._minted))) + EMPTY

    def _declared(self, event: UsageEvent) -> list[tuple[str, int, str]]:
        """The event's values of declared dimensions, each with the most that may be kept."""
        if event.dimensions is None:
            return []
        return [
            (name, self._dimensions[name], value)
            for name, value in event.dimensions.items()
            if name in self._dimensions
        ]


def _verb(event: UsageEvent) -> Verb:
    if event.hold_id is not None:
        return Verb.COMMIT
    return Verb.TRIAL if event.dry_run else Verb.TRACK


def content_of(event: UsageEvent) -> Sequence[tuple[str, int]]:
    """What the event counts, in order: (feature, quantity)."""
    return ((event.feature, event.quantity), *event.also)
