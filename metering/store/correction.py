"""The nouns of corrections: what is asked, and what became of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from plans.periods import Period


class Kind(StrEnum):
    """What a correction is, by the type of its trail entries."""

    ADJUSTMENT = "usage_adjusted"
    VOID = "event_voided"
    RESET = "usage_reset"


_DIGESTED: Final = {Kind.ADJUSTMENT: b"adjust", Kind.VOID: b"void", Kind.RESET: b"reset"}
"""The words that keep digests of corrections apart from each other's and from events'."""

ALL: Final = "all"
INCLUDED: Final = "included"
"""What a reset takes out, in the script's words: every unit, or those that are not overage."""

_NONE: Final = -1
"""Stands in a digest for an instant that was not given."""


@dataclass(frozen=True, slots=True)
class Change:
    """What to do to one feature. `change` is units (negative: taken out), or what a reset takes out.

    `recorded` says that the units are those an answer said were recorded, `place` where the request says all this.
    """

    feature: str
    change: int | str
    recorded: bool = False
    place: str = ""


@dataclass(frozen=True, slots=True)
class By:
    """Who corrects, why, and in which request."""

    actor: str
    reason: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Correction:
    """One correction: `changes` of distinct features, made together or not at all, and once for its `name`.

    `content` is what the name stands for; `minted` says that the service made the name. `period_ms` is the start of
    a closed period (None: the running one), `at_ms` where history is corrected first. `event` is the content of the
    event that is voided: its features and requested quantities in order.
    """

    kind: Kind
    org_id: str
    name: str
    changes: tuple[Change, ...]
    content: tuple[tuple[bytes, int], ...]
    by: By
    source: str = ""
    event: tuple[tuple[bytes, int], ...] | None = None
    minted: bool = False
    period_ms: int | None = None
    at_ms: int | None = None

    @property
    def digested(self) -> bytes:
        """The word its digest begins with."""
        return _DIGESTED[self.kind]


def adjustment(
    org_id: str, change: Change, name: str, by: By, *, minted: bool, period_ms: int | None, at_ms: int | None
) -> Correction:
    """Units put in or taken out. The reason is no part of what a repeated name has to repeat."""
    asked = (
        (change.feature.encode(), int(change.change)),
        (b"period", _NONE if period_ms is None else period_ms),
        (b"at", _NONE if at_ms is None else at_ms),
    )
    return Correction(
        Kind.ADJUSTMENT, org_id, name, (change,), asked, by, minted=minted, period_ms=period_ms, at_ms=at_ms
    )


def void(
    org_id: str, source: str, event_id: str, event: Iterable[Change], content: Iterable[tuple[str, int]], by: By,
    *, period_ms: int | None, at_ms: int | None,
) -> Correction:  # fmt: skip
    """An event taken back. `event` is what it recorded, `content` what it asked for, in its order."""
    asked = tuple((feature.encode(), quantity) for feature, quantity in content)
    return Correction(
        Kind.VOID, org_id, event_id, tuple(event), asked, by, source, asked, period_ms=period_ms, at_ms=at_ms
    )


def reset(org_id: str, features: Iterable[str] | None, name: str, by: By, *, forgive: bool, minted: bool) -> Correction:
    """Counters of the running period set to zero, or without `forgive` to the overage that stays billed.

    `features` None means all there are, which `Corrections` looks up.
    """
    named = tuple(sorted(features or ()))
    changes = tuple(change_of(feature, forgive=forgive) for feature in named)
    content = ((b"forgive", int(forgive)), *((feature.encode(), 0) for feature in named))
    return Correction(Kind.RESET, org_id, name, changes, content, by, minted=minted)


def change_of(feature: str, *, forgive: bool) -> Change:
    """What a reset does to one feature."""
    return Change(feature, ALL if forgive else INCLUDED, place="/features")


@dataclass(frozen=True, slots=True)
class Figures:
    """A counter at one moment: units, overage net of what was given back, the limit in force (None: unlimited), what
    open holds keep, and units that credits paid for.
    """

    used: int
    overage: int
    limit: int | None
    held: int = 0
    credit: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One feature before and after. `audit_id` names its trail entry; None where nothing changed or none was found."""

    feature: str
    before: Figures
    after: Figures
    audit_id: str | None = None

    @property
    def delta(self) -> int:
        """Units put in; negative: taken out."""
        return self.after.used - self.before.used

    @property
    def given_back(self) -> int:
        """Overage units that are not billed any more."""
        return max(0, self.before.overage - self.after.overage)


@dataclass(frozen=True, slots=True)
class Corrected:
    """What became of a correction. Of one made before: `duplicate`, and the counters as they are now."""

    correction: Correction
    period: Period
    rows: tuple[Row, ...]
    duplicate: bool = False
