"""A frame: what a worker knows of one organisation, already encoded as the track script takes it.

Whatever of it could be out of date is proven by the claim it carries: the script compares that with the stored one
before it reads or writes anything else.
"""

from dataclasses import replace
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

from metering.store.claim import shards_of
from metering.store.fields import FieldCodec, sealed_name
from metering.store.keys import Keys
from metering.store.org import Org, profile_fields, rate_fields, rule_fields
from plans.limits import Rule
from plans.periods import previous_month

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS

_DAY_KEYS_MAX: Final = 256
"""History keys kept encoded per frame: today's, one a feature, and some of late events."""


_SHARD_KEYS_MAX: Final = 256
"""Shard keys kept encoded per frame: all of an organisation with up to 50,000 ids a month."""


def bulk(value: bytes) -> bytes:
    """One RESP bulk string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


INTS: Final = tuple(bulk(b"%d" % number) for number in range(2048))
"""Small numbers, encoded once."""

EMPTY: Final = bulk(b"")


def integer(number: int) -> bytes:
    """A whole number as a bulk string, in canonical digits."""
    return INTS[number] if 0 <= number < len(INTS) else bulk(b"%d" % number)


@lru_cache(maxsize=1024)
def day_text(day: int) -> str:
    """The UTC day (days since the epoch) as `yyyymmdd`."""
    return (date(1970, 1, 1) + timedelta(days=day)).strftime("%Y%m%d")


def hour_text(hour: int) -> str:
    """The UTC hour (hours since the epoch) as `yyyymmddhh`."""
    return f"{day_text(hour // 24)}{hour % 24:02d}"


HOUR_BUCKETS: Final = tuple(f"{hour:02d}" for hour in range(24))


def bucket_of(at_ms: int, period_start_ms: int) -> str:
    """The history field that holds the instant: its UTC hour.

    Where a period begins inside an hour, its own part of that hour has a field of its own, so that the sum over a
    period's fields is exactly the period's units.
    """
    hour = at_ms // HOUR_MS
    inside_ms = period_start_ms % HOUR_MS
    name = HOUR_BUCKETS[hour % 24]
    return f"{name}+{inside_ms}" if inside_ms and hour == period_start_ms // HOUR_MS else name


def shard_names(keys: Keys, org: Org, group: int) -> list[str]:
    """The keys of an id's shard in each tier of this month, then of the month before; `group` is its digest."""
    claim = org.claim
    months = ((claim.month, claim.tiers), (previous_month(claim.month), claim.tiers_before))
    return [
        keys.seen(org.org_id, month, tier, group & (shards_of(tier) - 1)) for month, tiers in months for tier in tiers
    ]


def pool_names(keys: Keys, org_id: str) -> list[str]:
    """The keys of an organisation's credits, in the order in which the scripts take them."""
    partition = keys.partition(org_id)
    own = [keys.pool(org_id), keys.burned(org_id), keys.ledger(org_id), keys.grants(org_id)]
    return [*own, *(keys.shared(kind, partition) for kind in ("lapsing", "topups"))]


def _pool_keys(keys: Keys, org_id: str) -> tuple[bytes, ...]:
    return tuple(bulk(name.encode()) for name in pool_names(keys, org_id))


class Frame:
    """One organisation as track needs it. `creates` says that it is not stored yet."""

    __slots__ = (
        "before", "claim_text", "creates", "creation", "creation_count", "day_keys", "finest", "head_args",
        "head_keys", "head_keys_count", "keys", "next_claim", "now", "org", "org_id", "partition", "period", "plan",
        "pool_keys", "rich", "rules", "shard_keys", "tiers",
    )  # fmt: skip

    def __init__(self, org: Org, keys: Keys, codec: FieldCodec, *, creates: bool) -> None:
        self.org = org
        self.org_id, self.plan, self.period, self.creates, self.keys = org.org_id, org.plan, org.period, creates, keys
        self.partition = keys.partition(org.org_id)
        self.rules: dict[str, Rule] = {name: usage.rule for name, usage in org.features.items()}
        self.rich = org.rich
        """Whether more than plain counters decides here: its events go to admit, not to track."""
        self.claim_text = org.claim.text()
        with_holds = replace(org.claim, revision=org.claim.revision + 1)
        self.next_claim = EMPTY if org.holds else bulk(with_holds.text().encode())
        self.now = self._tiers(org.claim.month, org.claim.tiers)
        self.before = self._tiers(previous_month(org.claim.month), org.claim.tiers_before)
        self.finest = max(mask for _, mask in (*self.now, *self.before))
        self.day_keys: dict[tuple[str, int], bytes] = {}
        self.shard_keys: dict[int, bytes] = {}
        self.tiers = len(self.now) + len(self.before)
        self.head_args = self._head_args()
        names = [keys.record(org.org_id), keys.trail(org.org_id)]
        self.creation, self.creation_count = b"", 0
        if creates:
            names += [keys.profile(org.org_id)]
            names += [keys.shared(kind, self.partition) for kind in ("orgs", "plans", "due")]
            self._encode_creation(codec)
        self.head_keys = b"".join(bulk(name.encode()) for name in names)
        self.head_keys_count = len(names)
        self.pool_keys = _pool_keys(keys, org.org_id) if org.pool else ()
        """The keys of its credits, encoded; none where it never had any."""

    def _head_args(self) -> bytes:
        """Claim, period start, plan, sealed name, border hour, border bucket."""
        start_ms = self.period.start_ms
        border = start_ms % HOUR_MS != 0
        parts = (
            self.claim_text,
            str(start_ms),
            self.plan,
            sealed_name(self.org_id, self.org.profile.data_key),
            str(start_ms // HOUR_MS) if border else "",
            bucket_of(start_ms, start_ms) if border else "",
        )
        return b"".join(bulk(part.encode()) for part in parts)

    def _encode_creation(self, codec: FieldCodec) -> None:
        """The values that create the organisation in the same script as its first event."""
        period, profile = self.period, self.org.profile
        record = {"k": self.claim_text, "ps": period.start_ms, "pe": period.end_ms, "plan": self.plan}
        fields = record | rule_fields(self.rules) | rate_fields(self.org.rate)
        first = [str(part) for pair in fields.items() for part in pair]
        stored = profile_fields(self.org_id, profile, codec) | {"updated": str(profile.updated_ms)}
        values = [str(len(first)), *first, *(part for pair in stored.items() for part in pair)]
        self.creation = b"".join(bulk(value.encode()) for value in values)
        self.creation_count = len(values)

    def _tiers(self, month: str, tiers: str) -> tuple[tuple[str, int], ...]:
        """Per tier the beginning of its shards' keys and the mask that picks one."""
        return tuple((self.keys.seen(self.org_id, month, tier, 0)[:-1], shards_of(tier) - 1) for tier in tiers)

    def shards(self, group: int) -> bytes:
        """The keys of one shard group: its shard in each tier of this month, then of the month before."""
        found = self.shard_keys.get(group)
        if found is None:
            tiers = (*self.now, *self.before)
            found = b"".join(bulk(f"{prefix}{group & mask:x}".encode()) for prefix, mask in tiers)
            if len(self.shard_keys) < _SHARD_KEYS_MAX:
                self.shard_keys[group] = found
        return found

    def day_key(self, feature: str, day: int) -> bytes:
        """The history key of a feature and UTC day, encoded."""
        found = self.day_keys.get((feature, day))
        if found is None:
            if len(self.day_keys) >= _DAY_KEYS_MAX:
                self.day_keys.clear()
            found = bulk(self.keys.history(self.org_id, feature, day_text(day)).encode())
            self.day_keys[feature, day] = found
        return found
