"""The page at /: everything that this Stripe has, one table a noun."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from metering.billing.sandbox.amounts import written
from metering.billing.sandbox.bills import subscription_of, title
from metering.billing.sandbox.cards import card_of
from metering.billing.sandbox.contracts import items_of
from metering.billing.sandbox.db import Db, Obj
from metering.billing.sandbox.markup import page, table, tag
from metering.billing.sandbox.metered import TAKEN, totals

ROWS_MAX: Final = 200
"""Rows of a table, the newest: a page for people."""


def audit_page(db: Db, now_s: int) -> bytes:
    """The whole page."""
    return page(
        "Sandbox Stripe",
        tag("p", f"Its clock says {moment(now_s)}."),
        table("Customers", ("customer", "name", "e-mail", "card", "metadata"), _customers(db)),
        table("Meters", ("meter", "event name", "customer", "events", "units"), _meters(db)),
        table("Meter events taken", ("time", "event name", "customer", "value", "identifier"), _taken(db)),
        table("Meter events refused", ("event name", "identifier", "why"), _refused(db)),
        table("Subscriptions", ("subscription", "customer", "status", "item", "price", "period"), _subscriptions(db)),
        table("Invoices", ("invoice", "number", "customer", "status", "why", "total"), _invoices(db)),
        table("Invoice lines", ("invoice", "what", "period", "quantity", "amount"), _lines(db)),
        table("Deliveries", ("event", "type", "to", "state", "attempts", "answers", "spoilt"), _deliveries(db)),
    )


def moment(at_s: int | None) -> str:
    """A moment as people read it, in UTC."""
    return "" if at_s is None else datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _newest(db: Db, kind: str) -> list[Obj]:
    return db.all(kind, newest_first=True)[:ROWS_MAX]


def _customers(db: Db) -> Iterator[tuple[object, ...]]:
    for row in _newest(db, "customer"):
        pairs = ", ".join(f"{name}={value}" for name, value in (row.get("metadata") or {}).items())
        name = "(deleted)" if row.get("deleted") else row.get("name")
        yield row["id"], name, row.get("email"), card_of(db, row["id"]) or "none", pairs


def _meters(db: Db) -> Iterator[tuple[object, ...]]:
    for meter in db.all("billing.meter"):
        found = list(totals(db, meter))
        for customer, count, units in found:
            yield meter["display_name"], meter["event_name"], customer, count, units
        if not found:
            yield meter["display_name"], meter["event_name"], "", 0, 0


def _taken(db: Db) -> Iterator[tuple[object, ...]]:
    for row in _newest(db, TAKEN):
        yield moment(row["timestamp"]), row["event_name"], row["customer"], row["value"], row["identifier"]


def _refused(db: Db) -> Iterator[tuple[object, ...]]:
    for row in _newest(db, "sandbox.rejected"):
        yield row.get("event_name"), row.get("identifier"), row.get("message") or row.get("code")


def _subscriptions(db: Db) -> Iterator[tuple[object, ...]]:
    for row in _newest(db, "subscription"):
        for item in items_of(row):
            price = item["price"]
            period = f"{moment(item['current_period_start'])} - {moment(item['current_period_end'])}"
            yield row["id"], row["customer"], _status(row), item["id"], title(db, price), period


def _status(row: Obj) -> str:
    return f"{row['status']}, ends {moment(row['cancel_at'])}" if row["cancel_at"] else str(row["status"])


def _invoices(db: Db) -> Iterator[tuple[object, ...]]:
    for row in _newest(db, "invoice"):
        why = " ".join(filter(None, (row["billing_reason"], subscription_of(row))))
        yield row["id"], row["number"], row["customer"], row["status"], why, written(row["total"], row["currency"])


def _lines(db: Db) -> Iterator[tuple[object, ...]]:
    for row in _newest(db, "invoice"):
        for line in row["lines"]["data"]:
            period = f"{moment(line['period']['start'])} - {moment(line['period']['end'])}"
            amount = written(line["amount"], line["currency"])
            yield row["id"], line["description"], period, line["quantity"], amount


def _deliveries(db: Db) -> Iterator[tuple[object, ...]]:
    for row in _newest(db, "sandbox.delivery"):
        answers = ", ".join(str(one["status"] or one.get("error")) for one in row["answers"])
        spoilt = ", ".join(row["spoilt"])
        yield row["event"], row["type"], row["url"], row["state"], row["attempts"], answers, spoilt
