"""The subscriptions at a till: what everybody has bought there, and what becomes of it."""

import time
from typing import Any, Final

from tests.support.stripe_objects import rows, whole

PAYS: Final = "cus_pays_"
"""Customers whose id begins so have bought the professional plan; all others overage of scans alone."""

_MONTH_S: Final = 30 * 86_400


class Sold:
    """One subscription a customer, named after it, since a minute before the first look."""

    def __init__(self) -> None:
        self._start_s = int(time.time()) - 60
        self._told: dict[str, dict[str, Any]] = {}
        self._base: dict[str, str] = {}

    def of(self, customer: str) -> dict[str, Any]:
        """A customer's."""
        name = f"sub_{customer.removeprefix('cus_')}"
        items = [_item("overage", "metering_scans_overage", self._start_s)]
        if customer.startswith(PAYS):
            items.append(_item("base", self._base.get(name, "metering_professional_base"), self._start_s))
        times = {"created": self._start_s, "start_date": self._start_s, "billing_cycle_anchor": self._start_s}
        known = {"id": name, "customer": customer, "status": "active", "items": rows(*items), **times}
        return whole("subscription", **(known | self._told.get(name, {})))

    def named(self, name: str) -> dict[str, Any]:
        """One of that id."""
        return self.of(f"cus_{name.removeprefix('sub_')}")

    def changed(self, name: str, params: dict[str, Any]) -> dict[str, Any]:
        """The same after an update."""
        if "cancel_at_period_end" in params:
            ends = params["cancel_at_period_end"] == "true"
            stops_s = self._start_s + _MONTH_S if ends else None
            self._told[name] = {"cancel_at_period_end": ends, "cancel_at": stops_s}
        for item in params.get("items", []):
            self._base[name] = item["price"].removeprefix("price_")
        return self.named(name)

    def ended(self, name: str) -> dict[str, Any]:
        """The same after its end."""
        self._told[name] = {"status": "canceled", "ended_at": int(time.time())}
        return self.named(name)


def price(lookup_key: str) -> dict[str, Any]:
    """A price that is paid by the month, known by its lookup key."""
    recurring = {"interval": "month", "interval_count": 1}
    return whole("price", id=f"price_{lookup_key}", lookup_key=lookup_key, currency="usd", recurring=recurring)


def preview(params: dict[str, Any]) -> dict[str, Any]:
    """The invoice to come: a month of 99 dollars, and of a change a line that gives 33 back."""
    lines = [_line("Professional", 9900, proration=False)]
    if "subscription_details" in params:
        lines.insert(0, _line("Unused time", -3300, proration=True))
    total = sum(line["amount"] for line in lines)
    sums = {"total": total, "amount_due": total, "currency": "usd"}
    return whole("invoice", id="upcoming_in_1", lines=rows(*lines), **sums)


def _line(words: str, amount: int, *, proration: bool) -> dict[str, Any]:
    kind = "invoice_item_details" if proration else "subscription_item_details"
    parent = {"type": kind, kind: {"proration": proration}}
    return whole("line_item", id="il_1", description=words, amount=amount, currency="usd", parent=parent)


def _item(name: str, lookup_key: str, start_s: int) -> dict[str, Any]:
    period = {"current_period_start": start_s, "current_period_end": start_s + _MONTH_S}
    return whole("subscription_item", id=f"si_{name}", price=price(lookup_key), **period)
