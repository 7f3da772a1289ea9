"""A window: overage of one organisation, feature and period, cut out once and never changed, on its way to Stripe.

Windows of a counter follow each other without a gap: `from_units` is where the one before ended. The identifier says
all that is in it, so two windows with one identifier are one window, on whatever copy of the data they were cut out.
"""

from base64 import b32encode
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final

from metering.store.fields import FieldCodec
from plans.periods import Period

UNITS_MAX: Final = 999_999_999_999_999
"""Stripe takes no value of more than 15 digits:
https://docs.stripe.com/changelog/dahlia/2026-04-22/billing-meter-event-values-validation"""

_LENGTH_BYTES: Final = 4

CUSTOMER: Final = "customer"
"""Field of a row, and its name for the codec."""


class Sink(StrEnum):
    """Where a window goes. It is settled with the first attempt, as an invoice may be finalised until then."""

    METER = "meter"
    ITEM = "item"  # an item of the next invoice: its own was finalised before
    NONE = "none"


class State(StrEnum):
    """How far a window is."""

    SEALED = "sealed"  # nothing of it was sent, or it is known that nothing of it arrived
    INFLIGHT = "inflight"  # it may have arrived
    DELIVERED = "delivered"
    DEAD = "dead"  # Stripe refused it, or nobody can say whether it arrived
    WRITTEN_OFF = "written_off"


REPORTED: Final = "reported: "
"""How the reason of a dead window begins that Stripe had taken before it told that it cannot use it."""

OPEN: Final = frozenset({State.SEALED, State.INFLIGHT})


@dataclass(frozen=True, slots=True)
class Cut:
    """What a window is made of: units (from, to] of a counter's overage, and when the last of them was counted."""

    org_id: str
    feature: str
    period: Period
    from_units: int
    to_units: int
    last_ms: int

    @property
    def units(self) -> int:
        """How much it is."""
        return self.to_units - self.from_units

    def identifier(self, dataset_id: str) -> str:
        """Its name at Stripe: 52 characters that hold nothing but a digest. Another data set has other names."""
        parts = (
            dataset_id, self.org_id, self.feature, self.period.start_ms, self.from_units, self.to_units, self.last_ms,
        )  # fmt: skip
        digest = sha256()
        for part in parts:
            text = str(part).encode()
            digest.update(len(text).to_bytes(_LENGTH_BYTES, "big") + text)
        return b32encode(digest.digest()).decode().rstrip("=").lower()


@dataclass(frozen=True, slots=True)
class Figures:
    """A counter's overage: accrued, sealed of it, given back, netted of that. All four only ever grow."""

    accrued: int
    sealed: int
    back: int
    netted: int


@dataclass(frozen=True, slots=True)
class Seal:
    """What becomes of the figures when a window is cut out, and the window's ends; equal ends: nothing to send."""

    sealed: int
    netted: int
    from_units: int
    to_units: int


def seal_of(figures: Figures) -> Seal:
    """The next window of a counter: what accrued since the last, less what was given back since.

    A rest of what was given back waits for later overage, so the sum of all windows never falls.
    """
    back = max(0, figures.back - figures.netted)
    gross = min(figures.accrued - figures.sealed, back + UNITS_MAX)
    used = min(back, gross)
    before = figures.sealed - figures.netted
    return Seal(figures.sealed + gross, figures.netted + used, before, before + gross - used)


@dataclass(frozen=True, slots=True)
class Window:
    """A window as it is stored. Instants in ms.

    `customer` and `sink` are those of the attempt that may have arrived (`kept_customer`: the same as it is stored),
    `stamp_ms` its time at Stripe, `amount_minor` what an item of an invoice comes to. `first_ms` is the first attempt
    since it was last known that nothing arrived.
    """

    id: str
    cut: Cut
    state: State
    at_ms: int
    sink: Sink = Sink.METER
    customer: str = ""
    stamp_ms: int = 0
    amount_minor: int | None = None
    first_ms: int | None = None
    tried_ms: int | None = None
    attempts: int = 0
    error: str = ""
    settled_ms: int | None = None
    kept_customer: str = ""

    @property
    def units(self) -> int:
        """How much it is."""
        return self.cut.units

    @property
    def fresh(self) -> bool:
        """Whether nothing of it can have arrived."""
        return self.first_ms is None


def parsed(name: str, row: Mapping[str, str], codec: FieldCodec | None = None) -> Window:
    """A window as its row says; its customer where there is a codec to read it with.

    Raises ValueError or KeyError for a row that no script wrote, EncryptionKeyUnknown.
    """
    period = Period(int(row["start"]), int(row["end"]))
    cut = Cut(row["org"], row["feature"], period, int(row["from"]), int(row["to"]), int(row["last"]))
    return Window(
        name, cut, State(row["state"]), int(row["at"]), Sink(row.get("sink", "meter")),
        "" if codec is None else codec.decode_bare(cut.org_id, CUSTOMER, row.get(CUSTOMER, "")),
        int(row.get("stamp", 0)), _number(row.get("amount")), _number(row.get("first")), _number(row.get("tried")),
        int(row.get("attempts", 0)), row.get("error", ""), _number(row.get("settled")),
        row.get(CUSTOMER, ""),
    )  # fmt: skip


def _number(text: str | None) -> int | None:
    return None if text is None or text == "" else int(text)
