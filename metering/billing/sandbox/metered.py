"""Usage that was taken, and what it comes to.

Kept by customer and moment, so that a period is read without the others. A meter that sums adds up every event; one
with a window keeps only the newest event of each hour or day (https://docs.stripe.com/billing/subscriptions/usage-based).
"""

from collections.abc import Iterator, Sequence
from typing import Final

from metering.billing.sandbox.db import Db, Obj

TAKEN: Final = "sandbox.accepted"
"""Events that count: event name, customer, value, timestamp, identifier, `created`, and the meter."""

_WINDOWS_S: Final = {"hour": 3600, "day": 86_400}


def keep(db: Db, meter: Obj, customer: str, value: int, event: Obj) -> None:
    """Let an event count. An earlier one of the same identifier, which is forgotten by now, counts beside it."""
    row = {**event, "id": event["identifier"], "meter": meter["id"], "customer": customer, "value": value}
    before = db.get(TAKEN, row["id"])
    for one in [{**before, "id": db.new_id("taken")}, row] if before else [row]:
        db.put(TAKEN, one, parent=_parent(one["meter"], one["customer"]), at=one["timestamp"])


def is_metered(price: Obj) -> bool:
    """Whether a price bills usage."""
    return (price.get("recurring") or {}).get("usage_type") == "metered"


def used(db: Db, price: Obj, customer: str, start_s: int, end_s: int) -> int:
    """Units of a metered price in [start, end); below zero there is nothing to bill."""
    meter = db.get("billing.meter", price["recurring"]["meter"])
    return 0 if meter is None else max(0, total(meter, worth(db, meter, customer, start_s, end_s)))


def worth(db: Db, meter: Obj, customer: str, start_s: int, end_s: int, *, received_by: int | None = None) -> list[Obj]:
    """The events of one customer in [start, end) that a meter counts, those received by a moment where so asked."""
    rows = db.of(TAKEN, _parent(meter["id"], customer), start=start_s, end=end_s)
    if received_by is not None:
        rows = [row for row in rows if row["created"] <= received_by]
    window = _WINDOWS_S.get(meter["event_time_window"] or "")
    if window is None:
        return rows
    newest = {row["timestamp"] // window: row for row in sorted(rows, key=lambda row: row["timestamp"])}
    return list(newest.values())


def total(meter: Obj, rows: Sequence[Obj]) -> int:
    """What events come to by the meter's formula."""
    formula = meter["default_aggregation"]["formula"]
    if formula == "count":
        return len(rows)
    if formula == "last":
        return int(max(rows, key=lambda row: row["timestamp"])["value"]) if rows else 0
    return sum(int(row["value"]) for row in rows)


def totals(db: Db, meter: Obj) -> Iterator[tuple[str, int, int]]:
    """Customer, number of events and units over all times, for everybody that a meter knows."""
    customers = dict.fromkeys(row["customer"] for row in db.all(TAKEN) if row["meter"] == meter["id"])
    for customer in customers:
        rows = worth(db, meter, customer, 0, 2**62)
        yield customer, len(rows), total(meter, rows)


def _parent(meter: str, customer: str) -> str:
    return f"{meter} {customer}"
