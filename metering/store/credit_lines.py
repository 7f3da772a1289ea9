"""What became of an organisation's credits, line by line: the ledger's entries, and by day what usage burned.

Usage leaves one line a day, feature and grant, as a line an event would cost the hot path a stream entry. Its place is
the end of its day, so a balance stands beside the other lines alone: those know it exactly.

`credits` of all lines together are what an organisation has: what its grants have left, less what it owes. So lines
that only say what may be used (frozen, thawed), where it goes on (rolled over) or how little it is (low) move nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from metering.store.connect import text_of, texts
from metering.store.fields import FieldCodec

BURNED: Final = "burned"

CURSOR_PATTERN: Final = r"^([1-9][0-9]{0,12}-[0-9]{1,19})?\.([0-9]{8}\.[a-z0-9_]{1,64}\.[a-z0-9_]{1,99})?$"
"""How far a walk came in both lists: the last entry of the ledger, the last line of burns (day, feature, grant)."""

REF: Final = "ref"
"""The field's name for the codec."""

_DAY_MS: Final = 86_400_000

_MOVES: Final = {
    "granted": 1, "restored": 1, "returned": 1, BURNED: -1, "refunded": -1, "revoked": -1, "expired": -1,
}  # fmt: skip
"""What gives credits to an organisation, and what takes them."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `credits` below zero were taken away, `amount` is how many it is about, whether they moved or not.

    `balance` is that after it, None where it is not known exactly. `ref` is Stripe's id of what caused it, `place`
    where the line stands in its own list.
    """

    kind: str
    at_ms: int
    credits: int
    amount: int
    place: str
    grant_id: str | None = None
    feature: str | None = None
    balance: int | None = None
    ref: str | None = None


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a walk from the newest line came; empty: not a line of that list was told."""

    entry: str = ""
    burn: str = ""

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        """Read a cursor that has the pattern."""
        entry, _, burn = (text or ".").partition(".")
        return cls(entry, burn.replace(".", "|"))

    def text(self) -> str:
        """The cursor as callers hold it."""
        return f"{self.entry}.{self.burn.replace('|', '.')}"

    def past(self, line: Line) -> "Cursor":
        """The cursor after one more line."""
        return Cursor(self.entry, line.place) if line.kind == BURNED else Cursor(line.place, self.burn)


def entries(org_id: str, found: Iterable[Any], codec: FieldCodec, data_key: bytes) -> Iterator[Line]:
    """Lines of the ledger's entries. Raises ValueError or KeyError at what no script wrote."""
    for raw_id, raw in found:
        told = texts(raw)
        kind, amount, ref = told["type"], int(told["credits"]), told["ref"]
        yield Line(
            kind, int(told["at"]), _MOVES.get(kind, 0) * amount, amount, text_of(raw_id), told["grant"] or None,
            balance=int(told["balance"]), ref=codec.decode(org_id, REF, ref, data_key) if ref else None,
        )  # fmt: skip


def burns(found: Mapping[str, str], after: str, now_ms: int) -> Iterator[Line]:
    """Lines of what was burned, newest first, those after one. Raises ValueError at what no script wrote."""
    for place in sorted(found, key=_burn_order):
        if after and _burn_order(place) <= _burn_order(after):
            continue
        day, feature, grant_id = place.split("|")
        start = datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
        end_ms = int(start.timestamp()) * 1000 + _DAY_MS - 1
        amount = int(found[place])
        yield Line(BURNED, min(end_ms, now_ms), -amount, amount, place, grant_id, feature)


def _burn_order(place: str) -> tuple[int, str]:
    day, _, rest = place.partition("|")
    return -int(day), rest


def merged(ledger: Sequence[Line], burned: Iterable[Line], limit: int, cursor: Cursor) -> tuple[list[Line], str | None]:
    """A page of both, the newest first, and the cursor of the next. `ledger` holds one more than the page may need."""
    page: list[Line] = []
    mine, others = list(ledger), list(burned)
    while (mine or others) and len(page) < limit:
        first = others if others and (not mine or others[0].at_ms >= mine[0].at_ms) else mine
        page.append(first.pop(0))
        cursor = cursor.past(page[-1])
    return page, cursor.text() if mine or others else None
