"""The inbox: Stripe events that came in and wait for their effect, one stream a partition.

An event's id decides its partition; the mark of the id and the entry are written together, so an event is in the inbox
once however often and however many at once it is delivered. Of an event only names are kept, and those in a box: the
streams are shared, and whose customer somebody is concerns nobody who reads the store.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, Final

import orjson

from metering.errors import Overloaded
from metering.store.boxes import opened, shut
from metering.store.connect import answered
from metering.store.fields import without_ids
from metering.store.keys import Keys
from metering.store.scripts import script
from metering.store.stream_group import StreamGroup
from metering.store.totals import Client
from webhooks.stripe_events import StripeEvent

GROUP: Final = "reactions"

MARK_MS: Final = 35 * 86_400_000
"""How long an id is remembered. Stripe sends an event again for 3 days and tells of it for 30
(https://docs.stripe.com/webhooks/process-undelivered-events); the rest is for clocks and operators."""

INBOX_MAX: Final = 10_000
"""Entries of one partition, of the usual 64: beyond that Stripe keeps what it has to say, and says it later."""

DEAD_MAX: Final = 10_000
"""Events given up that a partition keeps, about: somebody looks at the first ten."""

_PURPOSE: Final = b"stripe event"
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Letter:
    """One entry of the inbox, or of the events that could not take effect; `why` is set there."""

    partition: int
    name: str
    event_id: str
    type: str
    received_ms: int
    box: bytes
    why: str = ""


class Inbox:
    """The inboxes of one data set, whose secret is `secret`. Errors of the store are the 503 problems."""

    def __init__(self, client: Client, keys: Keys, secret: bytes, *, most: int = INBOX_MAX, fake: bool = False) -> None:
        self._client: Any = client
        self._keys, self._most = keys, most
        self._key = blake2b(key=secret, person=b"inbox", digest_size=_KEY_BYTES).digest()
        self._group = StreamGroup(client, keys, "inbox", GROUP)
        self._receive: Any = client.register_script(script("receive", fake=fake).text)
        self._dismiss: Any = client.register_script(script("dismiss", fake=fake).text)
        self._set_aside: Any = client.register_script(script("set_aside", fake=fake).text)
        self.woken = asyncio.Event()
        """Set when this worker took something in: whoever reacts need not wait for its next turn."""

    # ── the end that takes in ────────────────────────────────────────────────────────────────────────────

    async def receive(self, event: StripeEvent) -> bool:
        """Keep an event durably; False where it came in before. Safe to repeat and to run in parallel.

        Raises Overloaded where the inbox is full.
        """
        partition = self._keys.event_partition(event.dedupe_id)
        box = shut(orjson.dumps(asdict(event)), self._key, _PURPOSE)
        keys = [self._keys.received(event.dedupe_id), self._keys.shared("inbox", partition)]
        args = [MARK_MS, self._most, event.dedupe_id, event.type, box]
        code, _ = await answered(self._receive(keys=keys, args=args))
        if code < 0:
            raise Overloaded("the inbox is full", headers={"Retry-After": "60"})
        self.woken.set()
        return bool(code)

    # ── the end that takes out ───────────────────────────────────────────────────────────────────────────

    async def waiting(self) -> dict[int, int]:
        """The partitions that have entries, and how many."""
        return await self._group.waiting()

    async def left(self, partition: int, *, idle_ms: int, after: str = "") -> Letter | None:
        """An entry later than `after` that was handed out `idle_ms` ago or longer and is still there; ours from now on.

        It counts as tried once more.
        """
        found = await self._group.left(partition, idle_ms=idle_ms, most=1, after=after)
        return _letter(partition, *found[0]) if found else None

    async def unread(self, partition: int) -> Letter | None:
        """An entry that nobody was handed yet."""
        found = await self._group.unread(partition, most=1)
        return _letter(partition, *found[0]) if found else None

    def event(self, letter: Letter) -> StripeEvent:
        """The event. Raises Unreadable, or ValueError or TypeError for an entry that `receive` did not write."""
        return StripeEvent(**orjson.loads(opened(letter.box, self._key, _PURPOSE)))

    async def tries(self, letter: Letter) -> int:
        """How often it was handed to a reader, this time included; 0 where it is gone."""
        return (await self._group.times_handed_out(letter.partition, [letter.name]))[letter.name]

    async def hand_back(self, letter: Letter, *, tries: int) -> None:
        """Leave it for later as one that was tried `tries` times."""
        await self._group.hand_back(letter.partition, letter.name, times=tries)

    async def dismiss(self, letter: Letter, *, count: str = "") -> None:
        """Take it out; counted under the type `count` where no organisation has counted it."""
        keys = [self._of("inbox", letter), self._of("totals", letter)]
        await answered(self._dismiss(keys=keys, args=[GROUP, letter.name, count]))

    # ── what could not take effect ───────────────────────────────────────────────────────────────────────

    async def bury(self, letter: Letter, why: str) -> None:
        """Move it to the events that could not take effect."""
        keys = [self._of("inbox", letter), self._of("dead_inbox", letter)]
        await answered(self._set_aside(keys=keys, args=[GROUP, letter.name, DEAD_MAX, without_ids(why)]))

    async def revive(self, letter: Letter) -> bool:
        """Move it back into the inbox, to be tried again from the start; False where somebody else did."""
        keys = [self._of("dead_inbox", letter), self._of("inbox", letter)]
        moved = bool(await answered(self._set_aside(keys=keys, args=[GROUP, letter.name, 0, ""])))
        self.woken.set()
        return moved

    async def dead(self, *, most: int = DEAD_MAX) -> list[Letter]:
        """The events that could not take effect, up to `most` of each partition, the oldest first."""
        found: list[Letter] = []
        for partition in range(self._keys.partitions):
            key = self._keys.shared("dead_inbox", partition)
            entries = await answered(self._client.xrange(key, count=most))
            found += [_letter(partition, *entry) for entry in entries]
        return sorted(found, key=lambda letter: letter.received_ms)

    def _of(self, kind: str, letter: Letter) -> str:
        return self._keys.shared(kind, letter.partition)


def _letter(partition: int, name: bytes, fields: Mapping[bytes, bytes]) -> Letter:
    """An entry as it is read. One that is no script's is shown as far as it can be."""
    said = {key: fields.get(key, b"").decode(errors="replace") for key in (b"event", b"type", b"why")}
    ms, _, _ = name.partition(b"-")
    return Letter(
        partition, name.decode(), said[b"event"], said[b"type"], int(ms), fields.get(b"box", b""), said[b"why"]
    )
