"""The set-up at Stripe: what is missing there, shown first, then made. A second run finds nothing to do.

`plan_of` is pure: it holds what is wanted against what was found. `carry_out` makes what lacks, one thing after the
other, each under an Idempotency-Key of its content, so that a run that was broken off and repeated makes nothing twice.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

from metering.billing.gateway import Meters, Params, Setup, StripeObject
from metering.billing.price_terms import same_terms
from metering.billing.wanted import TAG, URL_TAG, Passed, Ref, Wanted


class Verb(StrEnum):
    """What is to be done."""

    KEEP = "keep"
    MAKE = "make"
    CHANGE = "change"


class Maker(Meters, Setup, Protocol):
    """The verbs of Stripe that a set-up needs."""


@dataclass(frozen=True, slots=True)
class Found:
    """What Stripe has."""

    meters: Sequence[StripeObject] = ()
    products: Sequence[StripeObject] = ()
    prices: Sequence[StripeObject] = ()
    portals: Sequence[StripeObject] = ()
    endpoints: Sequence[StripeObject] = ()
    destinations: Sequence[StripeObject] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One thing: whether it is there (`id` of what was found), and what is to be sent."""

    verb: Verb
    wanted: Wanted
    id: str = ""
    params: Params = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True, slots=True)
class SetupPlan:
    """What a run would do. With a fault nothing is done at all."""

    steps: tuple[Step, ...]
    passed: tuple[Passed, ...]

    @property
    def faults(self) -> tuple[Passed, ...]:
        """What has to be put right first."""
        return tuple(one for one in self.passed if one.fault)

    @property
    def changes(self) -> tuple[Step, ...]:
        """What there is to do."""
        return tuple(step for step in self.steps if step.verb is not Verb.KEEP)


@dataclass(frozen=True, slots=True)
class Done:
    """A step that was taken: the id of what it made or changed, and a secret that is told this once ('' none)."""

    step: Step
    id: str
    secret: str = ""


async def look(stripe: Maker, wanted: Sequence[Wanted | Passed]) -> Found:
    """Read what Stripe has of the kinds that are wanted. Raises the gateway's errors."""
    kinds = {one.kind for one in wanted if isinstance(one, Wanted)}
    keys = [one.name for one in wanted if isinstance(one, Wanted) and one.kind == "price"]
    return Found(
        meters=await stripe.meters() if "meter" in kinds else (),
        products=await stripe.products() if "product" in kinds else (),
        prices=await stripe.prices(keys) if keys else (),
        portals=await stripe.portal_configurations() if "portal" in kinds else (),
        endpoints=await stripe.webhook_endpoints() if "webhook endpoint" in kinds else (),
        destinations=await stripe.event_destinations() if "event destination" in kinds else (),
    )


def plan_of(wanted: Sequence[Wanted | Passed], found: Found, *, moves: bool = False) -> SetupPlan:
    """What is missing of what is wanted. With `moves` an endpoint of ours at another address is given the new one."""
    ids: dict[Ref, str] = {}
    steps, passed = [], []
    for one in wanted:
        step = one if isinstance(one, Passed) else _JUDGES[one.kind](one, found, ids, moves)
        if isinstance(step, Passed):
            passed.append(step)
            continue
        steps.append(step)
        if step.id:
            ids[Ref(step.wanted.kind, step.wanted.name)] = step.id
    return SetupPlan(tuple(steps), tuple(passed))


async def carry_out(stripe: Maker, plan: SetupPlan) -> AsyncIterator[Done]:
    """Take the steps in order. Raises the gateway's errors; what was done by then stays, and another run goes on."""
    ids = {Ref(step.wanted.kind, step.wanted.name): step.id for step in plan.steps if step.id}
    for step in plan.changes:
        params = _filled(step.params, ids)
        made = await _sent(stripe, step, params)
        ids[Ref(step.wanted.kind, step.wanted.name)] = made["id"]
        yield Done(step, made["id"], _secret(made))


async def _sent(stripe: Maker, step: Step, params: Params) -> StripeObject:
    changers: Mapping[str, Callable[[str, Params], Awaitable[StripeObject]]] = {
        "portal": stripe.update_portal_configuration,
        "webhook endpoint": stripe.update_webhook_endpoint,
    }
    if step.verb is Verb.CHANGE and step.wanted.kind in changers:
        return await changers[step.wanted.kind](step.id, params)
    makers: Mapping[str, Callable[..., Awaitable[StripeObject]]] = {
        "meter": stripe.create_meter,
        "product": stripe.create_product,
        "price": stripe.create_price,
        "portal": stripe.create_portal_configuration,
        "webhook endpoint": stripe.create_webhook_endpoint,
        "event destination": stripe.create_event_destination,
    }
    return await makers[step.wanted.kind](params, key=content_key(params, step.id))


def content_key(params: Params, replaced: str) -> str:
    """The Idempotency-Key of making just this in the place of `replaced`: without the latter, going back to an earlier
    price within a day would be answered with that earlier price, and change nothing.
    """
    text = json.dumps([params, replaced], sort_keys=True)
    return f"setup:{hashlib.sha256(text.encode()).hexdigest()[:40]}"


def _filled(params: Any, ids: Mapping[Ref, str]) -> Any:
    """The parameters with ids in the places of what stands for them."""
    if isinstance(params, Ref):
        return ids[params]
    if isinstance(params, Mapping):
        return {name: _filled(value, ids) for name, value in params.items()}
    return [_filled(value, ids) for value in params] if isinstance(params, list) else params


def _secret(made: StripeObject) -> str:
    endpoint = made.get("webhook_endpoint") or {}
    return str(made.get("secret") or endpoint.get("signing_secret") or "")


Judge = Callable[[Wanted, Found, Mapping[Ref, str], bool], Step | Passed]
"""Holds one thing that is wanted against what was found and the ids that are known so far."""


def _meter(wanted: Wanted, found: Found, _: Mapping[Ref, str], __: bool) -> Step | Passed:
    event = wanted.params["event_name"]
    for meter in found.meters:
        if meter["event_name"] != event or meter["status"] != "active":
            continue
        fault = meter_fault(meter)
        if fault:
            cure = "Deactivate it in Stripe's Dashboard, or give the feature another stripe_meter_event."
            return Passed(f"meter {event}", fault, cure)
        return Step(Verb.KEEP, wanted, meter["id"])
    return Step(Verb.MAKE, wanted, params=wanted.params)


def meter_fault(meter: StripeObject) -> str:
    """Why a meter would not bill what it is sent: it has to add up single events. '' where it does."""
    formula = meter["default_aggregation"]["formula"]
    if formula != "sum":
        return f"it is there and does not add up: its formula is {formula}"
    if meter.get("event_time_window"):
        return f"it is there and keeps only the last event of each {meter['event_time_window']}"
    mapping, value = meter["customer_mapping"], meter["value_settings"]
    if mapping["event_payload_key"] != "stripe_customer_id" or value["event_payload_key"] != "value":
        return "it is there and reads other names than stripe_customer_id and value"
    return ""


def _product(wanted: Wanted, found: Found, _: Mapping[Ref, str], __: bool) -> Step:
    tag = wanted.params["metadata"].items()
    for product in found.products:
        if product["active"] and tag <= product["metadata"].items():
            return Step(Verb.KEEP, wanted, product["id"])
    return Step(Verb.MAKE, wanted, params=wanted.params)


def _price(wanted: Wanted, found: Found, ids: Mapping[Ref, str], __: bool) -> Step:
    meter = wanted.params["recurring"].get("meter")
    recurring = {**wanted.params["recurring"], **({"meter": ids.get(meter, "to come")} if meter else {})}
    for price in found.prices:
        if price.get("lookup_key") != wanted.name:
            continue
        if same_terms({**wanted.params, "recurring": recurring}, price):
            return Step(Verb.KEEP, wanted, price["id"])
        why = f"in the place of {price['id']}, which running subscriptions keep"
        return Step(Verb.CHANGE, wanted, price["id"], wanted.params, why)
    return Step(Verb.MAKE, wanted, params=wanted.params)


def _portal(wanted: Wanted, found: Found, _: Mapping[Ref, str], __: bool) -> Step:
    for portal in found.portals:
        if (portal.get("metadata") or {}).get(TAG) != "portal":
            continue
        if portal["active"] and _holds(portal["features"], wanted.params["features"]):
            return Step(Verb.KEEP, wanted, portal["id"])
        return Step(Verb.CHANGE, wanted, portal["id"], {"active": True, "features": wanted.params["features"]})
    return Step(Verb.MAKE, wanted, params=wanted.params)


def _holds(found: Any, wanted: Any) -> bool:
    """Whether all that is wanted is so, whatever else is."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(_holds(found.get(name), part) for name, part in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and sorted(found) == sorted(wanted)
    return bool(found == wanted)


def _endpoint(wanted: Wanted, found: Found, _: Mapping[Ref, str], moves: bool) -> Step | Passed:
    here = [one for one in found.endpoints if one["url"] == wanted.name]
    ours = [one for one in found.endpoints if moves and (one.get("metadata") or {}).get(TAG) == "events"]
    for endpoint in (*here, *ours):
        if endpoint.get("api_version") != wanted.params["api_version"]:
            why = f"it has version {endpoint.get('api_version')}, which cannot be changed"
            cure = "Delete it in Stripe's Dashboard and run this again; put the new secret beside the old one first."
            return Passed(f"webhook endpoint {wanted.name}", why, cure)
        change = {name: wanted.params[name] for name in ("url", "enabled_events")}
        if endpoint["status"] == "enabled" and _holds(endpoint, change):
            return Step(Verb.KEEP, wanted, endpoint["id"])
        return Step(Verb.CHANGE, wanted, endpoint["id"], {**change, "disabled": False})
    return Step(Verb.MAKE, wanted, params=wanted.params)


def _destination(wanted: Wanted, found: Found, _: Mapping[Ref, str], __: bool) -> Step | Passed:
    for one in found.destinations:
        if (one.get("metadata") or {}).get(URL_TAG) != wanted.name:
            continue
        if one["status"] == "enabled" and set(wanted.params["enabled_events"]) <= set(one["enabled_events"]):
            return Step(Verb.KEEP, wanted, one["id"])
        cure = "Enable it in Stripe's Dashboard, or delete it there and run this again."
        return Passed(f"event destination {wanted.name}", "it is off, or lacks events", cure)
    return Step(Verb.MAKE, wanted, params=wanted.params)


_JUDGES: Final[Mapping[str, Judge]] = {
    "meter": _meter,
    "product": _product,
    "price": _price,
    "portal": _portal,
    "webhook endpoint": _endpoint,
    "event destination": _destination,
}


def said(plan: SetupPlan) -> Iterator[tuple[str, str, str, str]]:
    """The plan in words: what is done, of what kind, its name, and what it is."""
    for step in plan.steps:
        yield step.verb.value, step.wanted.kind, step.wanted.name, step.why or step.wanted.says
    for one in plan.passed:
        yield ("fault" if one.fault else "leave out"), "", one.name, one.why
