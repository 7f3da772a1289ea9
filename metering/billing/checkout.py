"""How an organisation buys a plan: a session of Stripe's Checkout, and a customer to pay for it.

Nothing changes here before it is paid: the session's event links customer and subscription to the organisation. A
customer without a subscription would have overage sent to a meter that bills nobody.
https://docs.stripe.com/payments/checkout/build-subscriptions
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from metering.billing.buyers import buyer_of
from metering.billing.following import is_over
from metering.billing.gateway import Params, StripeObject
from metering.billing.prices import Interval, overage_key, plan_key, price_id_of
from metering.billing.subscriptions import ORG_TAG
from metering.billing.taxes import tax_params
from metering.billing.waiting import once, waiting
from metering.billing.yearly import JOINS, overage_features
from metering.clock import MS_PER_S
from metering.errors import AlreadySubscribed, PlanNotSold
from metering.store.org import Org
from plans.catalogue import Catalogue

log = structlog.get_logger(__name__)


class Till(Protocol):
    """The verbs of Stripe that a checkout takes: see `metering.billing.gateway`."""

    async def prices(self, lookup_keys: Sequence[str]) -> list[StripeObject]:
        """The active prices with these lookup keys."""
        ...

    async def create_customer(self, params: Params, *, key: str) -> StripeObject:
        """Make a customer."""
        ...

    async def create_checkout(self, params: Params, *, key: str) -> StripeObject:
        """Begin a checkout."""
        ...


@dataclass(frozen=True, slots=True)
class Session:
    """A checkout that has begun: where the payer goes, and until when (ms)."""

    id: str
    url: str
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Order:
    """What is bought: a plan ('' where it is credits), where the payer comes back to, a name of this order that its
    repeats share, and how often the plan's price is paid.
    """

    plan: str
    success_url: str
    cancel_url: str
    name: str
    interval: Interval = Interval.MONTH


class Checkout:
    """Sells the plans of a catalogue for the data set `dataset_id`; `variables` may name prices.

    `automatic_tax`: Stripe adds the tax to what they cost.
    """

    def __init__(
        self, till: Till, catalogue: Catalogue, variables: Mapping[str, str], dataset_id: str, *,
        automatic_tax: bool = False,
    ) -> None:  # fmt: skip
        self._till, self._catalogue, self._variables, self._dataset_id = till, catalogue, variables, dataset_id
        self._automatic_tax = automatic_tax

    async def begin(self, org: Org, order: Order) -> Session:
        """Begin a checkout. Raises AlreadySubscribed, PlanNotSold, CustomerUnknown, StripeFailed, StripeUnavailable."""
        if not is_over(org):
            raise AlreadySubscribed(plan=org.plan)
        async with waiting("checkout"):
            made = await self._made(org, order)
        return Session(made["id"], made["url"], made["expires_at"] * MS_PER_S)

    async def _made(self, org: Org, order: Order) -> StripeObject:
        items = await self._items(order)
        customer = await buyer_of(org, self._till, self._dataset_id)
        later = order.interval is Interval.YEAR and bool(overage_features(self._catalogue))
        params = _params(org.org_id, customer, order, items, later=later)
        taxed = {**params, **tax_params(wanted=self._automatic_tax)}
        return await once(self._till.create_checkout, taxed, f"checkout:{order.name}")

    async def _items(self, order: Order) -> list[dict[str, object]]:
        """The plan's price, and by the month the metered price of every feature whose overage is sold.

        By the year the latter join the subscription later: see `metering.billing.yearly`. Raises PlanNotSold.
        """
        plan, interval = order.plan, order.interval
        if interval is Interval.YEAR and self._catalogue.plans[plan].yearly is None:
            raise PlanNotSold(f"plan '{plan}' is not sold by the year", plan=plan)
        features = overage_features(self._catalogue)
        named = price_id_of(plan, self._catalogue, self._variables, interval)
        keys = [overage_key(name) for name in features] + ([] if named else [plan_key(plan, interval)])
        ids = {price["lookup_key"]: price["id"] for price in await self._till.prices(keys)}
        base = named or ids.get(plan_key(plan, interval))
        lacks = [key for key in keys if key not in ids]
        if base is None or lacks:
            log.warning("checkout without prices", plan=plan, missing=lacks)
            raise PlanNotSold(f"plan '{plan}' cannot be bought: Stripe lacks {', '.join(lacks)}", plan=plan)
        sold = [{"price": ids[overage_key(name)]} for name in features if interval is Interval.MONTH]
        return [{"price": base, "quantity": 1}, *sold]


def _params(org_id: str, customer: str, order: Order, items: list[dict[str, object]], *, later: bool) -> Params:
    """A session for one subscription, which names its organisation; `later` prices of overage join it."""
    tag = {ORG_TAG: org_id}
    joins = {JOINS: "yes"} if later else {}
    return {
        "mode": "subscription",
        "customer": customer,
        "client_reference_id": org_id,
        "line_items": items,
        "subscription_data": {"metadata": {**tag, **joins}, "billing_mode": {"type": "flexible"}},
        "metadata": tag,
        "success_url": order.success_url,
        "cancel_url": order.cancel_url,
    }
