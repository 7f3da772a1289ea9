"""What a catalogue needs at Stripe: meters, products, prices, the portal, and where Stripe's events go.

Everything is found again by what it is: a meter by its event name, a product by its tag, a price by its lookup key, the
rest by a tag or the address. https://docs.stripe.com/products-prices/how-products-and-prices-work
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from metering.billing.currencies import at_stripe
from metering.billing.price_terms import NotExactError, terms_of
from metering.billing.prices import FEATURE_TAG, PLAN_TAG, Interval, overage_key, plan_key, price_id_of
from plans.catalogue import Catalogue, Feature, Plan
from webhooks.stripe_events import THIN_ALONE, TYPES

TAG: Final = "metering"
"""Metadata of what is neither a plan's nor a feature's: what it is for."""

PORTAL: Final = "portal"
"""What the configuration of the customers' portal is for."""

URL_TAG: Final = "metering_url"
"""Metadata of a destination of thin events: its address, which Stripe does not show in lists."""

EVERY_MONTH: Final = {"interval": "month"}

SNAPSHOTS: Final = tuple(sorted(set(TYPES) - THIN_ALONE))
"""What the webhook endpoint takes."""

THIN: Final = tuple(sorted(f"v1.{name}" for name in THIN_ALONE))
"""What comes as thin events only."""

PORTAL_FEATURES: Final[Mapping[str, Any]] = {
    "customer_update": {"enabled": True, "allowed_updates": ["address", "email", "tax_id"]},
    "invoice_history": {"enabled": True},
    "payment_method_update": {"enabled": True},
    "subscription_cancel": {"enabled": True, "mode": "at_period_end"},
    "subscription_update": {"enabled": False},
}
"""The portal changes no plan: limits would follow only after the fact, and a mixed-up interval could not be undone."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Stands for the id of something that this run may have to make first: of a kind, by name."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing that has to be at Stripe. `params` make it; a Ref among them stands for an id. `says` is for people."""

    kind: str
    name: str
    params: Mapping[str, Any]
    says: str


@dataclass(frozen=True, slots=True)
class Passed:
    """What is left out, and why. A `fault` has to be put right, and `cure` says how."""

    name: str
    why: str
    cure: str = ""

    @property
    def fault(self) -> bool:
        """Whether it is one."""
        return bool(self.cure)


def wanted_of(catalogue: Catalogue, variables: Mapping[str, str]) -> Iterator[Wanted | Passed]:
    """What the plans and features need, in an order in which each can be made after the ones before it."""
    for feature in catalogue.features.values():
        yield from _of_feature(feature, catalogue.currency)
    for plan in catalogue.plans.values():
        yield from _of_plan(plan, catalogue, variables)


def portal() -> Wanted:
    """The configuration of the customers' portal."""
    params = {"features": PORTAL_FEATURES, "metadata": {TAG: PORTAL}}
    return Wanted("portal", PORTAL, params, "invoices, card and address, cancelling at the end of the period")


def endpoint(url: str, api_version: str) -> Wanted:
    """Where snapshot events go."""
    params = {
        "url": url,
        "enabled_events": list(SNAPSHOTS),
        "api_version": api_version,
        "description": "Usage metering",
        "metadata": {TAG: "events"},
    }
    return Wanted("webhook endpoint", url, params, f"{len(SNAPSHOTS)} kinds of events, version {api_version}")


def destination(url: str) -> Wanted:
    """Where thin events go: usage that Stripe took and could not bill is told in no other way."""
    params = {
        "name": "Usage metering: meter errors",
        "type": "webhook_endpoint",
        "event_payload": "thin",
        "enabled_events": list(THIN),
        "webhook_endpoint": {"url": url},
        "metadata": {TAG: "meter errors", URL_TAG: url},
    }
    return Wanted("event destination", url, params, ", ".join(THIN))


def _of_feature(feature: Feature, currency: str) -> Iterator[Wanted | Passed]:
    """Its meter, and the one price of its overage that all plans share."""
    if feature.stripe_meter_event is None or feature.pricing is None:
        lacks = "stripe_meter_event" if feature.stripe_meter_event is None else "a price"
        yield Passed(f"overage of {feature.name}", f"the catalogue gives it no {lacks}: it is not sold")
        return
    try:
        terms = terms_of(feature.pricing, currency)
    except NotExactError as error:
        cure = 'Sell it by overage_model = "package", or choose a price that can be divided.'
        yield Passed(f"overage of {feature.name}", str(error), cure)
        return
    yield meter_for(feature.name, feature.title, feature.stripe_meter_event)
    yield _product(f"{feature.title} above the limit", FEATURE_TAG, feature.name)
    recurring = {**EVERY_MONTH, "usage_type": "metered", "meter": Ref("meter", feature.name)}
    names = (FEATURE_TAG, feature.name, overage_key(feature.name))
    yield _price(names, {"currency": currency, "recurring": recurring, **terms})


def _of_plan(plan: Plan, catalogue: Catalogue, variables: Mapping[str, str]) -> Iterator[Wanted | Passed]:
    """Its prices by the month and by the year, unless one is named for it or it has none."""
    prices = [_plan_price(plan, interval, catalogue, variables) for interval in _sold_by(plan)]
    if any(isinstance(price, Wanted) for price in prices):
        yield _product(plan.title, PLAN_TAG, plan.name)
    yield from prices


def _sold_by(plan: Plan) -> tuple[Interval, ...]:
    return (Interval.MONTH,) if plan.yearly is None else (Interval.MONTH, Interval.YEAR)


def _plan_price(plan: Plan, interval: Interval, catalogue: Catalogue, variables: Mapping[str, str]) -> Wanted | Passed:
    """One price of a plan, or why none is made."""
    law = plan.yearly if interval is Interval.YEAR and plan.yearly is not None else plan
    name = f"plan {plan.name}" + " by the year" * (interval is Interval.YEAR)
    if price_id_of(plan.name, catalogue, variables, interval):
        return Passed(name, f"its price is named by {'the catalogue' if law.stripe_price_id else law.stripe_price_env}")
    if law.price_minor is None:
        where = f": name one in {law.stripe_price_env}" if law.stripe_price_env else ""
        return Passed(name, f"its price is made for each customer{where}")
    if law.price_minor == 0:
        return Passed(name, "it costs nothing")
    recurring = {"interval": interval.value}
    amount = at_stripe(law.price_minor, catalogue.currency)
    terms = {"currency": catalogue.currency, "unit_amount": amount, "recurring": recurring}
    return _price((PLAN_TAG, plan.name, plan_key(plan.name, interval)), terms)


def meter_for(name: str, title: str, event: str) -> Wanted:
    """The meter of a feature's overage."""
    params = {
        "display_name": f"{title} above the limit",
        "event_name": event,
        "default_aggregation": {"formula": "sum"},
        "customer_mapping": {"type": "by_id", "event_payload_key": "stripe_customer_id"},
        "value_settings": {"event_payload_key": "value"},
    }
    return Wanted("meter", name, params, f"adds up {event}")


def _product(title: str, tag: str, name: str) -> Wanted:
    return Wanted("product", f"{tag}:{name}", {"name": title, "metadata": {tag: name}}, title)


def _price(names: tuple[str, str, str], terms: Mapping[str, Any]) -> Wanted:
    """A price under a lookup key, which it takes over from an older price."""
    tag, name, lookup_key = names
    params = {
        "product": Ref("product", f"{tag}:{name}"),
        "lookup_key": lookup_key,
        "transfer_lookup_key": True,
        "metadata": {tag: name},
        **terms,
    }
    return Wanted("price", lookup_key, params, said_price(terms))


def said_price(terms: Mapping[str, Any]) -> str:
    """A price in words."""
    if terms.get("billing_scheme") == "tiered":
        return f"{terms['tiers_mode']}, {len(terms['tiers'])} tiers, {terms['currency']}"
    amount = terms.get("unit_amount_decimal", terms.get("unit_amount"))
    per = terms.get("transform_quantity", {}).get("divide_by", 1)
    unit = (
        terms["recurring"]["interval"] if "meter" not in terms["recurring"] else "unit" if per == 1 else f"{per} units"
    )
    return f"{amount} minor units of {terms['currency']} a {unit}" if per == 1 else f"{amount} minor units for {unit}"
