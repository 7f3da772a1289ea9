"""An organisation's billing history: what of its trail is about money, the newest first, with its figures."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from metering.store.connect import answered, texts
from metering.store.fields import FieldCodec
from metering.store.grants import source_of
from metering.store.keys import Keys
from metering.store.trail import READ_ENTRIES, READS_MAX, Entry, Trail

if TYPE_CHECKING:
    from redis.asyncio import Redis

CLOSED: Final = "period_closed"

_OTHERS: Final = frozenset({"key_created", "key_deleted", "overage_refused", "overage_replayed"})
"""What the trail says to those who run the service: it changes nobody's bill."""


@dataclass(frozen=True, slots=True)
class Covered:
    """Units of one feature in a closed period, net of corrections; `billed` of the overage is at Stripe."""

    used: int
    credit: int
    overage: int
    billed: int


@dataclass(frozen=True, slots=True)
class Step:
    """One entry. Of a period that closed: its features (none: not kept any more) and whether it is final, as of now.

    `paid` is what was paid for the credits it is about: `payment_intent`, `amount_minor`, `currency`; or nothing.
    """

    entry: Entry
    features: Mapping[str, Covered] = field(default_factory=dict)
    final: bool = False
    paid: Mapping[str, Any] = field(default_factory=dict)
    intent: str | None = None
    refund: str | None = None
    invoice: str | None = None


class Past:
    """The billing histories of one data set. Errors of the store come out as 503 problems."""

    def __init__(self, client: "Redis", keys: Keys, codec: FieldCodec, trail: Trail) -> None:
        self._client: Any = client
        self._keys, self._codec, self._trail = keys, codec, trail

    async def page(self, org_id: str, limit: int, before: str | None) -> tuple[list[Step], str | None]:
        """Up to `limit` entries older than the entry `before`, and where to go on (None: done).

        A page may be short, or empty, and there be more all the same: what is passed over is bounded too.
        """
        entries, following = await self._entries(org_id, limit, before)
        archives, sources = await self._periods(org_id, entries), await self._sources(org_id, entries)
        return [self._step(entry, archives, sources) for entry in entries], following

    async def _entries(self, org_id: str, limit: int, before: str | None) -> tuple[list[Entry], str | None]:
        found: list[Entry] = []
        place = before
        for _ in range(READS_MAX):
            read, following = await self._trail.back(org_id, READ_ENTRIES, place)
            for entry in read:
                if len(found) == limit:
                    return found, place
                place = entry.entry_id
                if entry.kind not in _OTHERS:
                    found.append(entry)
            if following is None:
                return found, None
        return found, place

    async def _periods(self, org_id: str, entries: Iterable[Entry]) -> dict[str, dict[str, str]]:
        """The archives of the periods that closed, by their start."""
        starts = sorted({start for entry in entries if (start := _start_of(entry))})
        pipe = self._client.pipeline(transaction=False)
        for start in starts:
            pipe.hgetall(self._keys.archive(org_id, int(start)))
        return dict(zip(starts, map(texts, await answered(pipe.execute())), strict=True)) if starts else {}

    async def _sources(self, org_id: str, entries: Iterable[Entry]) -> dict[str, Mapping[str, Any]]:
        """What was paid for the grants of credits that entries name, by grant."""
        names = sorted({entry.fields["grant"] for entry in entries if "grant" in entry.fields})
        kept = await answered(self._client.hmget(self._keys.grants(org_id), names)) if names else []
        told = {name: raw.decode() for name, raw in zip(names, kept, strict=True) if raw is not None}
        return {name: source_of(org_id, text, self._codec) for name, text in told.items()}

    def _step(
        self, entry: Entry, archives: Mapping[str, Mapping[str, str]], sources: Mapping[str, Mapping[str, Any]]
    ) -> Step:
        archive = archives.get(_start_of(entry), {})
        paid = sources.get(entry.fields.get("grant", ""), {})
        intent = entry.fields.get("payment_intent") or paid.get("payment_intent")
        told = entry.fields
        return Step(
            entry, _features(archive), "final" in archive, paid, intent, told.get("refund"), told.get("invoice_id")
        )


def _start_of(entry: Entry) -> str:
    """When a period began that an entry says is closed; "" of any other."""
    start = entry.fields.get("period", "") if entry.kind == CLOSED else ""
    return start if start.isdecimal() and start.isascii() else ""


def _features(archive: Mapping[str, str]) -> dict[str, Covered]:
    def units(kind: str, feature: str) -> int:
        return int(archive.get(f"{kind}:{feature}", 0))

    return {
        name: Covered(units("u", name), units("a", name), units("x", name) - units("y", name), units("d", name))
        for name in sorted(field_name[2:] for field_name in archive if field_name.startswith("u:"))
    }
