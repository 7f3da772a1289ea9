"""From one plan to another in the middle of a subscription: what it would cost, and the change.

The item of the plan alone gets another price. Items for overage have prices that all plans share, and stay: what was
used is neither billed twice nor forgotten. https://docs.stripe.com/billing/subscriptions/prorations
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, Protocol

from metering.billing.errors import Refused
from metering.billing.following import Following, held
from metering.billing.gateway import Params, StripeObject
from metering.billing.prices import Interval, Prices, plan_key, price_id_of
from metering.billing.waiting import once, waiting
from metering.clock import MS_PER_S
from metering.errors import IntervalDiffers, PaymentFailed, PlanNotSold, StripeFailed
from metering.store.org import Org, Subscription
from plans.catalogue import Catalogue
from plans.periods import Period

Proration = Literal["create_prorations", "always_invoice", "none"]
"""How the rest of the period is settled: on the next invoice, on one of now, or not at all."""

_PAID_UP: Final = frozenset({"active", "trialing"})


class Changing(Protocol):
    """The verbs of Stripe that it takes: see `metering.billing.gateway`."""

    async def price(self, price_id: str) -> StripeObject:
        """One price."""
        ...

    async def prices(self, lookup_keys: Sequence[str]) -> list[StripeObject]:
        """The active prices with these lookup keys."""
        ...

    async def subscription(self, subscription_id: str) -> StripeObject:
        """One subscription, its items included."""
        ...

    async def update_subscription(self, subscription_id: str, params: Params, *, key: str) -> StripeObject:
        """Change one."""
        ...

    async def preview_invoice(self, params: Params) -> StripeObject:
        """An invoice as it would be."""
        ...


@dataclass(frozen=True, slots=True)
class QuoteLine:
    """One line of an invoice to come. `proration`: it settles the rest of a period. Minor units."""

    words: str
    amount_minor: int
    proration: bool
    period: Period


@dataclass(frozen=True, slots=True)
class Quote:
    """The invoice that a change brings: the one of now (`at_once`), or the next. Minor units of `currency`.

    `due_minor` is what there is to pay, credit of the customer taken off. `whole`: no line is left out.
    """

    currency: str
    at_once: bool
    total_minor: int
    due_minor: int
    lines: tuple[QuoteLine, ...]
    whole: bool


@dataclass(frozen=True, slots=True)
class _Swap:
    """Another price for an item; None: it has that price already."""

    item: str
    price: str | None


class PlanChange:
    """Changes plans of a catalogue. Raises NotSubscribed, PlanNotSold, IntervalDiffers, PaymentFailed, StripeFailed,
    StripeUnavailable.
    """

    def __init__(
        self, stripe: Changing, following: Following, prices: Prices, catalogue: Catalogue,
        variables: Mapping[str, str],
    ) -> None:  # fmt: skip
        self._stripe, self._following, self._prices = stripe, following, prices
        self._catalogue, self._variables = catalogue, variables

    async def quote(self, org: Org, plan: str, proration: Proration) -> Quote:
        """What a change would cost by now."""
        sold, customer = held(org)
        async with waiting("preview of a plan"):
            swap = await self._swap(sold, plan)
            params: dict[str, Any] = {"customer": customer, "subscription": sold.id}
            if swap.price is not None:
                params["subscription_details"] = {"items": _items(swap), "proration_behavior": proration}
            invoice = await self._stripe.preview_invoice(params)
        return _quote(invoice, at_once=swap.price is not None and proration == "always_invoice")

    async def make(self, org: Org, plan: str, proration: Proration, *, name: str, by: str) -> Org:
        """Change the plan; the organisation as it is then. `name` is what repeats share, `by` who asks.

        An invoice of now that is not paid undoes the change: PaymentFailed. What waits for its payment instead would
        lapse after a day, and nobody would know what holds until then.
        """
        sold, customer = held(org)
        if sold.status not in _PAID_UP:
            raise PaymentFailed(f"the subscription is {sold.status}: what is owed comes first")
        async with waiting("change of plan"):
            swap = await self._swap(sold, plan)
            if swap.price is None:
                return await self._following.follow(org, customer)
            params = {
                "items": _items(swap),
                "proration_behavior": proration,
                "payment_behavior": "error_if_incomplete",
            }
            try:
                await once(partial(self._stripe.update_subscription, sold.id), params, f"change:{name}")
            except Refused:
                held(await self._following.follow(org, customer))  # it may have ended, and its event be still to come
                raise
            entry = ("subscription_changed", "actor", by, "from", sold.plan, "to", plan, "proration", proration)
            return await self._following.follow(org, customer, entry)

    async def _swap(self, sold: Subscription, plan: str) -> _Swap:
        items = (await self._stripe.subscription(sold.id))["items"]["data"]
        base = next((item for item in items if self._prices.plan_of(item["price"])), None)
        if base is None:
            raise StripeFailed("none of the subscription's items is a plan of the catalogue")
        price = await self._price(plan, base["price"])
        return _Swap(base["id"], None if base["price"]["id"] == price["id"] else price["id"])

    async def _price(self, plan: str, before: StripeObject) -> StripeObject:
        """The price of a plan that is paid as often as the one before. Raises IntervalDiffers, PlanNotSold.

        Another interval would move the anchor that our periods are counted from, in the middle of one.
        """
        interval = Interval.YEAR if _rhythm(before)[0] == Interval.YEAR else Interval.MONTH
        if interval is Interval.YEAR and self._catalogue.plans[plan].yearly is None:
            raise IntervalDiffers(f"plan '{plan}' is not sold by the year", plan=plan)
        named = price_id_of(plan, self._catalogue, self._variables, interval)
        key = plan_key(plan, interval)
        found = [await self._stripe.price(named)] if named else await self._stripe.prices([key])
        if not found:
            raise PlanNotSold(f"plan '{plan}' cannot be bought: Stripe lacks {key}", plan=plan)
        if _rhythm(found[0]) != _rhythm(before):
            raise IntervalDiffers(plan=plan)
        return found[0]


def _items(swap: _Swap) -> list[dict[str, Any]]:
    return [{"id": swap.item, "price": swap.price}]


def _rhythm(price: StripeObject) -> tuple[Any, Any]:
    """How often a price is paid."""
    recurring = price.get("recurring") or {}
    return recurring.get("interval"), recurring.get("interval_count")


def _quote(invoice: StripeObject, *, at_once: bool) -> Quote:
    shown = invoice["lines"]
    return Quote(
        currency=invoice["currency"],
        at_once=at_once,
        total_minor=invoice["total"],
        due_minor=invoice["amount_due"],
        lines=tuple(map(_line, shown["data"])),
        whole=not shown["has_more"],
    )


def _line(line: StripeObject) -> QuoteLine:
    parent = line.get("parent") or {}
    details = parent.get("invoice_item_details") or parent.get("subscription_item_details") or {}
    period = Period(line["period"]["start"] * MS_PER_S, line["period"]["end"] * MS_PER_S)
    return QuoteLine(line.get("description") or "", line["amount"], bool(details.get("proration")), period)
