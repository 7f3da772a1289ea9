"""Every key shape, once.

An organisation lives in one of `partitions` partitions (a stable hash of its id). Every key that one script
touches carries the partition's hash tag, so all of them are in one slot of a cluster and change together or not
at all. Ids hold no colon, so every key parses in one way only.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from zlib import crc32

DATASET: Final = "{meta}:dataset"
"""The data set's marker: partitions, id, secret, catalogues. The one key outside the partitions."""

APPLIED: Final = "catalogue_applied"
"""Field of the marker: the version of the catalogue up to which organisations are brought."""


class Kind(StrEnum):
    """The Redis type of a key."""

    HASH = "hash"
    SET = "set"
    ZSET = "zset"
    STREAM = "stream"
    STRING = "string"


class Expiry(StrEnum):
    """Who ends a key. The conservation walk checks that only TTL keys carry a time to live."""

    NEVER = "never"  # for the life of the data set
    ORG = "org"  # for the life of the organisation
    CALL = "call"  # until somebody deletes it
    JOB = "job"  # unlinked by a job when two clocks agree, never by a time to live
    TTL = "ttl"  # by Redis


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of key: its literal pattern, type, expiry and what it holds."""

    name: str
    pattern: str
    kind: Kind
    expiry: Expiry
    holds: str

    def regex(self) -> re.Pattern[str]:
        """The pattern as an expression whose groups are its `<placeholders>`."""
        source = re.escape(self.pattern)
        return re.compile(re.sub(r"<(\w+)>", lambda m: f"(?P<{m[1]}>{_CHARS[m[1]]})", source))


_CHARS: Final = {
    "p": "[0-9a-f]{2,3}",
    "org": "[A-Za-z0-9_.-]+",
    "feature": "[a-z0-9_]+",
    "start_ms": "-?[0-9]+",
    "day": "[0-9]{8}",
    "month": "[0-9]{6}",
    "minute": "[0-9]+",
    "hour": "[0-9]{10}",
    "dim": "[a-z0-9_]+",
    "hold": "[A-Za-z0-9_.-]+",
    "tier": "[0-9a-z]",
    "shard": "[0-9a-f]+",
    "digest": "[0-9a-f]{32}",
    "key_id": "[0-9a-f]{19}",
    "window": "[a-z2-7]{52}",
    "event": "evt_[A-Za-z0-9_]+",
}

KEY_ID_PATTERN: Final = f"^{_CHARS['key_id']}$"
"""What names an API key: its partition in three digits, then 64 random bits."""

_PARTITION_DIGITS: Final = 3

SHAPES: Final = (
    Shape("dataset", DATASET, Kind.HASH, Expiry.NEVER, "partitions, id, secret, catalogue digests"),
    Shape("record", "{p<p>}:o:<org>", Kind.HASH, Expiry.ORG, "claim, period, limits, counters, overage"),
    Shape("profile", "{p<p>}:p:<org>", Kind.HASH, Expiry.ORG, "what people set: plan, overrides, zone, ids"),
    Shape("trail", "{p<p>}:a:<org>", Kind.STREAM, Expiry.ORG, "billing events of the organisation"),
    Shape("archive", "{p<p>}:u:<org>:<start_ms>", Kind.HASH, Expiry.ORG, "the record as a period closed"),
    Shape("history", "{p<p>}:h:<org>:<feature>:<day>", Kind.HASH, Expiry.TTL, "units and overage by hour"),
    Shape("seen", "{p<p>}:d:<org>:<month>:<tier>:<shard>", Kind.SET, Expiry.JOB, "digests of event ids"),
    Shape("minted", "{p<p>}:m:<org>:<minute>", Kind.HASH, Expiry.TTL, "answers to events without an id"),
    Shape("kept", "{p<p>}:k:<digest>", Kind.HASH, Expiry.TTL, "a request with an Idempotency-Key, and its answer"),
    Shape("hold", "{p<p>}:r:<org>:<hold>", Kind.HASH, Expiry.TTL, "a reservation or lease, and how it ended"),
    Shape("holds", "{p<p>}:e:<org>", Kind.ZSET, Expiry.ORG, "open holds by their end"),
    Shape("windows", "{p<p>}:w:<org>", Kind.HASH, Expiry.ORG, "state of sub-windows and of the rate limit"),
    Shape("minutes", "{p<p>}:i:<org>:<feature>:<hour>", Kind.HASH, Expiry.TTL, "units and overage by minute"),
    Shape("groups", "{p<p>}:g:<org>:<feature>:<dim>:<day>", Kind.HASH, Expiry.TTL, "units by hour and value"),
    Shape("values", "{p<p>}:v:<org>:<dim>:<month>", Kind.SET, Expiry.TTL, "values a dimension had in a month"),
    Shape("api_key", "{p<p>}:c:<key_id>", Kind.HASH, Expiry.CALL, "an API key: its digest, whose it is, its scopes"),
    Shape("ended_key", "{p<p>}:x:<key_id>", Kind.STRING, Expiry.TTL, "whose a deleted API key was"),
    Shape("window", "{p<p>}:b:<window>", Kind.HASH, Expiry.JOB, "overage on its way to Stripe, and some time after it"),
    Shape("lane", "{p<p>}:l:<digest>", Kind.HASH, Expiry.CALL, "the window of a customer and meter that is on its way"),
    Shape(
        "journal", "{p<p>}:q:<digest>:<day>", Kind.HASH, Expiry.TTL, "windows that Stripe took of a customer and meter"
    ),
    Shape("customers", "{p<p>}:f:<digest>", Kind.SET, Expiry.CALL, "the organisations of a Stripe customer"),
    Shape("received", "{p<p>}:n:<event>", Kind.STRING, Expiry.TTL, "a Stripe event that came in"),
    Shape("applied", "{p<p>}:z:<org>:<event>", Kind.STRING, Expiry.TTL, "a Stripe event that took effect"),
    Shape("pool", "{p<p>}:y:<org>", Kind.HASH, Expiry.ORG, "open grants of credits, the debt and the low mark"),
    Shape("grants", "{p<p>}:s:<org>", Kind.HASH, Expiry.ORG, "every grant of credits ever, and what was taken of it"),
    Shape("burned", "{p<p>}:j:<org>", Kind.HASH, Expiry.ORG, "credits burned by day, feature and grant"),
    Shape("ledger", "{p<p>}:t:<org>", Kind.STREAM, Expiry.ORG, "what became of grants, but for what usage burned"),
    Shape("topup", "{p<p>}:0:<org>", Kind.HASH, Expiry.ORG, "when credits are bought by themselves, and each attempt"),
    Shape("dirty", "{p<p>}:dirty", Kind.ZSET, Expiry.NEVER, "counters with overage not yet sealed"),
    Shape("crossings", "{p<p>}:crossings", Kind.STREAM, Expiry.NEVER, "marks crossed, for the alerts"),
    Shape(
        "totals",
        "{p<p>}:totals",
        Kind.HASH,
        Expiry.NEVER,
        "units since ever by plan and feature, units taken out, events, windows, orders, refunds, payments",
    ),
    Shape("orgs", "{p<p>}:orgs", Kind.ZSET, Expiry.NEVER, "the organisations, by name"),
    Shape("plans", "{p<p>}:plans", Kind.HASH, Expiry.NEVER, "how many organisations each plan has"),
    Shape("due", "{p<p>}:due", Kind.ZSET, Expiry.NEVER, "when each organisation's claim runs out"),
    Shape("spent", "{p<p>}:spent", Kind.ZSET, Expiry.NEVER, "months of ids that nobody looks up any more"),
    Shape("top", "{p<p>}:top", Kind.ZSET, Expiry.NEVER, "organisations with the most units"),
    Shape("events", "{p<p>}:events", Kind.STREAM, Expiry.NEVER, "raw events, as long as EVENT_RETENTION says"),
    Shape("queue", "{p<p>}:queue", Kind.STREAM, Expiry.NEVER, "events accepted and not yet counted"),
    Shape("dead", "{p<p>}:dead", Kind.STREAM, Expiry.NEVER, "accepted events that could not be counted"),
    Shape("expiring", "{p<p>}:expiring", Kind.ZSET, Expiry.NEVER, "organisations by their next hold to end"),
    Shape("api_keys", "{p<p>}:api_keys", Kind.ZSET, Expiry.NEVER, "the API keys, by owner"),
    Shape("epoch", "{p<p>}:epoch", Kind.HASH, Expiry.NEVER, "how often a credential was withdrawn"),
    Shape("denied", "{p<p>}:denied", Kind.ZSET, Expiry.NEVER, "ids of tokens that are refused, by their end"),
    Shape("outbox", "{p<p>}:outbox", Kind.ZSET, Expiry.NEVER, "windows that Stripe has not taken, by their next turn"),
    Shape("settled", "{p<p>}:settled", Kind.ZSET, Expiry.NEVER, "windows whose way is over, by when it was"),
    Shape("dead_windows", "{p<p>}:dead_windows", Kind.ZSET, Expiry.NEVER, "windows that Stripe refused"),
    Shape("unbilled", "{p<p>}:unbilled", Kind.ZSET, Expiry.NEVER, "counters with overage and no Stripe customer"),
    Shape("frozen", "{p<p>}:frozen", Kind.ZSET, Expiry.NEVER, "organisations whose sums do not hold: not billed"),
    Shape("inbox", "{p<p>}:inbox", Kind.STREAM, Expiry.NEVER, "Stripe events that came in and wait for their effect"),
    Shape("dead_inbox", "{p<p>}:dead_inbox", Kind.STREAM, Expiry.NEVER, "Stripe events that could not take effect"),
    Shape("grace", "{p<p>}:grace", Kind.ZSET, Expiry.NEVER, "organisations with a failed payment, by the end of grace"),
    Shape("lapsing", "{p<p>}:lapsing", Kind.ZSET, Expiry.NEVER, "organisations by the next expiry of their credits"),
    Shape("topups", "{p<p>}:topups", Kind.ZSET, Expiry.NEVER, "organisations whose credits fell below their mark"),
    Shape("recharging", "{p<p>}:recharging", Kind.ZSET, Expiry.NEVER, "who tops up, by the earliest next attempt"),
    Shape("charging", "{p<p>}:charging", Kind.ZSET, Expiry.NEVER, "attempts under way, by the next look at them"),
    Shape("stripe", "{p<p>}:stripe", Kind.HASH, Expiry.NEVER, "how far Stripe's events were read, and its pace"),
    Shape("shadow", "{p<p>}:shadow", Kind.HASH, Expiry.NEVER, "how far a second account was told, and who pays there"),
    Shape("shadowing", "{p<p>}:shadowing", Kind.STRING, Expiry.TTL, "the worker that tells it"),
    Shape("erased", "{p<p>}:erased", Kind.ZSET, Expiry.NEVER, "erased organisations, by when it was"),
    Shape("erasing", "{p<p>}:erasing", Kind.ZSET, Expiry.NEVER, "those of them that left something to take away"),
    Shape("eraser", "{p<p>}:eraser", Kind.STRING, Expiry.TTL, "the worker that takes it away"),
    Shape("clock", "{p<p>}:clock", Kind.STRING, Expiry.NEVER, "test clock offset in ms"),
)


class Keys:
    """Makes the keys of one data set. `partitions` is a power of two, fixed for the data set's life."""

    def __init__(self, partitions: int) -> None:
        if partitions < 1 or partitions > 4096 or partitions & (partitions - 1):  # noqa: PLR2004
            raise ValueError(f"partitions must be a power of two up to 4096, not {partitions}")
        self.partitions = partitions

    def partition(self, org: str) -> int:
        """The organisation's partition: CRC-32 of its id, the low bits."""
        return crc32(org.encode()) & (self.partitions - 1)

    def shared(self, name: str, partition: int) -> str:
        """A key of the whole partition: one of the shapes that name no organisation, as `dirty` or `events`."""
        return f"{{p{partition:02x}}}:{name}"

    def record(self, org: str) -> str:
        """Claim, period, limits and counters of an organisation."""
        return f"{self._tag(org)}:o:{org}"

    def profile(self, org: str) -> str:
        """What people set for an organisation."""
        return f"{self._tag(org)}:p:{org}"

    def trail(self, org: str) -> str:
        """Billing events of an organisation."""
        return f"{self._tag(org)}:a:{org}"

    def archive(self, org: str, period_start_ms: int) -> str:
        """The record as it stood when the period that began at `period_start_ms` closed."""
        return f"{self._tag(org)}:u:{org}:{period_start_ms}"

    def history(self, org: str, feature: str, day: str) -> str:
        """Units by hour of one UTC day (`yyyymmdd`)."""
        return f"{self._tag(org)}:h:{org}:{feature}:{day}"

    def seen(self, org: str, month: str, tier: str, shard: int) -> str:
        """One shard of the digests of a UTC month (`yyyymm`); tier `4` has 2**4 shards (base 36)."""
        return f"{self._tag(org)}:d:{org}:{month}:{tier}:{shard:x}"

    def minted(self, org: str, minute: int) -> str:
        """Answers given in one minute (since the epoch) to events that came without an id."""
        return f"{self._tag(org)}:m:{org}:{minute}"

    def kept(self, digest: str) -> str:
        """A request with an Idempotency-Key. It belongs to its digest (32 hex digits), not to an organisation."""
        return f"{self._of(digest)}:k:{digest}"

    def hold(self, org: str, hold: str) -> str:
        """One reservation or lease."""
        return f"{self._tag(org)}:r:{org}:{hold}"

    def holds(self, org: str) -> str:
        """The open holds of an organisation, by the instant they end."""
        return f"{self._tag(org)}:e:{org}"

    def windows(self, org: str) -> str:
        """State of an organisation's sub-windows and rate limit."""
        return f"{self._tag(org)}:w:{org}"

    def minutes(self, org: str, feature: str, hour: str) -> str:
        """Units by minute of one UTC hour (`yyyymmddhh`)."""
        return f"{self._tag(org)}:i:{org}:{feature}:{hour}"

    def groups(self, org: str, feature: str, dim: str, day: str) -> str:
        """Units by hour and value of a dimension, of one UTC day (`yyyymmdd`)."""
        return f"{self._tag(org)}:g:{org}:{feature}:{dim}:{day}"

    def values(self, org: str, dim: str, month: str) -> str:
        """The values that a dimension had in a UTC month (`yyyymm`), up to the most it may have."""
        return f"{self._tag(org)}:v:{org}:{dim}:{month}"

    def api_key(self, key_id: str) -> str:
        """An API key; its id says in which partition."""
        return f"{{p{key_partition(key_id):02x}}}:c:{key_id}"

    def ended_key(self, key_id: str) -> str:
        """The mark that a deleted API key leaves for a while."""
        return f"{{p{key_partition(key_id):02x}}}:x:{key_id}"

    def window(self, org: str, window: str) -> str:
        """A sealed window of an organisation, by its identifier."""
        return self.window_at(self.partition(org), window)

    def window_at(self, partition: int, window: str) -> str:
        """The same where only the partition of its organisation is known."""
        return f"{{p{partition:02x}}}:b:{window}"

    def lane(self, digest: str) -> str:
        """What is on its way of one customer and meter. It belongs to its digest (32 hex digits)."""
        return f"{self._of(digest)}:l:{digest}"

    def journal(self, digest: str, day: str) -> str:
        """What Stripe took of one customer and meter, of the usage of one UTC day (`yyyymmdd`)."""
        return f"{self._of(digest)}:q:{digest}:{day}"

    def customers(self, digest: str) -> str:
        """The organisations of one Stripe customer, by the customer's digest (32 hex digits)."""
        return f"{self._of(digest)}:f:{digest}"

    def event_partition(self, event: str) -> int:
        """The partition in which a Stripe event waits: CRC-32 of its id, the low bits."""
        return crc32(event.encode()) & (self.partitions - 1)

    def received(self, event: str) -> str:
        """The mark of a Stripe event that came in."""
        return f"{{p{self.event_partition(event):02x}}}:n:{event}"

    def applied(self, org: str, event: str) -> str:
        """The mark of a Stripe event that took effect on an organisation."""
        return f"{self._tag(org)}:z:{org}:{event}"

    def pool(self, org: str) -> str:
        """The open grants of credits of an organisation."""
        return f"{self._tag(org)}:y:{org}"

    def grants(self, org: str) -> str:
        """Every grant of credits that an organisation ever had."""
        return f"{self._tag(org)}:s:{org}"

    def burned(self, org: str) -> str:
        """What an organisation's usage burned, by day, feature and grant."""
        return f"{self._tag(org)}:j:{org}"

    def ledger(self, org: str) -> str:
        """The other lines of an organisation's credits."""
        return f"{self._tag(org)}:t:{org}"

    def topup(self, org: str) -> str:
        """When an organisation's credits are bought by themselves, and what became of it."""
        return f"{self._tag(org)}:0:{org}"

    def _of(self, digest: str) -> str:
        return f"{{p{int(digest, 16) & (self.partitions - 1):02x}}}"

    def _tag(self, org: str) -> str:
        return f"{{p{self.partition(org):02x}}}"


def key_id_in(partition: int, digits: str) -> str:
    """The id of an API key in `partition`; `digits` are 16 hex digits."""
    return f"{partition:0{_PARTITION_DIGITS}x}{digits}"


def key_partition(key_id: str) -> int:
    """The partition of an API key, which may be one that a data set does not have."""
    return int(key_id[:_PARTITION_DIGITS], 16)
