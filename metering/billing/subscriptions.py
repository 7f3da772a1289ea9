"""What an organisation's subscriptions at Stripe make of it: plan, status, and the period that runs.

All of a customer's subscriptions are read at once and one of them is the current one, so that it makes no difference
in which order their events come: the newest that grants a plan, else the newest.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from metering.billing.gateway import StripeObject
from metering.billing.prices import Prices
from metering.clock import MS_PER_S
from metering.store.effects import Decide, Decision, Entry
from metering.store.org import GRANTING, Org, Profile, Subscription
from plans.billing_periods import Alignment, aligned, ended, last_counted_ms, monthly
from plans.dunning import Standing, grace_end_ms, standing
from plans.periods import Period

ORG_TAG: Final = "org_id"
"""Metadata of a subscription: the organisation it is for. Two organisations may share a customer."""

UNBEGUN: Final = frozenset({"incomplete", "incomplete_expired"})
"""Subscriptions whose first payment did not come: they never were in force."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator decided: the plan of who has none, days of grace, whether being overdue costs the plan."""

    default_plan: str
    grace_days: int
    downgrades: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """A customer's subscriptions as Stripe told them after `ticket` was taken.

    `alone`: the organisation is the customer's only one, so that what names none is its own. `links`: the organisation
    bought it, so that this customer takes the place of another.
    """

    ticket: int
    customer: str
    subscriptions: Sequence[StripeObject]
    alone: bool
    links: bool = False


def id_of(value: Any) -> str:
    """The id of an object that stands as its id or whole; empty where there is none."""
    return str(value["id"] if isinstance(value, dict) else value or "")


def ended_ms_of(subscription: StripeObject) -> int | None:
    """When a subscription ended, in Stripe's time; None where it has not."""
    return _ms(subscription.get("ended_at"))


def org_named(thing: StripeObject) -> str:
    """The organisation that an object's metadata names; empty where it names none."""
    return str((thing.get("metadata") or {}).get(ORG_TAG) or "")


def is_ours(subscription: StripeObject, prices: Prices) -> bool:
    """Whether any of its items has a price of ours: other products may be sold on the same account."""
    return any(prices.plan_of(i["price"]) or prices.feature_of(i["price"]) for i in _items(subscription))


def synced(org: Org, reading: Reading, prices: Prices, now_ms: int) -> tuple[Profile, Alignment]:
    """Profile and period of an organisation after a reading; as they are where nothing in it is the organisation's.

    A reading older than one that was taken over says nothing new, nor does one of another customer.
    """
    profile, stays = org.profile, Alignment(None, org.period)
    strange = profile.stripe_customer_id not in {None, reading.customer} and not reading.links
    if reading.ticket < profile.ticket or strange:
        return profile, stays
    profile = replace(profile, ticket=reading.ticket)
    current = _current(org, reading, prices, now_ms)
    unlinked = profile.stripe_customer_id != reading.customer
    if current is None or (unlinked and not current.grants):
        return profile, stays
    after = replace(profile, subscription=current, stripe_customer_id=reading.customer)
    return after, _moved(org, current, now_ms)


def _moved(org: Org, current: Subscription, now_ms: int) -> Alignment:
    """What the current subscription does to the running period: by its own period while it is in force, by its end."""
    if current.grants:
        return aligned(org.period, current.period, now_ms, _last_ms(org))
    if current.ended_ms is None:
        return Alignment(None, org.period)
    return ended(org.period, current.ended_ms, now_ms, _last_ms(org))


def taking(reading: Reading, prices: Prices, policy: Policy, *entries: Entry) -> Decide:
    """Takes a reading over with these words in the trail; nothing where there are none and it says nothing new."""

    def decide(org: Org, now_ms: int) -> Decision | None:
        profile, moved = synced(org, reading, prices, now_ms)
        if not entries and (profile, moved) == (org.profile, Alignment(None, org.period)):
            return None
        return Decision(plan_after(org, profile, policy), profile, moved, entries)

    return decide


def sells(subscription: StripeObject, org: Org, reading: Reading, prices: Prices, feature: str) -> bool:
    """Whether a subscription of a reading is the organisation's, in force, and has a metered price of the feature."""
    priced = any(prices.feature_of(item["price"]) == feature for item in _items(subscription))
    return priced and subscription["status"] in GRANTING and _is_own(subscription, org, reading)


def paid_for(org: Org, reading: Reading, prices: Prices) -> list[str]:
    """The subscriptions in force that sell the organisation a plan, by id: more than one is paid more than once."""
    return [
        str(one["id"])
        for one in reading.subscriptions
        if one["status"] in GRANTING
        and _is_own(one, org, reading)
        and any(prices.plan_of(item["price"]) for item in _items(one))
    ]


def settled(profile: Profile, now_ms: int, policy: Policy) -> Profile:
    """The profile with its standing as it is now."""
    stands = standing(profile.debts, now_ms, policy.grace_days)
    ends_ms = grace_end_ms(profile.debts, policy.grace_days) if stands is Standing.GRACE else None
    return replace(profile, payment_overdue=stands is Standing.OVERDUE, grace_end_ms=ends_ms)


def plan_after(org: Org, profile: Profile, policy: Policy) -> str:
    """The plan under another profile. Only where Stripe's word changes does the plan: people may have set another."""
    before, after = _bought(org.profile, policy), _bought(profile, policy)
    if before == after or after is None or (before is None and not _grants(profile)):
        return org.plan
    return after


def _bought(profile: Profile, policy: Policy) -> str | None:
    """The plan that Stripe's word alone would give; None where Stripe said nothing."""
    if profile.subscription is None:
        return None
    lost = policy.downgrades and profile.payment_overdue
    return profile.subscription.plan if profile.subscription.grants and not lost else policy.default_plan


def _grants(profile: Profile) -> bool:
    return profile.subscription is not None and profile.subscription.grants


def _current(org: Org, reading: Reading, prices: Prices, now_ms: int) -> Subscription | None:
    """The organisation's current subscription in a reading; None where none of them is its own."""
    kept = org.profile.subscription
    own = [one for one in reading.subscriptions if _is_own(one, org, reading)]
    begun = [one for one in own if one["status"] not in UNBEGUN]
    found = [(one["created"], sold) for one in begun if (sold := _sold(one, kept, prices, now_ms)) is not None]
    best = max(found, key=lambda pair: (pair[1].grants, pair[0], pair[1].id), default=None)
    if best is None:
        return None
    elsewhere = kept is not None and all(one["id"] != kept.id for one in reading.subscriptions)
    return None if elsewhere and kept is not None and kept.grants and not best[1].grants else best[1]


def _is_own(subscription: StripeObject, org: Org, reading: Reading) -> bool:
    named, kept = org_named(subscription), org.profile.subscription
    if named:
        return named == org.org_id
    return reading.alone or (kept is not None and kept.id == subscription["id"])


def _sold(one: StripeObject, kept: Subscription | None, prices: Prices, now_ms: int) -> Subscription | None:
    """A subscription as we keep it; None where it buys no plan of ours.

    One that is kept already and whose price is not known any more keeps its plan: a slip in the catalogue must not take
    a plan from who pays.
    """
    items = _items(one)
    base = next((item for item in items if prices.plan_of(item["price"])), None)
    plan = None if base is None else prices.plan_of(base["price"])
    if plan is None and kept is not None and kept.id == one["id"]:
        log.error("price of a subscription is not known any more", plan=kept.plan)
        plan = kept.plan
    if plan is None or not items:
        return None
    return Subscription(
        id=one["id"],
        status=one["status"],
        plan=plan,
        since_ms=(one.get("start_date") or one["created"]) * MS_PER_S,
        anchor_ms=one["billing_cycle_anchor"] * MS_PER_S,
        period=_until(ended_ms_of(one), _period(items, base or items[0], prices, now_ms)),
        cancel_at_period_end=bool(one.get("cancel_at_period_end")),
        metered=frozenset(feature for item in items if (feature := prices.feature_of(item["price"]))),
        stops_ms=_ms(one.get("cancel_at")),
        trial_end_ms=_ms(one.get("trial_end")),
    )


def _ms(at_s: int | None) -> int | None:
    return None if at_s is None else at_s * MS_PER_S


def _period(items: Iterable[StripeObject], base: StripeObject, prices: Prices, now_ms: int) -> Period:
    """The period by which usage is billed: that of the items for overage, else the plan's own, by the month.

    Since 2025-03-31 periods stand on the items alone
    (https://docs.stripe.com/changelog/basil/2025-03-31/deprecate-subscription-current-period-start-and-end).
    """
    metered = [item for item in items if prices.feature_of(item["price"])]
    spans = [_span(item) for item in metered]
    return min(spans, key=lambda span: span.end_ms) if spans else monthly(_span(base), now_ms)


def _until(ended_ms: int | None, period: Period) -> Period:
    """A period as far as the subscription went: items keep theirs to the end."""
    if ended_ms is None:
        return period
    return Period(min(period.start_ms, ended_ms), min(period.end_ms, ended_ms))


def _span(item: StripeObject) -> Period:
    return Period(item["current_period_start"] * MS_PER_S, item["current_period_end"] * MS_PER_S)


def _items(subscription: StripeObject) -> list[StripeObject]:
    return list(subscription["items"]["data"])


def _last_ms(org: Org) -> int | None:
    """The last instant at which the running period may have something counted."""
    counted = [usage.last_updated_ms for usage in org.features.values() if usage.last_updated_ms]
    return last_counted_ms(max(counted)) if counted else None
