"""Automatic top-ups as script tests set and begin them."""

from typing import Final

from metering.store.fields import FieldCodec
from metering.store.topups import Attempt, Rule, TopUps
from tests.lua.crediting import ANN, credits_of, joined, order
from tests.lua.ledger import Ledger

MARK: Final = 50
PRICE: Final = 4500
RULE: Final = Rule(True, 500, 3, 4 * PRICE, 60_000)


def topups_of(ledger: Ledger, caller: int = 0) -> TopUps:
    """The top-ups as one caller has them."""
    return TopUps(ledger.client, ledger.keys, ledger.callers[caller].time, FieldCodec())


def attempt(name: str = "tu_1", amount: int = PRICE) -> Attempt:
    """A purchase to write down."""
    return Attempt(name, 500, amount, "usd", "cus_1", "pm_1")


async def low(ledger: Ledger, rule: Rule = RULE, org_id: str = "acme") -> TopUps:
    """An organisation below its mark, which tops up by that rule."""
    await joined(ledger, org_id)
    await credits_of(ledger).mark_low(org_id, MARK, ANN)
    await credits_of(ledger).grant(org_id, order(amount=10), ANN)
    await topups_of(ledger).set(org_id, rule, "cus_1", ANN)
    return topups_of(ledger)
